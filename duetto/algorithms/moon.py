"""MOON: a device's features are drawn to the shared model's, away from those of its own last model.

Li, He, Song: Model-Contrastive Federated Learning, CVPR 2021. A term of the loss; all else is FedAvg, which ``mu = 0``
is. The features are what the last layer reads; the paper puts a projection head before it.

Up: the change of the parameters. Down: the parameters. Stays: the data, and where the last training ended.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Unpack

from duetto.algorithms.common import Common, remembered, spelled_out, variant
from duetto.algorithms.fedavg import Average
from duetto.models import Net
from duetto.training import Client, Contrast
from duetto.tree import Tree
from duetto.types import Algorithm, Trained


@dataclass(frozen=True)
class MoonClient(Client):
    """Trains with the contrast; remembers ``previous``, where it ended."""

    def start(self, sent: Tree, memory: Mapping[str, Any]) -> Tree:
        """The parameters, and its last ones."""
        return {"params": sent["params"], "previous": remembered(memory, "previous", sent["params"], sent["params"])}

    def finish(self, sent: Tree, memory: Mapping[str, Any], trained: Trained) -> tuple[Mapping[str, Any], Tree, float]:
        """The change; the end stays."""
        return {**memory, "previous": trained.params}, trained.delta, float(trained.examples)


@spelled_out
def moon(
    net: Net,
    params: Tree,
    *,
    mu: float = 1.0,
    temperature: float = 0.5,
    server_lr: float = 1.0,
    **common: Unpack[Common],
) -> Algorithm:
    """MOON; ``mu`` is the weight of the contrast."""
    return variant(net, params, Average(server_lr), MoonClient, (Contrast(net, mu, temperature),), **common)
