"""A threshold chosen on calibration users, over probabilities that mean what they say.

One temperature makes the probabilities honest (Guo et al. 2017). The threshold then is the cheapest one that can
be reached from "always ask" without ever costing more accuracy than allowed: it descends and stops at the first
failure, because the gap to the large model is not monotone in the threshold and the cheapest passing one is luck.

What is promised holds on the calibration data only; it carries no confidence for new users.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from duetto.errors import ConfigError, DataError
from duetto.policies.scores import confidence
from duetto.policies.threshold import known, sure, unanswered
from duetto.tree import Array
from duetto.types import Held, Key, Move, Policy, Seen

_COLDEST, _HOTTEST = 0.01, 100.0  # temperatures beyond these are a model that is always or never right
_SLACK = 1e-12  # float64 sums of a million shares; a loss of just the tolerance passes


@dataclass(frozen=True)
class Calibrated(Policy[Mapping[str, Array]]):
    """Stop where the score at the fitted temperature reaches the fitted threshold, else ask.

    State: ``temperature`` and ``threshold``, float64 scalars; before fitting 1 and inf, which always asks.

    Args:
        score: one of :data:`duetto.policies.SCORES`.
        tolerance_points: how many points (hundredths) of accuracy the cascade may lose against the large model.
        by: "user" counts every user the same, "example" every example.
        factor: without labels, points lost for each point of disagreement with the large model; 1 is the worst
            case, as a disagreement costs at most one right answer.

    Raises:
        ConfigError: an unknown score or ``by``, or a negative number.
    """

    score: str = "max_softmax"
    tolerance_points: float = 0.5
    by: Literal["user", "example"] = "user"
    factor: float = 1.0

    def __post_init__(self) -> None:
        known(self.score)
        if self.by not in ("user", "example"):
            raise ConfigError(f"a mean by {self.by!r}", 'use "user" or "example"')
        for name, value in (("tolerance_points", self.tolerance_points), ("factor", self.factor)):
            if not 0 <= value < math.inf:
                raise ConfigError(f"{name}={value}", "use a number from 0")

    def init(self) -> Mapping[str, Array]:
        """Not fitted: always asks."""
        return {"temperature": np.array(1.0), "threshold": np.array(np.inf)}

    def choose(self, state: Mapping[str, Array], seen: Seen, key: Key) -> tuple[Mapping[str, Array], Move]:
        """Stop, go on or ask, item by item."""
        if (move := unanswered(seen)) is not None:
            return state, move
        at = float(state["threshold"])
        return state, sure(self.scores(state, seen) >= at, f"{self.score} against {at:.4g}")

    def scores(self, state: Mapping[str, Array], seen: Seen) -> np.ndarray:
        """How sure each answer is at the fitted temperature, ``[n]``."""
        return confidence(np.asarray(seen.answer, np.float64) / float(state["temperature"]), self.score)

    def fit(
        self, logits: Array, labels: Array | None = None, users: Array | None = None, large: Array | None = None
    ) -> Held[Mapping[str, Array]]:
        """Temperature, then threshold. Without labels, the large model's answers are the labels.

        Args:
            logits: ``[n, classes]`` of the small model.
            labels: ``[n]`` integers.
            users: ``[n]`` whose item it is; None counts every item by itself.
            large: ``[n, classes]`` of the large model; None takes it to be always right.

        Raises:
            ConfigError: neither labels nor large logits.
            DataError: no items, other shapes, numbers that are not finite, or a label outside the classes.
        """
        if labels is None and large is None:
            raise ConfigError("neither labels nor large logits", "give one of them to calibrate with")
        truth = np.argmax(_logits(large), axis=1) if labels is None else labels
        temperature = fit_temperature(logits, truth, users if self.by == "user" else None)
        threshold = self.fit_threshold(logits, large, labels, users, temperature)
        return Held(self, {"temperature": np.array(temperature), "threshold": np.array(threshold)})

    def fit_threshold(
        self,
        small: Array,
        large: Array | None = None,
        labels: Array | None = None,
        users: Array | None = None,
        temperature: float = 1.0,
    ) -> float:
        """The threshold alone; see :meth:`fit` for the arguments. inf (always ask) where nothing passes.

        With labels an item kept loses (large right) - (small right), -1..1; without, ``factor`` where the two
        answers differ, so that ``small`` and ``large`` are the audited items only.
        """
        small = _logits(small)
        answer = small.argmax(axis=1)
        right = answer if labels is None else _labels(labels, *small.shape)
        best = right if large is None else _logits(large).argmax(axis=1)
        if labels is None and large is None:
            raise ConfigError("neither labels nor large logits", "give one of them to calibrate with")
        if len(best) != len(answer):
            raise DataError(f"{len(best)} answers of the large model for {len(answer)} items", "give one an item")
        loss = self.factor * (answer != best) if labels is None else 1.0 * (best == right) - (answer == right)
        shares = _shares(len(answer), users if self.by == "user" else None)
        return cheapest(confidence(small / temperature, self.score), shares * loss, self.tolerance_points / 100)


def cheapest(scores: np.ndarray, losses: np.ndarray, tolerance: float) -> float:
    """The lowest threshold reached from "always ask" while the losses of what is kept stay within the tolerance.

    Items of equal score are kept or asked together.

    Args:
        scores: ``[n]``; an item is kept where its score is at least the threshold.
        losses: ``[n]`` what keeping the item adds to the mean loss.
        tolerance: the largest sum of losses.

    Returns:
        A score, or inf where keeping the surest items already loses too much.
    """
    order = np.argsort(-scores, kind="stable")
    scores, total = scores[order], np.cumsum(losses[order])
    last = np.append(np.flatnonzero(np.diff(scores)), len(scores) - 1)  # of each group of equal scores
    fails = np.flatnonzero(total[last] > tolerance + _SLACK)
    passed = len(last) if not len(fails) else int(fails[0])
    return float(scores[last[passed - 1]]) if passed else math.inf


def fit_temperature(logits: Array, labels: Array, users: Array | None = None) -> float:
    """The temperature of the lowest negative log-likelihood (Guo et al. 2017), within 0.01..100.

    The loss is convex in 1/temperature, so that its slope is bisected.

    Args:
        logits: ``[n, classes]``.
        labels: ``[n]`` integers.
        users: ``[n]``; every user counts the same. None: every item.

    Raises:
        DataError: no items, other shapes, numbers that are not finite, or a label outside the classes.
    """
    logits = _logits(logits)
    labels, shares = _labels(labels, *logits.shape), _shares(len(logits), users)
    below = logits - logits.max(axis=1, keepdims=True)
    target = float(shares @ below[np.arange(len(below)), labels])

    def slope(temperature: float) -> float:
        weights = np.exp(below / temperature)
        return float(shares @ ((weights * below).sum(axis=1) / weights.sum(axis=1))) - target

    low, high = math.log(_COLDEST), math.log(_HOTTEST)
    for _ in range(60):  # halves 9.2 nats to below float64's resolution
        middle = (low + high) / 2
        low, high = (middle, high) if slope(math.exp(middle)) > 0 else (low, middle)
    return math.exp((low + high) / 2)


def _logits(logits: Array) -> np.ndarray:
    array = np.asarray(logits, np.float64)
    if array.ndim != 2 or not array.size:
        raise DataError(f"calibration logits of shape {array.shape}", "give [items, classes], at least one item")
    if not np.isfinite(array).all():
        raise DataError("calibration logits that are NaN or infinite", "the model diverged or its input is corrupt")
    return array


def _labels(labels: Array, items: int, classes: int) -> np.ndarray:
    array: np.ndarray = np.asarray(labels)
    if array.shape != (items,) or array.dtype.kind not in "iu":
        raise DataError(f"labels of shape {array.shape} and dtype {array.dtype}", f"give {items} integers")
    if not ((array >= 0) & (array < classes)).all():
        raise DataError(f"a label outside the {classes} classes", "labels count from 0")
    return array


def _shares(items: int, users: Array | None) -> np.ndarray:
    """What each item counts, ``[n]``, summing to 1."""
    if users is None:
        return np.full(items, 1 / items)
    users = np.asarray(users)
    if users.shape != (items,):
        raise DataError(f"users of shape {users.shape}", f"name the user of each of the {items} items")
    _, which, count = np.unique(users, return_inverse=True, return_counts=True)
    return np.asarray(1 / (len(count) * count[which]))
