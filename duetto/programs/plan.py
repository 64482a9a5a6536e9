"""Where to cut a network for a device and a link, and whether to cut it at all.

Costs of computing are those of a profile (a roofline of the stages' work, :mod:`duetto.simulation.energy`) or measured
ones; bytes are those of real messages, from the network's own features of the inputs given.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from duetto import codecs
from duetto import tree as trees
from duetto.errors import ConfigError, DataError
from duetto.models import Net, Staged
from duetto.policies import cuts
from duetto.simulation import energy
from duetto.simulation.link import Network
from duetto.tree import Tree
from duetto.types import Chain, Codec

CODECS: Mapping[str, Codec[Any]] = {
    "float32": Chain(),
    "float32+zstd": codecs.Zstd(1),
    "int8+zstd": Chain((codecs.Quantise(8), codecs.Zstd(1))),
    "int4+zstd": Chain((codecs.Quantise(4), codecs.Zstd(1))),
}
"""What a frontier may be coded with."""
CUTS = 24  # that are priced at most, spread over the network's work


@dataclass(frozen=True)
class Input:
    """What an input is like before it is an array.

    Attributes:
        raw_bytes: as it is: pixels, samples or tokens.
        compressed_bytes: as it is usually sent.
        how: what compressed it, and whether that was measured.
    """

    raw_bytes: float
    compressed_bytes: float
    how: str


@dataclass(frozen=True, eq=False)
class Costed:
    """A network's stages between the cuts that are looked at, with what crosses there.

    Attributes:
        names: the last stage before each cut, "" for the first.
        cuts: stages before each.
        flops: of the stages before each.
        device_seconds, cloud_seconds: of these stages.
        nbytes: codec -> real bytes of a message of one row at each cut.
        raw_bytes: of what crosses, uncoded.
    """

    names: tuple[str, ...]
    cuts: tuple[int, ...]
    flops: np.ndarray
    device_seconds: np.ndarray
    cloud_seconds: np.ndarray
    nbytes: Mapping[str, np.ndarray]
    raw_bytes: np.ndarray
    answer_bytes: int


def input_of(net: Net | None, inputs: np.ndarray) -> Input:
    """What the inputs ``[n, ...]`` are like, by their shape.

    An image is JPEG of quality 75 where it looks like one and Pillow is there, else 2.4 bits a pixel (an estimate);
    sound is Opus at 24 kbit/s; anything else goes through zstd.
    """
    row = inputs[0]
    kind = type(net).__name__ if net is not None else ""
    if kind == "Speech":  # frames of 10 ms
        seconds = row.shape[-1] / 100
        return Input(32_000 * seconds, 3_000 * seconds, "Opus at 24 kbit/s (an estimate)")
    if row.ndim == 3 and row.shape[0] in (1, 3) and min(row.shape[1:]) >= 8:
        pixels = row.shape[1] * row.shape[2]
        sizes = [_jpeg(each) for each in inputs[:16]]
        if all(sizes):
            return Input(pixels * row.shape[0], float(np.mean(sizes)), "JPEG, quality 75 (measured)")
        return Input(pixels * row.shape[0], pixels * 2.4 / 8, "JPEG (an estimate of 2.4 bits a pixel)")
    zstd = codecs.Zstd(3)
    sizes = [float(trees.size(trees.spec(zstd.encode({}, {"x": each}, ("plan",))[1]))) for each in inputs[:16]]
    width = 2 if row.dtype.kind in "iu" else row.dtype.itemsize
    return Input(float(row.size * width), min(float(np.mean(sizes)), float(row.size * width)), "zstd (measured)")


def _jpeg(row: np.ndarray) -> float | None:
    """Bytes as JPEG, of an image whose values fill 0..255 or 0..1; else None."""
    try:
        from PIL import Image
    except ImportError:
        return None
    low, high = float(row.min()), float(row.max())
    if low < 0 or high > 255 or high == low:
        return None
    pixels = np.rint(row * (255 if high <= 1 else 1)).astype(np.uint8)
    image = Image.fromarray(pixels[0] if len(pixels) == 1 else np.moveaxis(pixels, 0, -1))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=75)
    return float(len(file.getvalue()))


def costed(
    net: Staged,
    inputs: Tree,
    device: energy.Profile | np.ndarray,
    cloud: energy.Profile,
    *,
    names: Sequence[str] = tuple(CODECS),
    most: int = CUTS,
) -> Costed:
    """What the stages cost and what crosses, for one row.

    Args:
        net: the network.
        inputs: of some rows; messages are those of their first row.
        device: a profile, or seconds ``[stages]``.
        cloud: a profile.
        names: of :data:`CODECS`.
        most: cuts to look at, both ends included.

    Raises:
        ConfigError: an unknown codec.
    """
    if unknown := sorted(set(names) - set(CODECS)):
        raise ConfigError(f"no codec is called {unknown[0]!r}", f"use some of {', '.join(CODECS)}")
    chosen = _spread(net, most)
    first = {name: np.asarray(leaf)[:1] for name, leaf in inputs.items()} if net.graph.free_rows else dict(inputs)
    rows = net[:].rows(first)
    features, at, raw, nbytes = first, 0, [], {name: [] for name in names}
    for cut in chosen:
        if cut > at:
            features, at = net[at:cut](features), cut
        message = {"cut": np.int64(cut), "features": features} if 0 < cut < len(net) else features
        raw.append(sum(np.asarray(leaf).nbytes for leaf in features.values()) / rows)
        for name in names:
            codec = CODECS[name]
            coded = codec.encode(codec.init(), message, ("plan", cut))[1]
            nbytes[name].append(trees.size(trees.spec(coded)) / rows)
    flops = np.array([net[:cut].work().flops for cut in chosen])
    own = np.array([_seconds(device, s) for s in net.stages]) if isinstance(device, energy.Profile) else device
    theirs = np.array([_seconds(cloud, stage) for stage in net.stages])
    sums = [np.concatenate([[0.0], np.cumsum(each)])[list(chosen)] for each in (own, theirs)]
    return Costed(
        tuple(net.stages[cut - 1].name if cut else "" for cut in chosen),
        chosen,
        flops,
        *sums,
        {name: np.array(sizes) for name, sizes in nbytes.items()},
        np.array(raw),
        trees.size(trees.spec(features)),
    )


def _seconds(profile: energy.Profile, stage: Any) -> float:
    return max(stage.work.flops / profile.flops, stage.work.bytes / profile.memory_bandwidth)


def _spread(net: Staged, most: int) -> tuple[int, ...]:
    """Both ends, and the cuts with least to send in equal parts of the network's work."""
    if most < 3:
        raise ConfigError(f"{most} cuts", "look at 3 at least")
    inner = list(net.cuts()[1:-1])
    total = net[:].work()
    done = np.array([_share(net[:cut].work(), total) for cut in inner])
    part = np.minimum((done * (most - 2)).astype(int), most - 3)
    sizes = np.array([sum(leaf.nbytes for leaf in net.frontier(cut).values()) for cut in inner])
    kept = [int(np.flatnonzero(part == p)[sizes[part == p].argmin()]) for p in np.unique(part)]
    return (0, *(inner[i] for i in kept), len(net))


def _share(work: Any, total: Any) -> float:
    return float(work.flops / total.flops if total.flops else work.bytes / max(total.bytes, 1.0))


@dataclass(frozen=True, eq=False)
class Planned:
    """What ``duetto plan`` tells.

    Attributes:
        options: all ways to answer.
        costs: of each, at the link: :class:`duetto.policies.cuts.Costs`.
        table: the plans that are ever best over bandwidth and load.
        verdict: whether to split at this link.
    """

    objective: cuts.Objective
    link: Mapping[str, float]
    options: cuts.Options
    costs: cuts.Costs
    table: cuts.Table
    verdict: cuts.Verdict
    notes: tuple[str, ...] = field(default=())


def planned(
    costs: Costed,
    given: Input,
    *,
    objective: cuts.Objective,
    device: energy.Profile,
    cloud: energy.Profile,
    radio: energy.Radio,
    prices: energy.Prices,
    up_mbps: float,
    down_mbps: float,
    rtt_seconds: float,
    queue_seconds: float = 0.0,
    gap_seconds: float = 0.0,
    first_cut: int = 0,
) -> Planned:
    """All ways to answer at a link, the few that are ever best, and the verdict.

    Args:
        gap_seconds: between answers, of which at most the radio's tail is charged.
        first_cut: stages that must be done before anything may leave the device.
    """
    parts = []
    for name, nbytes in costs.nbytes.items():
        ratio = np.maximum(costs.raw_bytes, 1) / np.maximum(nbytes, 1)
        for i in range(1, len(costs.cuts) - 1):
            parts.append((name, i, float(ratio[i])))
    options = _options(costs, given, device, cloud, prices, parts).within(first_cut=first_cut)
    found = cuts.priced(options, up_mbps, down_mbps, rtt_seconds, queue_seconds, radio, gap_seconds)
    return Planned(
        objective,
        {"up_mbps": up_mbps, "down_mbps": down_mbps, "rtt_seconds": rtt_seconds, "queue_seconds": queue_seconds},
        options,
        found,
        cuts.table(options, objective, rtt_seconds=rtt_seconds, radio=radio, gap_seconds=gap_seconds),
        cuts.verdict(
            options, objective, up_mbps, down_mbps, rtt_seconds, queue_seconds, radio, gap_seconds=gap_seconds
        ),
    )


def _options(
    costs: Costed,
    given: Input,
    device: energy.Profile,
    cloud: energy.Profile,
    prices: energy.Prices,
    parts: Sequence[tuple[str, int, float]],
) -> cuts.Options:
    """The options of every cut and codec, with the bytes of its real message."""
    common: dict[str, Any] = {
        "input_bytes": given.raw_bytes,
        "compressed_bytes": given.compressed_bytes,
        "answer_bytes": costs.answer_bytes,
        "watts": device.compute_watts,
        "overhead_seconds": device.overhead_seconds,
        "cloud_overhead_seconds": cloud.overhead_seconds,
        "call_dollars": prices.per_call,
        "second_dollars": prices.per_cloud_second,
    }
    names = dict.fromkeys(name for name, _, _ in parts)
    whole = [
        cuts.chained(
            costs.device_seconds,
            costs.cloud_seconds,
            costs.nbytes[name],
            costs.cuts,
            codings=(cuts.Coding(name, 1.0),),
            **common,
        )
        for name in names
    ]
    if not whole:
        raise DataError("a network without a cut", "it has one stage: ask the cloud, or answer on the device")
    return cuts.joined([whole[0], *(each.rows(each.splits) for each in whole[1:])])


def typical(network: Network) -> dict[str, float]:
    """The medians over time of a network's links: ``up_mbps``, ``down_mbps`` while something gets through, and the round trip."""
    found = {}
    for name in ("up", "down"):
        mbps = np.concatenate([getattr(link, name).mbps for link in network.links])
        seconds = np.concatenate([np.diff(getattr(link, name).seconds) for link in network.links])
        order, on = np.argsort(mbps), mbps > 0
        order = order[on[order]]
        passed = np.cumsum(seconds[order])
        found[f"{name}_mbps"] = float(mbps[order][np.searchsorted(passed, passed[-1] / 2)])
    return found | {"rtt_seconds": float(np.median([link.rtt_seconds for link in network.links]))}
