"""Federated averaging.

McMahan, Moore, Ramage, Hampson, Aguera y Arcas: Communication-Efficient Learning of Deep Networks from
Decentralized Data, AISTATS 2017. The server adds the mean delta, weighted by examples; with ``server_lr`` it is
the generalised form of Reddi et al. 2021.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from duetto import aggregation, policies, training
from duetto import tree as trees
from duetto.models import Net
from duetto.protocols.collect import Plain
from duetto.tree import Tree
from duetto.types import Algorithm, Key, Policy, ServerUpdate


@dataclass(frozen=True)
class Average(ServerUpdate[Any]):
    """``params + lr * mean delta``; an empty cohort changes nothing."""

    lr: float = 1.0

    def step(
        self, state: Any, params: Tree, collected: Tree | None, *, cohort_size: int, fleet_size: int, key: Key
    ) -> tuple[Any, Tree]:
        """Add what was collected."""
        return state, params if collected is None else trees.add(params, trees.scale(collected, self.lr))


def fedavg(
    net: Net,
    params: Tree,
    *,
    lr: float,
    epochs: int,
    batch_size: int = 16,
    momentum: float = 0.0,
    cohort: Policy[Any] | None = None,
    server_lr: float = 1.0,
) -> Algorithm:
    """FedAvg over labelled data; change any part with ``dataclasses.replace``."""
    optimiser = training.SGD(lr, momentum)
    return Algorithm(
        client=training.Client(net, (training.CrossEntropy(),), optimiser, epochs, batch_size),
        params=params,
        server=Average(server_lr),
        aggregator=aggregation.Mean(),
        cohort=cohort or policies.Everyone(),
        gate=aggregation.Gate(norm=None),
        collect=Plain(),
    )
