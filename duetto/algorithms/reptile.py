"""Reptile: the server takes a part of the way to where devices end, so that they end well from there.

Nichol, Achiam, Schulman: On First-Order Meta-Learning Algorithms, 2018, with devices for tasks. Every device counts the
same, and answers with where it ended. ``epsilon = 1`` is FedAvg of equal weights, with fine-tuning. The paper lets
``epsilon`` fall to 0 over the rounds: pass ``rounds`` a function of the round for that.

Up: the change of the parameters. Down: the parameters. Stays: the data, and where the last training ended.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Unpack

from duetto.algorithms.common import Common, spelled_out, variant
from duetto.algorithms.fedavg import Average
from duetto.algorithms.fedavg_ft import TunedClient
from duetto.models import Net
from duetto.tree import Tree
from duetto.types import Algorithm, Trained


@dataclass(frozen=True)
class ReptileClient(TunedClient):
    """Trains as FedAvg's, and counts as one."""

    def finish(self, sent: Tree, memory: Mapping[str, Any], trained: Trained) -> tuple[Mapping[str, Any], Tree, float]:
        """The change; the end stays."""
        memory, delta, _ = super().finish(sent, memory, trained)
        return memory, delta, 1.0


@spelled_out
def reptile(net: Net, params: Tree, *, epsilon: float = 0.5, **common: Unpack[Common]) -> Algorithm:
    """Reptile; ``epsilon`` is the part of the way."""
    return variant(net, params, Average(epsilon), ReptileClient, **common)
