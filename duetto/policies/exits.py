"""Stop at an exit when sure, with a promise; before a deadline; or go on to where the plan cuts.

A network with exits answers several times (BranchyNet, Teerapittayanon et al. 2016), and in SPINN (Laskaridis et al.
2020) what no exit on the device is sure of goes on in the cloud. A stage of these policies is the number of the
network's stages that are done, which is a cut.

One threshold serves all exits, on scores that were fitted exit by exit so that they mean the same. As it falls, an item
moves to earlier and earlier exits; what its user loses changes where it moves, and the promises of
:mod:`duetto.policies.promises` are tested along that way, down from "never early".
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from duetto.errors import ConfigError, DataError
from duetto.policies.promises import descend
from duetto.policies.risk import RiskControlled, numbered, promised
from duetto.policies.threshold import Threshold
from duetto.types import Action, Held, Key, Move, Outcomes, Plan, Policy, Seen


@dataclass(frozen=True)
class Exits(Policy[Mapping[str, Any]]):
    """Stop at the first exit whose score reaches a threshold that keeps the promise, else go on.

    The large model of the promise is the network's final exit: users lose at most so many of its answers. Where it is
    not fitted for a stage, it goes on.

    State: ``inner``, by stage; ``threshold`` (inf is never early); ``promise``.

    Args:
        risk: the score, what is promised, and the share of users that the score is fitted on.
    """

    risk: RiskControlled

    def init(self) -> Mapping[str, Any]:
        """Not fitted: never early."""
        return {**self.risk.init(), "inner": {}}

    def fit(self, outcomes: Outcomes | Mapping[int, Outcomes]) -> Held[Mapping[str, Any]]:
        """Choose the threshold on calibration users.

        Args:
            outcomes: stage -> what that exit (``small``) and the final one (``large``) made of the same items, such as
                :meth:`duetto.types.Outcomes.of_classifiers` of their logits; of a lone exit, at ``seen.stage``.

        Raises:
            DataError: no exits, exits of different items or users, qualities outside 0..1, scores that are not finite,
                or a single user for a score that must be fitted on others.
        """
        found = {outcomes.seen.stage: outcomes} if isinstance(outcomes, Outcomes) else dict(sorted(outcomes.items()))
        _alike(found)
        first = next(iter(found.values()))
        users = numbered(first)
        fitted: dict[str, Any] = {str(stage): self.risk.inner.init() for stage in found}
        fit = getattr(self.risk.inner, "fit", None)
        if fit is not None:
            count = int(users.max()) + 1
            if count < 2:
                raise DataError("one user to fit scores and to make the promise from", "give two at least")
            few = min(max(1, round(self.risk.fitting * count)), count - 1)
            chosen = users < few  # the numbers are drawn, so these are any users
            fitted = {str(stage): fit(each.rows(chosen)).state for stage, each in found.items()}
            found = {stage: each.rows(~chosen) for stage, each in found.items()}
            users = users[~chosen] - few
        held = {"inner": fitted}
        scores = np.stack([self.scores(held, replace(each.seen, stage=stage)) for stage, each in found.items()])
        gains = np.stack([each.gain for each in found.values()])
        at, gaps = _descended(scores, gains, users, self.risk)
        early = float((scores >= at).any(axis=0).mean())
        told = self.risk.told(gaps, at, early, first.users is not None, first.judged)
        return Held(self, {**told, **held})

    def choose(self, state: Mapping[str, Any], seen: Seen, key: Key) -> tuple[Mapping[str, Any], Move]:
        """Stop or go on, item by item."""
        if seen.answer is None:
            return state, Move.sure(np.full(seen.size, Action.GO), "no exit yet")
        at = float(state["threshold"]) if str(seen.stage) in state["inner"] else math.inf
        sure = self.scores(state, seen) >= at
        why = f"exit after stage {seen.stage}: score against {at:.4g}"
        return state, Move.sure(np.where(sure, Action.STOP, Action.GO), why)

    def scores(self, state: Mapping[str, Any], seen: Seen) -> np.ndarray:
        """How sure this stage's exit is, ``[n]``."""
        inner: Any = self.risk.inner
        scores: np.ndarray = inner.scores(state["inner"].get(str(seen.stage), inner.init()), seen)
        return scores

    def promised(self, state: Mapping[str, Any]) -> str:
        """One sentence: what is promised, of whom, and on which assumption."""
        words = {
            "the large model alone": "the final exit alone",
            "the large model's": "the final exit's",
            "it always asks": "it never exits early",
            "of answers kept": "of answers early",
        }
        text = promised(state)
        for cascade, exits in words.items():
            text = text.replace(cascade, exits)
        return text


@dataclass(frozen=True)
class Anytime(Policy[Any]):
    """Stop where the next exit would be late; else as the inner policy says.

    It is the last exit that is reached in time that answers, and nothing is computed that would come too late. Where
    ``seen.traits`` has ``seconds_left``, that counts, else that every stage took as long as it was said to.

    State: the inner policy's.

    Args:
        inner: such as :class:`Exits`.
        deadline: seconds from the input to the answer.
        seconds: (stage, seconds from the input until its exit has answered), rising, the final one last.

    Raises:
        ConfigError: a deadline that is not positive, or stages or seconds that do not rise.
    """

    inner: Policy[Any]
    deadline: float
    seconds: tuple[tuple[int, float], ...]

    def __post_init__(self) -> None:
        if not self.deadline > 0:
            raise ConfigError(f"a deadline of {self.deadline} seconds", "use a number above 0")
        rising = all(b[0] > a[0] and b[1] >= a[1] for a, b in pairwise(self.seconds))
        if not rising or not all(stage > 0 and 0 <= s < math.inf for stage, s in self.seconds):
            raise ConfigError(f"exits at {self.seconds}", "give (stage, seconds since the input), rising")

    def init(self) -> Any:
        """The inner policy's."""
        return self.inner.init()

    def fit(self, outcomes: Outcomes | Mapping[int, Outcomes]) -> Held[Any]:
        """Fit the inner policy where it can be.

        Raises:
            Error: those of the inner ``fit``.
        """
        return Held(self, _fitted(self.inner, outcomes))

    def choose(self, state: Any, seen: Seen, key: Key) -> tuple[Any, Move]:
        """Stop where going on is too late."""
        state, move = self.inner.choose(state, seen, key)
        coming = [each for stage, each in self.seconds if stage > seen.stage]
        if seen.answer is None or not coming:
            return state, move
        gone = max((each for stage, each in self.seconds if stage <= seen.stage), default=0.0)
        left: Any = (seen.traits or {}).get("seconds_left", self.deadline - gone)
        late = (move.action == Action.GO) & np.broadcast_to(coming[0] - gone > np.asarray(left), seen.size)
        if not late.any():
            return state, move
        action = np.where(late, Action.STOP, move.action).astype(np.int8)
        return state, replace(move, action=action, why=f"{move.why}; the next exit is {coming[0] - gone:.3g} s away")

    def learn(self, state: Any, seen: Seen, move: Move, reward: Any) -> Any:
        """As the inner policy does."""
        return self.inner.learn(state, seen, move, reward)


@dataclass(frozen=True)
class ExitOrCut(Policy[Mapping[str, Any]]):
    """Stop at an exit when sure, else go on to where the inner policy's plan cuts, and ask there.

    Where the walk is past the cut, because the plan has changed on the way, it asks from where it is. Where the inner
    policy does not ask, it goes on to the end.

    State: ``exits`` and ``inner``, those of the two.

    Args:
        inner: gives the plan, by asking with it: a cut planner. Its plans cut after a number of stages.
        confidence: the largest probability from which an exit is sure; 0 stops at the first, above 1 at none.
        exits: says stop instead of ``confidence``, such as :class:`Exits`.

    Raises:
        ConfigError: a confidence that is NaN; when choosing, a plan that cuts at a set of stages.
    """

    inner: Policy[Any]
    confidence: float = 0.9
    exits: Policy[Any] | None = None

    def __post_init__(self) -> None:
        _ = Threshold(self.confidence)

    @property
    def judge(self) -> Policy[Any]:
        """What says whether an exit is sure."""
        return Threshold(self.confidence) if self.exits is None else self.exits

    def init(self) -> Mapping[str, Any]:
        """The first states of the two."""
        return {"exits": self.judge.init(), "inner": self.inner.init()}

    def fit(
        self, outcomes: Outcomes | Mapping[int, Outcomes], planned: Held[Any] | None = None
    ) -> Held[Mapping[str, Any]]:
        """Fit what judges exits where it can be.

        Args:
            outcomes: as for :meth:`Exits.fit`.
            planned: the fitted inner policy, whose state is taken over; None starts it.

        Raises:
            ConfigError: another inner policy.
            Error: those of the judge's ``fit``.
        """
        held = self.holding(Held.of(self.inner) if planned is None else planned)
        return Held(self, {**held.state, "exits": _fitted(self.judge, outcomes)})

    def holding(self, planned: Held[Any]) -> Held[Mapping[str, Any]]:
        """With the fitted inner policy, and a judge that needs no fitting.

        Raises:
            ConfigError: another inner policy.
        """
        if planned.part != self.inner:
            raise ConfigError(f"a state of {planned.part}", f"give that of {self.inner}")
        return Held(self, {"exits": self.judge.init(), "inner": planned.state})

    def choose(self, state: Mapping[str, Any], seen: Seen, key: Key) -> tuple[Mapping[str, Any], Move]:
        """Stop, go on or ask, item by item."""
        exits, sure = state["exits"], np.zeros(seen.size, bool)
        why = "no exit yet"
        if seen.answer is not None:
            exits, judged = self.judge.choose(exits, seen, (*key, "exit"))
            sure, why = judged.action == Action.STOP, judged.why
        # A planner decides before the first stage; here it decides again at each, from what is known by then.
        inner, planned = self.inner.choose(state["inner"], replace(seen, stage=0, answer=None), (*key, "cut"))
        cut = planned.plan.cut
        if not isinstance(cut, int | np.integer):
            raise ConfigError("a plan that cuts at a set of stages", "with exits, cut after a number of stages")
        ask = (planned.action == Action.ASK) & (cut <= seen.stage)
        action = np.where(sure, Action.STOP, np.where(ask, Action.ASK, Action.GO)).astype(np.int8)
        plan: Plan = replace(planned.plan, cut=max(int(cut), seen.stage))
        if not sure.all():
            why = f"{why}; {planned.why}"
        propensity = np.where(sure, 1.0, planned.propensity)
        return {"exits": exits, "inner": inner}, Move(action, propensity, why, planned.peer, plan)

    def probe(self, state: Mapping[str, Any], seen: Seen) -> np.ndarray:
        """Whether the planner would have the link probed, ``[n]`` bool; no other inner policy would."""
        asks = getattr(self.inner, "probe", None)
        return np.zeros(seen.size, bool) if asks is None else np.asarray(asks(state["inner"], seen))

    def learn(self, state: Mapping[str, Any], seen: Seen, move: Move, reward: Any) -> Mapping[str, Any]:
        """The inner policy learns."""
        return {**state, "inner": self.inner.learn(state["inner"], seen, move, reward)}


def _fitted(policy: Policy[Any], outcomes: Outcomes | Mapping[int, Outcomes]) -> Any:
    fit = getattr(policy, "fit", None)
    return policy.init() if fit is None else fit(outcomes).state


def _alike(found: Mapping[int, Outcomes]) -> None:
    if not found:
        raise DataError("no exits to fit on", "give the outcomes of one at least")
    first = next(iter(found.values()))
    for stage, each in found.items():
        alike = [(each.large, first.large), (each.users, first.users), (each.judged, first.judged)]
        if not all(np.array_equal(np.asarray(one), np.asarray(other)) for one, other in alike):
            raise DataError(f"other items or users at the exit after stage {stage}", "give all exits the same ones")
        if min(each.small.min(), each.large.min()) < 0 or max(each.small.max(), each.large.max()) > 1:
            raise DataError(f"qualities of the exit after stage {stage} outside 0..1", "a bound needs a range")


def _descended(
    scores: np.ndarray, gains: np.ndarray, users: np.ndarray, risk: RiskControlled
) -> tuple[float, np.ndarray]:
    """The threshold of scores ``[exits, n]``, and the users' gaps there ``[users]``; see :func:`promises.descend`.

    An item is at the first exit whose score reaches the threshold: from its own score down to the best of those
    before it. Each way in adds the gain that is lost there, and each way out takes it back.
    """
    best, whose, at, lost = np.full(scores.shape[1], -np.inf), [], [], []
    for score, gain in zip(scores, gains, strict=True):
        enters = score > best
        leaves = enters & np.isfinite(best)
        at += [score[enters], best[leaves]]
        lost += [gain[enters], -gain[leaves]]
        whose += [users[enters], users[leaves]]
        best = np.maximum(best, score)
    owner = np.concatenate(whose)
    # descend takes what is added to a mean over as many as there are here, but the mean is over the items
    moves = np.bincount(owner) / np.bincount(users)
    return descend(
        np.concatenate(at),
        np.concatenate(lost) * moves[owner],
        owner,
        risk.terms.passes,
        rising=risk.promise == "expected",
    )
