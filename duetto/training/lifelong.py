"""Learning one task after the other without forgetting those before: what all methods for it have in common.

A stream is a user's rows in named parts, "task-0" and on (:mod:`duetto.tasks.incremental`); a client trains on one of
them, its ``part``, and says whether that part is over afterwards (``last``). What is worth keeping of a part that is
over is then kept in the device's memory, and counts in every training to come. Under task-incremental learning a device
knows which task a row is of, and decides among its classes only (:class:`Within`); under class-incremental learning it
has to tell all classes apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from duetto.errors import ConfigError
from duetto.training import sequential
from duetto.training.client import Client
from duetto.training.losses import Named
from duetto.tree import Tree
from duetto.types import Key, Local

OUT = -1e9  # a logit that no softmax sees


@dataclass(frozen=True)
class Lifelong(Client):
    """A client of a stream; by itself, plain fine-tuning. What a method does, it does in the three hooks.

    Attributes:
        last: whether the part is over with this training; in rounds, that is so in the part's last round only.
    """

    last: bool = True

    def rehearsed(
        self, data: dict[str, np.ndarray], memory: Mapping[str, Any], params: Tree, key: Key
    ) -> dict[str, np.ndarray]:
        """The rows to train on where training starts from ``params``: by default the part's own."""
        return data

    def stepping(self, memory: Mapping[str, Any], params: Tree) -> Client:
        """The client whose loss and optimiser the executor uses: by default this one."""
        return self

    def learnt(
        self, memory: Mapping[str, Any], data: Mapping[str, np.ndarray], params: Tree, key: Key
    ) -> Mapping[str, Any]:
        """The memory once the part's rows ``data`` are over, learnt in ``params``: by default as it was."""
        return memory

    def __call__(self, local: Local, tree: Tree, key: Key, sender: str) -> tuple[Local, Tree]:
        """Train, and keep what the method keeps; the weight is the part's own examples."""
        start = self.start(tree, local.memory)
        own = self.examples(local, start["params"])
        rows = self.rehearsed(dict(own), local.memory, start["params"], (*key, "rehearsed"))
        trained = sequential.run(self.stepping(local.memory, start["params"]), start, rows, key)
        after, answer = self._reply(local, tree, replace(trained, examples=len(own["x"])))
        if self.last:
            after = Local(after.data, self.learnt(after.memory, own, trained.params, (*key, "learnt")))
        return after, answer


@dataclass(frozen=True)
class Within:
    """``weight * CE(labels)`` among the classes of the label's own task, the others out of the question.

    Attributes:
        tasks: the classes of each task; every class in one of them.

    Raises:
        ConfigError: a class in two tasks.
    """

    tasks: tuple[tuple[int, ...], ...]
    weight: float = 1.0
    by_row: ClassVar[bool] = True

    def __post_init__(self) -> None:
        flat = [each for classes in self.tasks for each in classes]
        if len(set(flat)) < len(flat):
            raise ConfigError(f"a class that is in two of the tasks {self.tasks}", "give each class to one task")

    def __call__(self, logits: Tensor, batch: Named, params: Named, start: Mapping[str, Named]) -> Tensor:
        """[n]."""
        home = torch.empty(logits.shape[1], dtype=torch.int64).fill_(-1)
        for i, classes in enumerate(self.tasks):
            home[list(classes)] = i
        other = home[None, :] != home[batch["y"]][:, None]
        return self.weight * functional.cross_entropy(logits.masked_fill(other, OUT), batch["y"], reduction="none")
