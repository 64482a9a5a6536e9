"""Ditto: beside the shared model each device trains its own, held near to the shared one.

Li, Hu, Beirami, Smith: Ditto: Fair and Robust Federated Learning Through Personalization, ICML 2021. Algorithm 1: the
shared model is FedAvg's; the own one ``v`` takes steps on ``F_k(v) + lam/2 |v - w|^2`` from where it was. ``lam = 0``
is a device that trains alone, beginning with the first parameters it was sent.

Up: the change of the shared model. Down: the shared model. Stays: the data, and the own model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Unpack

from duetto.algorithms.common import Common, remembered, spelled_out, variant
from duetto.algorithms.fedavg import Average
from duetto.errors import ConfigError
from duetto.models import Net
from duetto.training import Client, Proximal, sequential
from duetto.tree import Tree
from duetto.types import Algorithm, Key, Local, Work


@dataclass(frozen=True)
class DittoClient(Client):
    """Trains as FedAvg's, and then its ``own`` parameters for as many passes.

    Raises:
        ConfigError: a negative ``lam``.
    """

    lam: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.lam < math.inf:
            raise ConfigError(f"lam={self.lam}", "use a number from 0")

    def __call__(self, local: Local, tree: Tree, key: Key, sender: str) -> tuple[Local, Tree]:
        """Both, on the same rows."""
        after, answer = super().__call__(local, tree, key, sender)
        start = {"params": self.personal(tree, local.memory), "anchor": tree["params"]}
        near = replace(self, loss=(*self.loss, Proximal(self.lam, to="anchor")))
        trained = sequential.run(near, start, self.examples(local, start["params"]), (*key, "own"))
        return after.remembering(own=trained.params), answer

    def personal(self, sent: Tree, memory: Mapping[str, Any]) -> Tree:
        """Its own."""
        return remembered(memory, "own", sent["params"], sent["params"])

    def work(self, local: Local, tree: Tree) -> Work:
        """Twice FedAvg's."""
        once = super().work(local, tree)
        return Work(2 * once.flops, 2 * once.bytes)


@spelled_out
def ditto(net: Net, params: Tree, *, lam: float, server_lr: float = 1.0, **common: Unpack[Common]) -> Algorithm:
    """Ditto; the larger ``lam`` is, the nearer is every device's own model to the shared one."""
    return variant(net, params, Average(server_lr), partial(DittoClient, lam=lam), **common)
