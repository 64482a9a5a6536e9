"""Three sizes of network up a tree: FedAgg against each device alone and FedAvg of the small one, on the digits.

``python benchmarks/federated/growing.py`` prints, for each seed, the accuracy at the user mean over the unseen users,
of the devices' own networks and of the edges' the mean over them, and bytes. Devices are four an edge; the autoencoder
is fitted to the calibration users' inputs. "alone" are devices that learn their own rows, as many epochs, and hear
nothing. "pooled" is the large network trained in one place on exactly what FedAgg's cloud is told: all bridge samples
and their labels.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

import numpy as np

from duetto import tasks
from duetto.algorithms import fedagg, fedavg
from duetto.models import Conv
from duetto.models.principal import decoded, principal
from duetto.protocols import rounds
from duetto.simulation.engine import simulate
from duetto.simulation.fleet import fleet
from duetto.training import Sequential, sequential
from duetto.tree import Tree
from duetto.types import Algorithm, Party, Rows

NETS = (Conv((1, 8, 8), 10, (8, 16)), Conv((1, 8, 8), 10, (16, 32)), Conv((1, 8, 8), 10, (32, 64), (128,)))
AN_EDGE = 4


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--bridge", type=int, default=16)
    parser.add_argument("--width", type=int, default=16, help="numbers of a code")
    parser.add_argument("--alpha", type=float, nargs="*", default=[1.0])
    parser.add_argument("--passes", type=int, default=5, help="of an edge and of the cloud in a round")
    args = parser.parse_args()
    how: Any = {"lr": 0.05, "epochs": 5, "batch_size": 16, "momentum": 0.9}
    for seed in args.seeds:
        task = tasks.load("digits", seed=seed)
        users = {name: rows_of(task, name) for part in ("device", "calibration", "unseen") for name in task.users[part]}
        devices = {name: users[name] for name in task.users["device"]}
        unseen = [users[name] for name in task.users["unseen"]]
        coder = principal(np.concatenate([users[name].x for name in task.users["calibration"]]), args.width)
        names = list(devices)
        edges = tuple(tuple(names[at : at + AN_EDGE]) for at in range(0, len(names), AN_EDGE))

        def scored(kind: int, params: Tree, unseen: list[Rows] = unseen) -> float:
            return float(np.mean([(NETS[kind].logits(params, r.x).argmax(1) == r.y).mean() for r in unseen]))

        def shown(name: str, log: Any, *scores: str, seed: int = seed) -> None:
            bytes_ = sum(record.cost.up_bytes + record.cost.down_bytes for record in log.records)
            print(f"seed {seed} {name:12} {' '.join(scores)} {bytes_ / 1e6:.2f} MB", flush=True)

        plain = lived(fedavg(NETS[0], NETS[0].init(0), **how), devices, coder, args.rounds, seed)
        shown("fedavg small", plain, f"small {scored(0, plain.memory['cloud']['params']):.3f}")
        everything = {"bridge": args.bridge, "passes": args.passes, **how}
        for alpha in args.alpha:
            log = lived(fedagg(NETS, edges, coder, alpha=alpha, **everything), devices, coder, args.rounds, seed)
            middle = log.memory["cloud"]["rounds"]["server"]["edges"].values()
            own = np.mean([scored(0, log.memory[name]["model"]) for name in names])
            at_edges, in_cloud = np.mean([scored(1, each) for each in middle]), scored(2, log.memory["cloud"]["params"])
            shown(f"fedagg {alpha:g}", log, f"small {own:.3f} middle {at_edges:.3f} large {in_cloud:.3f}")
        algorithm: Any = fedagg(NETS, edges, coder, **everything)
        silent = replace(
            algorithm, server=replace(algorithm.server, student=replace(algorithm.server.student, epochs=0))
        )
        silent = replace(silent, client=replace(silent.client, loss=silent.client.loss[:1]))
        log = lived(silent, devices, coder, args.rounds, seed)
        shown("alone", log, f"small {np.mean([scored(0, log.memory[name]['model']) for name in names]):.3f}")
        x = decoded(coder, np.concatenate([log.memory[name]["codes"] for name in names]), NETS[2].shape)
        y = np.concatenate([log.memory[name]["labels"] for name in names])
        student = replace(algorithm.server.student, loss=algorithm.client.loss[:1], epochs=args.passes * args.rounds)
        pooled = sequential.run(student, {"params": NETS[2].init(0)}, {"x": x, "y": y}, (seed, "pooled")).params
        print(f"seed {seed} pooled       large {scored(2, pooled):.3f} from {len(y)} bridge samples", flush=True)


def rows_of(task: Any, name: str) -> Rows:
    """A user's rows."""
    own = np.flatnonzero(task.data.user == task.data.users.index(name))
    return Rows(task.data.x[own].astype(np.float32), task.data.y[own])


def lived(algorithm: Algorithm, devices: dict[str, Rows], coder: Tree, steps: int, seed: int) -> Any:
    """All devices, every round."""
    client = replace(algorithm.client, executor=Sequential())
    return simulate(
        fleet=fleet("phones", list(devices), data=devices.__getitem__, memory={"autoencoder": coder}),
        device=Party(skills=(type(client),)),
        cloud=rounds(replace(algorithm, client=client), steps=steps, seed=seed),
    )


if __name__ == "__main__":
    main()
