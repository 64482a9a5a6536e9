"""FedDyn: each client's loss is bent every round, until all clients and the server agree on one optimum.

Acar, Zhao, Matas Navarro, Mattina, Whatmough, Saligrama: Federated Learning Based on Dynamic Regularization, ICLR
2021. A client minimises ``L_k(w) - <g_k, w> + alpha/2 |w - w_t|^2`` with ``g_k -= alpha * delta`` after every round.
Here it remembers ``moved``, the sum of its changes, so ``g_k = -alpha * moved``, and both terms are one pull to
``w_t - moved``; the server's ``-h / alpha`` is the mean of ``moved`` over the fleet. Every client counts the same.

Up: the change of the parameters. Down: the parameters. Stays: the data, and ``moved``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Unpack

from duetto import tree as trees
from duetto.algorithms.common import Common, positive, remembered, spelled_out, variant
from duetto.models import Net
from duetto.training import Client, Proximal
from duetto.tree import Tree
from duetto.types import Algorithm, Key, ServerUpdate, Trained


@dataclass(frozen=True)
class FedDynClient(Client):
    """Trains with a pull to an anchor; remembers ``moved``, zero before its first round."""

    def start(self, sent: Tree, memory: Mapping[str, Any]) -> Tree:
        """The parameters, and the anchor."""
        moved = remembered(memory, "moved", sent["params"])
        return {"params": sent["params"], "anchor": trees.subtract(sent["params"], moved)}

    def finish(self, sent: Tree, memory: Mapping[str, Any], trained: Trained) -> tuple[Mapping[str, Any], Tree, float]:
        """The change, which is added to those before."""
        moved = trees.add(remembered(memory, "moved", sent["params"]), trained.delta)
        return {**memory, "moved": moved}, trained.delta, 1.0


@dataclass(frozen=True)
class FedDynServer(ServerUpdate[Tree]):
    """The mean of the clients' parameters, and beyond it by what the fleet has ``moved`` on average in all rounds."""

    def init(self, params: Tree) -> Tree:
        """Nobody has moved."""
        return {"moved": trees.zeros(params)}

    def step(
        self, state: Tree, params: Tree, collected: Tree | None, *, cohort_size: int, fleet_size: int, key: Key
    ) -> tuple[Tree, Tree]:
        """The fleet moves by the share of it that answered; an empty cohort changes nothing."""
        if collected is None:
            return state, params
        moved = trees.add(state["moved"], trees.scale(collected, cohort_size / fleet_size))
        return {"moved": moved}, trees.add(trees.add(params, collected), moved)


@spelled_out
def feddyn(net: Net, params: Tree, *, alpha: float, **common: Unpack[Common]) -> Algorithm:
    """FedDyn; the larger ``alpha`` is, the closer clients are held to where they started.

    Raises:
        ConfigError: an ``alpha`` that is not positive.
    """
    positive(alpha=alpha)
    return variant(net, params, FedDynServer(), FedDynClient, (Proximal(alpha, to="anchor"),), **common)
