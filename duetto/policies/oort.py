"""Those from whom most is learnt soonest, and some who were never asked.

Lai, Zhu, Madhyastha, Chowdhury: Oort: Efficient Federated Learning via Guided Participant Selection, OSDI 2021.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from duetto.errors import ConfigError
from duetto.policies.availability import online
from duetto.policies.draws import asking, examples, proportional, remembered, sized, systematic, told, trait
from duetto.tree import Array, Tree
from duetto.types import Key, Move, Policy, Seen

_CAP = 0.95  # quantile of the utilities above which none counts more
_BONUS = 0.1  # how much a party gains by not having been asked for long


@dataclass(frozen=True)
class Oort(Policy[Tree]):
    """Draw by utility among the best who were asked before, and by speed among those who never were.

    The utility of a party is what its data is worth (statistical), and it shrinks where the party takes longer than
    the preferred duration T of a round (system)::

        examples * |loss|, capped and as a share of the cap    + sqrt(0.1 * ln(round) / its last round)
                                                               * (T / seconds) ** alpha   where seconds > T

    So many of the cohort are new, by the share ``explore`` and its decay. The others are drawn in proportion to the
    utility from all whose utility is at least ``cutoff`` times that of the last who would be in by rank.

    Where it differs from the paper:

    - examples * |mean loss| stands for examples * sqrt(mean squared loss), which it never exceeds and equals where
      all examples have the same loss: no party needs to tell more than its mean.
    - T is a quantile of the durations heard, as in the authors' code, where the paper takes seconds. The pacer looks
      at it every ``window`` rounds, and raises the quantile by ``relax`` where the last ``window`` rounds brought
      less utility than those before.
    - The utility is a share of its cap, so that the bonus counts alike for every task.
    - Every time that a party is asked and tells no usable loss (late, failed, NaN), what it is worth is halved; where
      nothing was known of it, it is worth nothing but its bonus.
    - Parties who were in ``most`` rounds are left out only while the others fill a cohort.
    - The paper's knob for fairness and its noise on utilities are left out.

    A round is one choosing. State: ``round`` (int64 scalar); ``utility`` and ``seconds`` (``[n]`` float64, NaN where
    never asked, or not heard); ``last`` and ``times`` (``[n]`` int64: in which round last, in how many); ``gained``
    (``[2 * window]`` float64, utility by round, the present one last); ``pace`` (float64 scalar).

    Args:
        size: how many; all who are online where they are fewer.
        explore: share of the cohort that is new at first.
        decay: what that share is multiplied by every round.
        least: below which it does not fall.
        cutoff: share of the last rank's utility that is enough; 0 draws among all.
        alpha: how hard slowness weighs; 0 not at all.
        pace: the quantile of durations that is preferred at first; 1 is no preference.
        relax: by how much the pacer raises it.
        window: rounds that the pacer compares.
        most: rounds after which a party makes room for others; None is never.

    Raises:
        ConfigError: a number out of range.
    """

    size: int
    explore: float = 0.9
    decay: float = 0.98
    least: float = 0.2
    cutoff: float = 0.95
    alpha: float = 2.0
    pace: float = 0.3
    relax: float = 0.05
    window: int = 20
    most: int | None = None
    sampling: ClassVar[str] = "data-dependent"

    def __post_init__(self) -> None:
        sized(self.size)
        for name in ("explore", "decay", "least", "cutoff", "pace", "relax"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} of {getattr(self, name)}", "use a share from 0 to 1")
        if not 0 <= self.alpha < math.inf:
            raise ConfigError(f"alpha of {self.alpha}", "use a finite number from 0")
        if self.window < 1:
            raise ConfigError(f"a window of {self.window} rounds", "use at least 1")
        if self.most is not None and self.most < 1:
            raise ConfigError(f"at most {self.most} rounds a party", "use at least 1, or None")

    def choose(self, state: Tree, seen: Seen, key: Key) -> tuple[Tree, Move]:
        """Choose; the propensity is the probability of being chosen, or of not being chosen, given all that is known.

        Raises:
            DataError: the state is that of another fleet.
        """
        state = self._next_round(self._begun(state, seen))
        able = online(seen)
        if self.most is not None and (fresh := able & (state["times"] < self.most)).sum() >= self.size:
            able = fresh
        new = np.isnan(state["utility"])
        known, new = able & ~new, able & new
        share = max(self.least, self.explore * self.decay ** (int(state["round"]) - 1))
        exploring = min(int(share * self.size + 0.5), int(new.sum()))
        exploiting = min(self.size - exploring, int(known.sum()))
        exploring = min(self.size - exploiting, int(new.sum()))
        by_utility, by_speed = np.zeros(seen.size), proportional(trait(seen, "flops"), new, exploring)
        if exploiting:
            utility = self._utility(state, known)
            enough = self.cutoff * np.partition(utility[known], -exploiting)[-exploiting]
            by_utility = proportional(utility, known & (utility >= enough), exploiting)
        chosen = systematic(by_utility, (*key, "exploit")) | systematic(by_speed, (*key, "explore"))
        return state, asking(chosen, by_utility + by_speed, f"{exploiting} by utility, {exploring} new ones by speed")

    def learn(self, state: Tree, seen: Seen, move: Move, reward: Array) -> Tree:
        """Remember what those who were asked brought, and how long it took."""
        state = self._begun(state, seen)
        asked = ~np.isnan(reward)
        worth, seconds = examples(seen) * np.abs(told(seen, "loss", reward)), told(seen, "seconds", reward)
        heard, before = ~np.isnan(worth), state["utility"]
        utility = np.where(heard, worth, np.where(asked, np.nan_to_num(before) / 2, before))
        brought = np.minimum(worth[heard], _cap(utility)).sum() if heard.any() else 0.0
        return {
            **state,
            "utility": utility,
            "seconds": np.where(np.isnan(seconds), state["seconds"], seconds),
            "last": np.where(asked, state["round"], state["last"]),
            "times": state["times"] + asked,
            "gained": np.append(state["gained"][:-1], state["gained"][-1] + brought),
        }

    def _begun(self, state: Tree, seen: Seen) -> Tree:
        return {
            "round": np.asarray(state.get("round", 0), np.int64),
            "utility": remembered(state, "utility", seen, np.nan),
            "seconds": remembered(state, "seconds", seen, np.nan),
            "last": remembered(state, "last", seen, 0).astype(np.int64),
            "times": remembered(state, "times", seen, 0).astype(np.int64),
            "gained": np.asarray(state.get("gained", np.zeros(2 * self.window))),
            "pace": np.asarray(state.get("pace", self.pace), np.float64),
        }

    def _next_round(self, state: Tree) -> Tree:
        over, gained, pace = int(state["round"]), state["gained"], state["pace"]
        # Before there were rounds enough to compare, the earlier half is empty.
        if over % self.window == 0 and gained[: self.window].sum() > gained[self.window :].sum():
            pace = np.minimum(1.0, pace + self.relax)
        return {**state, "round": np.array(over + 1), "gained": np.append(gained[1:], 0.0), "pace": np.array(pace)}

    def _utility(self, state: Tree, known: np.ndarray) -> np.ndarray:
        """``[n]``; NaN where not known."""
        cap = _cap(state["utility"])
        utility = np.minimum(state["utility"], cap) / (cap or 1.0)
        utility[known] += np.sqrt(_BONUS * np.log(state["round"]) / np.maximum(state["last"][known], 1))
        seconds, heard = state["seconds"], state["seconds"][~np.isnan(state["seconds"])]
        if len(heard):
            preferred = np.quantile(heard, state["pace"], method="lower")
            slow = seconds > preferred
            utility[slow] *= (preferred / seconds[slow]) ** self.alpha
        return np.asarray(utility)


def _cap(utility: np.ndarray) -> float:
    """Above which no utility counts, so that one lie is worth no more than another party's truth."""
    return float(np.quantile(utility[~np.isnan(utility)], _CAP, method="lower"))
