"""Trees that correct each other: gradient boosting (Friedman 2001), fitted by scikit-learn, walked by numpy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from duetto.errors import ConfigError
from duetto.policies.heads.head import Head
from duetto.tree import Tree


@dataclass(frozen=True)
class Boosted(Head):
    """A sum of shallow trees. All trees are walked at once, one level after the other.

    Args:
        trees: how many.
        depth: levels of each.
        rate: what each tree counts, above 0 and at most 1.
        least: items in a leaf.
        seed: draws the half of the items that each tree sees (Friedman 2002).

    Raises:
        ConfigError: a number out of range.
    """

    trees: int = 60
    depth: int = 2
    rate: float = 0.1
    least: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.trees, self.depth, self.least) < 1 or not 0 < self.rate <= 1:
            raise ConfigError(
                f"{self.trees} trees of depth {self.depth}, rate {self.rate}", "use at least 1, rate 0..1"
            )

    def _classify(self, x: np.ndarray, quality: np.ndarray, shares: np.ndarray) -> Tree:
        from sklearn.ensemble import GradientBoostingClassifier

        return self._grown(GradientBoostingClassifier(**self._options()), x, quality, shares)

    def _regress(self, x: np.ndarray, quality: np.ndarray, shares: np.ndarray) -> Tree:
        from sklearn.ensemble import GradientBoostingRegressor

        return self._grown(GradientBoostingRegressor(**self._options()), x, quality, shares)

    def _options(self) -> dict[str, Any]:
        return {
            "n_estimators": self.trees,
            "max_depth": self.depth,
            "learning_rate": self.rate,
            "min_samples_leaf": self.least,
            "subsample": 0.5,
            "max_features": "sqrt",
            "random_state": self.seed,
        }

    def _grown(self, forest: Any, x: np.ndarray, quality: np.ndarray, shares: np.ndarray) -> Tree:
        forest.fit(x, quality, sample_weight=shares * len(x))
        grown = [each.tree_ for each in forest.estimators_[:, 0]]
        size = max(each.node_count for each in grown)
        state = {
            "column": np.zeros((len(grown), size), np.int32),
            "at": np.zeros((len(grown), size)),
            "below": np.zeros((len(grown), size), np.int32),
            "above": np.zeros((len(grown), size), np.int32),
            "value": np.zeros((len(grown), size)),
        }
        for i, each in enumerate(grown):
            n, leaf = each.node_count, each.children_left < 0
            itself = np.arange(n)  # a leaf leads to itself, so that all walks have the same length
            state["column"][i, :n] = np.where(leaf, 0, each.feature)
            state["at"][i, :n] = each.threshold
            state["below"][i, :n] = np.where(leaf, itself, each.children_left)
            state["above"][i, :n] = np.where(leaf, itself, each.children_right)
            state["value"][i, :n] = self.rate * each.value[:, 0, 0]
        told = forest.decision_function(x[:1]) if hasattr(forest, "decision_function") else forest.predict(x[:1])
        walked = self._value({**state, "start": np.array(0.0)}, x[:1])
        return {**state, "start": np.array(float(np.ravel(told)[0] - walked[0]))}

    def _value(self, fitted: Tree, x: np.ndarray) -> np.ndarray:
        rows = np.asarray(x, np.float32)  # as scikit-learn reads them
        trees = np.arange(len(fitted["at"]))[None]
        node, item = np.zeros((len(rows), trees.shape[1]), np.int32), np.arange(len(rows))[:, None]
        for _ in range(self.depth):
            low = rows[item, fitted["column"][trees, node]] <= fitted["at"][trees, node]
            node = np.where(low, fitted["below"][trees, node], fitted["above"][trees, node])
        return np.asarray(fitted["value"][trees, node].sum(1) + fitted["start"])
