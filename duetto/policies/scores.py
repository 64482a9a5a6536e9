"""How sure a classifier is, from its logits alone. Higher is surer, whatever the score."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np

from duetto.errors import ConfigError, DataError
from duetto.tree import Array
from duetto.types import Seen

SCORES = ("energy", "entropy", "margin", "max_softmax")


@runtime_checkable
class Scored(Protocol):
    """A policy that judges by one number an item; whatever sets a threshold can hold it to a promise or a budget."""

    def scores(self, state: Any, seen: Seen) -> np.ndarray:
        """How sure each answer is, ``[n]``: asked are those with the lowest."""


def confidence(logits: Array, kind: str = "max_softmax") -> np.ndarray:
    """One score an item.

    - ``max_softmax``: the largest probability, 1/classes..1 (Hendrycks & Gimpel 2017).
    - ``margin``: the largest probability minus the second largest, 0..1; 1 where there is one class.
    - ``entropy``: 1 - H(p)/log(classes), 0..1; 1 where there is one class.
    - ``energy``: log of the sum of the exponentials of the logits, any real (minus the free energy of Liu et al. 2020).

    Args:
        logits: ``[n, classes]``; minus infinity rules a class out.
        kind: one of :data:`SCORES`.

    Returns:
        ``[n]`` float64.

    Raises:
        ConfigError: an unknown kind.
        DataError: logits of another shape, NaN, plus infinity, or an item whose classes are all ruled out.
    """
    if kind not in SCORES:
        raise ConfigError(f"no score is called {kind!r}", f"use one of {', '.join(SCORES)}")
    logits = np.asarray(logits)
    if logits.ndim != 2 or not logits.shape[1]:
        raise DataError(f"logits of shape {logits.shape}", "a policy takes [items, classes]")
    logits = logits.astype(np.float64)
    if not (logits < np.inf).all() or not (logits > -np.inf).any(axis=1).all():
        raise DataError("logits that are NaN or infinite", "the model diverged or its input is corrupt")
    largest = logits.max(axis=1, keepdims=True)
    exponentials = np.exp(logits - largest)
    total = exponentials.sum(axis=1)
    if kind == "energy":
        return np.asarray(largest[:, 0] + np.log(total))
    if kind == "max_softmax":
        return np.asarray(1 / total)
    if logits.shape[1] == 1:
        return np.ones(len(logits))
    if kind == "margin":
        second = np.partition(exponentials, -2, axis=1)[:, -2]
        return np.asarray((1 - second) / total)
    shares = exponentials / total[:, None]
    surprise = np.where(shares > 0, -np.log(np.where(shares > 0, shares, 1)), 0)
    return np.asarray(np.clip(1 - (shares * surprise).sum(axis=1) / np.log(logits.shape[1]), 0, 1))
