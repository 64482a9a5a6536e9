"""A task's model as one set of weights for every device: trained once, rated at every size, one size taken.

The sub-networks learn together on the task's labels (:class:`duetto.training.Sandwich`), by the recipe of the task's
small model. Which one a device takes is decided on "calibration" users; what it is worth is told of "unseen" users.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from duetto import tree as trees
from duetto.errors import ConfigError, DataError, WireError
from duetto.evaluation import users
from duetto.evaluation.result import Result
from duetto.evaluation.table import Interval, Row
from duetto.models import Slimmable, Sub, export, search
from duetto.models.costs import Regression
from duetto.models.search import Limits, Rated
from duetto.programs.runs import versions
from duetto.simulation import energy
from duetto.tasks import Task
from duetto.training import CrossEntropy, Sandwich, sequential
from duetto.tree import Tree

Progress = Callable[[str, float, float], None]
"""Called with what is being done, how much of it is done, and how much there is."""

HERE = "here"
"""The device that this machine is."""


@dataclass(frozen=True)
class Settings:
    """What is trained.

    Attributes:
        model: of the task's pair, "small" or "large": the largest of the sizes.
        widths: shares of its channels, rising to 1.
        depths: blocks or layers that are kept, beside all.
        passes: over the public rows; 0 is what the task's small model takes.
        between: sub-networks of a step beside the largest and the smallest.
        weight: of what each of them learns from the largest; the paper's is 1 (``benchmarks/elastic`` compares).
        seed: of users, first parameters and the order of rows.

    Raises:
        ConfigError: no such model, or a negative number of passes.
    """

    model: str = "small"
    widths: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0)
    depths: tuple[int, ...] = ()
    passes: int = 0
    between: int = 2
    weight: float = 0.3
    seed: int = 0

    def __post_init__(self) -> None:
        if self.model not in ("small", "large"):
            raise ConfigError(f"no model of a pair is called {self.model!r}", "use small or large")
        if self.passes < 0:
            raise ConfigError(f"{self.passes} passes", "use a number from 0")


@dataclass(frozen=True)
class Line:
    """A sub-network on a device.

    Attributes:
        rated: what the search goes by: its costs, and its accuracy on calibration users.
        flops: of an answer.
        accuracy: mean over unseen users, with its 95 % interval.
        worst: of the worst tenth of them.
        front: whether none is as good in everything and better in something.
    """

    rated: Rated
    flops: float
    accuracy: Interval
    worst: float
    front: bool

    @property
    def name(self) -> str:
        """Its width, and its depth where it is not all."""
        return str(self.rated.sub)


def slimmable(task: Task, settings: Settings) -> Slimmable:
    """The task's model with its sizes.

    Raises:
        ConfigError: a model of which no narrower or shallower one is known.
    """
    return Slimmable(getattr(task, settings.model), settings.widths, settings.depths)


def trained(task: Task, settings: Settings, folder: Path, progress: Progress) -> Tree:
    """The one set of weights, from ``folder/weights.safetensors`` where it is there already.

    Raises:
        ConfigError: the folder holds another training.
        DataError: its weights are damaged.
    """
    net, path, claim = slimmable(task, settings), folder / "weights.safetensors", folder / "config.json"
    config = {"program": "elastic", "task": task.name, "seed": settings.seed, "settings": _plain(settings)}
    if claim.exists():
        there = _read(claim)
        changed = [name for name in config if there.get(name) != config[name]]
        if changed:
            remedy = "choose another --name, or add --fresh"
            raise ConfigError(f"{folder} holds a run with another {', '.join(changed)}", remedy)
    folder.mkdir(parents=True, exist_ok=True)
    _write(claim, json.dumps({**config, "versions": versions()}, indent=1).encode())
    if path.exists():
        try:
            params = trees.decode(path.read_bytes())
            net.cut(params, Sub())
        except (WireError, ConfigError) as error:
            raise DataError(f"{path} is damaged", "delete it; the model is trained anew") from error
        return params
    client = replace(task.teach_small, net=net, loss=(CrossEntropy(), Sandwich(net, settings.between, settings.weight)))
    client = replace(client, epochs=settings.passes or client.epochs)
    data = {"x": task.public.x, "y": task.public.y}
    key = (settings.seed, "elastic")
    start = {"params": net.init(settings.seed)}
    params = sequential.run(
        client, start, data, key, lambda step, steps: progress("training all sizes", step, steps)
    ).params
    _write(path, trees.encode(params))
    return params


def rated(
    task: Task,
    settings: Settings,
    params: Tree,
    device: str,
    progress: Progress,
    measured: Regression | None = None,
) -> tuple[Line, ...]:
    """Every sub-network on a device, the smallest first.

    Args:
        task: whose users judge.
        settings: what was trained.
        params: the one set of weights.
        device: a device of ``profiles.toml`` (its roofline), or :data:`HERE`: seconds in ONNX Runtime on this machine,
            with the watts of a "cloud-cpu".
        progress: told.
        measured: another machine's, from ``duetto profile``; with the watts and the overhead of ``device``.

    Raises:
        ConfigError: no such device; or :data:`HERE` without the extra ``onnx``.
    """
    net = slimmable(task, settings)
    subs = net.subs
    profile = energy.profiles()["cloud-cpu" if device == HERE else _known(device)]
    progress("measuring each size", 0, 1)
    if measured is not None:
        added = search.predicted(net, measured.predicted)
        seconds = {sub: profile.overhead_seconds + added[sub] for sub in subs}
    elif device == HERE:
        seconds = search.timed(net, params, task.public.x[:16])
    else:
        seconds = {sub: energy.compute(profile, net.sub(sub).work(1))[0] for sub in subs}
    found = []
    for i, sub in enumerate(subs):
        progress("judging each size", i, len(subs))
        scores = {}
        for group in ("calibration", "unseen"):
            rows, owners = task.group(group)
            scores[group] = users.by(net.answers(params, rows.x, sub).argmax(1) == rows.y, owners)
        unseen = scores["unseen"]
        interval = users.bootstrap(users.user_mean, unseen, key=("elastic", str(sub)))
        part = net.sub(sub)
        row = Rated(
            sub,
            seconds[sub],
            seconds[sub] * profile.compute_watts,
            4 * part.parameters,
            float(users.user_mean(scores["calibration"])),
        )
        accuracy = Interval(float(users.user_mean(unseen)), *interval)
        found.append(Line(row, part.work(1).flops, accuracy, float(users.worst(unseen)), False))
    kept = search.front([line.rated for line in found])
    return tuple(replace(line, front=line.rated in kept) for line in found)


def chosen(lines: Sequence[Line], limits: Limits) -> Line:
    """The one that the search takes.

    Raises:
        ConfigError: limits that none keeps.
    """
    best = search.best([line.rated for line in lines], limits)
    return next(line for line in lines if line.rated == best)


def saved(task: Task, settings: Settings, params: Tree, sub: Sub, folder: Path) -> tuple[Path, ...]:
    """Write a sub-network by itself: its weights, and where the extra is installed ONNX; the files."""
    net = slimmable(task, settings)
    own, stem = net.cut(params, sub), f"{task.name}-{sub}"
    weights = folder / f"{stem}.safetensors"
    folder.mkdir(parents=True, exist_ok=True)
    _write(weights, trees.encode(own))
    try:
        return weights, export.onnx(net.sub(sub), own, folder / f"{stem}.onnx")
    except ConfigError:  # without the extra there is no ONNX
        return (weights,)


def result(
    name: str, task: str, settings: Settings, device: str, lines: Sequence[Line], taken: Line, limits: Limits
) -> Result:
    """For a report."""
    largest = lines[-1]
    rows = [
        Row(
            f"{'▸ ' if line is taken else ''}{line.name}, {line.rated.nbytes / 1000:.0f} kB",
            {
                "accuracy": line.accuracy,
                "worst_accuracy": line.worst,
                "p50_seconds": line.rated.seconds,
                "joules": 1000 * line.rated.joules,
            },
        )
        for line in lines
    ]
    less = 1 - taken.rated.joules / largest.rated.joules
    headline = f"{task}, {settings.model} model on {device}, limits {_limits(limits)}: "
    if taken is largest:
        headline += f"the largest, {100 * taken.accuracy.value:.1f} % of unseen users' answers are right"
    else:
        headline += (
            f"size {taken.name}, {100 * taken.accuracy.value:.1f} % of unseen users' answers are right with "
            f"{100 * less:.0f} % less energy than the largest ({100 * largest.accuracy.value:.1f} %)"
        )
    beaten = [line.name for line in lines if not line.front]
    notes = [
        f"limits: {_limits(limits)}; chosen on calibration users, told of unseen ones",
        "energy is that of computing above the device's idle power, by duetto/profiles.toml: an estimate",
    ]
    notes = ["energy is that of computing above the device's idle power, by duetto/profiles.toml: an estimate"]
    if beaten:
        notes.append(f"on calibration users others are as good and cheaper, so never taken: {', '.join(beaten)}")
    return Result(name, task, (settings.seed,), headline, rows, notes=tuple(notes))


def points(lines: Sequence[Line], taken: Line) -> list[tuple[str, float, Interval, bool, bool]]:
    """Accuracy against microjoules, for :func:`duetto.evaluation.plot.sizes`."""
    return [(line.name, 1e6 * line.rated.joules, line.accuracy, line.front, line is taken) for line in lines]


def told(line: Line) -> dict[str, Any]:
    """A line as plain values."""
    return {
        "sub": line.name,
        "width": line.rated.sub.width,
        "depth": line.rated.sub.depth,
        "seconds": line.rated.seconds,
        "joules": line.rated.joules,
        "bytes": line.rated.nbytes,
        "flops": line.flops,
        "calibration_accuracy": line.rated.accuracy,
        "accuracy": asdict(line.accuracy),
        "worst_accuracy": line.worst,
        "front": line.front,
    }


def _known(device: str) -> str:
    if device not in energy.profiles():
        names = ", ".join((HERE, *energy.profiles()))
        raise ConfigError(f"no device is called {device!r}", f"use one of {names}")
    return device


def _limits(limits: Limits) -> str:
    given = {"seconds": (1e3, "ms"), "joules": (1e3, "mJ"), "nbytes": (1.0, "bytes")}
    said = [
        f"{getattr(limits, name) * scale:,.4g} {unit}"
        for name, (scale, unit) in given.items()
        if getattr(limits, name) < np.inf
    ]
    return ", ".join(said) or "none"


def _plain(settings: Settings) -> Mapping[str, Any]:
    values: Mapping[str, Any] = json.loads(json.dumps(asdict(settings)))
    return values


def _read(path: Path) -> Mapping[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (TypeError, ValueError) as error:
        raise DataError(f"{path} is damaged", "choose another --name, or add --fresh") from error


def _write(path: Path, data: bytes) -> None:
    part = path.with_suffix(".part")
    part.write_bytes(data)
    part.replace(path)
