"""Group knowledge transfer beside what else a small model on a device and a large one in the cloud can do.

    python benchmarks/split/knowledge.py                      # digits, three seeds, some minutes

After the last round: *device* is the mean over device users of their held-back rows, a third of all, answered by their
own model; *pair* the same, answered by the cloud's model on their features; *joining* unseen users, who have the shared
model or none. Rows: each device alone; FedAvg of the small model; SplitFed of the whole (small front, large back)
network, cut where FedGKT cuts, its cloud's halves averaged (v1) or one that takes all batches in turn (v2), as FedGKT's
does; FedGKT; with shared small models. MB are a device's, all rounds, both ways. The learning rate is the same for all,
and was not tuned.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

import duetto as du
from duetto.algorithms import fedavg, fedgkt
from duetto.algorithms.split import halves, split
from duetto.models import Conv
from duetto.models.net import Net, built
from duetto.models.staged import stage
from duetto.policies import Everyone
from duetto.programs.split_learning import joined
from duetto.protocols import rounds
from duetto.protocols.split import split as split_rounds
from duetto.tasks import load
from duetto.training import SGD, Extractor
from duetto.training.halves import Backs, Forths
from duetto.training.split import Back, Enter, Forth, Front, Leave, Tail
from duetto.types import Local, Party, Rows, rng

CUT, BATCH = 2, 16
METHODS = ("alone", "FedAvg", "SplitFed v1", "SplitFed v2", "FedGKT", "FedGKT, shared")


@dataclass(frozen=True)
class Whole(Net):
    """The first stages of a small network, and a large one that reads them."""

    small: Conv
    large: Net

    @property
    def shape(self) -> Any:
        """Of one input."""
        return self.small.shape

    @property
    def classes(self) -> int:
        """Logits."""
        return int(self.large.classes)

    def module(self) -> nn.Module:
        """One after the other."""
        return nn.Sequential(*list(self.small.module())[:CUT], self.large.module())  # type: ignore[call-overload]


@dataclass(frozen=True)
class World:
    """A seed's people: rows to learn from, and held back."""

    net: Conv
    server: Conv
    learn: Mapping[str, Rows]
    held: Mapping[str, Rows]
    unseen: Mapping[str, Rows]


def world(task: str, seed: int, people: int) -> World:
    """Device users with two thirds of their rows, and unseen users."""
    loaded = load(task, seed)
    learn, held = {}, {}
    for user in loaded.users["device"][:people]:
        rows = loaded.rows(user)
        order = rng((seed, "held", user)).permutation(len(rows))
        cut = max(1, len(rows) // 3)
        held[user], learn[user] = (Rows(rows.x[part], rows.y[part]) for part in (order[:cut], order[cut:]))
    net = loaded.small
    assert isinstance(net, Conv)
    server = Conv((net.channels[0], *net.shape[1:]), net.classes, (32, 64), hidden=(64,))
    return World(net, server, learn, held, {user: loaded.rows(user) for user in loaded.users["unseen"]})


def right(logits: Callable[[str, np.ndarray], np.ndarray], groups: Mapping[str, Rows]) -> float:
    """The mean over users of the share that is right, %."""
    return 100 * float(np.mean([np.mean(logits(user, rows.x).argmax(1) == rows.y) for user, rows in groups.items()]))


def federated(here: World, algorithm: Any, steps: int, seed: int) -> Any:
    """The log of so many rounds."""
    return du.simulate(
        device=Party(skills=(type(algorithm.client),)),
        cloud=rounds(algorithm, steps=steps, seed=seed),
        fleet=du.fleet("phones", list(here.learn), data=here.learn.__getitem__),
        seed=seed,
    )


def spent(log: Any, devices: int) -> float:
    """MB of a device."""
    return sum(record.cost.up_bytes + record.cost.down_bytes for record in log.records) / devices / 1e6


def ran(here: World, name: str, steps: int, lr: float, seed: int) -> tuple[float, float, float, float]:
    """Device, pair, joining, MB; NaN where there is no such thing."""
    how: Any = {"lr": lr, "epochs": 1, "batch_size": BATCH}
    net, none = here.net, float("nan")
    if name == "alone":
        client = fedavg(net, net.init(seed), **{**how, "epochs": steps}).client
        trained = {
            user: client(Local(rows, {}), {"params": net.init(seed)}, (seed, user), "me")[1]["delta"]
            for user, rows in here.learn.items()
        }
        own = {user: du.tree.add(net.init(seed), delta) for user, delta in trained.items()}
        return right(lambda user, x: net.logits(own[user], x), here.held), none, none, 0.0
    if name == "FedAvg":
        log = federated(here, fedavg(net, net.init(seed), **how), steps, seed)
        params = log.memory["cloud"]["params"]
        device, joining = (right(lambda _, x: net.logits(params, x), each) for each in (here.held, here.unseen))
        return device, none, joining, spent(log, len(here.learn))
    if name.startswith("SplitFed"):
        whole = Whole(net, here.server)
        sides = halves(stage(built(whole, seed).eval(), np.zeros((2, *net.shape), np.float32)), CUT)
        what = split(sides, f"splitfed{name[-1]}", SGD(lr), epochs=1, cohort=Everyone(), batch_size=BATCH)
        cloud = Party(
            roles=(split_rounds(what, steps=steps, seed=seed),),
            skills=(Back, Backs, Forth, Forths),
            local=Local(None, {"back": sides["back"]}),
        )
        fleet = du.fleet("phones", list(here.learn), data=here.learn.__getitem__, memory={"front": sides["front"]})
        log = du.simulate(device=Party(skills=(Enter, Front, Tail, Leave)), cloud=cloud, fleet=fleet, seed=seed)
        params = joined(log.memory["cloud"]["split"]["params"])
        pair, joining = (right(lambda _, x: whole.logits(params, x), each) for each in (here.held, here.unseen))
        return none, pair, joining, spent(log, len(here.learn))
    shares = name == "FedGKT, shared"
    most = max(len(rows) for rows in here.learn.values())
    made = fedgkt(net, net.init(seed), here.server, cut=CUT, shown=most, shares=shares, **how)
    log = federated(here, made, steps, seed)
    params, client = log.memory["cloud"]["params"], made.client
    assert isinstance(client, Extractor)
    own = {user: params["device"] if shares else log.memory[user]["model"] for user in here.held}
    device = right(lambda user, x: net.logits(own[user], x), here.held)
    pair = right(lambda user, x: here.server.logits(params["cloud"], client.features(own[user], x)), here.held)
    joining = none
    if shares:
        joining = right(
            lambda _, x: here.server.logits(params["cloud"], client.features(params["device"], x)), here.unseen
        )
    return device, pair, joining, spent(log, len(here.learn))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="digits")
    parser.add_argument("--people", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--methods", nargs="*", default=METHODS)
    given = parser.parse_args()
    print("| | device, % | pair, % | joining, % | MB a device |\n|:--|--:|--:|--:|--:|")
    for name in given.methods:
        worlds = ((world(given.task, seed, given.people), seed) for seed in given.seeds)
        found = np.array([ran(here, name, given.rounds, given.lr, seed) for here, seed in worlds])
        cells = [
            "" if np.isnan(column).any() else f"{column.mean():.1f} ({column.min():.1f} to {column.max():.1f})"
            for column in found[:, :3].T
        ]
        print(f"| {name} | {' | '.join(cells)} | {found[:, 3].mean():.2f} |", flush=True)


if __name__ == "__main__":
    main()
