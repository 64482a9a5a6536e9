"""Every way to answer with a network that can be cut, what each costs over a link, and the few that are ever best.

The options of Neurosurgeon (Kang et al., ASPLOS 2017) are a cut each; here a cut with a codec and with exits, and
beside them always the three that need no cut: the device alone, and the cloud alone with the input as it is and
compressed. A split has to beat those. Of hundreds of options one to six are ever best over all bandwidths and cloud
loads; they are the :class:`Table` that a device needs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np

from duetto.errors import ConfigError, DataError
from duetto.tree import Array
from duetto.types import Codec, Plan

Objective: TypeAlias = Literal["latency", "energy", "price"]

OBJECTIVES: tuple[Objective, ...] = ("latency", "energy", "price")
DEVICE, RAW, COMPRESSED = "device", "cloud, input as it is", "cloud, input compressed"


INPUT = "input"
"""The name of the codec that compresses the input of :data:`COMPRESSED`."""


class Radio(Protocol):
    """Watts above idle while sending, while receiving, and for ``tail_seconds`` after the last bit."""

    @property
    def up_watts(self) -> float: ...
    @property
    def down_watts(self) -> float: ...
    @property
    def tail_watts(self) -> float: ...
    @property
    def tail_seconds(self) -> float: ...


@dataclass(frozen=True)
class Coding:
    """What a codec does to what crosses a cut.

    Attributes:
        name: of the codec.
        ratio: bytes before over bytes after.
        encode_seconds, decode_seconds: for each byte before, on the device and in the cloud.
        slowdown: share by which the device's stages take longer (a learned bottleneck).
        excess_risk: accuracy that it loses, 0..1.
    """

    name: str
    ratio: float
    encode_seconds: float = 0.0
    decode_seconds: float = 0.0
    slowdown: float = 0.0
    excess_risk: float = 0.0


@dataclass(frozen=True)
class ExitShares:
    """Exits of the network: after ``at`` of its time, ``answered`` of all inputs have left it.

    Attributes:
        at: shares of the network's seconds, rising.
        answered: shares of the inputs, rising.
        excess_risk: accuracy that they lose, 0..1.
    """

    at: tuple[float, ...]
    answered: tuple[float, ...]
    excess_risk: float = 0.0

    def passed(self, share: float, slack: float = 1e-9) -> tuple[float, float]:
        """Of a network computed up to ``share``: the share of inputs that left, and where on average those did."""
        steps = np.diff(np.concatenate([[0.0], self.answered]))
        here = np.asarray(self.at) <= share + slack
        left = float(steps[here].sum())
        return left, float((steps[here] * np.asarray(self.at)[here]).sum() / left) if left else 0.0

    def computed(self, share: float) -> float:
        """Seconds of the rest after ``share``, mean over the inputs that reach it, as a share of the whole."""
        left, _ = self.passed(share)
        marks, still = [share], [1 - left]
        for at, answered in zip(self.at, self.answered, strict=True):
            if at > share:
                marks.append(at)
                still.append(1 - answered)
        spans = np.diff([*marks, 1.0])
        return float((spans * still).sum() / (1 - left))


@dataclass(frozen=True, eq=False)
class Options:
    """Columns, one row a way to answer.

    Attributes:
        label: what a person reads.
        cut: the stages of the device: the first so many, or by name.
        codec: the name of what encodes the frontier; "" sends it as it is.
        exit: the exit that may answer on the device; None where there is none.
        device_seconds: before the first bit is sent, encoding included; all of it where nothing is sent.
        rest_seconds: from there to the answer on the device alone.
        cloud_seconds: decoding included.
        up_bytes, down_bytes: both 0 where nothing is sent.
        device_joules, rest_joules: of these seconds.
        dollars: of a call.
        excess_risk: accuracy that is lost, 0..1.
        memory_bytes: that the device must hold.
        early_share: of the inputs, which an exit answers before anything would be sent.
        early_seconds, early_joules: of such an input, mean.

    Raises:
        DataError: no rows, columns of different lengths, or a number that is negative or not finite.
    """

    label: tuple[str, ...]
    cut: tuple[int | frozenset[str], ...]
    codec: tuple[str, ...]
    exit: tuple[int | None, ...]
    device_seconds: np.ndarray
    rest_seconds: np.ndarray
    cloud_seconds: np.ndarray
    up_bytes: np.ndarray
    down_bytes: np.ndarray
    device_joules: np.ndarray
    rest_joules: np.ndarray
    dollars: np.ndarray
    excess_risk: np.ndarray
    memory_bytes: np.ndarray
    early_share: np.ndarray
    early_seconds: np.ndarray
    early_joules: np.ndarray

    def __post_init__(self) -> None:
        if not self.label:
            raise DataError("no way to answer", "give one option at least")
        for name in ("cut", "codec", "exit"):
            if len(getattr(self, name)) != len(self):
                raise DataError(f"{name} of {len(getattr(self, name))} rows for {len(self)} options", "give one each")
        for name in COLUMNS:
            column = np.array(getattr(self, name), np.float64)
            if column.shape != (len(self),) or not ((column >= 0) & (column < np.inf)).all():
                raise DataError(f"{name} that is not one finite number from 0 an option", f"give {len(self)} of them")
            column.setflags(write=False)
            object.__setattr__(self, name, column)

    def __len__(self) -> int:
        return len(self.label)

    @property
    def sends(self) -> np.ndarray:
        """``[rows]`` bool: whether anything leaves the device."""
        return np.asarray(self.up_bytes > 0)

    @property
    def splits(self) -> np.ndarray:
        """``[rows]`` bool: whether both sides compute."""
        return np.asarray(np.array([bool(cut) for cut in self.cut]) & self.sends)

    def rows(self, which: Array) -> Options:
        """The options at these positions, or where a mask is true."""
        at = np.arange(len(self))[which]
        columns: dict[str, Any] = {
            name: getattr(self, name)[at] if name in COLUMNS else tuple(getattr(self, name)[i] for i in at)
            for name in (field.name for field in fields(self))
        }
        return Options(**columns)

    def leakage(self, measured: Mapping[tuple[int | frozenset[str], str], float]) -> np.ndarray:
        """``[rows]`` of what is ``measured`` of each cut and codec.

        Nothing (-inf) where nothing is sent, and everything (inf) where nobody has measured.
        """
        known = [measured.get(way, math.inf) for way in zip(self.cut, self.codec, strict=True)]
        return np.where(self.sends, known, -math.inf)

    def within(
        self,
        *,
        excess_risk: float = math.inf,
        memory_bytes: float = math.inf,
        first_cut: int = 0,
        max_leakage: float = math.inf,
        measured: Mapping[tuple[int | frozenset[str], str], float] | None = None,
    ) -> Options:
        """The options that lose at most so much accuracy, fit, and send nothing before ``first_cut`` stages are done.

        And that leak at most ``max_leakage``, by a table of what is ``measured`` of a cut and a codec
        (:mod:`duetto.attacks`): what was not measured is above every limit, and what sends nothing below.

        Raises:
            ConfigError: none is left.
        """
        deep = np.array([cut >= first_cut if isinstance(cut, int) else len(cut) >= first_cut for cut in self.cut])
        kept = (self.excess_risk <= excess_risk) & (self.memory_bytes <= memory_bytes) & (deep | ~self.sends)
        kept &= self.leakage(measured or {}) <= max_leakage
        if not kept.any():
            raise ConfigError(
                "no way to answer meets the constraints", "allow more risk, memory or leakage, or an earlier cut"
            )
        return self.rows(kept)

    def plans(self, codecs: Mapping[str, Codec[Any]]) -> tuple[Plan, ...]:
        """Each row as a plan, which a protocol carries out.

        Raises:
            ConfigError: a codec that has no such name here.
        """
        if unknown := sorted({name for name in self.codec if name and name not in codecs}):
            raise ConfigError(f"no codec is called {unknown[0]!r}", f"give one of that name, beside {sorted(codecs)}")
        return tuple(
            Plan(cut, codecs[codec] if codec else None, exit)
            for cut, codec, exit in zip(self.cut, self.codec, self.exit, strict=True)
        )


COLUMNS = tuple(field.name for field in fields(Options))[4:]
"""The columns of :class:`Options` that are numbers."""


def chained(
    device_seconds: Array,
    cloud_seconds: Array,
    crossing_bytes: Array,
    cuts: Sequence[int],
    *,
    input_bytes: float,
    compressed_bytes: float,
    answer_bytes: float,
    watts: float,
    overhead_seconds: float = 0.0,
    cloud_overhead_seconds: float = 0.0,
    codings: Sequence[Coding] = (),
    exits: ExitShares | None = None,
    call_dollars: float = 0.0,
    second_dollars: float = 0.0,
    memory_bytes: Array | None = None,
) -> Options:
    """The options of a network that is cut after a prefix of its stages: three without a cut, then each cut and coding.

    Args:
        device_seconds, cloud_seconds: ``[cuts]`` of the stages before each cut, rising from 0 to those of the network.
        crossing_bytes: ``[cuts]`` that cross each cut uncoded.
        cuts: ``[cuts]`` stages before each cut, from 0 to all.
        input_bytes, compressed_bytes: of the input as it is, and as a photo or sound is usually compressed.
        answer_bytes: that come back.
        watts: of the device while it computes.
        overhead_seconds, cloud_overhead_seconds: of a call that computes anything at all.
        codings: what may encode a frontier; none sends it as it is.
        exits: of the network.
        call_dollars, second_dollars: of a call and of a second of cloud computing.
        memory_bytes: ``[cuts]`` that the device must hold; None is nothing.

    Raises:
        DataError: columns of different lengths, or cuts that do not rise.
    """
    here, there, size = (np.asarray(each, np.float64) for each in (device_seconds, cloud_seconds, crossing_bytes))
    memory = np.zeros(len(cuts)) if memory_bytes is None else np.asarray(memory_bytes, np.float64)
    if not len(cuts) == len(here) == len(there) == len(size) == len(memory) or len(cuts) < 2:
        raise DataError(
            "columns of different lengths, or less than two cuts", "give one number each cut, both ends too"
        )
    if (np.diff(here) < 0).any() or (np.diff(there) < 0).any() or (np.diff(cuts) <= 0).any():
        raise DataError("seconds or cuts that fall", "give the sums over the stages before each cut")
    whole = here[-1]

    def row(label: str, at: int, nbytes: float, coding: Coding | None) -> tuple[Any, ...]:
        sends, share = nbytes > 0, here[at] / whole if whole else 0.0
        slower = 1 + (coding.slowdown if coding else 0.0)
        computed = here[at] * slower + (overhead_seconds if at else 0.0)
        encoding = coding.encode_seconds * size[at] if coding else 0.0
        decoding = coding.decode_seconds * size[at] if coding else 0.0
        left, where = exits.passed(share) if exits else (0.0, 0.0)
        rest = there[-1] - there[at]
        finishing = whole - here[at]
        if exits and at < len(cuts) - 1:
            later = exits.computed(share) / (1 - share)
            rest, finishing = rest * later, finishing * later
        cloud = rest + cloud_overhead_seconds + decoding if sends else 0.0
        resting = finishing + (0.0 if at else overhead_seconds) if sends else 0.0
        early = where * whole * slower + overhead_seconds if left else 0.0
        seconds = computed + encoding
        risk = max(coding.excess_risk if coding else 0.0, exits.excess_risk if exits else 0.0)
        codec = coding.name if coding else INPUT if label == COMPRESSED else ""
        dollars = call_dollars + second_dollars * cloud if sends else 0.0
        return (
            label, int(cuts[at]), codec, 0 if exits else None, seconds, resting, cloud,
            nbytes, answer_bytes if sends else 0.0, seconds * watts, resting * watts, dollars, risk,
            memory[-1] if resting or not sends else memory[at], left, early, early * watts,
        )  # fmt: skip

    found = [row(DEVICE, len(cuts) - 1, 0.0, None)]
    found.append(row(RAW, 0, input_bytes, None))
    found.append(row(COMPRESSED, 0, compressed_bytes, None))
    for coding in codings or (None,):
        for at in range(1, len(cuts) - 1):
            name = coding.name if coding else "as it is"
            found.append(row(f"cut {cuts[at]}, {name}", at, size[at] / (coding.ratio if coding else 1.0), coding))
    return Options(*(tuple(column) for column in zip(*found, strict=True)))  # type: ignore[arg-type]


@dataclass(frozen=True, eq=False)
class Costs:
    """Expected seconds, joules above idle and dollars, each ``[..., rows]``."""

    seconds: np.ndarray
    joules: np.ndarray
    dollars: np.ndarray

    def of(self, objective: Objective) -> np.ndarray:
        """Those of an objective; equal prices are told apart by seconds.

        Raises:
            ConfigError: an unknown objective.
        """
        known(objective)
        if objective == "price":
            return self.dollars + 1e-12 * self.seconds
        return self.seconds if objective == "latency" else self.joules


def known(objective: str) -> None:
    """Raises ConfigError where no objective has that name."""
    if objective not in OBJECTIVES:
        raise ConfigError(f"no objective is called {objective!r}", f"use one of {', '.join(OBJECTIVES)}")


def priced(
    options: Options,
    up_mbps: Array,
    down_mbps: Array | None = None,
    rtt_seconds: Array = 0.0,
    queue_seconds: Array = 0.0,
    radio: Radio | None = None,
    gap_seconds: float = 0.0,
) -> Costs:
    """What every option costs over links.

    Args:
        options: n rows.
        up_mbps, down_mbps: ``[...]`` Mbit/s above 0; None is as fast down as up.
        rtt_seconds, queue_seconds: ``[...]`` round trip, and work that waits in the cloud.
        radio: of the device; None costs nothing.
        gap_seconds: of the tail after an answer that are charged: until the radio is next used.

    Raises:
        DataError: a bandwidth that is not above 0, or a round trip or queue below.
    """
    up = np.asarray(up_mbps, np.float64)
    down = up if down_mbps is None else np.asarray(down_mbps, np.float64)
    rtt, queue = np.asarray(rtt_seconds, np.float64), np.asarray(queue_seconds, np.float64)
    if not ((up > 0).all() and (down > 0).all() and (rtt >= 0).all() and (queue >= 0).all()):
        raise DataError(
            "a bandwidth that is not above 0, or a wait below 0", "leave such links out: nothing gets there"
        )
    sending = options.up_bytes * 8e-6 / up[..., None]
    receiving = options.down_bytes * 8e-6 / down[..., None]
    waiting = (rtt + queue)[..., None] + options.cloud_seconds
    sends, later = options.sends, 1 - options.early_share
    seconds = options.device_seconds + sends * (sending + waiting + receiving)
    joules = options.device_joules + np.zeros_like(seconds)
    if radio is not None:
        joules = joules + sending * radio.up_watts + receiving * radio.down_watts
        tail = np.minimum(waiting, radio.tail_seconds) + min(gap_seconds, radio.tail_seconds)
        joules = joules + sends * radio.tail_watts * tail
    return Costs(
        options.early_share * options.early_seconds + later * seconds,
        options.early_share * options.early_joules + later * joules,
        later * options.dollars + np.zeros_like(seconds),
    )


@dataclass(frozen=True, eq=False)
class Table:
    """The plans that are ever best, and where.

    Attributes:
        options: the rows that are best somewhere on the grid.
        up_mbps: ``[u]``.
        queue_seconds: ``[q]`` of load in the cloud.
        best: ``[u, q]`` rows of ``options``.
    """

    options: Options
    up_mbps: np.ndarray
    queue_seconds: np.ndarray
    best: np.ndarray


GRID_MBPS = tuple(float(each) for each in np.geomspace(0.02, 1000, 120))
GRID_QUEUE = (0.0, 0.03, 0.1, 0.3, 1.0, 3.0)


def table(
    options: Options,
    objective: Objective,
    *,
    up_mbps: Sequence[float] = GRID_MBPS,
    queue_seconds: Sequence[float] = GRID_QUEUE,
    rtt_seconds: float = 0.05,
    radio: Radio | None = None,
    gap_seconds: float = 0.0,
) -> Table:
    """The few options that are best anywhere on a grid of bandwidth and cloud load.

    Raises:
        ConfigError: an unknown objective.
        DataError: see :func:`priced`.
    """
    up, queue = np.asarray(up_mbps, np.float64), np.asarray(queue_seconds, np.float64)
    costs = priced(options, up[:, None], None, rtt_seconds, queue[None, :], radio, gap_seconds).of(objective)
    rows, best = np.unique(costs.argmin(-1), return_inverse=True)
    return Table(options.rows(rows), up, queue, best.reshape(len(up), len(queue)))


@dataclass(frozen=True)
class Verdict:
    """Whether to split over a link, and why.

    Attributes:
        split: whether a split is best by more than the margin.
        label: of the option to take: the best split, or the better extreme.
        gain: the better extreme's cost over that of the best split; above 1 the split is cheaper.
        why: one line.
    """

    split: bool
    label: str
    gain: float
    why: str


def verdict(
    options: Options,
    objective: Objective,
    up_mbps: float,
    down_mbps: float | None = None,
    rtt_seconds: float = 0.05,
    queue_seconds: float = 0.0,
    radio: Radio | None = None,
    *,
    gap_seconds: float = 0.0,
    margin: float = 0.0,
) -> Verdict:
    """Does a split beat the better of the device alone and the cloud alone with a compressed input?

    Args:
        options: as of :func:`chained`, or a part of them.
        objective: what counts.
        up_mbps, down_mbps, rtt_seconds, queue_seconds: of the link, as of :func:`priced`.
        radio, gap_seconds: as of :func:`priced`.
        margin: share by which a split must be cheaper.

    Raises:
        ConfigError: an unknown objective, or neither of the two extremes among the options.
        DataError: see :func:`priced`.
    """
    costs = priced(options, up_mbps, down_mbps, rtt_seconds, queue_seconds, radio, gap_seconds).of(objective)
    raw = np.array([label == RAW for label in options.label])
    extreme = ~options.splits & ~raw
    if not extreme.any():
        raise ConfigError(
            "no way to answer without a split", "keep the device alone or the cloud alone to compare with"
        )
    plain = int(np.where(extreme, costs, np.inf).argmin())
    if not options.splits.any():
        return Verdict(False, options.label[plain], 0.0, f"do not split: no split is allowed; {options.label[plain]}")
    best = int(np.where(options.splits, costs, np.inf).argmin())
    gain = float(costs[plain] / costs[best]) if costs[best] else math.inf if costs[plain] else 1.0
    unit = {"latency": "s", "energy": "J", "price": "$"}[objective]
    both = f"{options.label[plain]} takes {costs[plain]:.3g} {unit}, {options.label[best]} {costs[best]:.3g} {unit}"
    if gain > 1 + margin:
        return Verdict(True, options.label[best], gain, f"split: {both}")
    return Verdict(
        False, options.label[plain], gain, f"do not split: {both}; {_because(options, plain, best, up_mbps)}"
    )


def _because(options: Options, plain: int, best: int, up_mbps: float) -> str:
    """What of the best split is in its way."""
    if options.sends[plain]:
        if options.up_bytes[best] >= options.up_bytes[plain]:
            return "its features are larger than the compressed input"
        saved = (options.up_bytes[plain] - options.up_bytes[best]) * 8e-6 / up_mbps
        return f"the {saved:.3g} s that its features save on the link are lost on the device"
    return "the device is done before its features are there"
