"""A client's side of learning, declared; an executor owns the loop.

FedAvg's client (McMahan et al. 2017) is ``Client(net, (CrossEntropy(),), SGD(lr), epochs, batch_size)``. An
algorithm that remembers something, or sends something else, overrides :meth:`Client.start` or :meth:`Client.finish`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import torch

from duetto.errors import ConfigError, DataError, Error, caught
from duetto.models.net import Net, log_softmax
from duetto.training import sequential
from duetto.training.auto import Auto
from duetto.training.executor import Executor, Task
from duetto.training.losses import Term
from duetto.training.optimisers import Optimiser
from duetto.tree import Tree
from duetto.types import Key, Local, Rows, Skill, Trained, Work


@dataclass(frozen=True)
class Client(Skill):
    """The skill of local training: takes ``{"params": ...}``, gives ``{"delta", "weight", "metrics"}``.

    Attributes:
        net: what is trained.
        loss: terms that add.
        optimiser: the local optimiser; its state does not outlive one training.
        epochs: passes over the data.
        batch_size: rows of a step; the last one of an epoch may be smaller.
        augment: changes a batch's inputs, or None.
        part: the part of the party's data that is trained on; None is all of it.
        lessons: the memory slot with what the cloud taught (``rows [m]`` positions in the party's data,
            ``logits [m, classes]``); then these rows are trained on, and the labels stay unread.
        executor: how several clients are trained where a world has them at hand; a device trains its own, sequentially.
        own: the share of the client's own answer (by the parameters it starts from, on the plain input) in the
            target (bootstrapping, Reed et al. 2015): it smooths over what the teacher does not know here.
    """

    net: Net
    loss: tuple[Term, ...]
    optimiser: Optimiser
    epochs: int
    batch_size: int
    augment: Callable[[torch.Tensor, torch.Generator], torch.Tensor] | None = None
    part: str | None = None
    lessons: str | None = None
    own: float = 0.0
    executor: Executor = field(default_factory=Auto, repr=False, metadata={"local": True})

    sums_gradients: ClassVar[bool] = False
    """Whether :meth:`finish` reads the sum of the gradients."""

    def __post_init__(self) -> None:
        if self.epochs < 0 or self.batch_size < 1 or not self.loss:
            raise ConfigError(
                f"{self.epochs} epochs in batches of {self.batch_size} with {len(self.loss)} loss terms",
                "epochs must not be negative, a batch has at least one row and a loss at least one term",
            )
        if not 0 <= self.own < 1 or (self.own and self.lessons is None):
            raise ConfigError(
                f"own={self.own} with {'lessons' if self.lessons else 'no lessons'}",
                "it is a share from 0, below 1, of what lessons teach",
            )

    @property
    def writes(self) -> bool:
        """A client may remember."""
        return True

    def start(self, sent: Tree, memory: Mapping[str, Any]) -> Tree:
        """Where training starts, ``params``, and beside them what the loss terms read; by default what was sent."""
        return {"params": sent["params"]}

    def finish(self, sent: Tree, memory: Mapping[str, Any], trained: Trained) -> tuple[Mapping[str, Any], Tree, float]:
        """What to remember, the delta to send, and its weight; by default nothing, the change, the examples."""
        return memory, trained.delta, float(trained.examples)

    def trains(self, sent: Tree, memory: Mapping[str, Any]) -> Client:
        """Whose declaration an executor follows; by default this one's (a device may train a part of ``net``)."""
        return self

    def personal(self, sent: Tree, memory: Mapping[str, Any]) -> Tree:
        """The parameters that this device answers with, once it has what was sent; by default those."""
        return sent["params"]

    def logits(self, sent: Tree, memory: Mapping[str, Any], x: np.ndarray) -> np.ndarray:
        """What this device answers, ``[n, classes]`` float32; by default the network with :meth:`personal`."""
        return self.net.logits(self.personal(sent, memory), x)

    def __call__(self, local: Local, tree: Tree, key: Key, sender: str) -> tuple[Local, Tree]:
        """Train, here and now."""
        task = self._task(local, tree, key)
        return self._reply(
            local, tree, sequential.run(self.trains(tree, local.memory), task.start, task.data, task.key)
        )

    def many(
        self, locals: Sequence[Local], trees: Sequence[Tree], keys: Sequence[Key], senders: Sequence[str]
    ) -> Sequence[tuple[Local, Tree] | Error]:
        """Train several clients, by the executor."""
        if type(self).__call__ is not Client.__call__:  # whoever trains otherwise alone does so among others
            return super().many(locals, trees, keys, senders)
        tasks = [caught(self._task, *each) for each in zip(locals, trees, keys, strict=True)]
        outcomes: list[Any] = list(tasks)
        kinds: dict[Client, list[int]] = {}
        for row, (local, tree) in enumerate(zip(locals, trees, strict=True)):
            if isinstance(tasks[row], Task):
                kinds.setdefault(self.trains(tree, local.memory), []).append(row)
        for kind, rows in kinds.items():
            for row, trained in zip(rows, self.executor.train(kind, [outcomes[row] for row in rows]), strict=True):
                outcomes[row] = trained
        return [
            caught(self._reply, local, tree, outcome) if isinstance(outcome, Trained) else outcome
            for local, tree, outcome in zip(locals, trees, outcomes, strict=True)
        ]

    def _task(self, local: Local, tree: Tree, key: Key) -> Task:
        start = self.start(tree, local.memory)
        return Task(start, self.examples(local, start["params"]), key)

    def _reply(self, local: Local, tree: Tree, trained: Trained) -> tuple[Local, Tree]:
        memory, delta, weight = self.finish(tree, local.memory, trained)
        told = {"loss": np.float64(trained.loss)} if math.isfinite(trained.loss) else {}  # a record holds no NaN
        return Local(local.data, memory), {"delta": delta, "weight": np.float64(weight), "metrics": told}

    def group(self, local: Local, tree: Tree) -> Any:
        """All may share a call; what they can share in it, the executor sees."""
        return True

    def work(self, local: Local, tree: Tree) -> Work:
        """A forward pass and twice that backward, every epoch, of what is trained."""
        rows = len(self._part(local)) if self.lessons is None else len(self._taught(local)["rows"])
        once = self.trains(tree, local.memory).net.work(rows)
        return replace(once, flops=3 * self.epochs * once.flops, bytes=3 * self.epochs * once.bytes)

    def examples(self, local: Local, params: Tree) -> dict[str, np.ndarray]:
        """The rows to train on, where training starts from ``params``.

        Raises:
            DataError: none, or not finite.
        """
        if self.lessons is None:
            rows = self._part(local)
            data: dict[str, np.ndarray] = {"x": np.asarray(rows.x, np.float32), "y": np.asarray(rows.y, np.int64)}
        else:
            taught = self._taught(local)
            data = {"x": np.asarray(local.data.x[taught["rows"]], np.float32), "teacher": taught["logits"]}
        if not len(data["x"]):
            raise DataError("a client without examples", "leave it out of the cohort")
        if not _finite(data["x"]):
            raise DataError("a client with inputs that are not finite", "remove its rows with NaN or infinity")
        if "y" in data and not ((data["y"] >= 0) & (data["y"] < self.net.classes)).all():
            raise DataError(f"a client with a label outside 0..{self.net.classes - 1}", "check its labels")
        if self.own:
            data["teacher"] = _mixed(data["teacher"], self.net.logits(params, data["x"]), self.own)
        return data

    def _taught(self, local: Local) -> Tree:
        nothing = {"rows": np.zeros(0, np.int64), "logits": np.zeros((0, self.net.classes), np.float32)}
        return local.memory.get(self.lessons or "", nothing)

    def _part(self, local: Local) -> Rows:
        rows: Rows = local.data if self.part is None else local.data.part(self.part)
        return rows


def _finite(x: np.ndarray) -> bool:
    """Whether all numbers are; a sum of squares that is finite tells so at the speed of a product."""
    flat = x.reshape(-1)
    with np.errstate(over="ignore", invalid="ignore"):
        return math.isfinite(np.vdot(flat, flat)) or bool(np.isfinite(flat).all())


def _mixed(teacher: np.ndarray, own: np.ndarray, share: float) -> np.ndarray:
    """Logits of ``(1 - share) * softmax(teacher) + share * softmax(own)``."""
    said, mine = (log_softmax(np.asarray(logits, np.float64)) for logits in (teacher, own))
    return np.asarray(np.logaddexp(np.log1p(-share) + said, np.log(share) + mine), np.float32)
