"""pFedMe: the shared parameters are drawn to where each device's own ones end under a pull back to them.

Dinh, Tran, Nguyen: Personalized Federated Learning with Moreau Envelopes, NeurIPS 2020. On every batch ``theta`` takes
``steps`` steps on ``f(theta) + lam/2 |theta - w|^2``, then ``w`` goes ``eta * lam`` of the way to it; a device answers
with ``theta``. The server takes ``beta`` of the way to the mean of all ``w``, in which everyone counts the same. With
``eta * lam = 1`` and one batch a round it is FedProx with ``mu = lam`` and ``steps`` passes.

Up: the change of ``w``. Down: ``w``. Stays: the data, and ``theta``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Unpack

import numpy as np

from duetto import tree as trees
from duetto.algorithms.common import Common, positive, remembered, spelled_out, variant
from duetto.algorithms.fedavg import Average
from duetto.models import Net
from duetto.training import Client, Proximal, batches, sequential
from duetto.tree import Tree
from duetto.types import Algorithm, Key, Local, Work


@dataclass(frozen=True)
class PFedMeClient(Client):
    """Moves ``w`` batch by batch; remembers ``own``, the last ``theta``.

    Raises:
        ConfigError: a number that is not positive.
    """

    lam: float = 15.0
    eta: float = 0.01
    steps: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(lam=self.lam, eta=self.eta, steps=self.steps)

    def __call__(self, local: Local, tree: Tree, key: Key, sender: str) -> tuple[Local, Tree]:
        """The change of ``w``."""
        theta = w = tree["params"]
        data, losses = self.examples(local, w), []
        near = replace(self, loss=(*self.loss, Proximal(self.lam, to="anchor")), epochs=self.steps)
        for turn, batch in enumerate(batches(self, data, key)):
            start = {"params": w, "anchor": w}
            trained = sequential.run(near, start, batch, (*key, "inner", turn))
            theta = trained.params
            w = trees.add(w, trees.scale(trained.delta, self.eta * self.lam))
            losses.append(trained.loss)
        told = {"loss": np.float64(np.mean(losses))} if losses else {}
        delta = trees.subtract(w, tree["params"])
        return local.remembering(own=theta), {"delta": delta, "weight": np.float64(1.0), "metrics": told}

    def personal(self, sent: Tree, memory: Mapping[str, Any]) -> Tree:
        """Its own."""
        return remembered(memory, "own", sent["params"], sent["params"])

    def work(self, local: Local, tree: Tree) -> Work:
        """``steps`` times FedAvg's."""
        once = super().work(local, tree)
        return Work(self.steps * once.flops, self.steps * once.bytes)


@spelled_out
def pfedme(
    net: Net, params: Tree, *, lam: float, eta: float, steps: int = 5, beta: float = 1.0, **common: Unpack[Common]
) -> Algorithm:
    """pFedMe; ``lr`` is that of the ``steps`` steps, ``eta`` that of the shared parameters on a device."""
    return variant(net, params, Average(beta), partial(PFedMeClient, lam=lam, eta=eta, steps=steps), **common)
