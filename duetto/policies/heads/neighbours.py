"""The like of it: the mean quality of the nearest calibration items (k nearest neighbours, Cover & Hart 1967)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from duetto.errors import ConfigError
from duetto.policies.heads.head import Head
from duetto.tree import Tree
from duetto.types import rng


@dataclass(frozen=True)
class Neighbours(Head):
    """The mean over the ``k`` nearest, each by what it counts, shrunk towards the mean of all as one more neighbour.

    Args:
        k: neighbours; all items where there are fewer.
        capacity: items kept; of more, so many are drawn.
        seed: draws them.

    Raises:
        ConfigError: a number below 1.
    """

    k: int = 50
    capacity: int = 4096
    seed: int = 0

    def __post_init__(self) -> None:
        if self.k < 1 or self.capacity < 1:
            raise ConfigError(f"{self.k} neighbours of {self.capacity} items", "use at least 1")

    def _classify(self, x: np.ndarray, quality: np.ndarray, shares: np.ndarray) -> Tree:
        return self._regress(x, quality, shares)

    def _regress(self, x: np.ndarray, quality: np.ndarray, shares: np.ndarray) -> Tree:
        kept = np.arange(len(x))
        if len(x) > self.capacity:
            kept = np.sort(rng((self.seed, "neighbours")).choice(len(x), self.capacity, replace=False))
        items = x[kept].astype(np.float32)
        return {
            "items": items,
            "norms": (items.astype(np.float64) ** 2).sum(1).astype(np.float32),
            "quality": quality[kept].astype(np.float64),
            "shares": shares[kept] * len(x),
            "mean": np.array(shares @ quality),
        }

    def _value(self, fitted: Tree, x: np.ndarray) -> np.ndarray:
        items, quality, shares = fitted["items"], fitted["quality"], fitted["shares"]
        k, found = min(self.k, len(items)), np.empty(len(x))
        for first in range(0, len(x), 256):  # rows of distances held at once
            rows = x[first : first + 256].astype(np.float32)
            distance = fitted["norms"] - 2 * rows @ items.T
            near = np.argpartition(distance, k - 1, axis=1)[:, :k] if k < len(items) else np.arange(k)[None]
            weight = shares[near]
            total = (weight * quality[near]).sum(1) + fitted["mean"]
            found[first : first + 256] = total / (weight.sum(1) + 1)
        return found

    def _probability(self, fitted: Tree, x: np.ndarray) -> np.ndarray:
        return self._value(fitted, x)
