"""A model made small in many ways, side by side: bytes of the file, latency of the runtime, accuracy by user.

Every way is a list of steps. It is taught by the task's large model on the cloud's own rows; its file is what a device
would open, and all figures are that file's: its bytes on disk, its latency (onnxruntime, one row, all files in turn in
every round, so that whatever else the machine does meets all), its answers. A way is *chosen* on calibration users, by
limits relative to the original; what users get is then told on unseen users. A folder holds a file a way; what is there
is not done again.
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import zstandard

from duetto.device.artefact import Artefact, session
from duetto.errors import ConfigError, DataError, Error, caught
from duetto.evaluation import front, table, users
from duetto.models import Net, export, narrowed
from duetto.models.compress import (
    LowRank,
    Magnitude,
    Material,
    Model,
    Rounded,
    Step,
    Stored,
    Structured,
    hidden,
    strided,
    written,
)
from duetto.programs.saved import Saved
from duetto.tasks import Pair, Task, load, trained
from duetto.training.compress import Distilled, QuantisationAware, prepared
from duetto.types import Key, Local, Rows, rng

Progress = Callable[[str, float, float], None]

ORIGINAL = "original"
ROLES = ("small", "large")
_BATCH = 256
_BLOCK = 16  # channels that the runtime computes together
COPIES = 4  # of every input, each augmented anew, where the task augments
CALIBRATION = 512  # inputs that show ranges: as many of each calibration user as this leaves


@dataclass(frozen=True)
class Limits:
    """What the chosen model may lose and cost, judged on calibration users.

    Attributes:
        max_loss: points of accuracy lost, mean of users.
        max_worst_loss: points lost by the worst tenth of the users.
        max_bytes: of the file, percent of the original's.
        max_latency: of an answer, percent of the original's.

    Raises:
        ConfigError: a loss below 0, or a share that is not above 0.
    """

    max_loss: float = 0.5
    max_worst_loss: float = 1.0
    max_bytes: float = 25.0
    max_latency: float = 50.0

    def __post_init__(self) -> None:
        for name in ("max_loss", "max_worst_loss"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{_flag(name)} {getattr(self, name):g}", "give points of accuracy, 0 or more")
        for name in ("max_bytes", "max_latency"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{_flag(name)} {getattr(self, name):g}", "give percent of the original, above 0")


@dataclass(frozen=True)
class Settings:
    """What is compressed, and how long is trained.

    Attributes:
        task: by its name.
        role: which of its models: small or large.
        seed: of the task and of everything drawn.
        passes: over the cloud's rows, of what begins anew; what is healed takes half of them, what is rounded a
            quarter. 0 takes as many as the task's own recipe for its small model.
        rounds: of the latencies: in each, all files answer in turn.

    Raises:
        ConfigError: another role, or nothing to train or measure.
    """

    task: str = "handwriting"
    role: str = "small"
    seed: int = 0
    passes: int = 0
    rounds: int = 41

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise ConfigError(f"no model of a task is called {self.role!r}", f"use {' or '.join(ROLES)}")
        if self.passes < 0 or self.rounds < 3:
            raise ConfigError(f"{self.passes} passes, {self.rounds} rounds", "passes are 0 or more, rounds 3 or more")


@dataclass(frozen=True)
class Way:
    """Steps from the original, and whether they are a baseline."""

    steps: tuple[Step, ...]
    baseline: bool = False


def ways(task: Task, role: str, passes: int, copies: int) -> dict[str, Way]:
    """The ways that are compared, by name; the students' designs come from the task's small network.

    Ways for which a network has no smaller design are left out.

    Args:
        task: whose recipe for its small model says in what batches and how fast is learned.
        role: of the original.
        passes: over the task's rows, of what begins anew.
        copies: of every input in the material; an epoch passes over all of them.
    """

    def epochs(share: float) -> int:
        return max(1, round(share * passes / copies))

    net, small, recipe = getattr(task, role), task.small, task.teach_small
    lr, rows = float(getattr(recipe.optimiser, "lr", 3e-3)), recipe.batch_size
    anew = Distilled(epochs=epochs(1), batch_size=rows, lr=lr)
    heal = replace(anew, epochs=epochs(0.5), lr=lr / 3)
    felt = QuantisationAware(epochs=epochs(0.25), batch_size=rows, lr=lr / 10)
    narrow, student, thin = (
        caught(narrowed, small, 0.5),
        caught(strided, small, 0.75, _BLOCK),
        caught(strided, small, 0.5, _BLOCK),
    )
    kept, eight = Stored("weights8"), Stored("int8")
    found = {
        ORIGINAL: Way((), True),
        "float16": Way((Stored("float16"),), True),
        "8-bit weights": Way((kept,), True),
        "static int8": Way((eight,), True),
    }
    if isinstance(narrow, Net):
        found["scratch, narrow"] = Way((replace(anew, net=narrow, share=0.0), kept), True)
    if isinstance(student, Net):
        found["scratch, strided"] = Way((replace(anew, net=student, share=0.0), kept), True)
    same = "same design, taught again" if net == small else "the task's small model"
    found[same] = Way((replace(anew, net=small),), True)
    if not isinstance(caught(Rounded(net).module), Error):
        found["int8, trained for it"] = Way((felt,))
    if isinstance(caught(narrowed, net, 0.5), Net) and not isinstance(caught(hidden, net), Error):
        pruned = (Structured(0.5), replace(heal, lr=lr))
        found["pruned"] = Way((*pruned, kept))
        found["pruned, int8"] = Way((*pruned, eight))
        found["pruned, int8, trained for it"] = Way((*pruned, felt))
    found["low rank"] = Way((LowRank(0.9), heal, kept))
    found["sparse"] = Way((Magnitude(0.8), replace(heal, sparse=True), Stored("sparse8")))
    if isinstance(student, Net) and isinstance(thin, Net):
        taught = replace(anew, net=student)
        found["strided, answers"] = Way((taught, kept))
        found["strided, answers, int8"] = Way((taught, felt))
        found["strided, hints"] = Way((replace(taught, hint=1.0), kept))
        found["strided, relations"] = Way((replace(taught, distance=25.0), kept))
        found["thin strided, answers"] = Way((replace(anew, net=thin), kept))
    return found


@dataclass(frozen=True)
class Outcome(Saved):
    """What one way made.

    Attributes:
        name, steps, baseline: which.
        net: its design, as text.
        nbytes: of the file.
        sent_bytes: of the file after zstd, as it would travel.
        parameters, flops: of one row.
        calibration, unseen: users' (right answers, answers), always in the same order.
    """

    name: str
    steps: str
    baseline: bool
    net: str
    nbytes: int
    sent_bytes: int
    parameters: int
    flops: float
    calibration: Sequence[Sequence[int]]
    unseen: Sequence[Sequence[int]]


@dataclass(frozen=True)
class Line:
    """One way beside the original.

    Attributes:
        outcome: what was made.
        seconds: median of an answer, and its 95 % interval over rounds.
        latency: its median share of the original's in the same round, and the interval.
        share: of the original's bytes.
        loss, worst: points of accuracy that unseen users lose, mean of users and worst tenth, with 95 % intervals.
        expected_loss, expected_worst: the same of calibration users, by which ways are chosen; no interval.
        front: whether no other way is better at all three, as calibration users see it.
        within: whether it keeps all limits.
    """

    outcome: Outcome
    seconds: table.Interval
    latency: table.Interval
    share: float
    loss: table.Interval
    worst: table.Interval
    expected_loss: float
    expected_worst: float
    front: bool = False
    within: bool = False


@dataclass(frozen=True)
class Found:
    """All ways, and the one that is chosen; None where none keeps the limits."""

    settings: Settings
    limits: Limits
    lines: Sequence[Line]
    chosen: str | None


# ------------------------------------------------------------------------------------------------------------ doing


def compress(
    settings: Settings,
    limits: Limits,
    folder: Path,
    progress: Progress = lambda what, done, of: None,
    names: Sequence[str] = (),
    cache: Path | None = None,
) -> Found:
    """Do what is not there yet; choose by the limits, and save the chosen file as ``chosen.onnx``.

    Args:
        settings: what is compressed.
        limits: of what is chosen; others can be tried on the same folder.
        folder: of the files.
        progress: told as ways are made.
        names: of the ways; none is all of them. The original is always among them.
        cache: where the task's models are kept.

    Raises:
        ConfigError: an unknown way, or a folder of something else.
        DataError: data that is missing or damaged.
    """
    claim, told = folder / "config.json", {"program": "compress", "settings": asdict(settings)}
    if claim.exists() and _read(claim) != told:
        raise ConfigError(f"{folder} holds another compression", "give it another --name, or forget it with --fresh")
    progress("reading the data", 0, 1)
    task = load(settings.task, settings.seed)
    augment = task.teach_small.augment
    passes = settings.passes or task.teach_small.epochs
    copies = min(COPIES, passes) if augment is not None else 1
    every = ways(task, settings.role, passes, copies)
    if unknown := sorted(set(names) - set(every)):
        raise ConfigError(f"no way is called {unknown[0]!r}", f"use some of {', '.join(every)}")
    wanted = [name for name in every if not names or name in names or name == ORIGINAL]
    folder.mkdir(parents=True, exist_ok=True)
    claim.write_text(json.dumps(told))
    missing = [name for name in wanted if not (folder / f"{_file(name)}.json").exists()]
    if missing:
        progress("the task's models", 0, 1)
        pair = trained(task, cache, progress)
        _make(task, pair, settings, {name: every[name] for name in missing}, copies, folder, progress)
    outcomes = [Outcome.load(folder / f"{_file(name)}.json") for name in wanted]
    taken = _latencies(outcomes, task, settings, folder, progress)
    lines = compared(outcomes, taken, limits, settings.seed)
    best = chosen(lines)
    if best is not None:
        (folder / "chosen.onnx").write_bytes((folder / f"{_file(best)}.onnx").read_bytes())
    else:
        (folder / "chosen.onnx").unlink(missing_ok=True)
    found = Found(settings, limits, lines, best)
    return found


def _make(
    task: Task, pair: Pair, settings: Settings, wanted: Mapping[str, Way], copies: int, folder: Path, progress: Progress
) -> None:
    """Make the files of these ways; steps that ways have in common are taken once."""
    key = (settings.seed, "compress")
    calibration = balanced(*task.group("calibration"), CALIBRATION, key)
    whole = Model(getattr(task, settings.role), getattr(pair, settings.role))
    public = task.public
    steps = [step for way in wanted.values() for step in way.steps]
    some = slice(None) if any(isinstance(step, Distilled | QuantisationAware) for step in steps) else slice(1)
    progress("asking the teacher", 0, 1)
    material = prepared(
        task.large,
        pair.large,
        public.x[some],  # nobody trains on more where no step trains
        public.y[some],
        calibration,
        key,
        augment=task.teach_small.augment,
        copies=copies,
        features=any(isinstance(step, Distilled) and step.looks for step in steps),
    )
    made: dict[tuple[Step, ...], Model] = {(): whole}
    for place, (name, way) in enumerate(wanted.items()):
        for end, step in enumerate(way.steps, 1):
            progress(name, place, len(wanted))
            if way.steps[:end] not in made:
                made[way.steps[:end]] = step(made[way.steps[: end - 1]], material, (*key, end))
        _write(name, way, made[way.steps], task, material, folder)


def _write(name: str, way: Way, model: Model, task: Task, material: Material, folder: Path) -> None:
    path = folder / f"{_file(name)}.onnx"
    if way.steps:
        written(model, path, material.calibration)
    else:  # the original is the file that the house ships
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            export.onnx(model.net, model.params, path)
    data = path.read_bytes()
    Outcome(
        name,
        " > ".join(map(str, way.steps)) or "as the task ships it",
        way.baseline,
        str(model.net),
        len(data),
        len(zstandard.ZstdCompressor(19).compress(data)),
        model.net.parameters,
        model.net.work(1).flops,
        _scored(path, task, "calibration"),
        _scored(path, task, "unseen"),
    ).save(folder / f"{_file(name)}.json")


def _scored(path: Path, task: Task, group: str) -> list[list[int]]:
    """Right answers and answers of every user, by the file."""
    rows, owners = task.group(group)
    skill = Artefact(str(path))  # in parts, because a session keeps the room that its largest batch took
    parts = np.split(rows.x, range(_BATCH, len(rows.x), _BATCH))
    said = np.concatenate([skill(Local(), {"x": part}, ("compress",), "me")[1]["logits"] for part in parts])
    found = users.by((said.argmax(1) == rows.y).astype(float), owners)
    return [[int(right), int(count)] for right, count in zip(found.total, found.count, strict=True)]


def balanced(rows: Rows, owners: np.ndarray, most: int, key: Key) -> np.ndarray:
    """Inputs of which every user gives equally many, ``[at most most, *shape]``; who has fewer gives all."""
    names = np.unique(owners)
    each = max(1, most // len(names))
    drawn = [rng((*key, "calibration", str(name))).permutation(np.flatnonzero(owners == name))[:each] for name in names]
    return np.asarray(rows.x[np.sort(np.concatenate(drawn))], np.float32)


def latencies(paths: Sequence[Path], row: np.ndarray, rounds: int, key: Key) -> np.ndarray:
    """Seconds of an answer to one row ``[1, *shape]`` by each file, ``[rounds, files]``.

    In every round all files answer, in an order that is drawn anew, for about 2 ms each. A round's figure is the median
    of its answers, each timed by itself: other work on the machine delays few of them much, not all of them a little.
    """
    opened = [session(str(path), 1) for path in paths]
    counts = [int(np.clip(0.002 / np.median(_timed(each, row, 50)), 9, 400)) for each in opened]
    found = np.empty((rounds, len(paths)))
    for number in range(rounds):
        for i in rng((*key, "latency", number)).permutation(len(paths)):
            found[number, i] = np.median(_timed(opened[i], row, counts[i]))
    return found


def _timed(opened: Any, row: np.ndarray, count: int) -> np.ndarray:
    """Seconds of so many answers, ``[count]``."""
    found = np.empty(count)
    for i in range(count):
        began = time.perf_counter()
        opened.run(["logits"], {"x": row})
        found[i] = time.perf_counter() - began
    return found


def _latencies(
    outcomes: Sequence[Outcome], task: Task, settings: Settings, folder: Path, progress: Progress
) -> np.ndarray:
    """``[rounds, ways]``, measured together or, where they were, read again."""
    path = folder / "latency.json"
    names = [each.name for each in outcomes]
    told = _read(path)
    if isinstance(told, dict) and set(names) <= set(told.get("names", ())):
        return np.array(told["seconds"])[:, [told["names"].index(name) for name in names]]
    progress("measuring latencies", 0, 1)
    row = np.ascontiguousarray(task.public.x[:1], np.float32)
    files = [folder / f"{_file(name)}.onnx" for name in names]
    found = latencies(files, row, settings.rounds, (settings.seed, "compress"))
    path.write_text(json.dumps({"names": names, "seconds": found.tolist()}))
    return found


# ---------------------------------------------------------------------------------------------------------- judging


def compared(outcomes: Sequence[Outcome], seconds: np.ndarray, limits: Limits, seed: int) -> list[Line]:
    """A line a way, the first being the original; ``seconds`` is ``[rounds, ways]``.

    Raises:
        DataError: outcomes of other users.
    """
    first = outcomes[0]
    key = ("compress", seed)
    shares = seconds / seconds[:, :1]
    lines = []
    for i, each in enumerate(outcomes):
        if len(each.unseen) != len(first.unseen) or len(each.calibration) != len(first.calibration):
            raise DataError(f"{each.name} was judged on other users", "forget the folder with --fresh")
        before, after = per_user(first.unseen), per_user(each.unseen)
        seen_before, seen_after = per_user(first.calibration), per_user(each.calibration)
        line = Line(
            outcome=each,
            seconds=middle(seconds[:, i], key),
            latency=middle(shares[:, i], key),
            share=each.nbytes / first.nbytes,
            loss=_lost(users.user_mean, before, after, key),
            worst=_lost(users.worst, before, after, key),
            expected_loss=100 * float(users.user_mean(seen_before) - users.user_mean(seen_after)),
            expected_worst=100 * float(users.worst(seen_before) - users.worst(seen_after)),
        )
        lines.append(replace(line, within=max(_used(line, limits).values()) <= 1))
    ahead = front.front(np.array([[-line.share, -line.latency.value, -line.expected_loss] for line in lines]))
    return [replace(line, front=bool(at)) for line, at in zip(lines, ahead, strict=True)]


def chosen(lines: Sequence[Line]) -> str | None:
    """Of those within the limits, the one by which calibration users lose least, the smaller of equals.

    A plain baseline may be: what is simple and keeps the limits needs no steps.
    """
    kept = [line for line in lines if line.within and line.outcome.name != ORIGINAL]
    return min(kept, key=lambda line: (line.expected_loss, line.share)).outcome.name if kept else None


def nearest(found: Found) -> str:
    """Where no way keeps the limits: which comes nearest, and which limit it breaks."""
    ways = [line for line in found.lines if line.outcome.name != ORIGINAL]
    if not ways:
        return "only the original is there"
    line = min(ways, key=lambda each: max(_used(each, found.limits).values()))
    worst = max(_used(line, found.limits).items(), key=lambda item: item[1])
    return f"{line.outcome.name} comes nearest; loosen {_flag(worst[0])}"


def _used(line: Line, limits: Limits) -> dict[str, float]:
    """How much of each limit a way uses up; above 1 it breaks it."""
    return {
        "max_loss": _of(line.expected_loss, limits.max_loss),
        "max_worst_loss": _of(line.expected_worst, limits.max_worst_loss),
        "max_bytes": 100 * line.share / limits.max_bytes,
        "max_latency": 100 * line.latency.value / limits.max_latency,
    }


def _of(points: float, limit: float) -> float:
    """The share of a limit that a loss uses up; a gain uses none, and no limit (0) is broken by any loss."""
    return 0.0 if points <= 1e-9 else points / limit if limit else float("inf")


def middle(values: np.ndarray, key: Key, n: int = 2000) -> table.Interval:
    """The median of values ``[rounds]`` with its 95 % interval, the rounds redrawn."""
    drawn = np.median(values[rng((*key, "rounds")).integers(len(values), size=(n, len(values)))], axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return table.Interval(float(np.median(values)), float(low), float(high))


def per_user(counts: Sequence[Sequence[int]]) -> users.PerUser:
    """Users' (right answers, answers) as a column added up."""
    told = np.array(counts)
    return users.PerUser(np.arange(len(told)), told[:, 1], told[:, 0].astype(float))


def _lost(statistic: users.Statistic, before: users.PerUser, after: users.PerUser, key: Key) -> table.Interval:
    low, high = users.paired(statistic, before, after, key=key)
    return table.Interval(100 * float(statistic(before) - statistic(after)), -100 * high, -100 * low)


def _read(path: Path) -> Any:
    """A JSON file; None where there is none, or a damaged one."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _file(name: str) -> str:
    return name.replace(", ", "-").replace(" ", "-").replace("'", "")


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
