"""Where to cut a network for a device and a link, and whether to cut it at all.

Costs of computing are those of a profile (a roofline of the stages' work, :mod:`duetto.simulation.energy`) or measured
ones; bytes are those of real messages, from the network's own features of the inputs given.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from duetto import codecs
from duetto import tree as trees
from duetto.errors import ConfigError, DataError
from duetto.evaluation import records, report, table
from duetto.evaluation.result import Map, Result
from duetto.models import Net, Staged
from duetto.models.graph import Stage
from duetto.policies import cuts
from duetto.programs import runs
from duetto.simulation import energy
from duetto.tree import Tree
from duetto.types import Chain, Codec

CODECS: Mapping[str, Codec[Any]] = {
    "float32+zstd": codecs.Zstd(1),
    "int8+zstd": Chain((codecs.Quantise(8), codecs.Zstd(1))),
    "int4+zstd": Chain((codecs.Quantise(4), codecs.Zstd(1))),
}
"""What a frontier may be coded with; what a coarser one costs in accuracy is for the user to measure."""
USUAL = ("float32+zstd", "int8+zstd")  # those that lose next to nothing
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
        answer_bytes: of what comes back.
    """

    names: tuple[str, ...]
    cuts: tuple[int, ...]
    flops: np.ndarray
    device_seconds: np.ndarray
    cloud_seconds: np.ndarray
    nbytes: Mapping[str, np.ndarray]
    answer_bytes: int


def input_of(net: Net | None, inputs: np.ndarray, real: bool) -> Input:
    """What the inputs ``[n, ...]`` are like, by their shape; ``real`` is False for noise.

    An image is a JPEG of quality 75, scaled to 0..255, where it is real and Pillow is there, else 2.4 bits a pixel (an
    estimate); sound is Opus at 24 kbit/s; anything else goes through zstd.
    """
    row = inputs[0]
    kind = type(net).__name__ if net is not None else ""
    if kind == "Speech":  # frames of 10 ms
        seconds = row.shape[-1] / 100
        return Input(32_000 * seconds, 3_000 * seconds, "Opus at 24 kbit/s (an estimate)")
    if row.ndim == 3 and row.shape[0] in (1, 3) and min(row.shape[1:]) >= 8:
        pixels = row.shape[1] * row.shape[2]
        jpegs = _jpegs(inputs[:16]) if real else []
        if jpegs:
            return Input(pixels * row.shape[0], float(np.mean(jpegs)), "JPEG, quality 75 (measured)")
        return Input(pixels * row.shape[0], pixels * 2.4 / 8, "JPEG (an estimate of 2.4 bits a pixel)")
    zstd = codecs.Zstd(3)
    sizes = [float(trees.size(trees.spec(zstd.encode({}, {"x": each}, ("plan",))[1]))) for each in inputs[:16]]
    width = 2 if row.dtype.kind in "iu" else row.dtype.itemsize
    return Input(float(row.size * width), min(float(np.mean(sizes)), float(row.size * width)), "zstd (measured)")


def _jpegs(rows: np.ndarray) -> list[float]:
    """Bytes of each as JPEG; none without Pillow."""
    try:
        from PIL import Image
    except ImportError:
        return []
    low, high = float(rows.min()), float(rows.max())
    sizes = []
    for row in np.rint((rows - low) * (255 / max(high - low, 1e-12))).astype(np.uint8):
        file = io.BytesIO()
        Image.fromarray(row[0] if len(row) == 1 else np.moveaxis(row, 0, -1)).save(file, "JPEG", quality=75)
        sizes.append(float(len(file.getvalue())))
    return sizes


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
    features, at = first, 0
    nbytes: dict[str, list[float]] = {name: [] for name in names}
    for cut in chosen:
        if cut > at:
            features, at = net[at:cut](features), cut
        message = {"cut": np.int64(cut), "features": features} if 0 < cut < len(net) else features
        for name in names:
            codec = CODECS[name]
            coded = codec.encode(codec.init(), message, ("plan", cut))[1]
            nbytes[name].append(trees.size(trees.spec(coded)) / rows)
    flops = np.array([net[:cut].work().flops for cut in chosen])
    own = np.array([_seconds(device, s) for s in net.stages]) if isinstance(device, energy.Profile) else device
    theirs = np.array([_seconds(cloud, stage) for stage in net.stages])
    here, there = (np.concatenate([[0.0], np.cumsum(each)])[list(chosen)] for each in (own, theirs))
    return Costed(
        tuple(net.stages[cut - 1].name if cut else "" for cut in chosen),
        chosen,
        flops,
        here,
        there,
        {name: np.array(sizes) for name, sizes in nbytes.items()},
        trees.size(trees.spec(features)),
    )


def _seconds(profile: energy.Profile, stage: Stage) -> float:
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
class Outlook:
    """What ``duetto plan`` tells.

    Attributes:
        objective: what counts.
        link: ``up_mbps``, ``down_mbps``, ``rtt_seconds``, ``queue_seconds``.
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
    max_leakage: float = math.inf,
    measured: Mapping[tuple[int | frozenset[str], str], float] | None = None,
) -> Outlook:
    """All ways to answer at a link, the few that are ever best, and the verdict.

    Args:
        gap_seconds: between answers, of which at most the radio's tail is charged.
        first_cut: stages that must be done before anything may leave the device.
        max_leakage, measured: the most that a way may leak, by a table (:meth:`duetto.policies.cuts.Options.within`).
    """
    every = ways(costs, given, device, cloud, prices)
    options = every.within(first_cut=first_cut, max_leakage=max_leakage, measured=measured)
    found = cuts.priced(options, up_mbps, down_mbps, rtt_seconds, queue_seconds, radio, gap_seconds)
    return Outlook(
        objective,
        {"up_mbps": up_mbps, "down_mbps": down_mbps, "rtt_seconds": rtt_seconds, "queue_seconds": queue_seconds},
        options,
        found,
        cuts.table(options, objective, rtt_seconds=rtt_seconds, radio=radio, gap_seconds=gap_seconds),
        cuts.verdict(
            options, objective, up_mbps, down_mbps, rtt_seconds, queue_seconds, radio, gap_seconds=gap_seconds
        ),
    )


UNITS: Mapping[cuts.Objective, str] = {"latency": "s", "energy": "J", "price": "$"}
ROWS = 12
MAP_MBPS = tuple(float(f"{each:.4g}") for each in np.geomspace(0.1, 1000, 81))
MAP_RTT = tuple(float(f"{each:.4g}") for each in np.geomspace(0.001, 1, 49))


def mapped(made: Outlook, radio: energy.Radio, title: str, *, gap_seconds: float = 0.0) -> Map:
    """The best plan of an outlook over bandwidth and round trip; it is as much faster down as its link is.

    Args:
        radio, gap_seconds: as of :func:`planned`.
        title: of the map.
    """
    options, link = made.options, made.link
    up, rtt = np.array(MAP_MBPS), np.array(MAP_RTT)
    down = up * (link["down_mbps"] / link["up_mbps"])
    priced = cuts.priced(options, up, down, rtt[:, None], link["queue_seconds"], radio, gap_seconds)
    costs = priced.of(made.objective)
    rows, best = np.unique(costs.argmin(-1), return_inverse=True)
    extreme = ~options.splits & np.array([label != cuts.RAW for label in options.label])
    plain = np.where(extreme, costs, np.inf).min(-1)
    return Map(
        title,
        UNITS[made.objective],
        MAP_MBPS,
        MAP_RTT,
        tuple(options.label[row] for row in rows),
        tuple("split" if options.splits[row] else "cloud" if options.sends[row] else "device" for row in rows),
        tuple(map(tuple, best.reshape(plain.shape).tolist())),
        tuple(tuple(float(f"{value:.6g}") for value in row) for row in np.maximum(0.0, plain - costs.min(-1)).tolist()),
        (link["up_mbps"], link["rtt_seconds"]),
    )


def result(made: Outlook, name: str, task: str, title: str, notes: Sequence[str], maps: Sequence[Map]) -> Result:
    """What a run's page shows of an outlook: its verdict, its maps, and a row for each way without a cut, for those of
    the maps, and for the best others, :data:`ROWS` at most.
    """
    rows, cost = [], made.costs.of(made.objective)
    drawn = {name for each in maps for name in each.plans}
    label, splits = made.options.label, made.options.splits
    order = sorted(range(len(label)), key=lambda i: (bool(splits[i]), label[i] not in drawn, float(cost[i])))
    least = {made.options.cut[i]: i for i in reversed(order) if splits[i]}  # of a cut its best codec
    kept = [i for i in order if not splits[i] or label[i] in drawn or least[made.options.cut[i]] == i][:ROWS]
    for i in sorted(kept):
        values = {
            "mean_seconds": float(made.costs.seconds[i]),
            "up_bytes": table.ANSWERS * float(made.options.up_bytes[i]),
            "joules": table.ANSWERS * float(made.costs.joules[i]),
            "dollars": table.ANSWERS * float(made.costs.dollars[i]),
        }
        rows.append(table.Row(made.options.label[i], values))
    return Result(name, task, (), f"{title}: {made.verdict.why}", tuple(rows), notes=tuple(notes), maps=tuple(maps))


def claimed(folder: Path) -> None:
    """See that a plan may be kept there.

    Raises:
        ConfigError: the folder holds something else.
    """
    path = folder / "config.json"
    if path.exists() and '"program": "plan"' not in path.read_text(encoding="utf-8"):
        raise ConfigError(f"{folder} holds a run that is no plan", "choose another name")


def kept(folder: Path, found: Result, settings: Mapping[str, Any]) -> Path:
    """Keep a plan as a run, instead of one that is there; returns its page."""
    claimed(folder)
    folder.mkdir(parents=True, exist_ok=True)
    told = {"program": "plan", "task": found.task, "settings": dict(settings), "versions": runs.versions()}
    (folder / "config.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    records.write(folder / "records.jsonl", [])
    found.save(folder / "result.json")
    return report.write(folder, folder / "report.html")


def chosen(made: Outlook) -> list[int]:
    """The three ways without a cut, then of every cut its best codec, in order."""
    cost = made.costs.of(made.objective)
    splits = [i for i in range(len(made.options)) if made.options.splits[i]]
    best: dict[Any, int] = {}
    for i in splits:
        cut = made.options.cut[i]
        if cut not in best or cost[i] < cost[best[cut]]:
            best[cut] = i
    return [i for i in range(len(made.options)) if i not in splits] + list(best.values())


def ways(
    costs: Costed,
    given: Input,
    device: energy.Profile,
    cloud: energy.Profile,
    prices: energy.Prices,
) -> cuts.Options:
    """The three ways without a cut, and every cut with every codec, with the bytes of its real message."""
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
    if len(costs.cuts) < 3:
        raise DataError("a network without a cut", "it has one stage: ask the cloud, or answer on the device")
    whole = [
        cuts.chained(
            costs.device_seconds,
            costs.cloud_seconds,
            nbytes,
            costs.cuts,
            codings=(cuts.Coding(name, 1.0),),
            **common,
        )
        for name, nbytes in costs.nbytes.items()
    ]
    return _joined([whole[0], *(each.rows(each.splits) for each in whole[1:])])


def _joined(parts: Sequence[cuts.Options]) -> cuts.Options:
    columns: dict[str, Any] = {}
    for each in fields(cuts.Options):
        columns[each.name] = tuple(value for part in parts for value in getattr(part, each.name))
    return cuts.Options(**columns)
