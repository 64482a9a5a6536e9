"""FedNova: clients that take more steps do not pull the others' optimum towards their own.

Wang, Liu, Liang, Joshi, Poor: Tackling the Objective Inconsistency Problem in Heterogeneous Federated Optimization,
NeurIPS 2020. A client sends its change for one unit of work, and how many units it did; the server takes the mean
change of a unit as often as clients worked on average, both means by examples. A unit is a step of plain SGD; in
general ``tau = |a|_1``, where ``a`` says how much each of the client's gradients moved it in all, in learning rates:
with momentum early gradients count more, with weight decay or a proximal term they count less.

Up: the change of the parameters for a unit of work, and the units. Down: the parameters. Stays: the data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np

from duetto import tree as trees
from duetto.algorithms.common import Common, positive, spelled_out, variant
from duetto.errors import ConfigError
from duetto.models import Net
from duetto.training import SGD, Client, Proximal
from duetto.training.cohort.recurrence import Rule, State
from duetto.tree import Tree
from duetto.types import Algorithm, Key, ServerUpdate, Trained


@dataclass(frozen=True)
class FedNovaClient(Client):
    """Trains as FedAvg's, and says how much it worked.

    Raises:
        ConfigError: another optimiser than SGD, or one with a learning rate of 0.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (isinstance(self.optimiser, SGD) and self.optimiser.lr > 0):
            raise ConfigError(f"FedNova with {self.optimiser}", "use SGD with a positive learning rate")

    def tau(self, steps: int) -> float:
        """The units of work in so many steps: how far a gradient of 1 throughout goes, in learning rates."""
        assert isinstance(self.optimiser, SGD)
        rule = Rule(self.optimiser, sum(term.mu for term in self.loss if isinstance(term, Proximal)), steps)
        state = State(0.0)
        for step in range(steps):
            state = rule.step(step, state, 1.0, 0.0, None)
        return abs(float(state.delta)) / self.optimiser.lr

    def finish(self, sent: Tree, memory: Mapping[str, Any], trained: Trained) -> tuple[Mapping[str, Any], Tree, float]:
        """The change of a unit, and the units."""
        tau = self.tau(trained.steps)
        delta = {"params": trees.scale(trained.delta, 1 / tau if tau else 0.0), "tau": np.float64(tau)}
        return memory, delta, float(trained.examples)


@dataclass(frozen=True)
class FedNovaServer(ServerUpdate[Any]):
    """``params + lr * mean tau * mean change of a unit``; an empty cohort changes nothing.

    Raises:
        ConfigError: a learning rate that is not positive.
    """

    lr: float = 1.0

    def __post_init__(self) -> None:
        positive(server_lr=self.lr)

    def expects(self, params: Tree) -> Tree:
        """A change, and the units of work in it."""
        return {"params": params, "tau": np.float64(0)}

    def step(
        self, state: Any, params: Tree, collected: Tree | None, *, cohort_size: int, fleet_size: int, key: Key
    ) -> tuple[Any, Tree]:
        """As many units as on average."""
        if collected is None:
            return state, params
        return state, trees.add(params, trees.scale(collected["params"], self.lr * float(collected["tau"])))


@spelled_out
def fednova(net: Net, params: Tree, *, server_lr: float = 1.0, **common: Unpack[Common]) -> Algorithm:
    """FedNova; clients count by their examples."""
    return variant(net, params, FedNovaServer(server_lr), FedNovaClient, **common)
