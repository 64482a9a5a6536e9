"""DUET: the cloud makes each device's parameters from the device's recent inputs; a device tunes nothing.

Lv, Zhang, Zhang, Kuang, Wang, Yang, Wu: DUET: A Tuning-Free Device-Cloud Collaborative Parameters Generation Framework
for Efficient Device Model Generalization, WWW 2023. A network in the cloud reads a context (here the mean of the recent
inputs) and makes the last layer of the device's small network. A device asks with :class:`Generate`, or the cloud sends
its parameters with a release. The paper trains the cloud's network on data that the cloud has (a ``Client`` of the
``Generated`` network does that); here it learns by federated averaging, so that labels stay on devices.

Up: the change of both networks; to answer, a context. Down: both networks; to answer, the parameters of the small one.
Stays: the data, and while learning the context.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np

from duetto.algorithms.common import Common, spelled_out, variant
from duetto.algorithms.fedavg import Average
from duetto.errors import DataError
from duetto.models import Net
from duetto.models.generated import Generated
from duetto.models.net import size
from duetto.training import Client
from duetto.tree import Tree
from duetto.types import Algorithm, Key, Local, Skill, Trained


def context(x: np.ndarray) -> np.ndarray:
    """What is told of recent inputs ``x [n, ...]``: their mean, ``[size]`` float32.

    Raises:
        DataError: there are none.
    """
    if not len(x):
        raise DataError("no recent inputs to make parameters from", "ask once there is one")
    return np.asarray(np.mean(x, axis=0, dtype=np.float64).ravel(), np.float32)


@dataclass(frozen=True)
class Generate(Skill):
    """The cloud's skill: takes ``{"context"}``, gives ``{"params"}`` of the small network, by its own ``params``."""

    net: Generated

    def __call__(self, local: Local, tree: Tree, key: Key, sender: str) -> tuple[Local, Tree]:
        """Make them."""
        return local, {"params": self.net.made(local.memory["params"], tree["context"])}


@dataclass(frozen=True)
class DuetClient(Client):
    """Trains the small network and the one that makes its head, each row with the device's context before it."""

    net: Generated

    def examples(self, local: Local, params: Tree) -> dict[str, np.ndarray]:
        """The rows, each with the context before it."""
        data = super().examples(local, params)
        return {**data, "x": self.net.rows(context(data["x"]), data["x"])}

    def _reply(self, local: Local, tree: Tree, trained: Trained) -> tuple[Local, Tree]:
        kept, answer = super()._reply(local, tree, trained)
        return kept.remembering(context=context(self._part(local).x)), answer

    def logits(self, sent: Tree, memory: Mapping[str, Any], x: np.ndarray) -> np.ndarray:
        """What the small network answers as it was made for what this device remembers, else for ``x`` themselves."""
        told = memory.get("context")
        return self.net.net.logits(self.net.made(sent["params"], context(x) if told is None else told), x)


@spelled_out
def duet(net: Net, params: Tree, *, hidden: int = 16, server_lr: float = 1.0, **common: Unpack[Common]) -> Algorithm:
    """DUET, learned by federated averaging; ``params`` are the small network's, ``hidden`` is the other one's width."""
    both = Generated(net, size(net.shape), hidden)
    start = {"net": params, "maker": both.init(0)["maker"]}
    return variant(both, start, Average(server_lr), DuetClient, **common)
