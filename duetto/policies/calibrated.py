"""A threshold chosen on calibration users, over probabilities that mean what they say.

The scaling makes the probabilities honest (see :mod:`duetto.policies.scaling`). The threshold then is the cheapest
one that can be reached from "always ask" without ever costing more accuracy than allowed: it descends and stops at
the first failure, because the gap to the large model is not monotone in the threshold and the cheapest passing one
is luck.

What is promised holds on the calibration data only; it carries no confidence for new users. For that see
:mod:`duetto.policies.risk`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from duetto.errors import ConfigError
from duetto.policies.scaling import (
    Scaling,
    fit_isotonic,
    fit_temperature,
    fit_top_temperature,
    fit_vector,
    known_scaling,
    scaled_confidence,
)
from duetto.policies.scores import confidence
from duetto.policies.threshold import known, sure, unanswered
from duetto.tree import Array
from duetto.types import Held, Key, Move, Outcomes, Policy, Seen

_SLACK = 1e-12  # float64 sums of a million shares; a loss of just the tolerance passes


@dataclass(frozen=True)
class Calibrated(Policy[Mapping[str, Array]]):
    """Stop where the score after the fitted scaling reaches the fitted threshold, else ask.

    State: ``threshold`` (float64 scalar; inf before fitting, which always asks) and what the scaling has fitted:
    ``temperature`` (scalar), ``weight`` and ``bias`` (``[classes]``), or ``knots`` and ``meaning`` (``[k]``).

    Args:
        score: one of :data:`duetto.policies.SCORES`.
        tolerance_points: how many points (hundredths) of accuracy the cascade may lose against the large model.
        by: "user" counts every user the same, "example" every example.
        factor: without labels, points lost for each point of disagreement with the large model; 1 is the worst
            case, as a disagreement costs at most one right answer.
        scaling: "temperature", "vector", "isotonic" or "none". With "isotonic" the score becomes the share that is
            right among items of such a score, 0..1.

    Raises:
        ConfigError: an unknown score, scaling or ``by``, or a negative number.
    """

    score: str = "max_softmax"
    tolerance_points: float = 0.5
    by: Literal["user", "example"] = "user"
    factor: float = 1.0
    scaling: Scaling = "temperature"

    def __post_init__(self) -> None:
        known(self.score)
        known_scaling(self.scaling)
        if self.by not in ("user", "example"):
            raise ConfigError(f"a mean by {self.by!r}", 'use "user" or "example"')
        for name, value in (("tolerance_points", self.tolerance_points), ("factor", self.factor)):
            if not 0 <= value < math.inf:
                raise ConfigError(f"{name}={value}", "use a number from 0")

    def init(self) -> Mapping[str, Array]:
        """Not fitted: always asks."""
        unscaled: dict[str, Array] = {"temperature": np.array(1.0)}
        if self.scaling == "vector":
            unscaled = {"weight": np.array(1.0), "bias": np.array(0.0)}
        elif self.scaling == "isotonic":
            unscaled = {"knots": np.zeros(0), "meaning": np.zeros(0)}
        return {**unscaled, "threshold": np.array(np.inf)}

    def choose(self, state: Mapping[str, Array], seen: Seen, key: Key) -> tuple[Mapping[str, Array], Move]:
        """Stop, go on or ask, item by item."""
        if (move := unanswered(seen)) is not None:
            return state, move
        at = float(state["threshold"])
        return state, sure(self.scores(state, seen) >= at, f"{self.score} against {at:.4g}")

    def scores(self, state: Mapping[str, Array], seen: Seen) -> np.ndarray:
        """How sure each answer is after the fitted scaling, ``[n]``."""
        return scaled_confidence(state, seen.answer, self.score)

    def fit(self, outcomes: Outcomes) -> Held[Mapping[str, Array]]:
        """Scaling, then threshold.

        An item kept loses what asking would have gained, -1..1; where nobody judged the answers, ``factor`` times
        that, which is to say where the two differ. Where it is known who is right but not which class is, the
        temperature is the one at which the largest probability best tells who is right.

        Args:
            outcomes: of classifiers (:meth:`duetto.types.Outcomes.of_classifiers`).

        Raises:
            ConfigError: vector scaling where the right classes are not known.
            DataError: outcomes without logits, or with logits that are not finite.
        """
        state = self._scaling(outcomes)
        shares = self._shares(outcomes)
        loss = outcomes.gain if outcomes.judged else self.factor * outcomes.gain
        at = cheapest(self.scores(state, outcomes.seen), shares * loss, self.tolerance_points / 100)
        return Held(self, {**state, "threshold": np.array(at)})

    def _scaling(self, outcomes: Outcomes) -> Mapping[str, Array]:
        logits, labels, shares = outcomes.seen.answer, outcomes.labels, self._shares(outcomes)
        if self.scaling == "none":
            return {"temperature": np.array(1.0)}
        if self.scaling == "isotonic":
            knots, meaning = fit_isotonic(confidence(logits, self.score), outcomes.small, shares)
            return {"knots": knots, "meaning": meaning}
        if self.scaling == "vector":
            if labels is None:
                raise ConfigError("vector scaling without labels", 'give labels, or use "temperature" or "isotonic"')
            weight, bias = fit_vector(logits, labels, shares)
            return {"weight": weight, "bias": bias}
        if labels is None:
            return {"temperature": np.array(fit_top_temperature(logits, outcomes.small, shares))}
        return {"temperature": np.array(fit_temperature(logits, labels, shares))}

    def _shares(self, outcomes: Outcomes) -> np.ndarray:
        return outcomes.shares if self.by == "user" else np.full(len(outcomes), 1 / len(outcomes))


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
