"""FedAvgM: the server has momentum, which evens out rounds whose clients hold different classes.

Hsu, Qi, Brown: Measuring the Effects of Non-Identical Data Distribution for Federated Visual Classification, 2019.
The step of a round is ``velocity = beta * velocity + mean delta``; ``beta = 0`` is FedAvg.

Up: the change of the parameters. Down: the parameters. Stays: the data; the velocity is the cloud's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Unpack

from duetto import tree as trees
from duetto.algorithms.common import Common, below_one, positive, spelled_out, variant
from duetto.models import Net
from duetto.tree import Tree
from duetto.types import Algorithm, Key, ServerUpdate


@dataclass(frozen=True)
class Momentum(ServerUpdate[Tree]):
    """``params + lr * velocity``; an empty cohort changes nothing, the velocity neither.

    Raises:
        ConfigError: a beta that is not from 0, below 1, or a learning rate that is not positive.
    """

    beta: float = 0.9
    lr: float = 1.0

    def __post_init__(self) -> None:
        below_one(beta=self.beta)
        positive(server_lr=self.lr)

    def init(self, params: Tree) -> Tree:
        """At rest."""
        return {"velocity": trees.zeros(params)}

    def step(
        self, state: Tree, params: Tree, collected: Tree | None, *, cohort_size: int, fleet_size: int, key: Key
    ) -> tuple[Tree, Tree]:
        """On as before, and where the cohort pushes."""
        if collected is None:
            return state, params
        velocity = trees.add(trees.scale(state["velocity"], self.beta), collected)
        return {"velocity": velocity}, trees.add(params, trees.scale(velocity, self.lr))


@spelled_out
def fedavgm(
    net: Net, params: Tree, *, beta: float = 0.9, server_lr: float = 1.0, **common: Unpack[Common]
) -> Algorithm:
    """FedAvgM; a ``beta`` near 1 wants a ``server_lr`` near ``1 - beta``. ``momentum`` is that of a client's steps."""
    return variant(net, params, Momentum(beta, server_lr), **common)
