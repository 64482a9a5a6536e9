"""FedAgg: models grow from device to edge to cloud, and neighbours in this tree learn from each other's answers.

Wu, Sun, Wang, Liu, Gao, Pan, He, Jiang: Agglomerative Federated Learning: Empowering Larger Model Training via
End-Edge-Cloud Collaboration, INFOCOM 2024. Both ends of a link answer about bridge samples, which an autoencoder makes
of codes, and learn labels and the other's answers; devices learn their own rows too (``training.bridge``). Ours: the
autoencoder is linear (``models.principal``); of a device's rows some are bridged, not all; a parent learns from its
children at once; and edges, no parties at ``Tiers``, learn in the cloud's step: their bytes count, their computing not.
Up: answers, and codes and labels of the bridge rows (in the paper but once), which whoever has the autoencoder sees
nearly as they are. Down: the parent's answers. Stays: other rows, and all models: no parameter travels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar, Unpack

import numpy as np

from duetto import aggregation
from duetto import tree as trees
from duetto.algorithms.common import Common, alike, spelled_out, variant
from duetto.errors import ConfigError
from duetto.models import Net
from duetto.models.principal import decoded
from duetto.protocols import Tiers
from duetto.training import SGD, Client, CrossEntropy, Distil, sequential
from duetto.training.bridge import Bridged, Heard, stacked
from duetto.tree import Tree
from duetto.types import Algorithm, Key, Peer, ServerUpdate


@dataclass(frozen=True, eq=False)
class Growing(ServerUpdate[Tree]):
    """Edges learn from their devices and the cloud, then the cloud from the edges; ``params`` are the cloud's."""

    nets: tuple[Net, ...]
    edges: tuple[tuple[str, ...], ...]
    coder: Tree
    student: Client
    reply: Tree
    personal: ClassVar[bool] = True

    def init(self, params: Tree) -> Tree:
        """The edges' models, and what they have said of each device's samples: nothing."""
        edges = {str(i): self.nets[1].init(i) for i in range(len(self.edges))}
        return {"edges": edges, "said": {name: self.reply["answers"] for edge in self.edges for name in edge}}

    def send(self, state: Tree, params: Tree, peer: Peer | None) -> Tree:
        """What its edge last said."""
        if peer is None or peer.name not in state["said"]:
            raise ConfigError(f"{peer.name if peer else 'a device'} is at no edge", "give each device to one")
        return {"answers": state["said"][peer.name]}

    def expects(self, params: Tree) -> Tree:
        """Answers, codes and labels."""
        return self.reply

    def step(
        self, state: Tree, params: Tree, collected: Tree | None, *, cohort_size: int, fleet_size: int, key: Key
    ) -> tuple[Tree, Tree]:
        """Tier by tier; an empty cohort changes nothing."""
        edges, said, lessons, (_, middle, large) = dict(state["edges"]), dict(state["said"]), [], self.nets
        for i, members in enumerate(self.edges):
            if there := [name for name in members if name in (collected or ())]:
                heard = stacked([(collected or {})[name] for name in there])
                rows = {"x": decoded(self.coder, heard["codes"], middle.shape), "y": heard["labels"]}
                told = {"devices": heard["answers"], "cloud": large.logits(trees.map(np.float32, params), rows["x"])}
                for who, answers in told.items():
                    edges[str(i)] = self._taught(middle, edges[str(i)], {**rows, "teacher": answers}, (*key, who, i))
                own = middle.logits(edges[str(i)], rows["x"])
                said |= zip(there, np.split(own, len(there)), strict=True)
                lessons.append({**rows, "teacher": own})
        after = self._taught(large, params, stacked(lessons), (*key, "edges")) if lessons else params
        return {"edges": edges, "said": said}, after

    def _taught(self, net: Net, params: Tree, lessons: Tree, key: Key) -> Tree:
        return sequential.run(replace(self.student, net=net), {"params": params}, lessons, key).params


@spelled_out
def fedagg(
    nets: tuple[Net, Net, Net],
    edges: tuple[tuple[str, ...], ...],
    autoencoder: Tree,
    *,
    bridge: int = 16,
    alpha: float = 1.0,
    passes: int = 1,
    **common: Unpack[Common],
) -> Algorithm:
    """FedAgg: a device's, an edge's, the cloud's network; ``alpha`` weighs answers, parents make so many ``passes``."""
    how = SGD(common["lr"], common.get("momentum", 0.0))
    student = Client(alike(nets)[2], (CrossEntropy(), Distil(alpha, 1.0)), how, passes, common.get("batch_size", 16))
    answers, codes = (np.zeros((bridge, width), np.float32) for width in (nets[2].classes, len(autoencoder["basis"])))
    reply = {"answers": answers, "codes": codes, "labels": np.zeros(bridge, np.int64)}
    server, client = Growing(nets, edges, autoencoder, student, reply), partial(Bridged, bridge=bridge)
    built = variant(nets[0], nets[2].init(0), server, client, (Heard(alpha, 1.0),), **common)
    return replace(built, aggregator=aggregation.Stack(), collect=Tiers(edges))
