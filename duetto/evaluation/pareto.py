"""Accuracy against asking: every threshold of a score, exactly; no bins and no interpolation.

A *score* says how much an input deserves the large model: **the highest are asked first**. For a confidence pass
its negative. Inputs with equal scores go together, because no threshold can part them. Weights [n] say how
often each input counts (see :func:`duetto.evaluation.users.redraws`); without them each counts once.
"""

from __future__ import annotations

import math

import numpy as np

from duetto.errors import DataError
from duetto.tree import Array

_TINY = 1e-12  # two accuracies this close are the same


def curve(score: Array, small_correct: Array, large_correct: Array, weight: Array | None = None) -> tuple[Array, Array]:
    """The cascade at every threshold: (ask_share [k], accuracy [k]), k = distinct scores + 1, from nobody to all.

    ``score``, ``small_correct`` and ``large_correct`` are [n]; correct is 1 or 0 (or a share of runs, 0..1).

    Raises:
        DataError: empty, lengths that differ, values that are not finite, or weights below 0 or all 0.
    """
    score, small, large, weight = _checked(score, small_correct, large_correct, weight)
    order = np.argsort(-score, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(score[order]) != 0, True))
    whole = weight.sum()
    asked = np.cumsum(weight[order])[ends]
    gained = np.cumsum((weight * (large - small))[order])[ends]
    share = np.append(0.0, asked / whole)
    return share, ((weight * small).sum() + np.append(0.0, gained)) / whole


def random(small_correct: Array, large_correct: Array, weight: Array | None = None) -> tuple[Array, Array]:
    """Asking by chance: the straight line between the two models, as in :func:`curve`."""
    return curve(np.zeros(len(np.asarray(small_correct))), small_correct, large_correct, weight)


def oracle_gain(small_correct: Array, large_correct: Array, weight: Array | None = None) -> tuple[Array, Array]:
    """Asking by the true gain: first where only the large model is right, last where only the small one is."""
    return curve(np.asarray(large_correct, float) - small_correct, small_correct, large_correct, weight)


def ask_share_at(
    score: Array, small_correct: Array, large_correct: Array, target_accuracy: float, weight: Array | None = None
) -> float:
    """The smallest share of inputs to ask at which the cascade reaches the target; NaN if it never does.

    Raises:
        DataError: as :func:`curve`.
    """
    return reached(*curve(score, small_correct, large_correct, weight), target_accuracy)


def reached(ask_share: Array, accuracy: Array, target_accuracy: float) -> float:
    """The smallest ask share on a curve with at least this accuracy; NaN if there is none."""
    enough = np.asarray(accuracy) >= target_accuracy - _TINY
    return float(np.asarray(ask_share)[enough].min()) if enough.any() else math.nan


def area(score: Array, small_correct: Array, large_correct: Array, weight: Array | None = None) -> float:
    """How good the score is, over all thresholds: 0 as chance, 1 as the oracle, below 0 worse than chance.

    The area under the curve, less that of :func:`random`, as a share of :func:`oracle_gain`'s; compare RouteLLM's
    APGR (Ong et al. 2024), which has no oracle. NaN where the oracle gains nothing over chance.

    Raises:
        DataError: as :func:`curve`.
    """
    floor = _under(*random(small_correct, large_correct, weight))
    roof = _under(*oracle_gain(small_correct, large_correct, weight))
    if roof - floor <= _TINY:
        return math.nan
    return (_under(*curve(score, small_correct, large_correct, weight)) - floor) / (roof - floor)


def _under(share: Array, accuracy: Array) -> float:
    return float((np.diff(share) * (accuracy[1:] + accuracy[:-1]) / 2).sum())


def _checked(score: Array, small: Array, large: Array, weight: Array | None) -> tuple[Array, Array, Array, Array]:
    columns = [np.asarray(column, float) for column in (score, small, large)]
    columns.append(np.ones_like(columns[0]) if weight is None else np.asarray(weight, float))
    shapes = {column.shape for column in columns}
    if len(shapes) > 1 or columns[0].ndim != 1 or not columns[0].size:
        raise DataError(f"columns of shapes {sorted(shapes)}", "give score, small and large per input, not empty")
    if not all(np.isfinite(column).all() for column in columns):
        raise DataError("scores or answers that are not finite", "score every input, or leave it out")
    if (columns[3] < 0).any() or not columns[3].any():
        raise DataError("weights below 0, or none above it", "a weight says how often an input counts")
    return columns[0], columns[1], columns[2], columns[3]
