"""What an algorithm costs: two simulated rounds among a few devices of ``digits``, bytes and operations counted.

Nothing is timed, so the figures are the same on every machine.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np

from duetto import algorithms
from duetto import tree as trees
from duetto.errors import ConfigError
from duetto.models import Conv, Mlp, Net
from duetto.models.principal import principal
from duetto.programs import federated, personal
from duetto.programs.given import Given, built
from duetto.protocols import rounds
from duetto.protocols.tiers import DOWN, UP
from duetto.simulation.engine import simulate
from duetto.simulation.fleet import fleet
from duetto.tasks import load
from duetto.training.counted import counting
from duetto.tree import Tree
from duetto.types import Key, Local, Party, Rows, Skill

TASK, SEED, DEVICES = "digits", 0, 2
COMMON: Mapping[str, Any] = {"lr": 0.05, "epochs": 1, "batch_size": 16}

NUMBERS: Mapping[str, Mapping[str, Any]] = {
    "fedagg": {"nets": (Conv((1, 8, 8), 10, (8, 16)), Mlp((1, 8, 8), 10, (64,)), Mlp((1, 8, 8), 10, (256,)))},
    "fedgkt": {"server": Conv((8, 8, 8), 10, (16, 32))},
    "fedrolex": {"levels": (0.5,)},
    "heterofl": {"levels": (0.5,)},
}
"""Numbers of an algorithm's own, where no comparison has it and they have no default."""

NETS: Mapping[str, Net] = {
    "fedbn": Conv((1, 8, 8), 10, (8, 16), norm="batch"),
    "fedlora": Mlp((1, 8, 8), 10, (64, 64)),
    "ffa_lora": Mlp((1, 8, 8), 10, (64, 64)),
}
"""Networks of algorithms to which the task's small one has nothing to show: no normalisation, no large matrix."""


TRACED = ("fedgkt",)
"""Algorithms whose networks are traced when they are built, once for all: that is nobody's computing."""


@dataclass(frozen=True)
class Spent:
    """What the second of two rounds costs, when whoever remembers something does so.

    Attributes:
        up_bytes, down_bytes: a device's messages, whole.
        kept_bytes: what a device remembers between rounds, without its data and what it had before the first one.
        flops: what a device computes, as :func:`duetto.training.counted.counting` counts.
        first_flops: what it computed in the first round.
        cloud_flops: what the cloud computes.
        before_flops: what it computed before the first round.
        varies: whether bytes depend on values, not only on shapes.
    """

    up_bytes: int
    down_bytes: int
    kept_bytes: int
    flops: int
    first_flops: int
    cloud_flops: int
    before_flops: int
    varies: bool


@dataclass(frozen=True)
class Counted(Skill):
    """A client that remembers, beside what is its own, what each of its trainings computed: ``flops [rounds]``.

    Attributes:
        client: what trains.
        flops: what was computed so far, by whomever.
    """

    client: Skill
    flops: Callable[[], int]

    @property
    def writes(self) -> bool:
        """It does."""
        return True

    def __call__(self, local: Local, tree: Tree, key: Key, sender: str) -> tuple[Local, Tree]:
        """Train, and count."""
        before = self.flops()
        after, answer = self.client(local, tree, key, sender)
        counts = np.append(local.memory.get("flops", np.zeros(0, np.int64)), self.flops() - before)
        return after.remembering(flops=counts), answer


def numbers(name: str) -> dict[str, Any]:
    """The numbers of its own with which an algorithm is measured: those of the comparisons, where it is in one."""
    own = {**federated.METHODS.get(name, {}), **personal.METHODS.get(name, {}), **NUMBERS.get(name, {})}
    asked = inspect.signature(getattr(algorithms, name)).parameters
    return {number: value for number, value in own.items() if number in asked}


def network(name: str) -> Net:
    """What an algorithm is measured with: the task's small network, or its own."""
    return NETS.get(name) or load(TASK, SEED).small


def rows() -> list[Rows]:
    """What the devices have."""
    task = load(TASK, SEED)
    return [task.rows(user) for user in task.users["device"][:DEVICES]]


def given(net: Net) -> Given:
    """What there is to learn with and from: the digits of two calibration users are public, and the cloud's own."""
    task = load(TASK, SEED)
    known = [task.rows(user) for user in task.users["calibration"][:2]]
    x, y = (np.concatenate([getattr(rows, column) for rows in known]) for column in ("x", "y"))
    x = np.asarray(x, np.float32)
    cloud = task.large, task.large.init(SEED)
    more = {"slow": cloud, "edges": (tuple(task.users["device"][:DEVICES]),), "autoencoder": principal(x, 16)}
    return Given(net, net.init(SEED), (net,), x, Rows(x, y), cloud, net, more)


@cache
def spent(name: str, net: Net) -> Spent:
    """What an algorithm costs a device, a mean over devices.

    Raises:
        ConfigError: it asks for something that is not here, or a device failed.
    """
    task, here = load(TASK, SEED), given(net)
    users, before = task.users["device"][:DEVICES], {"public": here.public, "autoencoder": here.more["autoencoder"]}
    totals: list[int] = []
    if name in TRACED:
        built(name, here, **COMMON, **numbers(name))
    with counting() as flops:
        algorithm = built(name, here, **COMMON, **numbers(name))
        totals.append(flops())
        log = simulate(
            fleet=fleet("phones", users, data=task.rows, memory=before),
            device=Party(skills=(Counted,)),
            cloud=rounds(replace(algorithm, client=Counted(algorithm.client, flops)), steps=2, seed=SEED),
            seed=SEED,
            on_record=lambda record: totals.append(flops()),
        )
    if failed := [str(record.metrics["failures"]) for record in log.records if record.metrics["failed"]]:
        raise ConfigError(f"{name}: {failed[0]}", "mend it, or what it is given (programs/two_rounds.py)")
    devices = [log.memory[user] for user in users]
    first, second = (sum(int(each["flops"][step]) for each in devices) for step in (0, 1))
    cost, told = log.records[1].cost, log.records[1].metrics  # one edge at most, whose bytes are no device's
    return Spent(
        up_bytes=(cost.up_bytes - int(told.get(UP, 0))) // DEVICES,
        down_bytes=(cost.down_bytes - int(told.get(DOWN, 0))) // DEVICES,
        kept_bytes=sum(_nbytes(each, {"flops", *before}) for each in devices) // DEVICES,
        flops=second // DEVICES,
        first_flops=first // DEVICES,
        cloud_flops=totals[2] - totals[1] - second,
        before_flops=totals[0],
        varies=algorithm.up.size(trees.spec(algorithm.params)) is None,
    )


def _nbytes(memory: Mapping[str, Any], without: set[str]) -> int:
    kept = {name: each for name, each in memory.items() if name not in without}
    return sum(int(np.asarray(leaf).nbytes) for _, leaf in trees.leaves(kept))
