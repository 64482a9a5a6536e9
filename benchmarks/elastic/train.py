"""Train what is compared: slimmable networks, and networks of the same shapes that stand alone; one folder a run.

    python benchmarks/elastic/train.py                       # both tasks; goes on where it stopped
    python benchmarks/elastic/train.py --tasks handwriting --seeds 0 --ways slimmable
    python benchmarks/elastic/train.py --tune                # how the in-place distillation was chosen

Everything learns on the task's "train" users by its small model's recipe: optimiser, passes, batches, augmentation.
A run leaves ``<task>-<seed>-<way>[-<width>].json`` (accuracy of each user of "calibration" and "unseen", seconds, what
was computed) and ``.npz`` (its logits), which ``report.py`` and ``energy.py`` read.

Ways: *slimmable*, one set of weights; *thrifty*, the same with as many fewer passes as make it as dear as the widest
network alone; *alone*, each width by itself on the labels; *taught*, each but the widest by itself, distilled from the
widest one that stands alone.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from duetto.models import Mlp, Net, Slimmable
from duetto.tasks import Task, load
from duetto.training import Client, CrossEntropy, Distil, Sandwich, sequential
from duetto.tree import Tree

WIDTHS = (0.25, 0.5, 0.75, 1.0)
SEEDS = {"handwriting": (0, 1, 2), "activity": tuple(range(10))}
GROUPS = ("calibration", "unseen")
WAYS = ("slimmable", "alone", "thrifty", "taught")


@dataclass(frozen=True)
class Run:
    """One training; ``width`` is 0 where there is more than one."""

    task: str
    seed: int
    way: str
    width: float = 0.0

    def path(self, folder: Path) -> Path:
        """Where it is kept."""
        return folder / f"{self.task}-{self.seed}-{self.way}{f'-{self.width:g}' if self.width else ''}.json"


def widest(task: Task) -> Net:
    """The network that is made slimmable."""
    return task.small if task.name == "handwriting" else Mlp(task.small.shape, task.small.classes, (128, 128))


def recipe(task: Task, net: Net, loss: tuple[Any, ...], passes: int | None = None) -> Client:
    """The small model's, with another loss."""
    made: Client = replace(task.teach_small, net=net, loss=loss)
    return made if passes is None else replace(made, epochs=passes)


def computed(client: Client, nets: list[Net], rows: int) -> float:
    """Floating-point operations of a training in which each of these is passed forth and back at every step."""
    return 3.0 * client.epochs * rows * sum(net.work(1).flops for net in nets)


def trained(run: Run, task: Task, folder: Path, sandwich: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What is told of a run, and logits by group and width."""
    net = widest(task)
    slim = Slimmable(net, WIDTHS)
    shapes = {sub.width: slim.sub(sub) for sub in slim.subs}
    data = {"x": task.public.x, "y": task.public.y}
    key = (run.seed, "elastic", run.way, str(run.width))
    begin = time.process_time()
    if not run.width:
        client = recipe(task, slim, (CrossEntropy(), Sandwich(slim, **sandwich)))
        each = list(shapes.values())
        if run.way == "thrifty":
            share = net.work(1).flops / sum(part.work(1).flops for part in each)
            client = replace(client, epochs=max(1, round(client.epochs * share)))
        params = learned(client, slim.init(run.seed), data, key)
        told = {sub.width: (slim.sub(sub), slim.cut(params, sub)) for sub in slim.subs}
    else:
        own = shapes[run.width]
        loss: tuple[Any, ...] = (CrossEntropy(),)
        if run.way == "taught":
            teacher = np.load(Run(run.task, run.seed, "alone", 1.0).path(folder).with_suffix(".npz"))
            data["teacher"], loss = teacher["train"], (CrossEntropy(0.1), Distil(0.9, 2.0))
        client, each = recipe(task, own, loss), [own]
        told = {run.width: (own, learned(client, own.init(run.seed), data, key))}
    about: dict[str, Any] = {"epochs": client.epochs, "cpu_seconds": time.process_time() - begin}
    about |= {"flops": computed(client, each, len(data["x"])), "accuracy": {}, "sandwich": repr(sandwich)}
    logits: dict[str, np.ndarray] = {}
    for group in GROUPS:
        rows, users = task.group(group)
        logits |= {f"{group}/users": users, f"{group}/y": rows.y}
        for width, (part, params) in told.items():
            found = logits[f"{group}/{width:g}"] = part.logits(params, rows.x)
            right = found.argmax(1) == rows.y
            by_user = {str(user): float(right[users == user].mean()) for user in np.unique(users)}
            about["accuracy"].setdefault(f"{width:g}", {})[group] = by_user
    if run.way == "alone" and run.width == 1:
        ((part, params),) = told.values()
        logits["train"] = part.logits(params, data["x"])
    return about, logits


def learned(client: Client, start: Tree, data: dict[str, np.ndarray], key: tuple[Any, ...]) -> Tree:
    """The parameters after training."""
    return sequential.run(client, {"params": start}, data, key).params


def runs(tasks: list[str], seeds: list[int] | None, ways: list[str]) -> Iterator[Run]:
    """All, those that others need first."""
    for task in tasks:
        for seed in SEEDS[task] if seeds is None else seeds:
            for way in ways:
                one = way in ("slimmable", "thrifty")
                for width in (0.0,) if one else WIDTHS[::-1] if way == "alone" else WIDTHS[:-1]:
                    yield Run(task, seed, way, width)


def tuned(folder: Path, tasks: list[str]) -> None:
    """Ways to distil in place, scored on calibration users: mean over the widths, of activity with three seeds, of
    handwriting with one seed and two passes."""
    for name in tasks:
        seeds, passes = TUNING[name]
        for setting in SETTINGS:
            path = folder / f"tune-{name}-{'-'.join(f'{key}={value:g}' for key, value in setting.items())}.json"
            if not path.exists():
                path.write_text(
                    json.dumps(np.mean([scored(name, seed, passes, setting) for seed in seeds], 0).tolist())
                )
            scores = json.loads(path.read_text())
            print(name, setting, np.round(100 * np.array(scores), 2), f"{100 * np.mean(scores):.2f}", flush=True)


def scored(name: str, seed: int, passes: int | None, setting: dict[str, Any]) -> list[float]:
    """Accuracy of calibration users at every width."""
    task = load(name, seed)
    slim = Slimmable(widest(task), WIDTHS)
    client = recipe(task, slim, (CrossEntropy(), Sandwich(slim, **setting)), passes)
    data = {"x": task.public.x, "y": task.public.y}
    params = learned(client, slim.init(seed), data, (seed, "tune"))
    rows, users = task.group("calibration")
    right = [slim.answers(params, rows.x, sub).argmax(1) == rows.y for sub in slim.subs]
    return [float(np.mean([each[users == user].mean() for user in np.unique(users)])) for each in right]


TUNING: dict[str, tuple[tuple[int, ...], int | None]] = {"activity": ((0, 1, 2), None), "handwriting": ((0,), 2)}
SETTINGS: tuple[dict[str, Any], ...] = (
    {},
    {"temperature": 2.0},
    {"labels": 0.5},
    {"labels": 0.5, "temperature": 2.0},
    {"labels": 1.0},
    {"weight": 0.3},
    {"labels": 0.5, "weight": 0.3},
    {"labels": 1.0, "weight": 0.3},
)
CHOSEN: dict[str, dict[str, Any]] = {"handwriting": {"weight": 0.3}, "activity": {"temperature": 2.0}}
"""What was best on calibration users, in the mean over the widths."""


def main() -> None:
    """Train what is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="*", default=list(SEEDS))
    parser.add_argument("--seeds", type=int, nargs="*")
    parser.add_argument("--ways", nargs="*", default=list(WAYS))
    parser.add_argument("--out", type=Path, default=Path("runs/elastic"))
    parser.add_argument("--tune", action="store_true")
    parser.add_argument("--paper", action="store_true", help="the paper's weight and temperature, 1")
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.out.mkdir(parents=True, exist_ok=True)
    if given.tune:
        tuned(given.out, given.tasks)
        return
    task: Task | None = None
    for run in runs(given.tasks, given.seeds, given.ways):
        path = run.path(given.out)
        if path.exists():
            continue
        if task is None or (task.name, task.seed) != (run.task, run.seed):
            task = load(run.task, run.seed)
        about, logits = trained(run, task, given.out, {} if given.paper else CHOSEN[run.task])
        np.savez(path.with_suffix(".npz"), **logits)  # type: ignore[arg-type]
        path.write_text(json.dumps(about))
        unseen = {width: np.mean(list(found["unseen"].values())) for width, found in about["accuracy"].items()}
        print(
            path.stem,
            f"{about['cpu_seconds']:.0f} s",
            {w: round(100 * float(a), 2) for w, a in unseen.items()},
            flush=True,
        )


if __name__ == "__main__":
    main()
