"""What a network lets through over time, measured or made up.

Units are those of the published traces: seconds and Mbit/s (1e6 bits a second). The formats read here are
Pensieve's "cooked" one (Mao et al., SIGCOMM 2017), Mahimahi's (Netravali et al., USENIX ATC 2015) and the table
of Ookla speed tests of Narayanan et al. (SIGCOMM 2021).
"""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from duetto.errors import ConfigError, DataError
from duetto.types import rng

Floats = NDArray[np.float64]

PACKET_BYTES = 1504  # one Mahimahi delivery opportunity: an MTU of 1,500 bytes and its link header
BIN_SECONDS = 0.5  # what Mahimahi's packets are counted over; a trace then has two values a second, as cooked ones


@dataclass(frozen=True, eq=False)
class Trace:
    """Bandwidth, constant from edge to edge, repeated for ever in both directions of time.

    Attributes:
        seconds: [k + 1] float64 edges, from 0, strictly increasing; the last one is the period.
        mbps: [k] float64, Mbit/s between two edges; 0 is an outage.
        name: for messages and logs.

    Raises:
        DataError: other shapes, not finite, edges that do not increase from 0, negative, or zero throughout.
    """

    seconds: Floats
    mbps: Floats
    name: str

    def __post_init__(self) -> None:
        seconds, mbps = np.array(self.seconds, np.float64), np.array(self.mbps, np.float64)
        if seconds.ndim != 1 or mbps.ndim != 1 or not len(mbps) or len(seconds) != len(mbps) + 1:
            raise DataError(f"trace {self.name} has no values", "a trace needs two times at least, and a rate for each")
        if not (np.isfinite(seconds).all() and np.isfinite(mbps).all()):
            raise DataError(f"trace {self.name} has values that are not finite", "remove those rows")
        if seconds[0] != 0 or (np.diff(seconds) <= 0).any():
            raise DataError(
                f"trace {self.name} has times that do not increase", "sort its rows and drop repeated times"
            )
        if (mbps < 0).any() or not (np.diff(seconds) * mbps).any():
            raise DataError(f"trace {self.name} is negative or lets nothing through", "leave it out")
        for name, array in (("seconds", seconds), ("mbps", mbps)):
            array.setflags(write=False)
            object.__setattr__(self, name, array)

    @cached_property
    def _passed(self) -> Floats:
        """[k + 1] Mbit let through from 0 to each edge."""
        return np.concatenate([[0.0], np.cumsum(np.diff(self.seconds) * self.mbps)])

    @cached_property
    def _peak(self) -> float:
        return float(self.mbps.max())

    @property
    def steady(self) -> bool:
        """Whether it never changes."""
        return len(self.mbps) == 1

    def at(self, time: float) -> float:
        """Mbit/s at ``time``; an edge belongs to what follows it."""
        inside = time % self.seconds[-1]
        return float(self.mbps[min(np.searchsorted(self.seconds, inside, side="right"), len(self.mbps)) - 1])

    def megabits(self, start: float, end: float) -> float:
        """Mbit that pass from ``start`` to ``end``: the integral, exact but for rounding."""
        (first, a), (last, b) = divmod(start, self.seconds[-1]), divmod(end, self.seconds[-1])
        into = np.interp([a, b], self.seconds, self._passed)
        return float((last - first) * self._passed[-1] + into[1] - into[0])

    def after(self, start: float, megabits: float) -> float:
        """The first time at which ``megabits`` have passed since ``start``: exact, and whole periods cost no loop.

        Exact but for rounding, that is; what only rounding leaves over does not wait for the end of an outage.
        """
        if self.steady:
            return start + megabits / float(self.mbps[0])
        period, total = self.seconds[-1], self._passed[-1]
        rounding = 16 * np.finfo(np.float64).eps * (total + megabits + abs(start) * self._peak)
        if megabits <= rounding:
            return start
        periods, inside = divmod(start, period)
        more, rest = divmod(float(np.interp(inside, self.seconds, self._passed)) + megabits, total)
        if rest <= rounding:  # a period's worth: done at the end of the last one, before any outage that closes it
            more, rest = more - 1, rest + total
        edge = int(np.searchsorted(self._passed, rest - rounding)) - 1
        time = self.seconds[edge] + (rest - self._passed[edge]) / self.mbps[edge]
        return max(start, float((periods + more) * period + min(time, self.seconds[edge + 1])))


@dataclass(frozen=True, eq=False)
class Speeds:
    """Speed tests over one type of radio: [n] float64 each; ``kilometres`` to the server is nan where unknown."""

    rtt_seconds: Floats
    up_mbps: Floats
    down_mbps: Floats
    kilometres: Floats


def constant(mbps: float) -> Trace:
    """Always ``mbps`` Mbit/s.

    Raises:
        ConfigError: not a positive number.
    """
    return Trace(np.array([0.0, 1.0]), np.array([_positive(mbps)]), f"constant-{mbps:g}")


def scaled(trace: Trace, factor: float) -> Trace:
    """``trace`` with ``factor`` times its bandwidth."""
    return Trace(trace.seconds, trace.mbps * factor, trace.name)


_LEVELS = np.array([0.0, 0.3, 1.0, 2.0])  # outage, poor, fair, good, relative to fair
_MOVES = np.array([[0.5, 0.25, 0.25, 0], [0.02, 0.88, 0.1, 0], [0.01, 0.07, 0.87, 0.05], [0.01, 0, 0.09, 0.9]])


def synthetic(mean_mbps: float, seed: int, seconds: int = 300) -> Trace:
    """A made-up mobile link: a Markov chain over outage, poor, fair and good, one step a second.

    A level is left after some ten seconds, an outage after two on average; about 2 % of the seconds are outages,
    as in the walked 4G traces of Lumos5G. Within a level the rate is log-normal (sigma 0.2). It starts fair and is
    scaled so that its mean over time is exactly ``mean_mbps``.

    Raises:
        ConfigError: not a positive mean, or less than a second.
    """
    if seconds < 1:
        raise ConfigError(f"a trace of {seconds} s", "give one whole second at least")
    random = rng(("synthetic", seed))
    draws, state, states = random.random(seconds), 2, [2]
    for draw in draws[1:]:
        state = min(int(np.searchsorted(np.cumsum(_MOVES[state]), draw, side="right")), len(_LEVELS) - 1)
        states.append(state)
    mbps = _LEVELS[states] * np.exp(0.2 * random.standard_normal(len(states)))
    name = f"synthetic-{mean_mbps:g}-{seed}"
    return Trace(np.arange(len(states) + 1.0), mbps * (_positive(mean_mbps) / mbps.mean()), name)


def cooked(path: Path) -> Trace:
    """A trace of two columns without header: time in seconds, Mbit/s over the interval that ends there.

    As in Pensieve, the first row only tells when the trace begins. A name that ends in ``.gz`` is gzipped.

    Raises:
        DataError: missing, not two columns of numbers, or no valid :class:`Trace`.
    """
    try:
        rows = np.loadtxt([line for line in _text(path).splitlines() if line.strip()] or ["nan"], ndmin=2)
    except ValueError as error:
        raise DataError(
            f"{path} is no trace ({error})", "it needs two columns of numbers, seconds and Mbit/s"
        ) from error
    if rows.shape[1] != 2 or len(rows) < 2:
        raise DataError(f"{path} is no trace", "it needs two rows and two columns at least: seconds and Mbit/s")
    return Trace(rows[:, 0] - rows[0, 0], rows[1:, 1], _name(path))


def mahimahi(path: Path) -> Trace:
    """A Mahimahi trace: a line for each packet of 1,504 bytes, the millisecond at which it may pass.

    Packets are counted over half seconds; the last line ends the trace, as in Mahimahi.

    Raises:
        DataError: missing, not whole numbers, running backwards, or no valid :class:`Trace`.
    """
    try:
        times = np.array(_text(path).split(), np.int64) / 1000
    except (ValueError, OverflowError) as error:
        raise DataError(
            f"{path} is no Mahimahi trace ({error})", "it needs one whole number of milliseconds a line"
        ) from error
    if not len(times) or times[0] < 0 or times[-1] <= 0 or (np.diff(times) < 0).any():
        raise DataError(
            f"{path} has times that run backwards, or none", "a Mahimahi trace is sorted and ends after 0 ms"
        )
    edges = np.append(np.arange(0, times[-1], BIN_SECONDS), times[-1])
    packets, _ = np.histogram(times, edges)
    return Trace(edges, packets * PACKET_BYTES * 8e-6 / np.diff(edges), _name(path))


def speedtests(path: Path) -> Mapping[str, Speeds]:
    """Ookla's speed tests by ``radio_type``; rows without a positive speed both ways and a latency are left out.

    Raises:
        DataError: missing, or without the columns named here.
    """
    names = ("latency_ms", "uplink_Mbps", "downlink_Mbps", "UE_Server_distance_km")
    found: dict[str, list[list[float]]] = {}
    try:
        for row in csv.DictReader(io.StringIO(_text(path))):
            if None in row.values():
                raise ValueError("a row is cut short")
            values = [float(row[name] or "nan") for name in names]
            if all(0 < value < np.inf for value in values[:3]):
                found.setdefault(row["radio_type"], []).append(values)
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise DataError(
            f"{path} is no table of speed tests ({error})", f"it needs radio_type, {', '.join(names)}"
        ) from error
    columns = {radio: np.array(rows).T for radio, rows in found.items()}
    return MappingProxyType({radio: Speeds(ms / 1000, up, down, far) for radio, (ms, up, down, far) in columns.items()})


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
        return (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read ({error})", "fetch it again, or leave it out of index.csv") from error


def _name(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


def _positive(mbps: float) -> float:
    if not (np.isfinite(mbps) and mbps > 0):
        raise ConfigError(f"a bandwidth of {mbps} Mbit/s", "give a positive number")
    return float(mbps)
