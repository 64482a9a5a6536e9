"""Which sub-networks of an elastic model answer: by battery, queue and link; wider only where a narrow one is unsure.

A device has one set of weights and several sub-networks (:class:`duetto.models.Slimmable`, Yu et al. 2019), narrowest
first. What it can afford is the widest of them: the charge and the work that waits say how wide. Where that pays, it
does not begin with it: a narrow one answers first, and what it is unsure of goes on to a wider one, which costs both
(a cascade; big/little networks, Park et al., CODES+ISSS 2015). Which ladder and which confidence are the cheapest that
keep a quality is found on calibration users.

A stage of this policy is the number of the sub-network that has answered, plus 1: :func:`duetto.protocols.answer`
walks ``exits={k: skill of sub-network k for k in held.part.ladder(held.state, seen)}``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Any

import numpy as np

from duetto.errors import ConfigError, DataError
from duetto.policies.scores import confidence
from duetto.policies.threshold import known, unanswered
from duetto.tree import Array
from duetto.types import Action, Held, Key, Move, Outcomes, Plan, Policy, Seen

_LONGEST = 3  # sub-networks that one input may go through
_THRESHOLDS = 64  # that are tried


@dataclass(frozen=True)
class Widening(Policy[Mapping[str, Any]]):
    """Answer with the widest sub-network that battery and queue permit, by way of narrower ones where that is cheaper.

    ``seen.battery``: share left; ``seen.queue``: seconds of work that waits on the device; ``seen.link``: ``online``
    and ``rtt_seconds``, where the cloud can be asked. What is not seen is full, empty and offline. It is decided before
    the first stage what is permitted: at once less, more again only with something to spare. Before fitting the widest
    that is permitted answers alone.

    State: ``level`` (int64 scalar, the widest permitted by the last item); once fitted ``ladder`` (``[k]`` bool) and
    ``threshold``; what was found on the calibration users, ``joules`` and ``gap`` (the quality above ``like``'s).

    Args:
        joules: of an answer by each sub-network, rising.
        seconds: of an answer by each, rising.
        floors: share of the battery below which each is not used, rising from 0; () uses all down to the end.
        deadline: seconds within which an answer must come: the work that waits, and all that it may go through.
        ask_joules: what asking the cloud costs; an unsure item is asked where that is less than to widen, and where
            there is nothing wider. Infinite never asks.
        like: the sub-network whose quality is to be kept; None is the widest's.
        loss: how much of that quality may be lost, 0..1.
        sure: how many standard errors over users must lie between what is lost and ``loss``.
        spare: share of the battery, and of the deadline, that must be to spare to use a wider one again.
        score: one of :data:`duetto.policies.SCORES`.

    Raises:
        ConfigError: no sub-networks, numbers that do not rise, or one out of range.
    """

    joules: tuple[float, ...]
    seconds: tuple[float, ...]
    floors: tuple[float, ...] = ()
    deadline: float = math.inf
    ask_joules: float = math.inf
    like: int | None = None
    loss: float = 0.0
    sure: float = 1.645
    spare: float = 0.05
    score: str = "max_softmax"

    def __post_init__(self) -> None:
        known(self.score)
        for name in ("joules", "seconds"):
            column = getattr(self, name)
            if (
                not column
                or not all(0 <= each < math.inf for each in column)
                or any(b < a for a, b in pairwise(column))
            ):
                raise ConfigError(f"{name} {column} of sub-networks", "give one each from 0, the narrowest first")
        if len(self.seconds) != len(self.joules) or len(self.floors) not in (0, len(self.joules)):
            raise ConfigError(
                f"{len(self.joules)} joules, {len(self.seconds)} seconds", "give one each, floors or none"
            )
        if self.floors and (self.floors[0] or any(b < a for a, b in pairwise(self.floors))):
            raise ConfigError(f"floors {self.floors}", "let them rise from 0: the narrowest is always used")
        if not 0 <= self.spare < 1 or max(self.floors, default=0.0) + self.spare > 1:
            raise ConfigError(f"spare={self.spare} above {self.floors}", "a full battery must permit the widest")
        if not (self.deadline > 0 and self.ask_joules >= 0 and 0 <= self.loss <= 1 and 0 <= self.sure < math.inf):
            raise ConfigError(f"deadline={self.deadline}, loss={self.loss}, sure={self.sure}", "use numbers from 0")
        if self.like is not None and not 0 <= self.like < len(self.joules):
            raise ConfigError(f"like={self.like}", f"name a sub-network from 0 to {len(self.joules) - 1}, or None")

    @property
    def widest(self) -> int:
        """The number of the last."""
        return len(self.joules) - 1

    def init(self) -> Mapping[str, Any]:
        """Not fitted: the widest that is permitted."""
        return {"level": np.array(self.widest)}

    def fit(self, outcomes: Outcomes | Mapping[int, Outcomes]) -> Held[Mapping[str, Any]]:
        """Find the ladder and the threshold of least joules that keep the quality of ``like``, users counting the same.

        Args:
            outcomes: the number of a sub-network -> what it (``small``) and the widest (``large``) made of the same
                items; of one alone, at ``seen.stage`` less 1.

        Raises:
            DataError: numbers of no sub-network, other items or users, or no answers of ``like``.
        """
        found = (
            {outcomes.seen.stage - 1: outcomes} if isinstance(outcomes, Outcomes) else dict(sorted(outcomes.items()))
        )
        found = {k: each for k, each in found.items() if k != self.widest}
        first = _alike(found, self.widest)
        quality = {**{k: each.small for k, each in found.items()}, self.widest: first.large}
        like = self.widest if self.like is None else self.like
        if like not in quality:
            raise DataError(
                f"no answers of sub-network {like}", f"give those whose quality is kept; here {list(found)}"
            )
        scores = {k: self.scores({}, each.seen) for k, each in found.items()}
        _, which = np.unique(np.arange(len(first)) if first.users is None else first.users, return_inverse=True)
        best: tuple[float, tuple[int, ...], float, float] | None = None
        for ladder in self._ladders(tuple(found), tuple(quality)):
            for at in _tried([scores[k] for k in ladder[:-1]]):
                joules, made = self._walked(ladder, at, scores, quality)
                gap = np.bincount(which, made - quality[like]) / np.bincount(which)
                error = gap.std(ddof=1) / math.sqrt(len(gap)) if len(gap) > 1 else 0.0
                if gap.mean() - self.sure * error < -self.loss - 1e-12:
                    continue
                cost = float(joules @ first.shares)
                if best is None or cost < best[0] - 1e-15:
                    best = cost, ladder, at, float(gap.mean())
        assert best is not None  # the quality of like is that of like
        cost, ladder, at, above = best
        chosen = np.isin(np.arange(self.widest + 1), ladder)
        told = {"joules": np.array(cost), "gap": np.array(above)}
        return Held(self, {**self.init(), "ladder": chosen, "threshold": np.array(at), **told})

    def choose(self, state: Mapping[str, Any], seen: Seen, key: Key) -> tuple[Mapping[str, Any], Move]:
        """Go on to the first sub-network; then stop, widen or ask, item by item."""
        if seen.stage == 0:
            levels = self._levels(state, seen)
            level = int(levels[-1]) if len(levels) else int(state["level"])
            why = f"sub-network {level} of {self.widest} is permitted"
            plan = Plan(exit=level)
            return {**state, "level": np.array(level)}, Move.sure(np.full(seen.size, Action.GO), why, plan=plan)
        if (move := unanswered(seen)) is not None:
            return state, move
        done, level = seen.stage - 1, int(state["level"])
        ahead = [k for k in self._rungs(state, level) if k > done]
        at = float(state.get("threshold", math.inf))
        stop = self.scores(state, seen) >= at
        if not ahead and math.isinf(self.ask_joules):
            return state, Move.sure(np.full(seen.size, Action.STOP), "nothing wider is permitted")
        online = _column(seen, "online", 0.0) * (_column(seen, "rtt_seconds", 0.0) <= self.deadline) > 0
        cheaper = not ahead or self.ask_joules < self.joules[ahead[0]]
        asks = online & cheaper & math.isfinite(self.ask_joules) & ("ladder" in state)
        onward = np.where(asks, Action.ASK, Action.GO if ahead else Action.STOP)
        why = f"{self.score} of sub-network {done} against {at:.4g}"
        return state, Move.sure(np.where(stop, Action.STOP, onward), why)

    def ladder(self, state: Mapping[str, Any], seen: Seen) -> tuple[int, ...]:
        """The sub-networks that an item may go through, narrowest first; the last of ``seen``, where it has several."""
        levels = self._levels(state, seen)
        return self._rungs(state, int(levels[-1]) if len(levels) else int(state["level"]))

    def scores(self, state: Mapping[str, Any], seen: Seen) -> np.ndarray:
        """How sure each answer is, ``[n]``."""
        return confidence(seen.answer, self.score)

    def _rungs(self, state: Mapping[str, Any], level: int) -> tuple[int, ...]:
        if "ladder" not in state:
            return (level,)
        fitted = np.flatnonzero(state["ladder"]).tolist()
        top = min(level, fitted[-1])
        return (*(k for k in fitted if k < top), top)

    def _levels(self, state: Mapping[str, Any], seen: Seen) -> np.ndarray:
        """The widest sub-network permitted to each item ``[n]``, one after the other."""
        battery, queue = (_known(seen, name, default) for name, default in (("battery", 1.0), ("queue", 0.0)))
        floors = np.array(self.floors or [0.0] * len(self.joules))
        seconds = np.array([sum(self.seconds[k] for k in self._rungs(state, level)) for level in range(len(floors))])

        def permitted(spare: float) -> np.ndarray:
            charged = battery[:, None] >= np.where(floors > 0, floors + spare, 0.0)
            in_time = queue[:, None] + seconds <= self.deadline * (1 - spare)
            return np.asarray(np.maximum(1, (charged & in_time).cumprod(1).sum(1)) - 1)

        levels, level = np.zeros(seen.size, np.int64), int(state["level"])
        for i, (now, easily) in enumerate(zip(permitted(0.0), permitted(self.spare), strict=True)):
            levels[i] = level = min(now, max(level, easily))
        return levels

    def _ladders(self, judged: tuple[int, ...], rated: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        """Those that end in the widest, or, where another's quality is kept, in any whose quality is known."""
        for last in (self.widest,) if self.like is None else rated:
            below = [k for k in judged if k < last]
            for others in range(min(_LONGEST, len(below) + 1)):
                yield from ((*each, last) for each in combinations(below, others))

    def _walked(
        self, ladder: tuple[int, ...], at: float, scores: Mapping[int, np.ndarray], quality: Mapping[int, np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Joules and quality ``[n]`` of each item."""
        made, joules = quality[ladder[-1]], np.full(len(quality[ladder[-1]]), self.joules[ladder[-1]])
        for k in reversed(ladder[:-1]):
            stop = scores[k] >= at
            made = np.where(stop, quality[k], made)
            joules = self.joules[k] + np.where(stop, 0.0, joules)
        return joules, made


def _tried(scores: list[np.ndarray]) -> list[float]:
    """Thresholds to try; none for a ladder of one."""
    if not scores:
        return [math.inf]
    pooled = np.concatenate(scores)
    return np.unique(np.quantile(pooled, np.linspace(0, 1, _THRESHOLDS))).tolist()  # type: ignore[no-any-return]


def _alike(found: Mapping[int, Outcomes], widest: int) -> Outcomes:
    if not found or min(found) < 0 or max(found) > widest:
        raise DataError(f"answers of sub-networks {list(found)}", f"give some of 0 to {widest - 1}")
    first = next(iter(found.values()))
    for k, each in found.items():
        alike = ((each.large, first.large), (each.users, first.users))
        if not all(np.array_equal(np.asarray(one), np.asarray(other)) for one, other in alike):
            raise DataError(f"other items or users of sub-network {k}", "give all the same ones")
    return first


def _known(seen: Seen, name: str, default: float) -> np.ndarray:
    return _filled(getattr(seen, name), seen.size, default)


def _column(seen: Seen, name: str, default: float) -> np.ndarray:
    return _filled((seen.link or {}).get(name), seen.size, default)


def _filled(column: Array | None, size: int, default: float) -> np.ndarray:
    array = np.full(size, default) if column is None else np.asarray(column, np.float64)
    if array.shape != (size,) or not np.isfinite(array).all():
        raise DataError(f"a column of shape {array.shape}, or not finite", f"give {size} numbers")
    return array
