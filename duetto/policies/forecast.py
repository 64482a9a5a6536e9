"""How fast the link will be, from what its own transfers took: a filter that knows how little it knows.

The logarithm of the bandwidth is taken to wander about a mean and to be pulled back to it (Ornstein & Uhlenbeck 1930); a
Kalman filter (1960) follows it from transfers at any times. Its spread grows while nothing is heard, so that what to
probe and how long to wait need no rules of their own. The mean is that of what was heard, and how far the link swings
follows how wrong the forecasts were.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from duetto.errors import ConfigError
from duetto.tree import Array, Tree

LEAST_MBPS = 0.02  # what is slower is an outage, and all outages are alike
_SWING = (0.05, 3.0)  # bounds of the variance


@dataclass(frozen=True)
class Wander:
    """Hyper-parameters of the filter.

    Attributes:
        seconds: in which the link forgets where it was, above 0.
        noise: variance of one measurement's logarithm, above 0.
        swing: variance of the logarithm at first, within 0.05..3.
        pace: how fast the variance follows surprises, 0..1.
        first_mbps: what is believed before anything was heard.

    Raises:
        ConfigError: a number out of range.
    """

    seconds: float = 20.0
    noise: float = 0.05
    swing: float = 0.7
    pace: float = 0.1
    first_mbps: float = 3.0

    def __post_init__(self) -> None:
        for name in ("seconds", "noise", "first_mbps"):
            if not 0 < getattr(self, name) < np.inf:
                raise ConfigError(f"{name}={getattr(self, name)}", "use a number above 0")
        if not (_SWING[0] <= self.swing <= _SWING[1] and 0 <= self.pace <= 1):
            raise ConfigError(f"a swing of {self.swing}, a pace of {self.pace}", "use 0.05 to 3, and 0 to 1")

    def begun(self, shape: tuple[int, ...] = ()) -> dict[str, Any]:
        """Nothing heard: ``level``, ``spread``, ``mean``, ``swing``, ``heard`` and ``time``, each of that shape."""
        level = np.full(shape, np.log(self.first_mbps))
        return {
            "level": level,
            "spread": np.full(shape, self.swing),
            "mean": level.copy(),
            "swing": np.full(shape, self.swing),
            "heard": np.zeros(shape),
            "time": np.zeros(shape),
        }

    def ahead(self, state: Tree, time: Array) -> tuple[Array, Array]:
        """Mean and variance of the bandwidth's logarithm (Mbit/s) at a time in seconds."""
        kept = np.exp(np.minimum(state["time"] - time, 0.0) / self.seconds)
        level = state["mean"] + (state["level"] - state["mean"]) * kept
        return level, state["swing"] + (state["spread"] - state["swing"]) * kept * kept

    def heard(self, state: Tree, time: Array, mbps: Array) -> dict[str, Any]:
        """The state after measurements ``mbps`` (NaN: none) that ended at ``time``; 0 is an outage."""
        told = ~np.isnan(mbps)
        found = np.log(np.maximum(np.where(told, mbps, 1.0), LEAST_MBPS))
        level, spread = self.ahead(state, time)
        surprise, expected = found - level, spread + self.noise
        gain = spread / expected
        # The first measurement is believed, and the mean becomes that of some thirty.
        count = state["heard"] + 1
        gain = np.where(count == 1, np.maximum(gain, 0.95), gain)
        mean = state["mean"] + (found - state["mean"]) / np.clip(count, 1.0, 30.0)
        ratio = np.where(count == 1, 1.0, np.minimum(surprise * surprise / expected, 9.0))
        swing = np.clip(state["swing"] * (1 + self.pace * (ratio - 1)), *_SWING)
        after = {
            "level": level + gain * surprise,
            "spread": np.minimum((1 - gain) * spread, swing),
            "mean": mean,
            "swing": swing,
            "heard": count,
            "time": np.broadcast_to(np.asarray(time, np.float64), np.shape(level)),
        }
        return {**state, **{name: np.where(told, value, state[name]) for name, value in after.items()}}
