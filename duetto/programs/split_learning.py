"""Split learning as a program: devices learn the first stages of a task's model, the cloud the rest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np

from duetto import codecs
from duetto.algorithms.split import KINDS, halves, split
from duetto.errors import ConfigError
from duetto.models import Net
from duetto.models.net import built
from duetto.models.staged import Half, stage
from duetto.policies import Everyone, Uniform
from duetto.programs import federated
from duetto.protocols.split import Split
from duetto.protocols.split import split as rounds
from duetto.tasks import Task
from duetto.training import SGD
from duetto.training.halves import Backs, Forths
from duetto.training.split import Back, Enter, Forth, Front, Leave, Tail
from duetto.tree import Tree
from duetto.types import Chain, Codec, Local, Party

WIRES: Mapping[str, Codec[Any]] = {
    **{name: federated.WIRES[name] for name in ("float32", "int8", "int4")},
    "int4 + feedback": codecs.Feedback(Chain((codecs.Quantise(4), codecs.Zstd()))),
    "top25% + feedback": codecs.Feedback(Chain((codecs.TopK(0.25), codecs.Quantise(8), codecs.Zstd()))),
    "top25%": Chain((codecs.TopK(0.25), codecs.Quantise(8), codecs.Zstd())),
}
"""Codecs of features and slopes, by name."""


@dataclass(frozen=True)
class Settings:
    """What is run.

    Attributes:
        kind: "vanilla", "parallel", "splitfed1", "splitfed2" or "splitfed3".
        model: of the task's pair, "small" or "large".
        cut: stages that the device computes first.
        last: the stage from which the device computes again, with its labels (U-shaped); 0 leaves labels to the cloud.
        rounds: in all.
        cohort: devices a round; 0 is all.
        epochs, batch_size, lr, momentum: of both sides.
        wire: codec of features and slopes, by its name in ``WIRES``.
        batched: whether the cloud's halves of devices that are due together run as one batch, equal to rounding.
        seed: of the first parameters, cohorts and orders.

    Raises:
        ConfigError: no such kind, model or codec.
    """

    kind: str = "splitfed1"
    model: str = "small"
    cut: int = 3
    last: int = 0
    rounds: int = 10
    cohort: int = 0
    epochs: int = 1
    batch_size: int = 16
    lr: float = 0.1
    momentum: float = 0.0
    wire: str = "float32"
    batched: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        for what, found, known in (
            ("kind of split learning", self.kind, list(KINDS)),
            ("model of a pair", self.model, ["small", "large"]),
            ("codec", self.wire, list(WIRES)),
        ):
            if found not in known:
                raise ConfigError(f"no {what} is called {found!r}", f"use one of {', '.join(known)}")


def sides(task: Task, settings: Settings) -> dict[str, Half]:
    """The halves: where all start."""
    net = _net(task, settings)
    example = np.zeros((2, *net.shape), np.float32)
    return halves(stage(built(net, settings.seed).eval(), example), settings.cut, settings.last or None)


def made(task: Task, settings: Settings) -> tuple[Party, Party, Mapping[str, Any]]:
    """The device's party, the cloud's, and what every device remembers at first."""
    found = sides(task, settings)
    what = _what(found, settings)
    role = rounds(what, steps=settings.rounds, seed=settings.seed, measure=_measure(task, settings, what))
    cloud = Party(roles=(role,), skills=(Back, Backs, Forth, Forths), local=Local(None, {"back": found["back"]}))
    device = Party(skills=(Enter, Front, Tail, Leave))
    return device, cloud, {slot: half for slot, half in found.items() if slot != "back"}


def _what(found: Mapping[str, Half], settings: Settings) -> Split:
    codec = WIRES[settings.wire]
    return split(
        dict(found),
        settings.kind,
        SGD(settings.lr, settings.momentum),
        epochs=settings.epochs,
        cohort=Uniform(settings.cohort) if settings.cohort else Everyone(),
        batch_size=settings.batch_size,
        up=codec,
        down=codec,
        batched=settings.batched,
    )


def _measure(task: Task, settings: Settings, what: Split) -> Any:
    """Users that nobody learned from, answered by the model whole; None where each device has its own front."""
    if what.devices == "own":
        return None
    net = _net(task, settings)
    groups = {user: task.rows(user) for user in task.users["unseen"]}

    def measure(params: Mapping[str, Tree]) -> Mapping[str, float]:
        whole = joined(params)
        right = {user: float(np.mean(net.logits(whole, rows.x).argmax(1) == rows.y)) for user, rows in groups.items()}
        return {"accuracy": float(np.mean(list(right.values())))}

    return measure


def joined(params: Mapping[str, Tree]) -> Tree:
    """The halves' parameters as those of the model."""

    def both(one: Any, other: Any) -> Tree:
        shared = {name: both(one[name], other[name]) for name in one.keys() & other.keys()}
        return {**one, **other, **shared}

    return reduce(both, params.values(), {})


def _net(task: Task, settings: Settings) -> Net:
    return task.small if settings.model == "small" else task.large
