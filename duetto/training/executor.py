"""The contract of executors: a client declares local training, an executor owns the loop.

Whatever the executor, the same tasks give the same results: equal to rounding in float64, and within what float32
amplifies in float32. What changes is how fast, and in what form the results are kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from duetto.errors import Error
from duetto.tree import Tree
from duetto.types import Key, Trained

if TYPE_CHECKING:
    from duetto.training.client import Client


@dataclass(frozen=True, eq=False)
class Task:
    """One client's training.

    Attributes:
        start: ``{"params": ...}`` and what the loss terms read beside them.
        data: ``x [n, *shape]``, ``y [n]``, ``teacher [n, classes]``: the rows, checked.
        key: orders the rows, and draws dropout and augmentation.
    """

    start: Tree
    data: Mapping[str, np.ndarray]
    key: Key


class Executor(Protocol):
    """Trains several clients; a frozen dataclass, so that a client can carry it."""

    def train(self, client: Client, tasks: Sequence[Task]) -> list[Trained | Error]:
        """One result a task, in their order; a task that cannot be done gives the error that says why."""
