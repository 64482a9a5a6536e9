"""HeteroFL: each device trains as much of the model's width as it can bear, and the cloud averages what overlaps.

Diao, Ding, Tarokh: HeteroFL: Computation and Communication Efficient Federated Learning for Heterogeneous Clients,
ICLR 2021. A device gets the first channels of every hidden layer, trains them and sends their change; a parameter
moves by the mean change of the devices that have it. A device's width is the largest of ``levels`` that its trait
``width`` allows; for one that tells none it is drawn by name, as in the paper's experiments. A device answers with the
network of its width; width 1 is FedAvg. Of the paper's aids static batch norm, scaler and masked loss are left out.

Up: the change of the narrow model. Down: the narrow model, its width and first channel. Stays: the data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Unpack

import numpy as np

from duetto import tree as trees
from duetto.algorithms.common import Common, declared, spelled_out, variant
from duetto.algorithms.fedavg import Average
from duetto.errors import ConfigError
from duetto.models import Net, narrow
from duetto.training import Client
from duetto.tree import Tree
from duetto.types import Algorithm, Index, Peer, Trained, rng


@dataclass(frozen=True)
class NarrowClient(Client):
    """Trains the part of ``net`` that it is sent, and remembers which one it was."""

    def personal(self, sent: Tree, memory: Mapping[str, Any]) -> Tree:
        """Its part; what the cloud sends to it is that already."""
        if "width" in sent or (part := memory.get("part")) is None:
            return sent["params"]
        return narrow.cut(sent["params"], narrow.window(self.net, float(part["width"]), int(part["offset"])))

    def logits(self, sent: Tree, memory: Mapping[str, Any], x: np.ndarray) -> np.ndarray:
        """What the narrow network answers."""
        part = sent if "width" in sent else memory.get("part", {"width": 1.0})
        return narrow.narrowed(self.net, float(part["width"])).logits(self.personal(sent, memory), x)

    def trains(self, sent: Tree, memory: Mapping[str, Any]) -> Client:
        """The narrow network."""
        return declared(self, narrow.narrowed(self.net, float(sent["width"])))

    def finish(self, sent: Tree, memory: Mapping[str, Any], trained: Trained) -> tuple[Mapping[str, Any], Tree, float]:
        """The change; it remembers its part."""
        delta = trained.delta if sent["width"] == 1 else trees.map(np.asarray, trained.delta)
        return {**memory, "part": {"width": sent["width"], "offset": sent["offset"]}}, delta, float(trained.examples)


@dataclass(frozen=True)
class Narrowing(Average):
    """Sends each device its part of ``net``, and knows which one; the mean divides by who has a parameter."""

    net: Net | None = None
    levels: tuple[float, ...] = (1.0,)
    personal: ClassVar[bool] = True
    partial: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.net is None or not [narrow.narrowed(self.net, width) for width in self.levels]:
            raise ConfigError(f"levels={self.levels}", "name a network and at least one width")

    def width(self, peer: Peer | None) -> float:
        """What a device can bear; everything where nobody is meant."""
        if peer is None:
            return 1.0
        if "width" in peer.traits:
            return max((each for each in self.levels if each <= peer.traits["width"]), default=min(self.levels))
        return self.levels[int(rng(("width", peer.name)).integers(len(self.levels)))]

    def offset(self, state: Any) -> int:
        """The first channel of this round's parts."""
        return 0

    def send(self, state: Any, params: Tree, peer: Peer | None) -> Tree:
        """The part, its width and its first channel."""
        width, offset = self.width(peer), self.offset(state)
        part = params if width == 1 else narrow.cut(params, narrow.window(self.net, width, offset))
        return {"params": part, "width": np.float64(width), "offset": np.int64(offset)}

    def part(self, state: Any, params: Tree, peer: Peer) -> Index | None:
        """Where it is."""
        width, offset = self.width(peer), self.offset(state)
        return None if width == 1 else narrow.positions(params, narrow.window(self.net, width, offset))


@spelled_out
def heterofl(
    net: Net, params: Tree, *, levels: tuple[float, ...], server_lr: float = 1.0, **common: Unpack[Common]
) -> Algorithm:
    """HeteroFL; ``levels`` are the widths that devices may have, shares of the channels, above 0, at most 1."""
    return variant(net, params, Narrowing(server_lr, net, tuple(levels)), NarrowClient, **common)
