"""Ask or not by a tiny network that was rewarded for it: policy gradient in a simulated world, or on a log.

Williams: Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement Learning, Machine Learning
1992 (REINFORCE), with rewards to go, less what a linear regression on what is seen and on the step foretells. What it
sees beyond a threshold is the state of the device: queue, link, battery and what is left of a budget, so that it can
save energy now for what comes later. Deciding is two small matrix products in numpy; torch is needed to fit only.

A log of decisions with their propensities fits it, too: the gradient then climbs the inverse-propensity estimate of
its value (Swaminathan, Joachims: Counterfactual Risk Minimization, ICML 2015, self-normalised), one step at a time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np

from duetto.errors import ConfigError, DataError
from duetto.policies.scores import confidence
from duetto.policies.threshold import unanswered
from duetto.tree import Array, Tree
from duetto.types import Action, Held, Key, Move, Policy, Seen, rng

S = TypeVar("S")
SIGHTS = ("first", "margin", "nines", "queue", "up", "rtt", "battery", "budget", "known")
"""What it sees of an item: three numbers of the answer, queue, link, battery, budget, how much is known."""


class Environment(Protocol[S]):
    """A world of ``n`` devices that live side by side, each step one item; pure, as everything that learns in it."""

    def begin(self, devices: int, key: Key) -> tuple[S, Seen]:
        """The first state, and what each device sees of its first item."""

    def step(self, state: S, asked: np.ndarray, key: Key) -> tuple[S, Seen, np.ndarray]:
        """After the moves ``[n]`` bool: the next state, the next items, and the rewards ``[n]`` of these moves."""


@dataclass(frozen=True)
class Reinforced(Policy[Tree]):
    """A network of two layers over :data:`SIGHTS` gives the log-odds of asking; asked is where they are above 0.

    State: ``w1`` ``[9, hidden]``, ``b1`` ``[hidden]``, ``w2`` ``[hidden]``, ``b2`` scalar, all float64, and ``decided``
    (int64). Before fitting it asks always, as nothing is known.

    Args:
        hidden: numbers in the middle.
        sampled: draw the move from the odds, with its exact propensity, in place of the likelier one; for a log.

    Raises:
        ConfigError: nothing in the middle.
    """

    hidden: int = 16
    sampled: bool = False

    def __post_init__(self) -> None:
        if self.hidden < 1:
            raise ConfigError(f"{self.hidden} numbers in the middle", "use at least 1")

    def init(self) -> Tree:
        """Always ask."""
        return self._state(np.zeros((len(SIGHTS), self.hidden)), np.zeros(self.hidden), np.zeros(self.hidden), 1.0)

    def choose(self, state: Tree, seen: Seen, key: Key) -> tuple[Tree, Move]:
        """Stop or ask, item by item.

        Raises:
            DataError: a column that is not finite, or answers that are none.
        """
        if (move := unanswered(seen)) is not None:
            return state, move
        odds, first = -self.scores(state, seen), int(state["decided"])
        after = {**state, "decided": state["decided"] + seen.size}
        if not self.sampled:
            return after, Move.sure(np.where(odds >= 0, Action.ASK, Action.STOP), "what was rewarded")
        chance = np.clip(1 / (1 + np.exp(-np.clip(odds, -30, 30))), 1e-12, 1 - 1e-12)
        drawn = np.array([rng((*key, "reinforced", first + i)).random() for i in range(seen.size)])
        ask = drawn < chance
        action = np.where(ask, Action.ASK, Action.STOP).astype(np.int8)
        return after, Move(action, np.where(ask, chance, 1 - chance), "drawn by what was rewarded")

    def scores(self, state: Tree, seen: Seen) -> np.ndarray:
        """The log-odds of stopping, ``[n]``."""
        middle = np.tanh(np.einsum("ns,sh->nh", sights(seen), state["w1"]) + state["b1"])
        return np.asarray(-(np.einsum("nh,h->n", middle, state["w2"]) + float(state["b2"])))

    def train(
        self,
        world: Environment[Any],
        key: Key,
        *,
        devices: int = 128,
        steps: int = 50,
        updates: int = 150,
        discount: float = 0.9,
        lr: float = 0.02,
    ) -> Held[Tree]:
        """Live ``updates`` times ``steps`` items on ``devices`` devices, and climb after each life.

        Raises:
            ConfigError: a number of devices, steps or updates below 1, or a discount outside 0..1.
        """
        import torch

        if min(devices, steps, updates) < 1 or not 0 <= discount <= 1 or not 0 < lr < math.inf:
            raise ConfigError(
                f"{updates} updates of {steps} steps on {devices} devices, discount {discount}, rate {lr}",
                "use at least 1 of each, a discount from 0 to 1, and a rate above 0",
            )
        weights, optimiser = self._weights(key, lr)
        draw = rng((*key, "moves"))
        for update in range(updates):
            lived, asks, rewards = [], [], []
            place, seen = world.begin(devices, (*key, update))
            with torch.no_grad():
                for step in range(steps):
                    lived.append(torch.from_numpy(sights(seen)))
                    chance = torch.sigmoid(_odds(weights, lived[-1])).numpy()
                    asks.append(draw.random(devices) < chance)
                    place, seen, reward = world.step(place, asks[-1], (*key, update, step))
                    rewards.append(np.asarray(reward, np.float64))
            to_go = np.stack(rewards)
            for step in range(steps - 2, -1, -1):
                to_go[step] += discount * to_go[step + 1]
            x = torch.cat(lived)
            basis = np.concatenate([x.numpy(), np.repeat(np.eye(steps), devices, axis=0)], axis=1)
            ahead = to_go.reshape(-1) - basis @ np.linalg.lstsq(basis, to_go.reshape(-1), rcond=None)[0]
            ahead /= ahead.std() or 1.0
            odds = _odds(weights, x)
            taken = torch.from_numpy(np.concatenate(asks).astype(np.float64))
            chosen = -torch.nn.functional.binary_cross_entropy_with_logits(odds, taken, reduction="none")
            spread = torch.sigmoid(odds) * torch.sigmoid(-odds)  # keeps it trying both while it learns
            bonus = 0.005 * (1 - update / updates) * spread.mean()
            loss = -(chosen * torch.from_numpy(ahead)).mean() - bonus
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        return Held(self, self._fitted(weights))

    def fit_log(
        self, seen: Seen, move: Move, reward: Array, key: Key, *, updates: int = 300, lr: float = 0.02
    ) -> Held[Tree]:
        """Climb the self-normalised inverse-propensity estimate on what another policy decided.

        Args:
            seen: what it saw, items with an answer.
            move: what it did, with propensities; both moves must have had a chance.
            reward: ``[n]``; NaN where it was not heard.
            key: of the first weights.
            updates: gradient steps over the whole log.
            lr: of the optimiser.

        Raises:
            DataError: no reward was heard, a move without chance, or columns of different lengths.
        """
        import torch

        reward = np.asarray(reward, np.float64)
        if not reward.shape == np.shape(move.action) == (seen.size,) or np.isinf(reward).any():
            raise DataError(f"rewards of shape {reward.shape} for {seen.size} items", "give one finite number an item")
        heard = ~np.isnan(reward) & (np.asarray(move.action) != Action.GO)
        if not heard.any():
            raise DataError("no reward was heard", "log some: users' feedback, or agreement with the cloud")
        if (np.asarray(move.propensity)[heard] >= 1).all():
            raise DataError("a log without chance", "log decisions of a policy that draws: Thompson, EpsilonGreedy")
        weights, optimiser = self._weights(key, lr)
        x = torch.from_numpy(sights(seen)[heard])
        asked = torch.from_numpy((np.asarray(move.action)[heard] == Action.ASK).astype(np.float64))
        earned = torch.from_numpy(reward[heard])
        odds_of_log = torch.from_numpy(1 / np.maximum(np.asarray(move.propensity)[heard], 0.01))
        for _ in range(updates):
            chance = torch.sigmoid(_odds(weights, x))
            weight = torch.where(asked > 0, chance, 1 - chance) * odds_of_log
            loss = -(weight * earned).sum() / weight.sum()
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        return Held(self, self._fitted(weights))

    def _weights(self, key: Key, lr: float) -> tuple[dict[str, Any], Any]:
        import torch

        draw = rng((*key, "weights"))
        start = {
            "w1": draw.normal(size=(len(SIGHTS), self.hidden)) / math.sqrt(len(SIGHTS)),
            "b1": np.zeros(self.hidden),
            "w2": draw.normal(size=self.hidden) / math.sqrt(self.hidden),
            "b2": np.zeros(()),
        }
        weights = {name: torch.from_numpy(each).requires_grad_() for name, each in start.items()}
        return weights, torch.optim.Adam(list(weights.values()), lr)

    def _fitted(self, weights: dict[str, Any]) -> Tree:
        w1, b1, w2, b2 = (weights[name].detach().numpy().copy() for name in ("w1", "b1", "w2", "b2"))
        return self._state(w1, b1, w2, float(b2))

    def _state(self, w1: np.ndarray, b1: np.ndarray, w2: np.ndarray, b2: float) -> Tree:
        return {"w1": w1, "b1": b1, "w2": w2, "b2": np.array(b2), "decided": np.array(0)}


def sights(seen: Seen) -> np.ndarray:
    """What the network sees, ``[n, 9]`` float64, each about -1..1; 0 is what is not known.

    Raises:
        DataError: no answer, or a column of another length or not finite.
    """
    if seen.answer is None:
        raise DataError("no answer to judge", "let the small model answer first")
    first, margin = confidence(seen.answer), confidence(seen.answer, "margin")
    nines = -np.log10(np.maximum(1 - first, 1e-6)) / 6
    link = seen.link or {}
    columns = [
        _column(seen, seen.queue, np.tanh),
        _column(seen, link.get("up_mbps"), lambda each: np.log10(np.maximum(each, 1e-2)) / 2),
        _column(seen, link.get("rtt_seconds"), lambda each: np.tanh(5 * each)),
        _column(seen, seen.battery, lambda each: 2 * each - 1),
        _column(seen, seen.budget_left, lambda each: np.tanh(each / 100)),
    ]
    known = np.full(seen.size, sum(given is not None for given in columns) / len(columns))
    filled = [np.zeros(seen.size) if given is None else given for given in columns]
    return np.stack([2 * first - 1, 2 * margin - 1, 2 * nines - 1, *filled, known], axis=1)


def _column(seen: Seen, column: Array | None, scaled: Any) -> np.ndarray | None:
    if column is None:
        return None
    array = np.asarray(column, np.float64)
    if array.shape != (seen.size,) or not np.isfinite(array).all():
        raise DataError(f"a column of shape {array.shape}, or not finite", f"give {seen.size} numbers")
    return np.asarray(scaled(array))


def _odds(weights: dict[str, Any], x: Any) -> Any:
    """The log-odds of asking, in torch."""
    return (x @ weights["w1"] + weights["b1"]).tanh() @ weights["w2"] + weights["b2"]
