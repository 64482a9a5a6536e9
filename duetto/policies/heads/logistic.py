"""A line: logistic regression for right or wrong, ridge regression for other qualities (Hoerl & Kennard 1970)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from duetto.errors import ConfigError
from duetto.policies.heads.head import Head
from duetto.tree import Tree


@dataclass(frozen=True)
class Logistic(Head):
    """Log-odds, or a value, linear in the columns.

    Args:
        strength: of the penalty on squared weights, for a mean loss over 1,000 items; above 0.

    Raises:
        ConfigError: a strength that is not above 0.
    """

    strength: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.strength < np.inf:
            raise ConfigError(f"a strength of {self.strength}", "use a number above 0")

    def _classify(self, x: np.ndarray, quality: np.ndarray, shares: np.ndarray) -> Tree:
        from sklearn.linear_model import LogisticRegression

        line = LogisticRegression(C=1000 / (self.strength * len(x)), max_iter=1000)
        line.fit(x, quality, sample_weight=shares * len(x))
        return {"weight": line.coef_[0].astype(np.float64), "bias": np.array(line.intercept_[0], np.float64)}

    def _regress(self, x: np.ndarray, quality: np.ndarray, shares: np.ndarray) -> Tree:
        from sklearn.linear_model import Ridge

        line = Ridge(alpha=self.strength * len(x) / 1000)
        line.fit(x, quality, sample_weight=shares * len(x))
        return {"weight": np.asarray(line.coef_, np.float64), "bias": np.array(line.intercept_, np.float64)}

    def _value(self, fitted: Tree, x: np.ndarray) -> np.ndarray:
        return np.asarray(x @ fitted["weight"] + fitted["bias"])
