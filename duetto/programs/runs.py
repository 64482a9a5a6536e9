"""Runs of the closed loop: several seeds, measured before and after learning, in a folder that can be gone on with.

``runs/<name>/`` holds ``config.json`` (settings and versions of everything), ``seed-<n>/`` with what each stage
left (its records, the state of learning, the learned models), and at the end ``records.jsonl`` and ``result.json``,
which the report reads. A stage that has ended is never done again; learning itself goes on from its last save, and
gives the same log as if it had never been stopped.
"""

from __future__ import annotations

import json
import platform
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from duetto import tree as trees
from duetto.errors import ConfigError, DataError, WireError
from duetto.evaluation import records as log
from duetto.evaluation.result import Result
from duetto.programs import closed_loop, findings
from duetto.programs.closed_loop import Settings
from duetto.programs.scoring import GROUPS, Models, answers
from duetto.simulation.engine import Saved, simulate
from duetto.simulation.fleet import fleet
from duetto.simulation.link import Network, named
from duetto.tasks import Task, load, official, trained
from duetto.tree import Tree
from duetto.types import Held, Record

SAVE_EVERY = 5.0  # seconds of real time between saves of a run that is learning

Progress = Callable[[str, float, float], None]
"""Called with what is being done, how much of it is done, and how much there is."""


@dataclass(frozen=True)
class Experiment:
    """What a run is asked to do.

    Attributes:
        task: its name.
        seeds: each draws its own users, parts, models and links.
        network: between devices and cloud; see :func:`duetto.simulation.link.named`.
        settings: of the program; its seed is replaced by each of ``seeds``.
    """

    task: str = "digits"
    seeds: tuple[int, ...] = (0,)
    network: str = "constant-10"
    settings: Settings = field(default_factory=Settings)

    def __post_init__(self) -> None:
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise ConfigError(f"the seeds {self.seeds}", "give at least one, each once")
        _ = self.settings.policy  # checks what belongs to it


@dataclass(frozen=True, eq=False)
class Learned:
    """A seed's models before and after learning, and the log of learning."""

    before: Models
    after: Mapping[str, Models]
    history: Mapping[int, Tree]
    records: Sequence[Record]


def run(
    experiment: Experiment, folder: Path, progress: Progress = lambda what, done, of: None, cache: Path | None = None
) -> Result:
    """Do what of the experiment is not done yet, and write its result.

    Raises:
        ConfigError: the folder holds another experiment, or an unknown task or network.
        DataError: data that is missing or damaged; a damaged file of the run is named.
    """
    network, result_path = named(experiment.network), folder / "result.json"
    if (folder / "config.json").exists():
        _claim(folder, experiment)
        if result_path.exists():  # it is written last
            return Result.load(result_path)
    tell = partial(_told, progress, f"seed {experiment.seeds[0]}: " if len(experiment.seeds) > 1 else "")
    tell("reading the data", 0, 1)
    task = load(experiment.task, experiment.seeds[0])  # before the folder is made: what cannot start leaves none
    parts = [task.rows(user).parts for user in task.users["device"]]
    if not any(len(has["calibration"]) and len(has["held"]) for has in parts):
        raise DataError("no device user has a row to be scored on", "users need about five rows each")
    _claim(folder, experiment)
    found, everything = [], []
    for seed in experiment.seeds:
        if seed != task.seed:
            tell = partial(_told, progress, f"seed {seed}: ")
            tell("reading the data", 0, 1)
            task = load(experiment.task, seed)
        place = folder / f"seed-{seed}"
        place.mkdir(exist_ok=True)
        settings = Settings(**{**asdict(experiment.settings), "seed": seed})
        learned = learn(task, settings, network, place, tell, cache)
        scored = _scored(task, settings, network, learned, place, tell)
        tell("reading the figures", 0, 1)
        found.append(
            findings.of(task, settings, learned.before, learned.after, learned.history, learned.records, scored)
        )
        everything += [*learned.records, *scored]
    tell("writing the result", 0, 1)
    log.write(folder / "records.jsonl", everything)
    figures = json.dumps(findings.figures_table(found), indent=1)
    (folder / "figures.json").write_text(figures + "\n", encoding="utf-8")
    result = findings.result(folder.name, experiment.task, experiment.seeds, experiment.network, found, everything)
    result.save(result_path)
    tell("writing the result", 1, 1)
    return result


def learn(
    task: Task, settings: Settings, network: Network, place: Path, tell: Progress, cache: Path | None = None
) -> Learned:
    """A seed's learning: simulated, or what is left of it, or read."""
    pair = trained(task, cache, lambda what, step, of: tell(f"training the {what}", step, of))
    small = closed_loop.stored(pair.small)
    policy = closed_loop.fitted(task, settings, pair.small, pair.large)
    before = Models(lambda user: small, {"0": pair.large}, policy)
    state, lines = place / "learning.safetensors", place / "learning.jsonl"
    saved = _read(state)
    if saved is None or not bool(saved["done"]):
        resume = None if saved is None else Saved(saved["state"], int(saved["records"]))
        kept = log.read(lines)[: resume.records] if resume else []
        end = (settings.days + 1) * closed_loop.DAY
        fresh: list[Record] = []
        last = time.monotonic()

        def save(now: Saved) -> None:
            nonlocal last
            if time.monotonic() - last > SAVE_EVERY:
                log.write(lines, [*kept, *fresh])
                _write(state, {"done": np.bool_(False), "state": now.state, "records": np.int64(now.records)})
                last = time.monotonic()

        def heard(record: Record) -> None:
            fresh.append(record)
            tell("living and learning", record.time, end)

        lived = simulate(
            fleet=fleet(
                "phones",
                task.users["device"],
                data=task.rows,
                memory=closed_loop.first(task, settings, pair.small, policy),
                seed=settings.seed,
            ),
            device=closed_loop.device(task, settings),
            cloud=closed_loop.cloud(task, settings, pair.small, pair.large),
            network=network,
            seed=settings.seed,
            on_record=heard,
            on_save=save,
            resume=resume,
        )
        log.write(lines, [*kept, *fresh])
        saved = {"done": np.bool_(True), "learned": _kept(task, lived.memory)}
        _write(state, saved)
    kept_models = saved["learned"]
    final = Held(settings.policy, kept_models["policy"])
    large, own = kept_models["large"], kept_models["devices"]
    after = {
        "unseen": Models(lambda user: kept_models["fleet"], large, final),
        "device": Models(lambda user: own[user], large, final),
    }
    history = {int(step): params for step, params in kept_models["history"].items()}
    return Learned(before, after, history, log.read(lines))


def _kept(task: Task, memory: Mapping[str, Mapping[str, Any]]) -> Tree:
    """What of the parties' memories is scored."""
    cloud = memory["cloud"]
    devices = {user: memory[user]["params"] for user in task.users["device"]}
    kept = {name: cloud[name] for name in ("large", "fleet", "policy", "history")}
    return {**kept, "devices": devices}


def _scored(
    task: Task, settings: Settings, network: Network, learned: Learned, place: Path, tell: Progress
) -> list[Record]:
    """Every group's answers by every system, before and after; read where they are there."""
    wanted = [
        (group, stage, system, models)
        for group in GROUPS
        for stage, models in (("before", learned.before), ("after", learned.after[group]))
        for system in models.systems()
        if stage == "before" or system in ("cascade", "only_on_device", "only_in_cloud")
    ]
    done: list[Record] = []
    for i, (group, stage, system, models) in enumerate(wanted):
        tell(f"scoring {system} {stage} learning", i, len(wanted))
        path = place / f"{group}-{stage}-{system}.jsonl"
        if not path.exists():
            log.write(path, answers(task, settings, group, models, system, network, stage))
        done += log.read(path)
    tell("scoring", len(wanted), len(wanted))
    return done


def _told(progress: Progress, prefix: str, what: str, done: float, of: float) -> None:
    progress(prefix + what, done, of)


# ---------------------------------------------------------------------------------------------------- the folder


def _claim(folder: Path, experiment: Experiment) -> None:
    """Make the folder this experiment's, or see that it is."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "config.json"
    config = {
        "program": "closed-loop",
        **json.loads(json.dumps(asdict(experiment))),
        "data": _data(experiment.task),
        "versions": versions(),
    }
    if path.exists():
        try:
            there = dict(json.loads(path.read_text(encoding="utf-8")))
        except (TypeError, ValueError) as error:
            raise DataError(f"{path} is damaged", f"delete {folder} or choose another --name") from error
        changed = [name for name in config if name != "versions" and there.get(name) != config[name]]
        if changed:
            raise ConfigError(
                f"{folder} holds a run with another {', '.join(changed)}", "choose another --name, or add --fresh"
            )
        if there.get("versions") != config["versions"]:
            raise ConfigError(f"{folder} was made with other versions", "choose another --name, or add --fresh")
        return
    part = path.with_suffix(".part")
    part.write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    part.replace(path)


def _data(task: str) -> str:
    """Which data the task finds now: another folder, or another size of it, is another experiment."""
    folder = official.locate(task) if task in official.SETS else None
    if folder is None:
        return "built in"
    return f"{folder}, {sum(path.stat().st_size for path in sorted(folder.rglob('*')) if path.is_file())} bytes"


def forget(folder: Path) -> None:
    """Delete a run; only a folder that holds one."""
    if (folder / "config.json").exists():
        shutil.rmtree(folder)


def versions(
    packages: Iterable[str] = ("duetto", "numpy", "torch", "zstandard", "safetensors", "scikit-learn"),
) -> dict[str, str]:
    """Versions of everything that a figure may depend on."""
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def _read(path: Path) -> Any:
    if not path.exists():
        return None
    try:
        saved = trees.decode(path.read_bytes())
        bool(saved["done"])
        return saved
    except (WireError, KeyError, TypeError, IndexError, ValueError) as error:
        raise DataError(f"{path} is damaged", "delete it; that part of the run is done anew") from error


def _write(path: Path, tree: Tree) -> None:
    part = path.with_suffix(".part")
    part.write_bytes(trees.encode(tree))
    part.replace(path)
