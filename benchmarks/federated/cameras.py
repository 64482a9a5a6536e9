"""Every user's camera is another one: FedAvg, FedBN and AdaBN on digits whose contrast and gamma differ by user.

``python benchmarks/federated/cameras.py`` prints, for each seed, the accuracy at the user mean over what device users
held back, and over unseen users, whose cameras nobody has seen: FedAvg of a network without norms, FedAvg and FedBN
of the same one with batch normalisation (an unseen user of FedBN has the layers that all devices begin with), and each
of the two after AdaBN, for which a user reads own inputs without labels (devices those they train on, unseen users
those they are scored on). Users' classes are mixed alike; with ``--classes`` an unseen user has so many only.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from sklearn.datasets import load_digits

from duetto.algorithms import fedavg, fedbn
from duetto.models import Conv
from duetto.protocols import rounds
from duetto.simulation.engine import simulate
from duetto.simulation.fleet import fleet
from duetto.training import Sequential
from duetto.training.adabn import adapted
from duetto.types import Algorithm, Party, Rows, rng

PLAIN, NORMED = Conv((1, 8, 8), 10, (8, 16)), Conv((1, 8, 8), 10, (8, 16), norm="batch")
DEVICES, UNSEEN = 15, 5


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--classes", type=int, default=10, help="of an unseen user")
    args = parser.parse_args()
    how: Any = {"lr": 0.05, "epochs": 5, "batch_size": 16, "momentum": 0.9}
    for seed in args.seeds:
        people = list(cameras(seed).items())
        devices, unseen = dict(people[:DEVICES]), dict(people[DEVICES:])
        unseen = {user: of_classes(rows, args.classes, (seed, user)) for user, rows in unseen.items()}
        train = {user: Rows(rows.x[len(rows) // 4 :], rows.y[len(rows) // 4 :]) for user, rows in devices.items()}
        held = {user: Rows(rows.x[: len(rows) // 4], rows.y[: len(rows) // 4]) for user, rows in devices.items()}
        for name, algorithm in {
            "fedavg, no norm": fedavg(PLAIN, PLAIN.init(seed), **how),
            "fedavg": fedavg(NORMED, NORMED.init(seed), **how),
            "fedbn": fedbn(NORMED, NORMED.init(seed), **how),
        }.items():
            memory = lived(algorithm, train, args.rounds, seed)
            client: Any = algorithm.client
            sent = algorithm.server.send({}, memory["cloud"]["params"], None)
            known = {user: client.personal(sent, memory.get(user, {})) for user in held}
            strange = {user: client.personal(sent, {}) for user in unseen}
            shown(seed, name, client.net, (known, held), (strange, unseen))
            if client.net is NORMED:
                known = {user: adapted(NORMED, known[user], train[user].x) for user in held}
                strange = {user: adapted(NORMED, strange[user], unseen[user].x) for user in unseen}
                shown(seed, f"{name} + adabn", NORMED, (known, held), (strange, unseen))


def shown(seed: int, name: str, net: Conv, *asked: tuple[Mapping[str, Any], Mapping[str, Rows]]) -> None:
    """A line."""
    found = [
        np.mean([(net.logits(models[user], r.x).argmax(1) == r.y).mean() for user, r in rows.items()])
        for models, rows in asked
    ]
    print(f"seed {seed} {name:16} held {found[0]:.3f} unseen {found[1]:.3f}", flush=True)


def cameras(seed: int) -> dict[str, Rows]:
    """By user, images as that user's camera takes them: ``gain * x^gamma``."""
    x, y = load_digits(return_X_y=True)
    images = (x.reshape(-1, 1, 8, 8) / 16).astype(np.float32)
    people = {}
    for i, rows in enumerate(np.array_split(rng((seed, "people")).permutation(len(y)), DEVICES + UNSEEN)):
        gain, gamma = np.exp(rng((seed, "camera", i)).uniform(-1.5, 1.5, 2))
        people[f"user-{i}"] = Rows(np.float32(gain) * images[rows] ** np.float32(gamma), y[rows])
    return people


def of_classes(rows: Rows, classes: int, key: tuple[int | str, ...]) -> Rows:
    """Those of some classes."""
    mine = np.isin(rows.y, rng(key).choice(10, classes, replace=False))
    return Rows(rows.x[mine], rows.y[mine])


def lived(algorithm: Algorithm, devices: Mapping[str, Rows], steps: int, seed: int) -> Any:
    """What all remember after the rounds."""
    client = replace(algorithm.client, executor=Sequential())
    return simulate(
        fleet=fleet("phones", list(devices), data=devices.__getitem__),
        device=Party(skills=(type(client),)),
        cloud=rounds(replace(algorithm, client=client), steps=steps, seed=seed),
    ).memory


if __name__ == "__main__":
    main()
