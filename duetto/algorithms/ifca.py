"""IFCA: the cloud holds ``k`` models; each device takes the one that errs least on its rows, and trains that.

Ghosh, Chung, Yin, Ramchandran: An Efficient Framework for Clustered Federated Learning, NeurIPS 2020. k = 1 is FedAvg.
Up: the change of one model, and which one (the others' zeros Zstandard leaves out). Down: all models. Stays: the data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Unpack

import numpy as np

from duetto import tree as trees
from duetto.algorithms.common import Common, positive, spelled_out, variant
from duetto.codecs import Zstd
from duetto.models import Net
from duetto.models.net import log_softmax
from duetto.training import Client
from duetto.tree import Tree
from duetto.types import Algorithm, Chain, Key, Local, Peer, ServerUpdate, rng


@dataclass(frozen=True)
class IfcaClient(Client):
    """Chooses a model, and trains it; remembers ``cluster``, which one. Without that it answers with the first."""

    def __call__(self, local: Local, tree: Tree, key: Key, sender: str) -> tuple[Local, Tree]:
        """The change of the one that was chosen."""
        models = tree["models"]
        chosen = min(models, key=lambda name: self._loss(models[name], self.examples(local, models[name])))
        after, answer = super().__call__(local, {"params": models[chosen]}, key, sender)
        still = trees.zeros(models[chosen])
        changes = {name: answer["delta"] if name == chosen else still for name in models}
        share = {name: np.float64(name == chosen) for name in models}
        answer = {**answer, "delta": {"models": changes, "share": share}}
        return after.remembering(cluster=np.int64(int(chosen))), answer

    def _loss(self, params: Tree, data: Mapping[str, np.ndarray]) -> float:
        logits = self.net.logits(trees.map(lambda leaf: leaf.astype(np.float32), params), data["x"])
        return -float(np.take_along_axis(log_softmax(logits.astype(np.float64)), data["y"][:, None], 1).mean())

    def personal(self, sent: Tree, memory: Mapping[str, Any]) -> Tree:
        """The model of its cluster."""
        return sent["models"][str(int(memory.get("cluster", 0)))]


@dataclass(frozen=True)
class IfcaServer(ServerUpdate[Tree]):
    """Each model moves by the mean change of those who chose it; the first one is ``params``.

    ``spread`` is how far apart they begin, in deviations of the parameters; ConfigError where a number is not positive.
    """

    k: int
    spread: float = 0.5
    lr: float = 1.0

    def __post_init__(self) -> None:
        positive(k=self.k, spread=self.spread, server_lr=self.lr)

    def init(self, params: Tree) -> Tree:
        """The models but the first."""

        def near(i: int, pointer: str, leaf: Any) -> np.ndarray:
            noise = rng(("ifca", i, pointer)).normal(size=leaf.shape) * self.spread * np.std(leaf)
            return np.asarray(leaf + noise, leaf.dtype)

        return {str(i): trees.pointed(partial(near, i), params) for i in range(1, self.k)}

    def send(self, state: Tree, params: Tree, peer: Peer | None) -> Tree:
        """All."""
        return {"models": {"0": params, **state}}

    def expects(self, params: Tree) -> Tree:
        """A change of each, and who chose which."""
        names = [str(i) for i in range(self.k)]
        return {"models": dict.fromkeys(names, params), "share": dict.fromkeys(names, np.float64(0))}

    def step(
        self, state: Tree, params: Tree, collected: Tree | None, *, cohort_size: int, fleet_size: int, key: Key
    ) -> tuple[Tree, Tree]:
        """Those that were chosen move."""
        models = dict(self.send(state, params, None)["models"])
        collected = {"share": {}} if collected is None else collected
        for name, share in collected["share"].items():
            if share > 0:
                models[name] = trees.add(models[name], trees.scale(collected["models"][name], self.lr / float(share)))
        return {name: model for name, model in models.items() if name != "0"}, models["0"]


@spelled_out
def ifca(
    net: Net, params: Tree, *, k: int = 2, spread: float = 0.5, server_lr: float = 1.0, **common: Unpack[Common]
) -> Algorithm:
    """IFCA with ``k`` models."""
    return replace(variant(net, params, IfcaServer(k, spread, server_lr), IfcaClient, **common), up=Chain((Zstd(),)))
