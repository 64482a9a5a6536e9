"""FedPer: the body of the network is everyone's, its head each device's own; both are trained together.

Arivazhagan, Aggarwal, Singh, Choudhary: Federated Learning with Personalization Layers, 2019. A device that has not
trained yet answers with the head that all devices begin with. An empty head is FedAvg.

Up: the change of the body. Down: the body. Stays: the data, and the head.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Unpack

import numpy as np

from duetto import tree as trees
from duetto.algorithms.common import Common, positive, remembered, spelled_out, variant
from duetto.errors import ConfigError
from duetto.models import Net
from duetto.training import Body, Client, Full, last_layer
from duetto.tree import Tree
from duetto.types import Algorithm, Key, Peer, ServerUpdate, Trained, View

EVERYTHING = Full()


@dataclass(frozen=True)
class SplitClient(Client):
    """Trains all parameters, sends those that travel, and remembers the others in ``stays``.

    Attributes:
        view: what travels.
        first: the seed of ``net.init`` from which a device's own parameters begin.
    """

    view: View = EVERYTHING
    first: int = 0

    def personal(self, sent: Tree, memory: Mapping[str, Any]) -> Tree:
        """What was sent, and its own."""
        dtype = next((leaf.dtype for _, leaf in trees.leaves(sent["params"])), np.float32)
        first = trees.map(lambda leaf: leaf.astype(dtype), self.view.stays(self.net.init(self.first), ""))
        return self.view.join(sent["params"], remembered(memory, "stays", first, first))

    def start(self, sent: Tree, memory: Mapping[str, Any]) -> Tree:
        """That."""
        return {"params": self.personal(sent, memory)}

    def finish(self, sent: Tree, memory: Mapping[str, Any], trained: Trained) -> tuple[Mapping[str, Any], Tree, float]:
        """The change of what travels."""
        stays = self.view.stays(trained.params, "")
        return {**memory, "stays": stays}, self.view.travels(trained.delta, ""), float(trained.examples)


@dataclass(frozen=True)
class SplitServer(ServerUpdate[Any]):
    """``params + lr * mean delta`` of what travels; the rest of the parameters is never sent and never changes.

    Raises:
        ConfigError: a learning rate that is not positive; later, a view by which nothing travels.
    """

    view: View
    lr: float = 1.0

    def __post_init__(self) -> None:
        positive(server_lr=self.lr)

    def send(self, state: Any, params: Tree, peer: Peer | None) -> Tree:
        """What travels."""
        return {"params": self.expects(params)}

    def expects(self, params: Tree) -> Tree:
        """A change of it."""
        if travels := self.view.travels(params, ""):
            return travels
        raise ConfigError("nothing of the network travels", "let fewer leaves stay, or train each device alone")

    def step(
        self, state: Any, params: Tree, collected: Tree | None, *, cohort_size: int, fleet_size: int, key: Key
    ) -> tuple[Any, Tree]:
        """Add what was collected."""
        if collected is None:
            return state, params
        after = trees.add(self.expects(params), trees.scale(collected, self.lr))
        return state, self.view.join(after, self.view.stays(params, ""))


@spelled_out
def fedper(
    net: Net, params: Tree, *, head: tuple[str, ...] | None = None, server_lr: float = 1.0, **common: Unpack[Common]
) -> Algorithm:
    """FedPer; ``head`` are patterns of the leaves that stay, None is the last layer."""
    view = Body((last_layer(net),) if head is None else head)
    return replace(
        variant(net, params, SplitServer(view, server_lr), partial(SplitClient, view=view), **common), view=view
    )
