"""APFL: a device answers with a mixture of its own parameters and the shared ones, and learns how much of each.

Deng, Kamani, Mahdavi: Adaptive Personalized Federated Learning, 2020. At every step ``w`` goes down its own gradient,
``v`` down that of the mixture ``alpha * v + (1 - alpha) * w``, and ``alpha`` too, kept within 0..1, where it adapts.
``alpha = 0`` is FedAvg, ``alpha = 1`` a device that trains alone.

Up: the change of ``w``, and ``alpha`` as a measure. Down: ``w``. Stays: the data, and ``v``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Unpack

import numpy as np

from duetto import tree as trees
from duetto.algorithms.common import Common, remembered, spelled_out, variant
from duetto.algorithms.fedavg import Average
from duetto.errors import ConfigError
from duetto.models import Net
from duetto.training import SGD, Client, batches, gradient, moved
from duetto.tree import Tree
from duetto.types import Algorithm, Key, Local, Work


@dataclass(frozen=True)
class ApflClient(Client):
    """Steps ``w``, ``v`` and ``alpha`` together; remembers ``own`` (``v``) and ``alpha``.

    Raises:
        ConfigError: an ``alpha`` outside 0..1, or steps that are not plain SGD's.
    """

    alpha: float = 0.5
    adaptive: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.alpha <= 1:
            raise ConfigError(f"alpha={self.alpha}", "use a number from 0 to 1")
        if self.optimiser != SGD(self.optimiser.rate(0, 1)):
            raise ConfigError(f"APFL with {self.optimiser}", "use SGD without momentum")

    def __call__(self, local: Local, tree: Tree, key: Key, sender: str) -> tuple[Local, Tree]:
        """The change of ``w``."""
        w, lr, weight = tree["params"], self.optimiser.rate(0, 1), float(len(self._part(local)))
        v, alpha = remembered(local.memory, "own", w, w), float(local.memory.get("alpha", self.alpha))
        start = {"params": w}
        for step, batch in enumerate(batches(self, self.examples(local, w), key)):
            at = (*key, step)
            slope = gradient(self, _mixed(v, w, alpha), start, batch, at)
            turn = trees.dot(trees.subtract(v, w), slope) if self.adaptive else 0.0
            w, v = moved(w, gradient(self, w, start, batch, at), lr), moved(v, slope, lr * alpha)
            alpha = min(1.0, max(0.0, alpha - lr * turn))
        delta = trees.subtract(w, tree["params"])
        after = local.remembering(own=v, alpha=np.float64(alpha))
        return after, {"delta": delta, "weight": np.float64(weight), "metrics": {"alpha": np.float64(alpha)}}

    def personal(self, sent: Tree, memory: Mapping[str, Any]) -> Tree:
        """The mixture with what was sent."""
        v = remembered(memory, "own", sent["params"], sent["params"])
        return _mixed(v, sent["params"], float(memory.get("alpha", self.alpha)))

    def work(self, local: Local, tree: Tree) -> Work:
        """Twice FedAvg's."""
        once = super().work(local, tree)
        return Work(2 * once.flops, 2 * once.bytes)


def _mixed(v: Tree, w: Tree, alpha: float) -> Tree:
    return trees.add(trees.scale(v, alpha), trees.scale(w, 1 - alpha))


@spelled_out
def apfl(
    net: Net,
    params: Tree,
    *,
    alpha: float = 0.5,
    adaptive: bool = True,
    server_lr: float = 1.0,
    **common: Unpack[Common],
) -> Algorithm:
    """APFL; ``alpha`` is the share of a device's own parameters, at first where it adapts."""
    return variant(net, params, Average(server_lr), partial(ApflClient, alpha=alpha, adaptive=adaptive), **common)
