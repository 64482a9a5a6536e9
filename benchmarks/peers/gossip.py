"""Gossip beside federated averaging at equal bytes: twenty users on a ring, a torus, a random and a complete graph.

    python benchmarks/peers/gossip.py --task digits --seeds 0,1,2

Twenty users with skewed labels (digits: Dirichlet(0.3 a class); handwriting: twenty students as they are). A fifth of
each user's rows is held back; all of these together are the test. Federated averaging asks everybody, everybody
counting the same, for ``--rounds`` rounds; gossip gets as many rounds as have the same bytes, up and down together (a
message between devices goes up one link and down another). Printed are accuracies after the last round: of the one
model, and of gossip the mean over the devices' models, the worst of them, and what their mean would have. Nothing is
tuned on the held rows; ``--lr`` is one for all.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from duetto import aggregation, tasks
from duetto import tree as trees
from duetto.algorithms import fedavg
from duetto.models import Conv
from duetto.protocols import graphs, rounds
from duetto.protocols.gossip import Tell, gossip
from duetto.simulation.engine import simulate
from duetto.simulation.fleet import fleet
from duetto.tasks.by_user import ByUser, draw_users, split
from duetto.training import Client
from duetto.types import Algorithm, Party, Rows

USERS = 20
GRAPHS: dict[str, Any] = {
    "ring": lambda users, seed: graphs.ring(users),
    "torus": lambda users, seed: graphs.torus(users),
    "random 4-regular": lambda users, seed: graphs.regular(users, 4, seed),
    "complete": lambda users, seed: graphs.complete(users),
}


def data(task: str, seed: int) -> ByUser:
    """Twenty users."""
    if task == "digits":
        from sklearn.datasets import load_digits

        x, y = load_digits(return_X_y=True)
        return tasks.Dirichlet(USERS, 0.3)(((x.reshape(-1, 1, 8, 8) / 16).astype(np.float32), y), seed)
    from duetto.tasks import handwriting

    people = handwriting.task(seed).data
    students = [user for user in people.users if user.endswith("_4")]
    drawn = draw_users(students, {"fleet": USERS / len(students), "rest": 1 - USERS / len(students)}, seed)
    return people.only(drawn["fleet"])


def run(task: str, names: list[str], equal: list[str], seed: int, steps: int, lr: float, epochs: int) -> dict[str, Any]:
    """One seed: by system what it reached, and its megabytes."""
    people = data(task, seed)
    parts = split(people, {"own": 0.8, "held": 0.2}, seed)
    own, held = people.take(parts["own"]), people.take(parts["held"])
    rows = {user: Rows(own.x[own.rows(user)], own.y[own.rows(user)]) for user in own.users}
    net = Conv(people.x.shape[1:], len(people.classes), (8, 16) if task == "digits" else (16, 32, 64))
    algorithm = replace(
        fedavg(net, net.init(seed), lr=lr, epochs=epochs, batch_size=16), aggregator=aggregation.Mean(cap=1.0)
    )
    everyone = fleet("phones", own.users, data=rows.__getitem__, seed=seed)

    def right(params: Any) -> float:
        return 100 * float((net.logits(params, held.x).argmax(1) == held.y).mean())

    log = simulate(
        fleet=everyone, device=Party(skills=(Client,)), cloud=rounds(algorithm, steps=steps, seed=seed), seed=seed
    )
    spent = sum(record.cost.up_bytes + record.cost.down_bytes for record in log.records)
    last = right(log.memory["cloud"]["params"])
    found: dict[str, Any] = {"fedavg": {"rounds": steps, "mean": last, "worst": last, "joint": last, "mb": spent / 1e6}}
    for name in names:
        graph = GRAPHS[name](own.users, seed)
        weights = graphs.metropolis(graph)
        messages = sum(len(known) for known in graph.values())
        for label, count in {
            f"{name}, equal bytes": max(1, round(steps * len(graph) / messages)),
            f"{name}, equal rounds": steps,
        }.items():
            if label.split()[-1] not in equal:
                continue
            found[label] = {"gap": graphs.gap(weights)} | peers(algorithm, everyone, graph, weights, count, seed, right)
    return found


def peers(
    algorithm: Algorithm, everyone: Any, graph: Any, weights: Any, steps: int, seed: int, right: Any
) -> dict[str, Any]:
    """Gossip for so many rounds."""
    role = gossip(
        algorithm.client,
        algorithm.params,
        weights=weights,
        aggregator=aggregation.Mean(),
        gate=algorithm.gate,
        steps=steps,
        seed=seed,
    )
    log = simulate(fleet=everyone, device=Party((role,), (Client, Tell)), neighbours=graph, seed=seed)
    models = [log.memory[user]["params"] for user in everyone.names]
    each = [right(model) for model in models]
    joint = trees.map(
        lambda sum_, like: sum_.astype(like.dtype), trees.total(models, [1 / len(models)] * len(models)), models[0]
    )
    spent = sum(record.cost.up_bytes + record.cost.down_bytes for record in log.records)
    return {
        "rounds": steps,
        "mean": float(np.mean(each)),
        "worst": float(np.min(each)),
        "joint": right(joint),
        "mb": spent / 1e6,
    }


def main() -> None:
    """Run all seeds, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--task", choices=("digits", "handwriting"), default="digits")
    parser.add_argument("--graphs", default=",".join(GRAPHS))
    parser.add_argument("--equal", default="bytes,rounds")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--epochs", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(1)
    names = given.graphs.split(",")
    found = []
    for seed in given.seeds.split(","):
        found.append(run(given.task, names, given.equal.split(","), int(seed), given.rounds, given.lr, given.epochs))
        print(seed, json.dumps(found[-1]), flush=True)
    print("| system | rounds | MB | mean of the devices | worst device | their mean model |\n|---|---|---|---|---|---|")
    for name in found[0]:
        cells = [f"{found[0][name]['rounds']}", f"{np.mean([each[name]['mb'] for each in found]):.1f}"]
        for what in ("mean", "worst", "joint"):
            values = [each[name][what] for each in found]
            cells.append(f"{np.mean(values):.1f} ({min(values):.1f}-{max(values):.1f})")
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
