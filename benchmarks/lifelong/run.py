"""What five tasks, one after the other, leave of each: replay, EWC, LwF and GEM beside plain fine-tuning, by user.

    DUETTO_DATA=... python benchmarks/lifelong/run.py --task handwriting --seeds 0,1,2

Twenty users learn together (federated averaging, everybody online) five tasks of two classes each, from nothing,
``--rounds`` rounds a task; a fifth of each user's rows is held back. ``class``: all classes so far are to be told
apart. ``task``: the task of a row is known. After each task every user is scored on its held rows
of every task so far; a user's backward transfer is the mean over earlier tasks of what it has at the end less what it
had when just learnt, over the tasks of which the user has held rows. Printed are means over users, then over seeds with
the lowest and highest. ``joint`` trains on all parts seen so far: what forgetting nothing would reach.

Several strengths of EWC stand side by side. As a term of the loss a spring is stable only where step x strength x
stiffness is below 2: ``--lrs`` runs methods with smaller steps, and as many more epochs as keep step x epochs the same.
Implicit EWC, and online EWC here, are stable with any step.
"""

from __future__ import annotations

import argparse
import itertools
import json
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from duetto import tasks
from duetto.algorithms import fedavg
from duetto.evaluation.forgetting import average, backward_transfer
from duetto.models import Conv
from duetto.protocols import rounds
from duetto.simulation.engine import simulate
from duetto.simulation.fleet import fleet
from duetto.tasks.by_user import ByUser, draw_users, split
from duetto.tasks.incremental import by_class, groups, stream
from duetto.training import SGD, CrossEntropy
from duetto.training.ewc import Elastic, Ewc
from duetto.training.gem import Gem
from duetto.training.lifelong import Lifelong, Within
from duetto.training.lwf import Kept, Lwf
from duetto.training.replay import Replay
from duetto.types import Party

USERS, TASKS = 20, 5
METHODS: dict[str, tuple[type[Lifelong], tuple[Any, ...], dict[str, Any]]] = {
    "fine-tuning": (Lifelong, (), {}),
    "EWC, strength 10": (Ewc, (Elastic(10.0),), {}),
    "EWC, strength 100": (Ewc, (Elastic(100.0),), {}),
    "implicit EWC, strength 1": (Ewc, (), {"strength": 1.0}),
    "implicit EWC, strength 10": (Ewc, (), {"strength": 10.0}),
    "implicit EWC, strength 100": (Ewc, (), {"strength": 100.0}),
    "online EWC, strength 10": (Ewc, (), {"strength": 10.0, "decay": 0.9}),
    "LwF": (Lwf, (Kept(1.0, 2.0),), {}),
    "replay, 20 rows a user": (Replay, (), {"capacity": 20}),
    "A-GEM, 4 rows a task and user": (Gem, (), {"capacity": 4, "averaged": True}),
    "GEM, 4 rows a task and user": (Gem, (), {"capacity": 4}),
}


def data(task: str, seed: int) -> ByUser:
    """Twenty users."""
    if task == "digits":
        from sklearn.datasets import load_digits

        x, y = load_digits(return_X_y=True)
        return tasks.Dirichlet(USERS, 10.0)(((x.reshape(-1, 1, 8, 8) / 16).astype(np.float32), y), seed)
    from duetto.tasks import handwriting

    people = handwriting.task(seed).data
    students = [user for user in people.users if user.endswith("_4")]
    drawn = draw_users(students, {"fleet": USERS / len(students), "rest": 1 - USERS / len(students)}, seed)
    return people.only(drawn["fleet"])


def run(people: ByUser, seed: int, kind: str, method: Any, steps: int, epochs: int, lr: float) -> np.ndarray:
    """[users, tasks, tasks] accuracies; NaN where a user has no held rows, or the task is still to come."""
    parts = split(people, {"own": 0.8, "held": 0.2}, seed)
    own, held = people.take(parts["own"]), people.take(parts["held"])
    known, classes = groups(len(people.classes), TASKS, seed), len(people.classes)
    pieces = by_class(own, TASKS, seed)
    if method is None:
        pieces = {f"task-{i}": np.concatenate([pieces[f"task-{j}"] for j in range(i + 1)]) for i in range(TASKS)}
    rows = {user: stream(own, user, pieces) for user in own.users}
    net = Conv(people.x.shape[1:], classes, (8, 16) if people.x.shape[-1] == 8 else (16, 32, 64))
    cls, terms, more = method or (Lifelong, (), {})
    first = Within(known) if kind == "task" else CrossEntropy()
    client = cls(net, (first, *terms), SGD(lr), epochs, 16, **more)
    algorithm = fedavg(net, net.init(seed), lr=lr, epochs=1)
    found = np.full((len(own.users), TASKS, TASKS), np.nan)

    def at(step: int) -> Any:
        task, last = step // steps, step % steps == steps - 1
        return replace(algorithm, client=replace(client, part=f"task-{task}", last=last))

    def measure(task: int, params: Any) -> None:
        logits = net.logits(params, held.x)
        for j in range(task + 1):
            outside = np.setdiff1d(np.arange(classes), known[j])
            for u, user in enumerate(own.users):
                mine = held.rows(user) if user in held.users else np.zeros(0, np.int64)
                mine = mine[np.isin(held.y[mine], known[j])]
                said = logits[mine].copy()
                if kind == "task":
                    said[:, outside] = -np.inf
                found[u, task, j] = (said.argmax(1) == held.y[mine]).mean() if len(mine) else np.nan

    counted = iter(range(TASKS))
    simulate(
        fleet=fleet("phones", own.users, data=rows.__getitem__, seed=seed),
        device=Party(skills=(cls,)),
        cloud=rounds(
            at, steps=steps * TASKS, seed=seed, every=steps, measure=lambda params: measure(next(counted), params) or {}
        ),
        seed=seed,
    )
    return found


def by_user(found: np.ndarray) -> tuple[float, float, float]:
    """Means over users, in points: accuracy at the end, backward transfer, the last task when just learnt."""
    ends, moved, fresh = [], [], []
    for table in found:
        has = np.flatnonzero(np.isfinite(table[-1]))
        own = table[np.ix_(has, has)]
        if len(has):
            ends.append(average(own))
            fresh.append(np.diag(own).mean())
        if len(has) > 1:
            moved.append(backward_transfer(own))
    return 100 * float(np.mean(ends)), 100 * float(np.mean(moved)), 100 * float(np.mean(fresh))


def main() -> None:
    """Run all, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--task", choices=("digits", "handwriting"), default="digits")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--lrs", default="", help="steps instead of --lr, with --epochs x lr / step epochs each")
    parser.add_argument("--kinds", default="class,task")
    parser.add_argument("--methods", default="", help="beginnings of names; all where empty")
    given = parser.parse_args()
    torch.set_num_threads(1)
    lrs = [float(lr) for lr in given.lrs.split(",")] if given.lrs else [given.lr]
    for kind in given.kinds.split(","):
        print(f"| {kind}-incremental | accuracy at the end | backward transfer | when just learnt |\n|---|---|---|---|")
        raw = {}
        for lr, (name, method) in itertools.product(lrs, {**METHODS, "joint (all rows so far)": None}.items()):
            if not any(name.startswith(each) for each in given.methods.split(",")):
                continue
            epochs = round(given.epochs * given.lr / lr)
            scores = [
                by_user(run(data(given.task, int(seed)), int(seed), kind, method, given.rounds, epochs, lr))
                for seed in given.seeds.split(",")
            ]
            told = f"{name}, step {lr:g}" if given.lrs else name
            raw[told] = scores
            cells = [f"{np.mean(each):.1f} ({min(each):.1f} to {max(each):.1f})" for each in zip(*scores, strict=True)]
            print(f"| {told} | {' | '.join(cells)} |", flush=True)
        print(json.dumps({kind: raw}))


if __name__ == "__main__":
    main()
