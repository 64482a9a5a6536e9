"""SCAFFOLD: control variates take out of a client's steps what pulls it away from the others.

Karimireddy, Kale, Mohri, Reddi, Stich, Suresh: SCAFFOLD: Stochastic Controlled Averaging for Federated Learning, ICML
2020. Option II: a client's new control is the mean gradient of its own steps, which costs nothing; option I, one more
pass over the data for the gradient at the start, is not offered. Every client counts the same, whatever its examples:
so the server's control is the mean of the clients'.

Up: the changes of the parameters and of the control. Down: the parameters and the fleet's mean control, twice FedAvg's
bytes both ways. Stays: the data, and the device's own control.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Unpack

from duetto import tree as trees
from duetto.algorithms.common import Common, positive, remembered, spelled_out, variant
from duetto.models import Net
from duetto.training import Client, Drift
from duetto.tree import Tree
from duetto.types import Algorithm, Key, Peer, ServerUpdate, Trained


@dataclass(frozen=True)
class ScaffoldClient(Client):
    """Steps along ``gradient - control_i + control``; remembers ``control_i``, zero before its first round."""

    sums_gradients: ClassVar[bool] = True

    def start(self, sent: Tree, memory: Mapping[str, Any]) -> Tree:
        """The parameters, and what is added to every gradient."""
        own = remembered(memory, "control", sent["params"])
        return {"params": sent["params"], "drift": trees.subtract(sent["control"], own)}

    def finish(self, sent: Tree, memory: Mapping[str, Any], trained: Trained) -> tuple[Mapping[str, Any], Tree, float]:
        """The change of the parameters, and of the control; the sum of gradients has the drift in it."""
        mean = trees.scale(trained.gradients, 1 / max(1, trained.steps))
        change = trees.subtract(mean, sent["control"])
        control = trees.add(remembered(memory, "control", sent["params"]), change)
        return {**memory, "control": control}, {"params": trained.delta, "control": change}, 1.0


@dataclass(frozen=True)
class ScaffoldServer(ServerUpdate[Tree]):
    """``params + lr * mean delta``, and the fleet's mean control, which those who answered move by their share of it.

    Raises:
        ConfigError: a learning rate that is not positive.
    """

    lr: float = 1.0

    def __post_init__(self) -> None:
        positive(server_lr=self.lr)

    def init(self, params: Tree) -> Tree:
        """No control yet."""
        return {"control": trees.zeros(params)}

    def send(self, state: Tree, params: Tree, peer: Peer | None) -> Tree:
        """Both trees."""
        return {"params": params, "control": state["control"]}

    def expects(self, params: Tree) -> Tree:
        """Changes of both."""
        return {"params": params, "control": params}

    def step(
        self, state: Tree, params: Tree, collected: Tree | None, *, cohort_size: int, fleet_size: int, key: Key
    ) -> tuple[Tree, Tree]:
        """Add both; an empty cohort changes nothing."""
        if collected is None:
            return state, params
        control = trees.add(state["control"], trees.scale(collected["control"], cohort_size / fleet_size))
        return {"control": control}, trees.add(params, trees.scale(collected["params"], self.lr))


@spelled_out
def scaffold(net: Net, params: Tree, *, server_lr: float = 1.0, **common: Unpack[Common]) -> Algorithm:
    """SCAFFOLD with option II; clients count equally."""
    return variant(net, params, ScaffoldServer(server_lr), ScaffoldClient, (Drift("drift"),), **common)
