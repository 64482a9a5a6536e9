"""A domain that nobody has seen: FedADG against FedAvg on digits that are turned, a domain an angle.

``python benchmarks/federated/domains.py`` prints, for each seed and each angle that is left out, the accuracy on the
images of that angle, that on held-back images of the others, and the share of the features' variance within classes
that lies between the domains that were seen (0: their class means are the same). Every angle has its own images, and
three devices, who hold three quarters of them.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.ndimage import rotate
from sklearn.datasets import load_digits

from duetto import tree as trees
from duetto.algorithms import fedadg, fedavg
from duetto.models import Conv
from duetto.models.features import last_features
from duetto.protocols import rounds
from duetto.simulation.engine import simulate
from duetto.simulation.fleet import fleet
from duetto.training import Sequential
from duetto.tree import Tree
from duetto.types import Algorithm, Party, Rows, rng

NET = Conv((1, 8, 8), 10, (8, 16))
ANGLES = (0, 15, 30, 45, 60, 75)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--angles", type=int, nargs="*", default=[0, 75], help="left out, one after the other")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--weights", type=float, nargs="*", default=[0.2], help="of the alignment")
    args = parser.parse_args()
    how: Any = {"lr": 0.05, "epochs": 5, "batch_size": 16, "momentum": 0.9}
    for seed in args.seeds:
        domains = turned(seed)
        for angle in args.angles:
            seen = {each: rows for each, rows in domains.items() if each != angle}
            params = NET.init(seed)
            systems = {"fedavg": fedavg(NET, params, **how)}
            systems |= {f"fedadg {weight:g}": fedadg(NET, params, weight=weight, **how) for weight in args.weights}
            for name, algorithm in systems.items():
                learned = lived(algorithm, seen, args.rounds, seed)
                net: Tree = learned.get("net", learned)
                held = {each: quarter(rows)[1] for each, rows in seen.items()}
                right = np.mean([accuracy(net, rows) for rows in held.values()])
                print(
                    f"seed {seed} without {angle:2} {name:12} unseen {accuracy(net, domains[angle]):.3f} "
                    f"seen {right:.3f} between {between(net, held):.3f}",
                    flush=True,
                )


def turned(seed: int) -> dict[int, Rows]:
    """By angle, its images, turned."""
    x, y = load_digits(return_X_y=True)
    images = (x.reshape(-1, 1, 8, 8) / 16).astype(np.float32)
    parts = np.array_split(rng((seed, "domains")).permutation(len(y)), len(ANGLES))
    return {
        angle: Rows(np.clip(rotate(images[rows], angle, (2, 3), reshape=False, order=1), 0, 1), y[rows])
        for angle, rows in zip(ANGLES, parts, strict=True)
    }


def quarter(rows: Rows) -> tuple[Rows, Rows]:
    """What devices hold, and the rest."""
    n = len(rows) * 3 // 4
    return Rows(rows.x[:n], rows.y[:n]), Rows(rows.x[n:], rows.y[n:])


def lived(algorithm: Algorithm, seen: Mapping[int, Rows], steps: int, seed: int) -> Any:
    """What all devices learn, three of a domain."""
    data = {}
    for angle, rows in seen.items():
        own = quarter(rows)[0]
        for i in range(3):
            data[f"{angle}-{i}"] = Rows(own.x[i::3], own.y[i::3])
    client = replace(algorithm.client, executor=Sequential())
    log = simulate(
        fleet=fleet("phones", list(data), data=data.__getitem__),
        device=Party(skills=(type(client),)),
        cloud=rounds(replace(algorithm, client=client), steps=steps, seed=seed),
    )
    return trees.map(np.float32, log.memory["cloud"]["params"])


def accuracy(net: Tree, rows: Rows) -> float:
    """The share that is right."""
    return float((NET.logits(net, rows.x).argmax(1) == rows.y).mean())


def between(net: Tree, domains: Mapping[int, Rows]) -> float:
    """Of the variance of features within classes, the share between the domains' means."""
    features = {angle: last_features(NET, net, rows.x) for angle, rows in domains.items()}
    whole = among = 0.0
    for label in range(10):
        groups = [features[angle][rows.y == label] for angle, rows in domains.items() if (rows.y == label).any()]
        mean = np.concatenate(groups).mean(0)
        whole += float(sum(((group - mean) ** 2).sum() for group in groups))
        among += float(sum(len(group) * ((group.mean(0) - mean) ** 2).sum() for group in groups))
    return among / whole


if __name__ == "__main__":
    main()
