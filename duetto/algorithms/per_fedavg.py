"""Per-FedAvg: shared parameters from which one step on a device's own rows goes far (meta-learning, MAML).

Fallah, Mokhtari, Ozdaglar: Personalized Federated Learning with Theoretical Guarantees, NeurIPS 2020. A step goes along
the gradient on a second batch at ``w - alpha * gradient`` on a first one. First order (FO) leaves out how that point
depends on ``w``; Hessian-free (HF) has ``alpha`` times a difference of two gradients for it. ``alpha = 0`` is FedAvg.
A device answers with what a pass of such steps of size ``alpha`` makes of what it was sent.

Up: the change of the parameters. Down: the parameters. Stays: the data, and what the pass made of the parameters.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Unpack

import numpy as np

from duetto import tree as trees
from duetto.algorithms.common import Common, remembered, spelled_out, variant
from duetto.algorithms.fedavg import Average
from duetto.errors import ConfigError
from duetto.models import Net
from duetto.training import SGD, Client, batches, gradient, moved, sequential
from duetto.tree import Tree
from duetto.types import Algorithm, Key, Local

HESSIANS = ("fo", "hf")


@dataclass(frozen=True)
class PerFedAvgClient(Client):
    """Steps along the gradient after a step; remembers ``own``, the shared parameters after a pass.

    Raises:
        ConfigError: a negative ``alpha``, a Hessian of no known kind, or steps that are not plain SGD's.
    """

    alpha: float = 0.01
    hessian: str = "fo"
    apart: float = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.alpha < math.inf:
            raise ConfigError(f"alpha={self.alpha}", "use a number from 0")
        if self.hessian not in HESSIANS:
            raise ConfigError(f"no Hessian is called {self.hessian!r}", f"use one of {', '.join(HESSIANS)}")
        if self.optimiser != SGD(self.optimiser.rate(0, 1)):
            raise ConfigError(f"Per-FedAvg with {self.optimiser}", "use SGD without momentum")

    def __call__(self, local: Local, tree: Tree, key: Key, sender: str) -> tuple[Local, Tree]:
        """The change, and what a pass made of what was sent."""
        start, w, weight = {"params": tree["params"]}, tree["params"], float(len(self._part(local)))
        data = self.examples(local, w)
        three = zip(*(batches(self, data, (*key, *each)) for each in ((), ("first",), ("third",))), strict=True)
        for step, (second, first, third) in enumerate(three):
            slope = partial(gradient, self, start=start, key=(*key, step))
            near = moved(w, slope(w, batch=first), self.alpha)
            g = slope(near, batch=second)
            if self.hessian == "hf":
                ahead, behind = (slope(moved(w, g, side * self.apart), batch=third) for side in (-1, 1))
                g = moved(g, trees.subtract(ahead, behind), self.alpha / (2 * self.apart))
            w = moved(w, g, self.optimiser.rate(step, 1))
        tuned = sequential.run(replace(self, optimiser=SGD(self.alpha)), start, data, (*key, "own"))
        told = {"loss": np.float64(tuned.loss)} if math.isfinite(tuned.loss) else {}
        delta = trees.subtract(w, tree["params"])
        return local.remembering(own=tuned.params), {"delta": delta, "weight": np.float64(weight), "metrics": told}

    def personal(self, sent: Tree, memory: Mapping[str, Any]) -> Tree:
        """Its own."""
        return remembered(memory, "own", sent["params"], sent["params"])


@spelled_out
def per_fedavg(
    net: Net, params: Tree, *, alpha: float, hessian: str = "fo", server_lr: float = 1.0, **common: Unpack[Common]
) -> Algorithm:
    """Per-FedAvg; ``hessian`` is "fo" or "hf"; ``lr`` is the paper's beta."""
    client = partial(PerFedAvgClient, alpha=alpha, hessian=hessian)
    return variant(net, params, Average(server_lr), client, **common)
