"""What a head is: a frozen description that fits numbers to qualities, and predicts with numpy alone."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from duetto.errors import DataError
from duetto.tree import Tree


class Head(ABC):
    """Predicts one quality from columns: the chance of a right answer, or any other number.

    Qualities that are all 0 or 1 are classified and predicted as a probability; others are regressed. Where all items
    have the same quality, that is what is predicted, and nothing is fitted.
    """

    def fit(self, x: np.ndarray, quality: np.ndarray, shares: np.ndarray) -> Tree:
        """What was learned, as a tree of arrays.

        Args:
            x: ``[n, d]`` float64, standardised.
            quality: ``[n]`` float64.
            shares: ``[n]`` what each item counts, summing to 1.

        Raises:
            DataError: no items, other shapes, or numbers that are not finite.
        """
        if x.ndim != 2 or not len(x) or len(x) != len(quality) or len(x) != len(shares):
            raise DataError(f"columns of shape {x.shape} for {len(quality)} qualities", "give one row of each an item")
        if not (np.isfinite(x).all() and np.isfinite(quality).all()):
            raise DataError("columns or qualities that are NaN or infinite", "leave these items out")
        if (quality == quality[0]).all():
            return {"constant": np.array(float(quality[0]))}
        if np.isin(quality, (0.0, 1.0)).all():
            return {"logit": self._classify(x, quality, shares)}
        return {"plain": self._regress(x, quality, shares)}

    def predict(self, state: Tree, x: np.ndarray) -> np.ndarray:
        """The quality of every item, ``[n]`` float64; a probability where qualities were 0 or 1."""
        if "constant" in state:
            return np.full(len(x), float(state["constant"]))
        if "logit" in state:
            return self._probability(state["logit"], x)
        return self._value(state["plain"], x)

    def _probability(self, fitted: Tree, x: np.ndarray) -> np.ndarray:
        return np.asarray(0.5 + 0.5 * np.tanh(0.5 * self._value(fitted, x)))  # the logistic function, never overflowing

    @abstractmethod
    def _classify(self, x: np.ndarray, quality: np.ndarray, shares: np.ndarray) -> Tree:
        """Fit log-odds."""

    @abstractmethod
    def _regress(self, x: np.ndarray, quality: np.ndarray, shares: np.ndarray) -> Tree:
        """Fit values."""

    @abstractmethod
    def _value(self, fitted: Tree, x: np.ndarray) -> np.ndarray:
        """Log-odds or values, ``[n]``."""
