"""Probabilities that mean what they say: three ways to correct a classifier's confidence on labelled items.

- one temperature for all logits (Guo et al. 2017, "On Calibration of Modern Neural Networks"): keeps every answer,
  and hardly changes who is surer than whom;
- vector scaling, a factor and a bias a class (the same paper): can change which class is the surest, not the answer
  that is given;
- isotonic regression of "is right" on the score (Zadrozny & Elkan 2002): any rising curve; it makes steps, and items
  on one step can be told apart no more.

Fitting is by maximum likelihood or least squares, each item counting as much as its share says.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal, TypeAlias, get_args

import numpy as np

from duetto.errors import ConfigError, DataError
from duetto.policies.scores import confidence
from duetto.tree import Array

Scaling: TypeAlias = Literal["temperature", "vector", "isotonic", "none"]
SCALINGS: tuple[str, ...] = get_args(Scaling)

_COLDEST, _HOTTEST = 0.01, 100.0  # temperatures beyond these are a model that is always or never right
_PULL = 1e-3  # how much vector scaling is held back to doing nothing: a class that never occurs would go to -inf


def fit_temperature(logits: Array, labels: Array, shares: Array | None = None) -> float:
    """The temperature of the lowest negative log-likelihood, within 0.01..100.

    The loss is convex in 1/temperature, so that its slope is bisected.

    Args:
        logits: ``[n, classes]``.
        labels: ``[n]`` integers.
        shares: ``[n]`` what each item counts; None: all the same.

    Raises:
        DataError: no items, other shapes, or logits that are not finite.
    """
    logits, shares = _checked(logits, shares)
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


def fit_top_temperature(logits: Array, right: Array, shares: Array | None = None) -> float:
    """The temperature at which the largest probability best tells who is right, where the right class is not known.

    Likelihood: the largest probability where the answer is right, else one minus it. That is not convex, so that
    the best of 93 temperatures is refined between its neighbours; the coldest of several equally good ones.

    Args:
        logits: ``[n, classes]``.
        right: ``[n]`` 0..1, how right the answer is.
        shares: ``[n]`` what each item counts; None: all the same.

    Raises:
        DataError: no items, other shapes, or logits that are not finite.
    """
    logits, shares = _checked(logits, shares)
    if logits.shape[1] < 2:
        return 1.0
    right = np.clip(np.asarray(right, np.float64), 0, 1)
    below = logits - logits.max(axis=1, keepdims=True)
    best = below.argmax(axis=1)
    others = np.where(np.arange(below.shape[1]) == best[:, None], -np.inf, below)
    nearest = others.max(axis=1)

    def loss(log_temperature: float) -> float:
        scale = math.exp(-log_temperature)
        rest = nearest * scale + np.log(np.exp((others - nearest[:, None]) * scale).sum(axis=1))
        whole = np.logaddexp(0.0, rest)
        return float(shares @ (whole - (1 - right) * rest))

    step = math.log(_HOTTEST / _COLDEST) / 92
    grid = math.log(_COLDEST) + step * np.arange(93)
    middle = float(grid[np.argmin([loss(at) for at in grid])])
    while step > 1e-9:
        step /= 2
        near = [at for at in (middle, middle - step, middle + step) if grid[0] <= at <= grid[-1]]
        middle = min(near, key=loss)
    return math.exp(middle)


def fit_vector(logits: Array, labels: Array, shares: Array | None = None) -> tuple[np.ndarray, np.ndarray]:
    """A factor and a bias for each class, ``[classes]`` each, of the lowest negative log-likelihood (needs scipy).

    Both are held back a little (by 0.001 of the squared distance) to a factor of 1 and a bias of 0.

    Args:
        logits: ``[n, classes]``.
        labels: ``[n]`` integers.
        shares: ``[n]`` what each item counts; None: all the same.

    Raises:
        DataError: no items, other shapes, or logits that are not finite.
    """
    from scipy.optimize import minimize

    logits, shares = _checked(logits, shares)
    classes = logits.shape[1]
    truth = np.eye(classes)[labels]

    def loss(both: np.ndarray) -> tuple[float, np.ndarray]:
        weight, bias = both[:classes], both[classes:]
        scaled = logits * weight + bias
        scaled = scaled - scaled.max(axis=1, keepdims=True)
        log_sum = np.log(np.exp(scaled).sum(axis=1))
        off = shares[:, None] * (np.exp(scaled - log_sum[:, None]) - truth)
        pull = np.concatenate([weight - 1, bias])
        value = shares @ (log_sum - (scaled * truth).sum(axis=1)) + _PULL * pull @ pull
        return float(value), np.concatenate([(off * logits).sum(axis=0), off.sum(axis=0)]) + 2 * _PULL * pull

    start = np.concatenate([np.ones(classes), np.zeros(classes)])
    found = minimize(loss, start, jac=True, method="L-BFGS-B").x
    return found[:classes], found[classes:]


def fit_isotonic(scores: Array, right: Array, shares: Array | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The rising curve from score to the share that is right, as its corners: scores and shares (needs scikit-learn).

    Args:
        scores: ``[n]``, higher is surer.
        right: ``[n]`` 0..1, how right the answer is.
        shares: ``[n]`` what each item counts; None: all the same.

    Returns:
        ``[k]`` scores that rise and ``[k]`` what they mean, for ``np.interp``.

    Raises:
        DataError: no items, other shapes, or scores that are not finite.
    """
    from sklearn.isotonic import IsotonicRegression

    scores = np.asarray(scores, np.float64)
    if scores.ndim != 1 or not len(scores) or not np.isfinite(scores).all():
        raise DataError(f"scores of shape {scores.shape}, or not finite", "give [items], at least one, all finite")
    curve = IsotonicRegression().fit(scores, np.asarray(right, np.float64), sample_weight=shares)
    return np.asarray(curve.X_thresholds_, np.float64), np.asarray(curve.y_thresholds_, np.float64)


def scaled_confidence(state: Mapping[str, Array], logits: Array, score: str) -> np.ndarray:
    """One score an item, ``[n]``, by what was fitted: ``temperature``, ``weight`` and ``bias``, or ``knots``.

    Minus infinity, a class that is ruled out, stays so.

    Raises:
        ConfigError: an unknown score.
        DataError: logits of another shape, or not finite.
    """
    if "weight" in state:
        array = np.asarray(logits, np.float64)
        weight = np.asarray(state["weight"])
        if weight.ndim and array.shape[1:] != weight.shape:
            raise DataError(f"logits of shape {array.shape} for {len(weight)} classes", "give those it was fitted on")
        with np.errstate(invalid="ignore"):
            moved = array * weight + state["bias"]
        return confidence(np.where(np.isneginf(array), array, moved), score)
    if "knots" in state:
        raw = confidence(logits, score)
        return np.interp(raw, state["knots"], state["meaning"]) if len(state["knots"]) else raw
    return confidence(np.asarray(logits, np.float64) / float(state["temperature"]), score)


def known_scaling(scaling: str) -> None:
    """Raises ConfigError where no scaling has that name."""
    if scaling not in SCALINGS:
        raise ConfigError(f"no scaling is called {scaling!r}", f"use one of {', '.join(SCALINGS)}")


def _checked(logits: Array, shares: Array | None) -> tuple[np.ndarray, np.ndarray]:
    array = np.asarray(logits, np.float64)
    if array.ndim != 2 or not array.size:
        raise DataError(f"calibration logits of shape {array.shape}", "give [items, classes], at least one item")
    if not np.isfinite(array).all():
        raise DataError("calibration logits that are NaN or infinite", "the model diverged or its input is corrupt")
    return array, np.full(len(array), 1 / len(array)) if shares is None else np.asarray(shares, np.float64)
