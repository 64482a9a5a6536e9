"""FedDF: one prototype for each design of network, and what all devices' networks say together teaches all of them.

Lin, Kong, Stich, Jaggi: Ensemble Distillation for Robust Model Fusion in Federated Learning, NeurIPS 2020. Devices of
one design (their trait ``kind``, or drawn by name) average networks, as in FedAvg; then the cloud distils the ensemble
of all that came, by its mean logits on public inputs, into each prototype. With 0 ``passes`` it is FedAvg by design.
Up: the change of the parameters of a device's own design. Down: the parameters of that design. Stays: the data; between
designs go logits only, inside the cloud, and the public inputs, without labels, are the cloud's alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Unpack

import numpy as np

from duetto import aggregation
from duetto import tree as trees
from duetto.algorithms.common import Common, alike, declared, kind_of, spelled_out, variant
from duetto.models import Net
from duetto.training import Adam, Client, Distil
from duetto.training.distilled import distilled
from duetto.tree import Tree
from duetto.types import Algorithm, Index, Key, Peer, ServerUpdate, Trained


@dataclass(frozen=True)
class DesignClient(Client):
    """Trains the network of its design."""

    nets: tuple[Net, ...] = ()

    def trains(self, sent: Tree, memory: Mapping[str, Any]) -> Client:
        """The network that it was sent."""
        return declared(self, self.nets[int(sent["kind"])])

    def finish(self, sent: Tree, memory: Mapping[str, Any], trained: Trained) -> tuple[Mapping[str, Any], Tree, float]:
        """The change of its prototype, and nothing of the others."""
        delta = {str(i): trees.map(lambda leaf: leaf.ravel()[:0], net.init(0)) for i, net in enumerate(self.nets)}
        delta[str(int(sent["kind"]))] = trees.map(np.asarray, trained.delta)
        return {**memory, "kind": sent["kind"]}, delta, float(trained.examples)

    def logits(self, sent: Tree, memory: Mapping[str, Any], x: np.ndarray) -> np.ndarray:
        """What its prototype answers."""
        kind = int({**memory, **sent}.get("kind", 0))
        return self.nets[kind].logits(sent["params"] if "kind" in sent else sent["params"][str(kind)], x)


@dataclass(frozen=True, eq=False)
class Fusion(ServerUpdate[Any]):
    """Averages by design, then ``student`` tells how all teach each; ``params`` are prototypes, "0", "1" and so on."""

    nets: tuple[Net, ...]
    public: np.ndarray
    student: Client
    personal: ClassVar[bool] = True
    partial: ClassVar[bool] = True

    def send(self, state: Any, params: Tree, peer: Peer | None) -> Tree:
        """The prototype of the peer's design."""
        return {"params": params[str(kind := kind_of(peer, len(self.nets)))], "kind": np.int64(kind)}

    def part(self, state: Any, params: Tree, peer: Peer) -> Index:
        """One prototype, nothing of the others."""
        others = {name: tree for name, tree in params.items() if name != str(kind_of(peer, len(self.nets)))}
        return {at: (leaf.shape, np.zeros(0, np.int64)) for at, leaf in trees.leaves(others)}

    def step(
        self, state: Any, params: Tree, collected: Tree | None, *, cohort_size: int, fleet_size: int, key: Key
    ) -> tuple[Any, Tree]:
        """The mean of each design, taught by all."""
        if collected is None:
            return state, params
        after, said = dict(params), []
        for i, net in enumerate(self.nets):
            told = [(each["tree"][str(i)], each["weight"]) for each in collected.values()]
            own = [(each, weight) for each, weight in told if any(np.size(leaf) for _, leaf in trees.leaves(each))]
            models = [trees.add(params[str(i)], delta) for delta, _ in own]
            said += [net.logits(trees.map(np.float32, model), self.public) for model in models]
            if own:
                mean = trees.total(models, [float(weight) / sum(weight for _, weight in own) for _, weight in own])
                after[str(i)] = trees.map(lambda leaf, old: leaf.astype(old.dtype), mean, params[str(i)])
        teacher = np.mean(said, axis=0)
        for i, net in enumerate(self.nets):
            after[str(i)] = distilled(self.student, net, after[str(i)], self.public, teacher, (*key, i))
        return state, after


@spelled_out
def feddf(
    nets: tuple[Net, ...], public: np.ndarray, *, passes: int = 5, fuse_lr: float = 1e-3, **common: Unpack[Common]
) -> Algorithm:
    """FedDF; the cloud goes over the ``public`` inputs ``[m, *shape]`` so often, by Adam at ``fuse_lr``."""
    student = Client(alike(nets)[0], (Distil(1.0, 1.0),), Adam(fuse_lr), passes, common.get("batch_size", 16))
    start = {str(i): net.init(i) for i, net in enumerate(nets)}
    built = variant(nets[0], start, Fusion(nets, public, student), partial(DesignClient, nets=nets), **common)
    return replace(built, aggregator=aggregation.Stack(weighed=True))
