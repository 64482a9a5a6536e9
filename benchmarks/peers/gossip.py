"""Gossip beside federated averaging at equal bytes: twenty users on a ring, a torus, a random and a complete graph.

    python benchmarks/peers/gossip.py --task digits --seeds 0,1,2
    python benchmarks/peers/gossip.py --graphs ring --equal bytes --wires int8,top10%

Twenty users with skewed labels (digits: Dirichlet(``--skew``); handwriting: twenty students as they are). A fifth of
each user's rows is held back; all of these together are the test. Federated averaging asks everybody, everybody
counting the same, for ``--rounds`` rounds; gossip gets as many rounds as have the same bytes, up and down together (a
message between devices goes up one link and down another). Printed are accuracies after the last round: of the one
model, and of gossip the mean over the devices' models, the worst of them, and what their mean would have; and after how
many megabytes the devices' mean is first within a point of float32 federated averaging's last accuracy, which is looked
at about forty times. ``--lr`` is one for all, unless ``--peer-lr`` is another for gossip.

On other wires than float32 gossip tells differences to public copies (CHOCO-SGD); federated averaging's way up has
error feedback, and what is sparse up is int8 down, where nothing can be remembered.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from duetto import aggregation, codecs, tasks
from duetto import tree as trees
from duetto.algorithms import fedavg
from duetto.models import Conv
from duetto.protocols import graphs, rounds
from duetto.protocols.gossip import Tell, gossip
from duetto.simulation.engine import Log, simulate
from duetto.simulation.fleet import fleet
from duetto.tasks.by_user import ByUser, draw_users, split
from duetto.types import Algorithm, Chain, Codec, Party, Rows

USERS = 20
PILOT = 8  # rounds that tell what a round weighs
GRAPHS: dict[str, Any] = {
    "ring": lambda users, seed: graphs.ring(users),
    "torus": lambda users, seed: graphs.torus(users),
    "random 4-regular": lambda users, seed: graphs.regular(users, 4, seed),
    "complete": lambda users, seed: graphs.complete(users),
}
INT8 = Chain((codecs.Quantise(8), codecs.Zstd()))
WIRES: dict[str, tuple[Codec[Any], Codec[Any], float | None]] = {
    "float32": (Chain(), Chain(), None),
    "int8": (INT8, INT8, 1.0),
    "top10%": (Chain((codecs.TopK(0.1), codecs.Quantise(8), codecs.Zstd(19))), INT8, 0.5),
    "sign": (Chain((codecs.Sign(), codecs.Zstd(19))), INT8, 0.8),
}
"""Between devices and up, down to devices, and gossip's gamma (of sign, 0.5 and 0.8 were looked at on seed 9)."""


def data(task: str, seed: int, skew: float) -> ByUser:
    """Twenty users."""
    if task == "digits":
        from sklearn.datasets import load_digits

        x, y = load_digits(return_X_y=True)
        return tasks.Dirichlet(USERS, skew)(((x.reshape(-1, 1, 8, 8) / 16).astype(np.float32), y), seed)
    from duetto.tasks import handwriting

    people = handwriting.task(seed).data
    students = [user for user in people.users if user.endswith("_4")]
    drawn = draw_users(students, {"fleet": USERS / len(students), "rest": 1 - USERS / len(students)}, seed)
    return people.only(drawn["fleet"])


def run(given: argparse.Namespace, seed: int) -> dict[str, Any]:
    """One seed: by system what it reached, and its megabytes."""
    people = data(given.task, seed, given.skew)
    parts = split(people, {"own": 0.8, "held": 0.2}, seed)
    own, held = people.take(parts["own"]), people.take(parts["held"])
    rows = {user: Rows(own.x[own.rows(user)], own.y[own.rows(user)]) for user in own.users}
    net = Conv(people.x.shape[1:], len(people.classes), (8, 16) if given.task == "digits" else (16, 32, 64))
    everyone = fleet("phones", own.users, data=rows.__getitem__, seed=seed)
    steps, wires = given.rounds, given.wires.split(",")

    def right(params: Any) -> float:
        return 100 * float((net.logits(params, held.x).argmax(1) == held.y).mean())

    def at(step: int, steps: int, lr: float) -> Algorithm:
        slower = 0.02 + 0.98 * (1 + math.cos(math.pi * min(1, step / steps))) / 2 if given.schedule == "cosine" else 1.0
        made = fedavg(net, net.init(seed), lr=lr * slower, epochs=given.epochs, batch_size=16)
        return replace(made, aggregator=aggregation.Mean(cap=1.0))

    def central(wire: str, steps: int) -> dict[str, Any]:
        up, down, _ = WIRES[wire]
        lossy = {} if wire == "float32" else {"up": codecs.Feedback(up), "down": down}
        log = simulate(
            fleet=everyone,
            device=Party(skills=(type(at(0, 1, 1.0).client),)),
            cloud=rounds(lambda step: replace(at(step, steps, given.lr), **lossy), steps=steps, seed=seed),
            seed=seed,
        )
        last = right(log.memory["cloud"]["params"])
        return {"rounds": steps, "mean": last, "worst": last, "joint": last, "mb": spent(log), "reached": math.nan}

    def peers(graph: Any, wire: str, steps: int, target: float) -> dict[str, Any]:
        codec, _, gamma = WIRES[wire]
        if given.gamma and wire != "float32":
            gamma = given.gamma
        start = at(0, steps, given.peer_lr or given.lr)
        role = gossip(
            lambda step: at(step, steps, given.peer_lr or given.lr).client,
            start.params,
            weights=graphs.metropolis(graph),
            aggregator=aggregation.Mean(),
            gate=start.gate,
            steps=steps,
            seed=seed,
            codec=codec,
            gamma=gamma,
            measure=lambda params: {"right": right(params)},
            every=max(1, steps // 40),
        )
        log = simulate(fleet=everyone, device=Party((role,), (type(start.client), Tell)), neighbours=graph, seed=seed)
        models = [log.memory[user]["params"] for user in everyone.names]
        each = [right(model) for model in models]
        joint = trees.map(
            lambda sum_, like: sum_.astype(like.dtype), trees.total(models, [1 / len(models)] * len(models)), models[0]
        )
        curve: dict[int, list[float]] = {}
        for record in log.records:
            if "right" in record.metrics:
                curve.setdefault(record.step + 1, []).append(float(record.metrics["right"]))
        there = [step for step in sorted(curve) if np.mean(curve[step]) >= target - 1]
        return {
            "rounds": steps,
            "mean": float(np.mean(each)),
            "worst": float(np.min(each)),
            "joint": right(joint),
            "mb": spent(log),
            "reached": spent(log) * there[0] / steps if there else math.nan,
            "curve": {step: round(float(np.mean(values)), 2) for step, values in sorted(curve.items())},
        }

    found: dict[str, Any] = {"fedavg": central("float32", steps)}
    budget, target = found["fedavg"]["mb"], found["fedavg"]["mean"]

    def afforded(pilot: dict[str, Any]) -> int:
        return max(1, round(given.times * budget / (pilot["mb"] / pilot["rounds"])))

    for wire in wires:
        if wire != "float32" and "bytes" in given.equal and not given.peers_only:
            count = min(given.most, afforded(central(wire, PILOT)))
            found[f"fedavg, {wire}, equal bytes"] = central(wire, count)
    for name in given.graphs.split(","):
        graph = GRAPHS[name](own.users, seed)
        for wire in wires:
            suffix = "" if wire == "float32" else f", {wire}"
            if "bytes" in given.equal:
                count = min(given.most, afforded(peers(graph, wire, PILOT, math.inf)))
                found[f"{name}{suffix}, equal bytes"] = peers(graph, wire, count, target)
            if "rounds" in given.equal:
                found[f"{name}{suffix}, equal rounds"] = peers(graph, wire, steps, target)
    return found


def spent(log: Log) -> float:
    """Megabytes, up and down."""
    return sum(record.cost.up_bytes + record.cost.down_bytes for record in log.records) / 1e6


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
    parser.add_argument("--wires", default="float32", help=", ".join(WIRES))
    parser.add_argument("--gamma", type=float, default=0.0, help="of all wires but float32; 0 is each its own")
    parser.add_argument("--peer-lr", type=float, default=0.0, help="of gossip; 0 is that of federated averaging")
    parser.add_argument("--peers-only", action="store_true", help="no federated averaging but on float32")
    parser.add_argument("--schedule", choices=("constant", "cosine"), default="constant")
    parser.add_argument("--skew", type=float, default=0.3, help="of digits; small is skewed")
    parser.add_argument("--times", type=float, default=1.0, help="as many bytes as federated averaging on float32")
    parser.add_argument("--most", type=int, default=2000, help="rounds at most, where bytes would allow more")
    given = parser.parse_args()
    torch.set_num_threads(1)
    found = []
    for seed in given.seeds.split(","):
        found.append(run(given, int(seed)))
        print(seed, json.dumps(found[-1]), flush=True)
    print("| system | rounds | MB | mean of the devices | worst device | their mean model | within a point at MB |")
    print(f"|{'---|' * 7}")
    for name in found[0]:
        cells = [f"{found[0][name]['rounds']}", f"{np.mean([each[name]['mb'] for each in found]):.1f}"]
        for what in ("mean", "worst", "joint"):
            values = [each[name][what] for each in found]
            cells.append(f"{np.mean(values):.1f} ({min(values):.1f}-{max(values):.1f})")
        cells.append(
            ", ".join("-" if math.isnan(each[name]["reached"]) else f"{each[name]['reached']:.1f}" for each in found)
        )
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
