"""The way between a device and the cloud: two traces, a round trip, losses and outages.

A transfer takes the time in which the trace lets its bits through, exactly, and then half a round trip. Transfers
of one link do not slow each other down: a device that sends two things at once must be charged one after the other.
"""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from duetto.errors import ConfigError, DataError
from duetto.simulation.traces import Trace, constant, cooked, mahimahi, scaled, speedtests, synthetic
from duetto.types import Key, rng

Direction: TypeAlias = Literal["up", "down"]

SEGMENT_BYTES = 1460  # what one TCP segment carries over Ethernet: 1,500 less two headers of 20


@dataclass(frozen=True, eq=False)
class Link:
    """One device's way to the cloud.

    Attributes:
        up, down: what the two directions let through.
        rtt_seconds: round trip of an empty packet; half of it is charged to each transfer.
        loss: probability that a segment of 1,460 bytes is lost, each independently, and sent again.
        offset: seconds into both traces at virtual time 0.
        outages: (start, end) in virtual seconds, once each and sorted; an end may be infinite. See :func:`offline`.

    Raises:
        ConfigError: a negative or infinite round trip, or a loss outside [0, 1).
    """

    up: Trace
    down: Trace
    rtt_seconds: float
    loss: float = 0.0
    offset: float = 0.0
    outages: tuple[tuple[float, float], ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.rtt_seconds < math.inf:
            raise ConfigError(f"a round trip of {self.rtt_seconds} s", "give a number of seconds, 0 or more")
        if not 0 <= self.loss < 1:
            raise ConfigError(f"a loss of {self.loss}", "give a probability below 1")

    def sent(self, start: float, nbytes: int, direction: Direction) -> float:
        """The virtual time at which ``nbytes``, sent from ``start`` on, are all on the other side.

        Losses are charged by their expectation: bytes times 1/(1 - loss), and a round trip for each expected round
        of repeats (an upper bound for long transfers, where early losses are repaired while the rest still goes).
        An outage of the trace or of ``outages`` only delays; the result is infinite where the link stays off.

        Raises:
            ConfigError: a negative number of bytes.
        """
        if nbytes < 0:
            raise ConfigError(f"a transfer of {nbytes} bytes", "give 0 or more")
        trace, megabits, time = self._trace(direction), nbytes * 8e-6 / (1 - self.loss), start
        for begin, end in self.outages:
            if time < begin:
                finish = trace.after(time + self.offset, megabits) - self.offset
                if finish <= begin or math.isclose(finish, begin, rel_tol=1e-12, abs_tol=1e-9):  # or but for rounding
                    break
                megabits -= trace.megabits(time + self.offset, begin + self.offset)
            time = max(time, end)
        if math.isinf(time):
            return math.inf
        finish = max(time, trace.after(time + self.offset, megabits) - self.offset)
        return finish + (0.5 + _repeats(-(-nbytes // SEGMENT_BYTES), self.loss)) * self.rtt_seconds

    @property
    def steady(self) -> bool:
        """Whether it never changes, so that it does not matter when it began."""
        return self.up.steady and self.down.steady and not self.outages

    def online(self, time: float) -> bool:
        """Whether both directions let something through at ``time``."""
        return self.mbps(time, "up") > 0 and self.mbps(time, "down") > 0

    def mbps(self, time: float, direction: Direction) -> float:
        """The bandwidth at ``time``, in Mbit/s; 0 in an outage."""
        off = any(begin <= time < end for begin, end in self.outages)
        return 0.0 if off else self._trace(direction).at(time + self.offset)

    def _trace(self, direction: Direction) -> Trace:
        return self.up if direction == "up" else self.down


def offline(link: Link, start: float, end: float = math.inf) -> Link:
    """``link`` with one more outage, from ``start`` to ``end`` on the virtual clock; it happens once, not each period.

    Raises:
        ConfigError: an end that is not after its start.
    """
    if not start < end:
        raise ConfigError(f"an outage from {start} to {end} s", "it must end after it starts")
    return replace(link, outages=tuple(sorted((*link.outages, (start, end)))))


def _repeats(segments: int, loss: float) -> float:
    """The expected number of rounds of repeats: the longest of ``segments`` streaks of losses.

    A segment needs more than r repeats with probability loss^(r + 1), so that the mean is the sum over r >= 1 of
    1 - (1 - loss^r)^segments.
    """
    total, chance = 0.0, loss
    while segments and (term := -math.expm1(segments * math.log1p(-chance))) > 1e-12:
        total, chance = total + term, chance * loss
    return total


@dataclass(frozen=True, eq=False)
class Network:
    """The links of one kind of place; ``radio`` names the radio that a device uses there (``energy.radios()``)."""

    name: str
    links: tuple[Link, ...]
    radio: str = "4g"

    def typical(self) -> dict[str, float]:
        """Medians over the links and time, outages left out: ``up_mbps``, ``down_mbps``, ``rtt_seconds``."""
        found = {}
        for name in ("up", "down"):
            traces = [getattr(link, name) for link in self.links]
            mbps = np.concatenate([trace.mbps for trace in traces])
            seconds = np.concatenate([np.diff(trace.seconds) for trace in traces])
            order, on = np.argsort(mbps), mbps > 0
            order = order[on[order]]
            passed = np.cumsum(seconds[order])
            found[f"{name}_mbps"] = float(mbps[order][np.searchsorted(passed, passed[-1] / 2)])
        return found | {"rtt_seconds": float(np.median([link.rtt_seconds for link in self.links]))}

    def link(self, key: Key) -> Link:
        """One of the links, begun at a random time of its trace; the same for the same key."""
        if len(self.links) == 1 and self.links[0].steady:
            return self.links[0]
        random = rng((*key, "link"))
        link = self.links[int(random.integers(len(self.links)))]
        return replace(link, offset=float(random.uniform(0, link.down.seconds[-1])))


@dataclass(frozen=True)
class _Access:
    """What traces of one direction do not tell: uplink over downlink, and the round trip."""

    uplink: float
    rtt_seconds: float
    radio_type: str = ""  # its name in the table of speed tests, whose medians come first where it is there


# Without the speed tests. 4G and 5G: their medians as distributed with Narayanan et al. (SIGCOMM 2021; 5G is the
# mmWave of the Lumos5G traces), servers within 1,000 km. 3G: uplink from Mahimahi's T-Mobile UMTS pair (0.95 of
# 2.03 Mbit/s); round trip an estimate for HSPA. Wired: estimates; the traces are what web and video sessions got
# (0.3-5 Mbit/s), well below their lines, so that the uplink of such a line is taken to carry as much.
_ACCESS = {
    "3g": _Access(0.47, 0.1),
    "4g": _Access(0.25, 0.049, "4G-LTE"),
    "5g": _Access(0.082, 0.036, "5G-NSA-mmWave"),
    "wifi": _Access(1.0, 0.03),
}
_NEAR = 1000  # km; a large cloud has a region within that of most people. 20-27 ms of the tests' RTT are each 1,000 km
_SETS = {  # name: radio, and (set, file) patterns in index.csv
    "3g-commute": ("3g", (("norway_3g", "*"), ("mahimahi", "*-UMTS-*"), ("mahimahi", "*-EVDO-*"))),
    "4g-commute": ("4g", (("lumos5g_4g", "*"), ("mahimahi", "*-LTE-*"))),
    "4g-drive": ("4g", (("lumos5g_4g", "4g_trace_driving*"), ("mahimahi", "*-LTE-driving*"))),
    "4g-walk": ("4g", (("lumos5g_4g", "4g_trace_walking*"),)),
    "5g": ("5g", (("lumos5g_5g", "*"),)),
    "broadband": ("wifi", (("fcc_broadband", "*"), ("puffer*", "*"), ("oboe", "*"))),
}
NAMES = ("wifi", "synthetic", "constant-<mbps>", *_SETS)


def named(name: str, traces: Path | None = None) -> Network:
    """The network of that name.

    "wifi" is 50 Mbit/s down and 20 up at 25 ms (an estimate: a shared home line). "constant-10" is 10 Mbit/s both
    ways at 50 ms. "synthetic" is eight made-up 4G links of 20 Mbit/s mean. The others replay the measured traces
    in ``traces`` (``$DUETTO_DATA/traces``), chosen by what index.csv lists. Where only one direction was measured,
    the other is scaled by the ratio of the medians of the speed tests, whose median also is the round trip.

    Raises:
        ConfigError: an unknown name.
        DataError: no folder of traces, or none in it for this network.
    """
    if name == "wifi":
        return Network(name, (Link(constant(20), constant(50), 0.025),), "wifi")
    if name == "synthetic":
        access, made = _ACCESS["4g"], [synthetic(20, seed) for seed in range(8)]
        links = tuple(Link(scaled(down, access.uplink), down, access.rtt_seconds) for down in made)
        return Network(name, links, "4g")
    if name.startswith("constant-"):
        try:
            trace = constant(float(name.removeprefix("constant-")))
        except ValueError:
            raise ConfigError(f"no network is called {name!r}", "write its Mbit/s as a number: constant-10") from None
        return Network(name, (Link(trace, trace, 0.05),), "wifi")
    if name not in _SETS:
        raise ConfigError(f"no network is called {name!r}", f"use one of {', '.join(NAMES)}")
    radio, patterns = _SETS[name]
    folder = traces or _folder()
    access = _measured(folder, _ACCESS[radio])
    pairs: dict[str, dict[str, Trace]] = {}
    for kind, file in _index(folder):
        if any(fnmatchcase(kind, a) and fnmatchcase(file, b) for a, b in patterns):
            stem, _, direction = file.rpartition(".")
            if kind == "mahimahi" and direction in ("up", "down"):
                pairs.setdefault(f"{kind}/{stem}", {})[direction] = mahimahi(folder / kind / f"{file}.gz")
            else:
                pairs.setdefault(f"{kind}/{file}", {})["down"] = cooked(folder / kind / file)
    if not pairs:
        raise DataError(f"{folder} has no traces for {name!r}", "fetch them, or use wifi, synthetic or constant-<mbps>")
    links = tuple(_link(pair, access) for _, pair in sorted(pairs.items()))
    return Network(name, links, radio)


def _link(pair: dict[str, Trace], access: _Access) -> Link:
    down = pair.get("down") or scaled(pair["up"], 1 / access.uplink)
    up = pair.get("up") or scaled(down, access.uplink)
    return Link(up, down, access.rtt_seconds)


def _measured(folder: Path, access: _Access) -> _Access:
    """``access`` with the medians of the speed tests in ``folder``, if it has any of that radio."""
    for path in sorted(folder.glob("speedtest*/*.csv.gz")):
        if speeds := speedtests(path).get(access.radio_type):
            near = speeds.kilometres <= _NEAR
            chosen = near if near.any() else np.full_like(near, True)
            uplink = float(np.median(speeds.up_mbps) / np.median(speeds.down_mbps))
            return replace(access, uplink=uplink, rtt_seconds=float(np.median(speeds.rtt_seconds[chosen])))
    return access


def _folder() -> Path:
    if not (data := os.environ.get("DUETTO_DATA")):
        raise DataError("no folder of network traces", "set DUETTO_DATA to the folder that holds traces/")
    return Path(data) / "traces"


def _index(folder: Path) -> Sequence[tuple[str, str]]:
    path = folder / "index.csv"
    try:
        with path.open(newline="", encoding="utf-8") as lines:
            return sorted((row["set"], row["file"]) for row in csv.DictReader(lines))
    except (OSError, KeyError, TypeError, ValueError, csv.Error) as error:
        raise DataError(
            f"{path} cannot be read ({error})", "set DUETTO_DATA to the folder that holds traces/"
        ) from error
