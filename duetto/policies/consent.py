"""Nothing leaves a device without consent, and never more than its user allows in a period.

A wrapper around whatever selects samples: it shows the selection only what may leave, and cuts off what would exceed
the limits. The limits are hard: for every pool, every selection and every order of calls.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from duetto.errors import ConfigError, DataError
from duetto.policies.availability import online
from duetto.policies.priced import positive
from duetto.tree import Array
from duetto.types import Action, Key, Move, Policy, Seen


@dataclass(frozen=True)
class Consented(Policy[Mapping[str, Any]]):
    """Send what the inner policy selects of what the user lets go, within limits by period.

    A state is one user's: give each device its own. Consent is the trait ``consent`` (``[n]`` bool, sample by sample),
    so that it can be withdrawn at any time, else ``given``; there is no default, as nobody has consented by default.
    Time is the trait ``time`` (its latest), else the number of earlier selections; a time before the latest one counts
    as the latest. Samples are kept in the pool's order until a limit is reached; one that is too large for what is
    left is passed over. A sample that may not be sent has the propensity 1; others have the inner policy's, of being
    selected, which where a limit cut some off is an upper bound for those sent.

    State: ``inner``; ``period`` (int64 scalar), ``latest`` (float64), ``samples`` and ``bytes`` (int64, uploaded in
    this period), ``rounds`` (int64, selections).

    Args:
        inner: a selection, such as ``LeastSure(32)``.
        given: whether the user has consented, where samples do not say.
        samples: the most uploads a period.
        bytes: the most bytes a period, by the trait ``bytes`` ``[n]``; None has no limit.
        period: its length in the unit of ``time``, or in selections.

    Raises:
        ConfigError: a limit below 0, a period not above 0, or an inner policy that selects no samples.
    """

    inner: Policy[Any]
    given: bool
    samples: int
    bytes: int | None = None
    period: float = 1.0

    def __post_init__(self) -> None:
        if not hasattr(self.inner, "sampling"):
            raise ConfigError(f"{type(self.inner).__name__} selects no samples", "use LeastSure, KCentre, ...")
        if self.samples < 0 or (self.bytes or 0) < 0:
            raise ConfigError(f"limits of {self.samples} samples and {self.bytes} bytes", "use numbers from 0")
        positive("period", self.period)

    @property
    def sampling(self) -> str:
        """The limits depend on what was sent before, and so on the data."""
        return "data-dependent"

    def init(self) -> Mapping[str, Any]:
        """Nothing sent."""
        counts = {name: np.array(0) for name in ("period", "samples", "bytes", "rounds")}
        return {"inner": self.inner.init(), "latest": np.array(-np.inf), **counts}

    def choose(self, state: Mapping[str, Any], seen: Seen, key: Key) -> tuple[Mapping[str, Any], Move]:
        """Select, as far as it is allowed.

        Raises:
            DataError: consent, sizes or times that are none, or no sizes where bytes are limited.
        """
        latest = max(float(state["latest"]), _time(seen, int(state["rounds"])))
        period = int(state["period"]) if math.isinf(latest) else int(latest // self.period)
        same = period == int(state["period"])
        samples, used = (int(state[name]) if same else 0 for name in ("samples", "bytes"))
        sizes, most = self._sizes(seen), math.inf if self.bytes is None else self.bytes
        may = self._consent(seen) & (sizes <= most - used) & (samples < self.samples)
        rows = np.flatnonzero(may)
        inner, move = self.inner.choose(state["inner"], seen.rows(rows), key)
        action, propensity = np.full(seen.size, Action.STOP, np.int8), np.ones(seen.size)
        wanted = np.asarray(move.action) == Action.ASK
        propensity[rows] = move.propensity
        for row in rows[wanted].tolist():
            if samples < self.samples and used + sizes[row] <= most:
                action[row], samples, used = Action.ASK, samples + 1, used + int(sizes[row])
            else:
                propensity[row] = 1.0
        counts = {"period": period, "samples": samples, "bytes": used, "rounds": int(state["rounds"]) + 1}
        after = {"inner": inner, "latest": np.array(latest), **{name: np.array(n) for name, n in counts.items()}}
        return after, replace(move, action=action, propensity=propensity, why=f"{move.why}, as far as allowed")

    def learn(self, state: Mapping[str, Any], seen: Seen, move: Move, reward: Array) -> Mapping[str, Any]:
        """The inner policy learns."""
        return {**state, "inner": self.inner.learn(state["inner"], seen, move, reward)}

    def _consent(self, seen: Seen) -> np.ndarray:
        column = (seen.traits or {}).get("consent")
        if column is None:
            return np.asarray(online(seen) & self.given)
        consent = np.asarray(column)
        if consent.shape != (seen.size,) or consent.dtype != bool:
            raise DataError(f"consent of shape {consent.shape} and dtype {consent.dtype}", f"give {seen.size} booleans")
        return np.asarray(consent & online(seen))

    def _sizes(self, seen: Seen) -> np.ndarray:
        column = (seen.traits or {}).get("bytes")
        if column is None:
            if self.bytes is not None:
                raise DataError("bytes are limited, and the samples' are not known", "give the trait bytes [n]")
            return np.zeros(seen.size, np.int64)
        sizes = np.asarray(column)
        if sizes.shape != (seen.size,) or sizes.dtype.kind not in "iu" or (sizes < 0).any():
            raise DataError(f"bytes of shape {sizes.shape} and dtype {sizes.dtype}", "give whole numbers from 0")
        return sizes.astype(np.int64)


def _time(seen: Seen, rounds: int) -> float:
    column = (seen.traits or {}).get("time")
    if column is None:
        return float(rounds)
    array = np.asarray(column, np.float64)
    if array.shape != (seen.size,) or not np.isfinite(array).all():
        raise DataError("times that are not one finite number a sample", "give the trait time [samples]")
    return float(array.max()) if seen.size else -math.inf
