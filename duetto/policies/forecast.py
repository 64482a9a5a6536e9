"""How fast the link will be, from what its own transfers took: it stays as it is, or it jumps to somewhere it has been.

Mobile links do not wander, they keep their rate for seconds and then jump: into an outage and out of it, from one cell
to another. The forecast is thus a mixture: with the probability that no jump came since the last measurement the rate
is about what was measured, else it is drawn from a histogram of what was measured before. How often this link jumps,
how much it trembles between jumps, and where it has been are learned from every measurement (the posterior of a jump
counts, as in online expectation maximisation; Cappé, Moulines 2009). An outage is a place like any other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from duetto.errors import ConfigError
from duetto.tree import Array, Tree

PLACES = np.geomspace(0.03, 300.0, 13)  # Mbit/s; what is slower than the first is an outage, and all outages are alike
_LOGS = np.log(PLACES)
_STEP = float(_LOGS[1] - _LOGS[0])
_NODES = np.array([1.7320508075688772, 0.0, -1.7320508075688772])  # Gauss-Hermite, three nodes of the normal law
_WEIGHTS = np.array([1 / 6, 2 / 3, 1 / 6])
SLOW = 2
"""The node of :meth:`Jumps.ahead` that is the slowest without a jump."""


@dataclass(frozen=True)
class Jumps:
    """Hyper-parameters of the forecast.

    Attributes:
        seconds: between two jumps of a link of which nothing is known, above 0.
        trust: jumps that this counts as, above 0.
        tremble: standard deviation of the logarithm between jumps, at first; above 0.
        least: the smallest such deviation, above 0.
        memory: measurements that the histogram remembers, above 1.
        first_mbps: about where a link is believed to be before anything was heard.
        doubt: measurements that this counts as, above 0.
        outage: share of jumps that are taken to lead into an outage, however rare they were; 0..1.
        lead: seconds that a request lies ahead of the moment of its decision, from 0.

    Raises:
        ConfigError: a number out of range.
    """

    seconds: float = 15.0
    trust: float = 2.0
    tremble: float = 0.25
    least: float = 0.1
    memory: float = 60.0
    first_mbps: float = 3.0
    doubt: float = 1.0
    outage: float = 0.02
    lead: float = 0.5

    def __post_init__(self) -> None:
        for name in ("seconds", "trust", "tremble", "least", "first_mbps", "doubt"):
            if not 0 < getattr(self, name) < np.inf:
                raise ConfigError(f"{name}={getattr(self, name)}", "use a number above 0")
        if not 1 < self.memory < np.inf:
            raise ConfigError(f"a memory of {self.memory} measurements", "use more than 1")
        if not (0 <= self.outage <= 1 and 0 <= self.lead < np.inf):
            raise ConfigError(f"an outage of {self.outage}, a lead of {self.lead}", "use a share, and seconds from 0")

    def begun(self, shape: tuple[int, ...] = ()) -> dict[str, Any]:
        """Nothing heard.

        ``level`` (logarithm of the last Mbit/s), ``variance`` between jumps, ``jumps`` and ``lived`` (seconds) as
        counted, ``heard`` (measurements) and ``time`` of the last one, each of that shape, and ``been``, of that shape
        and the places: the histogram.
        """
        prior = np.exp(-0.5 * ((_LOGS - np.log(self.first_mbps)) / 1.5) ** 2)
        return {
            "level": np.full(shape, np.log(self.first_mbps)),
            "variance": np.full(shape, self.tremble**2),
            "jumps": np.full(shape, self.trust),
            "lived": np.full(shape, self.trust * self.seconds),
            "heard": np.zeros(shape),
            "time": np.zeros(shape),
            "been": np.broadcast_to(self.doubt * prior / prior.sum(), (*shape, len(PLACES))).copy(),
        }

    def kept(self, state: Tree, time: Array) -> np.ndarray:
        """The probability that no jump came since the last measurement."""
        age = np.maximum(time - state["time"], 0.0)
        return np.asarray(np.where(state["heard"] > 0, np.exp(-age * state["jumps"] / state["lived"]), 0.0))

    def ahead(self, state: Tree, time: Array) -> tuple[np.ndarray, np.ndarray]:
        """Rates (Mbit/s) that may be at a time in seconds, and their probabilities, each ``[..., nodes]``."""
        kept = self.kept(state, time + self.lead)[..., None]
        near = np.exp(state["level"][..., None] + np.sqrt(state["variance"])[..., None] * _NODES)
        been = state["been"] / state["been"].sum(-1, keepdims=True)
        been = (1 - self.outage) * been + self.outage * (np.arange(len(PLACES)) == 0)
        far = np.broadcast_to(PLACES, been.shape)
        return np.concatenate([near, far], -1), np.concatenate([kept * _WEIGHTS, (1 - kept) * been], -1)

    def heard(self, state: Tree, time: Array, mbps: Array) -> dict[str, Any]:
        """The state after measurements ``mbps`` (NaN: none) that ended at ``time``; 0 is an outage."""
        told = ~np.isnan(mbps)
        found = np.clip(np.log(np.maximum(np.where(told, mbps, 1.0), PLACES[0])), _LOGS[0], _LOGS[-1])
        kept = self.kept(state, time)
        off = found - state["level"]
        near = kept * np.exp(-0.5 * off * off / state["variance"]) / np.sqrt(2 * np.pi * state["variance"])
        # A measurement counts for the two places between which it lies.
        here = np.maximum(1 - np.abs(found[..., None] - _LOGS) / _STEP, 0.0)
        been = state["been"]
        far = (1 - kept) * ((been * here).sum(-1) / been.sum(-1) + 0.01) / _STEP
        stayed = np.where(state["heard"] > 0, near / np.maximum(near + far, 1e-300), 0.5)
        known = state["heard"] > 0
        fade = 1 - 1 / self.memory
        pace = 0.1 * stayed * known
        variance = np.maximum(state["variance"] + pace * (off * off - state["variance"]), self.least**2)
        age = np.clip(time - state["time"], 0.0, 30.0)
        after = {
            "level": found,
            "variance": np.minimum(variance, 1.0),
            "jumps": np.where(known, fade * state["jumps"] + (1 - stayed), state["jumps"]),
            "lived": np.where(known, fade * state["lived"] + age, state["lived"]),
            "heard": state["heard"] + 1,
            "time": np.broadcast_to(np.asarray(time, np.float64), np.shape(found)),
        }
        shown = {name: np.where(told, value, state[name]) for name, value in after.items()}
        return {**state, **shown, "been": np.where(told[..., None], fade * been + here, been)}
