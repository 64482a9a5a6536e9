"""The executor that trains a cohort in one call."""

from __future__ import annotations

import contextlib
import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from duetto import tree as trees
from duetto.errors import ConfigError, Error
from duetto.training import sequential
from duetto.training.cohort.arena import ARENA
from duetto.training.cohort.bundle import Factored
from duetto.training.cohort.group import Group
from duetto.training.cohort.split import Split, Unsplit, split
from duetto.training.cohort.threads import each, processors
from duetto.training.executor import Task
from duetto.training.losses import PULLS
from duetto.training.optimisers import SGD
from duetto.training.sequential import Sequential
from duetto.tree import Member
from duetto.types import Trained

if TYPE_CHECKING:
    from duetto.training.client import Client


@dataclass(frozen=True)
class Cohort:
    """Trains clients that start from the same parameters together; those that cannot be, one after the other.

    Attributes:
        threads: used at the same time; None is one for each processor. Where layers run client by client, each trains
            a group of clients; else all clients are one group, and threads share its products.
        precision: "full" is that of the parameters; with "bfloat16" large products and what runs client by client are
            rounded to it, as by torch's autocast: faster on processors that know it, and not exact.
        max_cohort_bytes: factors beyond this lie in a temporary file, from which the system fetches what it needs.

    Raises:
        ConfigError: no thread, or no byte.
    """

    threads: int | None = None
    max_cohort_bytes: int = 4 << 30
    precision: str = "full"

    def __post_init__(self) -> None:
        if self.precision not in ("full", "bfloat16"):
            raise ConfigError(f"precision={self.precision!r}", 'use "full" or "bfloat16"')
        if (self.threads is not None and self.threads < 1) or self.max_cohort_bytes < 1:
            raise ConfigError(f"threads={self.threads} and max_cohort_bytes={self.max_cohort_bytes}", "use at least 1")

    def train(self, client: Client, tasks: Sequence[Task]) -> list[Trained | Error]:
        """One result a task; deltas are members of a bundle where clients could be trained together."""
        results: list[Trained | Error | None] = [None] * len(tasks)
        for members in _alike(client, tasks):
            trained = self._together(client, [tasks[i] for i in members])
            for i, result in zip(members, trained, strict=True):
                results[i] = result
        return results  # type: ignore[return-value]

    def _together(self, client: Client, tasks: Sequence[Task]) -> Sequence[Trained | Error]:
        if why_not(client, tasks) is not None:
            return Sequential().train(client, tasks)
        return self._trained(client, tasks)

    def _trained(self, client: Client, tasks: Sequence[Task]) -> list[Trained]:
        parts = split(client.net)
        low = self.precision == "bfloat16"
        order = sorted(range(len(tasks)), key=lambda i: -len(tasks[i].data["x"]))
        threads = min(self.threads or processors(), len(tasks))
        dealt = [order[j::threads] for j in range(threads)] if parts.turn else [order]
        inside = 1 if parts.turn else threads
        with self._memory(client, parts, tasks) as allocate:

            def trained(members: Sequence[int]) -> Group:
                return Group(client, parts, [tasks[i] for i in members], allocate, low, inside).run()

            groups = each(trained, dealt)
        return _results(client, tasks, dealt, groups)

    @contextlib.contextmanager
    def _memory(self, client: Client, parts: Split, tasks: Sequence[Task]) -> Iterator[Callable[..., Tensor]]:
        """Where factors are written."""
        rows = sum(sequential.steps(client, len(task.data["x"])) for task in tasks) * client.batch_size
        widths = sum(sum(shape) for shape in parts.shapes)
        if 4 * rows * widths <= self.max_cohort_bytes:
            yield ARENA.take
            return

        def from_file(shape: tuple[int, ...], dtype: torch.dtype, owner: object) -> Tensor:
            with tempfile.TemporaryFile(prefix="duetto-factors-") as file:
                size = max(1, math.prod(shape))
                file.truncate(size * dtype.itemsize)
                mapped = np.memmap(file, np.uint8, "r+", shape=(size * dtype.itemsize,))
            return torch.from_numpy(mapped).view(dtype)[: math.prod(shape)].view(shape)

        yield from_file


def why_not(client: Client, tasks: Sequence[Task]) -> str | None:
    """Why clients that train like this cannot be trained together exactly; None where they can.

    What follows from the declaration is read off it; whether the network mixes rows, or draws in a way of its own, is
    found out once, by training two short clients both ways.
    """
    if not isinstance(client.optimiser, SGD):
        return f"{type(client.optimiser).__name__} is not linear in the gradients"
    for term in client.loss:
        if not (getattr(term, "by_row", False) or isinstance(term, PULLS)):
            return f"{type(term).__name__} may read more than its row"
    if not any(getattr(term, "by_row", False) for term in client.loss) or not client.epochs:
        return "nothing is learned from rows"
    try:
        split(client.net)
    except Unsplit as fault:
        return str(fault)
    rows = [task for task in tasks if len(task.data["x"])]
    if not rows:
        return "no client has rows"
    mark = (client.net, client.loss, client.optimiser)
    if mark not in _CHECKED:
        _CHECKED[mark] = _difference(client, rows[0])
    return _CHECKED[mark]


_CHECKED: dict[Any, str | None] = {}


def _difference(client: Client, task: Task) -> str | None:
    """What is different when two short clients are trained together, in float64."""
    short = replace(client, epochs=1, batch_size=3)
    start = {name: trees.map(lambda leaf: np.asarray(leaf, np.float64), tree) for name, tree in task.start.items()}
    clean = {name: np.nan_to_num(column, posinf=0, neginf=0) for name, column in task.data.items()}
    data = {name: np.resize(column, (5, *column.shape[1:])) for name, column in clean.items()}
    few = {name: column[:4] for name, column in data.items()}
    both = [Task(start, data, ("check", 0)), Task(start, few, ("check", 1))]
    for alone, together in zip(Sequential().train(short, both), Cohort(1)._trained(short, both), strict=True):
        if isinstance(alone, Error):
            return str(alone)
        for (pointer, a), (_, b) in zip(trees.leaves(alone.delta), trees.leaves(together.delta), strict=True):
            if not np.abs(a - b).max(initial=0) <= 1e-8 * max(1e-3, np.abs(a).max(initial=0)):
                return f"{pointer} would differ: the network mixes rows, or draws in its own way"
    return None


def _alike(client: Client, tasks: Sequence[Task]) -> list[list[int]]:
    """Tasks that start from the very same parameters, and have the same columns."""
    groups: dict[Any, list[int]] = {}
    for i, task in enumerate(tasks):
        mark = (
            id(task.start["params"]),
            tuple(sorted((name, c.shape[1:], c.dtype.str) for name, c in task.data.items())),
        )
        groups.setdefault(mark if len(task.data["x"]) else i, []).append(i)
    return list(groups.values())


def _results(
    client: Client, tasks: Sequence[Task], dealt: Sequence[Sequence[int]], groups: Sequence[Group]
) -> list[Trained]:
    start = tasks[0].start["params"]
    deltas = Factored(groups, "delta", start, each)
    gradients = Factored(groups, "gradients", start, each) if client.sums_gradients else None
    results: dict[int, Trained] = {}
    for members, group in zip(dealt, groups, strict=True):
        for k, i in enumerate(members):
            number = len(results)
            results[i] = Trained(
                start,
                Member(deltas, number),
                {} if gradients is None else Member(gradients, number),
                group.steps[k],
                group.sizes[k],
                float(group.losses[k]),
            )
    return [results[i] for i in range(len(tasks))]
