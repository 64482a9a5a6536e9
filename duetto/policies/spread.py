"""How sure a regression or a forecast is: the variance over members, or the width between its quantiles.

Members: Lakshminarayanan, Pritzel, Blundell 2017. Quantiles: Koenker & Bassett 1978; their width as what a prediction
interval costs, Romano, Patterson, Candes 2019.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from duetto.errors import ConfigError, DataError
from duetto.policies.price import priced, worthwhile
from duetto.policies.threshold import sure, unanswered
from duetto.types import Held, Key, Move, Outcomes, Policy, Seen


@dataclass(frozen=True)
class Spread(Policy[Mapping[str, Any]]):
    """Ask where the predictions for an item lie far apart.

    They are ``seen.scores [n, k]`` (or ``[n, k, steps]`` of a forecast, whose spread is the mean over its steps), else
    ``seen.answer [n, k]``: what ``k`` members predict, or the quantiles of one prediction from the lowest to the
    highest.

    State: ``threshold``, float64 scalar; before fitting inf, which always asks.

    Args:
        measure: "variance" over members, or "width" between the first and the last quantile.
        price: of a call, in units of quality.

    Raises:
        ConfigError: an unknown measure, or a price that is not finite.
    """

    measure: Literal["variance", "width"] = "variance"
    price: float = 0.0

    def __post_init__(self) -> None:
        if self.measure not in ("variance", "width"):
            raise ConfigError(f"no measure is called {self.measure!r}", 'use "variance" or "width"')
        priced(self.price)

    def init(self) -> Mapping[str, Any]:
        """Not fitted: always asks."""
        return {"threshold": np.array(np.inf)}

    def fit(self, outcomes: Outcomes) -> Held[Mapping[str, Any]]:
        """The threshold below which asking pays; see :func:`duetto.policies.price.worthwhile`.

        Raises:
            DataError: no predictions, or some that are not finite.
        """
        scores = self.scores(self.init(), outcomes.seen)
        threshold = worthwhile(scores, outcomes.gain, outcomes.shares, self.price)
        return Held(self, {"threshold": np.array(threshold)})

    def choose(self, state: Mapping[str, Any], seen: Seen, key: Key) -> tuple[Mapping[str, Any], Move]:
        """Stop, go on or ask, item by item."""
        if seen.scores is None and (move := unanswered(seen)) is not None:
            return state, move
        at = float(state["threshold"])
        return state, sure(self.scores(state, seen) >= at, f"minus the {self.measure} against {at:.4g}")

    def scores(self, state: Mapping[str, Any], seen: Seen) -> np.ndarray:
        """Minus the spread, ``[n]``: 0 where all predictions are the same.

        Raises:
            DataError: no predictions, other shapes, or not finite.
        """
        given = np.asarray(seen.answer if seen.scores is None else seen.scores)
        if given.ndim not in (2, 3) or not given.shape[1] or given.dtype.kind not in "fiub":
            raise DataError(f"predictions of shape {given.shape}", "give [n, members or quantiles], or [n, k, steps]")
        given = given.astype(np.float64)
        if not np.isfinite(given).all():
            raise DataError("predictions that are NaN or infinite", "the model diverged or its input is corrupt")
        apart = given.var(1) if self.measure == "variance" else np.abs(given[:, -1] - given[:, 0])
        return np.asarray(-(apart.mean(1) if apart.ndim == 2 else apart))
