"""Three designs of network that exchange what they say, against each alone: FedMD, DS-FL and FedDF on the digits.

``python benchmarks/federated/distillation.py`` prints, for each seed, the accuracy at the user mean over the unseen
users: of the devices' own networks after local training alone, FedMD and DS-FL; and of the prototypes of FedAvg among
the devices of one design, and FedDF. The public inputs are those of the calibration users, whose labels nobody reads.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

import numpy as np

from duetto import tasks
from duetto.algorithms import dsfl, feddf, fedmd
from duetto.models import Conv, Mlp
from duetto.protocols import rounds
from duetto.simulation.engine import simulate
from duetto.simulation.fleet import fleet
from duetto.training import Sequential
from duetto.types import Algorithm, Party, Rows

NETS = (Conv((1, 8, 8), 10, (8, 16)), Mlp((1, 8, 8), 10, (32,)), Mlp((1, 8, 8), 10, (64, 32)))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--systems", nargs="*", help="names from the table; all where none is named")
    args = parser.parse_args()
    how: Any = {"lr": 0.05, "batch_size": 16, "momentum": 0.9}
    own: Any = {"epochs": 1, "first": 20, **how}
    for seed in range(args.seeds):
        task = tasks.load("digits", seed=seed)
        users = {
            name: rows_of(task, name) for group in ("device", "calibration", "unseen") for name in task.users[group]
        }
        public = np.concatenate([users[name].x for name in task.users["calibration"]]).astype(np.float32)
        devices = {name: users[name] for name in task.users["device"]}
        unseen = [users[name] for name in task.users["unseen"]]
        systems = {
            "alone": fedmd(NETS, len(public), digest=0, **own),
            "fedmd": fedmd(NETS, len(public), digest=10, **own),
            "dsfl": dsfl(NETS, len(public), digest=10, **own),
            "fedavg by design": feddf(NETS, public, passes=0, epochs=10, **how),
            "feddf": feddf(NETS, public, passes=5, epochs=10, **how),
        }
        for name in args.systems or systems:
            algorithm = systems[name]
            log = lived(algorithm, devices, public, args.rounds, seed)
            params = log.memory["cloud"]["params"]
            by: dict[int, list[float]] = {kind: [] for kind in range(len(NETS))}
            for user in devices:
                memory = log.memory[user]
                hits = [
                    (algorithm.client.logits({"params": params}, memory, r.x).argmax(1) == r.y).mean() for r in unseen
                ]
                by[int(memory["kind"])].append(float(np.mean(hits)))
            shown = " ".join(f"{np.mean(each):.3f}" for each in by.values())
            mean = np.mean([np.mean(each) for each in by.values()])
            bytes_ = sum(record.cost.up_bytes + record.cost.down_bytes for record in log.records)
            print(f"seed {seed} {name:17} mean {mean:.3f} by design {shown} {bytes_ / 1e6:.1f} MB", flush=True)


def rows_of(task: Any, name: str) -> Rows:
    """A user's rows."""
    data = task.data
    own = np.flatnonzero(data.user == data.users.index(name))
    return Rows(data.x[own], data.y[own])


def lived(algorithm: Algorithm, devices: dict[str, Rows], public: np.ndarray, steps: int, seed: int) -> Any:
    """All devices, every round."""
    client = replace(algorithm.client, executor=Sequential())
    return simulate(
        fleet=fleet("phones", list(devices), data=devices.__getitem__, memory={"public": public}),
        device=Party(skills=(type(client),)),
        cloud=rounds(replace(algorithm, client=client), steps=steps, seed=seed),
    )


if __name__ == "__main__":
    main()
