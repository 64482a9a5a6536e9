"""DCCL: a patch of few numbers personalises the cloud's model on each device, and all patched models teach the cloud's.

Yao, Wang, Jia, Han, Zhou, Yang: Device-Cloud Collaborative Learning for Recommendation, KDD 2021. MetaPatch: a device
keeps the model as it is and learns ``size`` numbers, which move its last layer within directions that all parties know
(drawn by a seed here; the paper learns them beforehand). MoMoDistill: the cloud trains its model on its own labelled
rows, and to say what the patched models say on average, ``alpha`` being the share of the labels. Logits are linear in
the last layer, so that average is what the mean patch says (the paper distils each patched model on its user's rows).

Up: the patch, which tells about its user: the cloud sees each of them. Down: the model. Stays: the data; the patch is
remembered, too, and answers with the model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Unpack

import numpy as np

from duetto import aggregation
from duetto import tree as trees
from duetto.algorithms.common import Common, below_one, declared, spelled_out, variant
from duetto.models import Net
from duetto.models.patched import Patched
from duetto.training import SGD, Client, CrossEntropy, Distil, sequential
from duetto.tree import Tree
from duetto.types import Algorithm, Key, Rows, ServerUpdate, Trained


@dataclass(frozen=True)
class PatchClient(Client):
    """Goes on with the patch that it remembers, beside the model that came."""

    size: int = 8

    def trains(self, sent: Tree, memory: Mapping[str, Any]) -> Client:
        """The patch."""
        return declared(self, Patched(self.net, self.size))

    def start(self, sent: Tree, memory: Mapping[str, Any]) -> Tree:
        """Both."""
        dtype = next(leaf for _, leaf in trees.leaves(sent["params"])).dtype
        return {"params": {"net": sent["params"], "code": memory.get("patch", np.zeros(self.size)).astype(dtype)}}

    def finish(self, sent: Tree, memory: Mapping[str, Any], trained: Trained) -> tuple[Mapping[str, Any], Tree, float]:
        """The patch: kept, and sent."""
        patch = trained.params["code"]
        return {**memory, "patch": patch}, {"code": patch}, float(trained.examples)

    def personal(self, sent: Tree, memory: Mapping[str, Any]) -> Tree:
        """The model with the patch of this device."""
        patch = memory.get("patch")
        return sent["params"] if patch is None else Patched(self.net, self.size).joined(sent["params"], patch)


@dataclass(frozen=True, eq=False)
class MoMoDistill(ServerUpdate[Any]):
    """Trains the model as ``student`` declares, on ``rows`` and on what all patched models say about them."""

    net: Patched
    rows: Rows
    student: Client

    def expects(self, params: Tree) -> Tree:
        """A patch."""
        return {"code": np.zeros(self.net.size, np.float32)}

    def step(
        self, state: Any, params: Tree, collected: Tree | None, *, cohort_size: int, fleet_size: int, key: Key
    ) -> tuple[Any, Tree]:
        """The ensemble's mean logits, by examples, and the labels; an empty cohort changes nothing."""
        if collected is None:
            return state, params
        plain = trees.map(np.float32, params)
        models = [self.net.joined(plain, each["tree"]["code"]) for each in collected.values()]
        said = np.stack([self.net.net.logits(model, self.rows.x) for model in models])
        teacher = np.average(said, axis=0, weights=[float(each["weight"]) for each in collected.values()])
        lessons = {"x": self.rows.x, "y": self.rows.y, "teacher": teacher}
        return state, sequential.run(self.student, {"params": params}, lessons, key).params


@spelled_out
def dccl(
    net: Net, params: Tree, rows: Rows, *, size: int = 8, alpha: float = 0.5, passes: int = 1, **common: Unpack[Common]
) -> Algorithm:
    """DCCL; ``rows`` are the cloud's own, over which it goes so often (``passes``) with the devices' learning rate.

    Raises:
        ConfigError: a patch larger than the last layer, or an ``alpha`` that is no share below 1.
    """
    below_one(alpha=alpha)
    loss = (CrossEntropy(alpha), Distil(1 - alpha, 1.0))
    student = Client(net, loss, SGD(common["lr"]), passes, common.get("batch_size", 16))
    server = MoMoDistill(Patched(net, size), rows, student)
    built = variant(net, params, server, partial(PatchClient, size=size), **common)
    return replace(built, aggregator=aggregation.Stack(weighed=True))
