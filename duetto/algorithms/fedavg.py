"""FedAvg: devices train what they are sent on their own data, and the cloud averages what changed.

McMahan, Moore, Ramage, Hampson, Aguera y Arcas: Communication-Efficient Learning of Deep Networks from
Decentralized Data, AISTATS 2017. The server adds the mean delta, weighted by examples; with ``server_lr`` it is
the generalised form of Reddi et al. 2021.

Up: the change of the parameters. Down: the parameters. Stays: the data.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Unpack

from duetto import tree as trees
from duetto.algorithms.common import Common, positive, spelled_out, variant
from duetto.models import Net
from duetto.tree import Tree
from duetto.types import Algorithm, Key, ServerUpdate


@dataclass(frozen=True)
class Average(ServerUpdate[Any]):
    """``params + lr * mean delta``; an empty cohort changes nothing.

    Raises:
        ConfigError: a learning rate that is not positive.
    """

    lr: float = 1.0

    def __post_init__(self) -> None:
        positive(server_lr=self.lr)

    def step(
        self, state: Any, params: Tree, collected: Tree | None, *, cohort_size: int, fleet_size: int, key: Key
    ) -> tuple[Any, Tree]:
        """Add what was collected."""
        return state, params if collected is None else trees.add(params, trees.scale(collected, self.lr))


@spelled_out
def fedavg(net: Net, params: Tree, *, server_lr: float = 1.0, **common: Unpack[Common]) -> Algorithm:
    """FedAvg over labelled data; change any part with ``dataclasses.replace``."""
    return variant(net, params, Average(server_lr), **common)
