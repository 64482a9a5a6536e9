"""Which of a device's own samples are worth the cloud's labels: policies over a :class:`duetto.types.Seen` of its pool.

``ASK`` are those to send, ``STOP`` the others, and no more than ``size`` are sent. What is labelled already (the trait
``labelled``, ``[n]`` bool) and what is offline is never sent. Where fewer are left than wanted, all of them are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from duetto.errors import ConfigError, DataError
from duetto.policies.availability import online
from duetto.policies.draws import asking, highest, proportional, systematic
from duetto.policies.scores import confidence
from duetto.policies.threshold import known
from duetto.tree import Array, Tree
from duetto.types import Action, Key, Move, Policy, Seen


@dataclass(frozen=True)
class RandomSample(Policy[Tree]):
    """All samples equally likely: what every other rule has to beat.

    Args:
        size: the most that are sent.

    Raises:
        ConfigError: a size below 1.
    """

    size: int
    sampling: ClassVar[str] = "fixed-size"

    def __post_init__(self) -> None:
        _sized(self.size)

    def choose(self, state: Tree, seen: Seen, key: Key) -> tuple[Tree, Move]:
        """Choose; the propensity is that of being sent, or of not being sent."""
        chances = proportional(np.ones(seen.size), _open(seen), self.size)
        return state, asking(systematic(chances, (*key, "samples")), chances, f"{self.size} at random")


@dataclass(frozen=True)
class LeastSure(Policy[Tree]):
    """Those of which the device's model is least sure (Lewis, Gale 1994: uncertainty sampling), ties at random.

    A pool that no model has answered is one tie.

    Args:
        size: the most that are sent.
        score: one of :data:`duetto.policies.SCORES`.

    Raises:
        ConfigError: a size below 1, or an unknown score.
    """

    size: int
    score: str = "margin"
    sampling: ClassVar[str] = "data-dependent"

    def __post_init__(self) -> None:
        _sized(self.size)
        known(self.score)

    def choose(self, state: Tree, seen: Seen, key: Key) -> tuple[Tree, Move]:
        """Choose; the propensity is 1 but for ties.

        Raises:
            DataError: answers that are NaN or infinite.
        """
        chosen, chances = highest(_doubt(seen, self.score), _open(seen), self.size, key)
        return state, asking(chosen, chances, f"the {self.size} least sure by {self.score}")


@dataclass(frozen=True)
class Disagreed(Policy[Tree]):
    """Those on which a committee's votes are most divided, ties at random.

    The committee is in ``seen.scores`` ``[n]`` or ``[n, members]``, the class that each member votes for (integers,
    NaN where it does not vote): earlier versions of the model, a neighbour's, the cloud's small model. The device's own
    answer votes, too. Votes are divided by their entropy (Dagan, Engelson: Committee-Based Sampling, ICML 1995).

    Args:
        size: the most that are sent.

    Raises:
        ConfigError: a size below 1.
    """

    size: int
    sampling: ClassVar[str] = "data-dependent"

    def __post_init__(self) -> None:
        _sized(self.size)

    def choose(self, state: Tree, seen: Seen, key: Key) -> tuple[Tree, Move]:
        """Choose; the propensity is 1 but for ties.

        Raises:
            DataError: votes of another shape, or answers that are NaN or infinite.
        """
        chosen, chances = highest(division(_votes(seen)), _open(seen), self.size, key)
        return state, asking(chosen, chances, f"the {self.size} most divided")


@dataclass(frozen=True)
class KCentre(Policy[Tree]):
    """Those that cover the pool: each next one is the farthest from all that were taken or labelled before.

    Sener, Savarese: Active Learning for Convolutional Neural Networks: A Core-Set Approach, ICLR 2018, the greedy
    k-centre (Gonzalez 1985): the largest distance of any sample to its centre is at most twice the least possible. The
    distance is Euclidean between rows of ``seen.features``, else between the probabilities of the answer. Where
    nothing is labelled, the first is the nearest to the mean of the pool.

    Args:
        size: the most that are sent.

    Raises:
        ConfigError: a size below 1.
    """

    size: int
    sampling: ClassVar[str] = "data-dependent"

    def __post_init__(self) -> None:
        _sized(self.size)

    def choose(self, state: Tree, seen: Seen, key: Key) -> tuple[Tree, Move]:
        """Choose; of equal ones the first, so that every propensity is 1.

        Raises:
            DataError: features that are no numbers ``[n, d]``, or not finite.
        """
        pool, chosen = _open(seen), np.zeros(seen.size, bool)
        chosen[covering(_embedded(seen), pool, _labelled(seen), self.size)] = True
        return state, Move.sure(np.where(chosen, Action.ASK, Action.STOP), f"the {self.size} that cover the pool")


@dataclass(frozen=True)
class Balanced(Policy[Tree]):
    """As many of each class that the device answers as there are, the least sure of each first, ties at random.

    The classes take turns, that with the fewest samples in the pool first, so that rare ones are not crowded out.

    Args:
        size: the most that are sent.
        score: one of :data:`duetto.policies.SCORES`.

    Raises:
        ConfigError: a size below 1, or an unknown score.
    """

    size: int
    score: str = "margin"
    sampling: ClassVar[str] = "data-dependent"

    def __post_init__(self) -> None:
        _sized(self.size)
        known(self.score)

    def choose(self, state: Tree, seen: Seen, key: Key) -> tuple[Tree, Move]:
        """Choose; the propensity is 1 but for ties within a class.

        Raises:
            DataError: answers that are NaN or infinite.
        """
        doubt, pool = _doubt(seen, self.score), _open(seen)
        label = np.zeros(seen.size, int) if seen.answer is None else np.asarray(seen.answer).argmax(axis=1)
        chosen, chances = np.zeros(seen.size, bool), np.zeros(seen.size)
        for each, quota in turns(np.bincount(label[pool], minlength=1), self.size).items():
            mine, likely = highest(doubt, pool & (label == each), quota, (*key, each))
            chosen, chances = chosen | mine, np.maximum(chances, likely)
        return state, asking(chosen, chances, f"{self.size}, as many of each class")


def division(votes: np.ndarray) -> np.ndarray:
    """The entropy of each row's votes ``[n, members]``, ``[n]`` in nats; NaN does not vote, and nobody's is 0."""
    found = np.zeros(len(votes))
    voting = np.maximum(1, (~np.isnan(votes)).sum(axis=1))
    for each in np.unique(votes[~np.isnan(votes)]):
        share = (votes == each).sum(axis=1) / voting
        found -= np.where(share > 0, share * np.log(np.where(share > 0, share, 1)), 0)
    return found


def covering(points: np.ndarray, pool: np.ndarray, centres: np.ndarray, count: int) -> list[int]:
    """Greedy k-centre: which of the ``pool`` (``[n]`` bool) are taken, in order, of ``points`` ``[n, d]``.

    ``centres`` (``[n]`` bool) are there already.
    """
    taken: list[int] = []
    # Nobody outside the pool is ever the farthest.
    far = np.where(pool, np.inf, -np.inf)
    for centre in np.flatnonzero(centres):
        far = np.minimum(far, np.linalg.norm(points - points[centre], axis=1))
    while len(taken) < min(count, int(pool.sum())):
        if np.isinf(far.max()):
            middle = np.linalg.norm(points - points[pool].mean(axis=0), axis=1)
            nearest = int(np.argmin(np.where(pool, middle, np.inf)))
        else:
            nearest = int(np.argmax(far))
        taken.append(nearest)
        far = np.minimum(far, np.linalg.norm(points - points[nearest], axis=1))
        far[nearest] = -np.inf
    return taken


def turns(counts: np.ndarray, size: int) -> dict[int, int]:
    """How many each class gives, of ``counts`` ``[classes]``: one after the other, the smallest class first."""
    quota = dict.fromkeys(np.flatnonzero(counts).tolist(), 0)
    order = sorted(quota, key=lambda each: (counts[each], each))
    left = min(size, int(counts.sum()))
    while left:
        for each in order:
            if left and quota[each] < counts[each]:
                quota[each], left = quota[each] + 1, left - 1
    return {each: many for each, many in quota.items() if many}


def _sized(size: int) -> None:
    if size < 1:
        raise ConfigError(f"a selection of {size} samples", "use a size from 1")


def _labelled(seen: Seen) -> np.ndarray:
    column = (seen.traits or {}).get("labelled")
    if column is None:
        return np.zeros(seen.size, bool)
    labelled: np.ndarray = np.asarray(column)
    if labelled.shape != (seen.size,) or labelled.dtype != bool:
        raise DataError(f"labelled of shape {labelled.shape} and dtype {labelled.dtype}", f"give {seen.size} booleans")
    return labelled


def _open(seen: Seen) -> np.ndarray:
    return np.asarray(online(seen) & ~_labelled(seen))


def _doubt(seen: Seen, score: str) -> np.ndarray:
    return np.zeros(seen.size) if seen.answer is None else -confidence(seen.answer, score)


def _votes(seen: Seen) -> np.ndarray:
    votes = np.zeros((seen.size, 0)) if seen.scores is None else np.asarray(seen.scores, np.float64)
    votes = votes[:, None] if votes.ndim == 1 else votes
    if votes.ndim != 2 or len(votes) != seen.size:
        raise DataError(f"votes of shape {votes.shape} for {seen.size} samples", "give [samples, members]")
    if seen.answer is None:
        return votes
    confidence(seen.answer)  # what is not finite has no vote to give
    return np.concatenate([votes, np.asarray(seen.answer).argmax(axis=1)[:, None]], axis=1)


def _embedded(seen: Seen) -> np.ndarray:
    if seen.features is None and seen.answer is not None:
        confidence(seen.answer)
        shares = np.exp(np.asarray(seen.answer, np.float64) - np.max(seen.answer, axis=1, keepdims=True))
        return np.asarray(shares / shares.sum(axis=1, keepdims=True))
    points: Array = np.zeros((seen.size, 1)) if seen.features is None else np.asarray(seen.features)
    if points.ndim != 2 or len(points) != seen.size or points.dtype.kind not in "biuf":
        raise DataError(f"features of shape {points.shape} and dtype {points.dtype}", f"give numbers [{seen.size}, d]")
    points = points.astype(np.float64)
    if not np.isfinite(points).all():
        raise DataError("features that are NaN or infinite", "leave these samples out")
    return np.asarray(points)
