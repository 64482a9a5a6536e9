"""FedAvg + fine-tuning: every device answers with what it made of the shared parameters, the baseline of the field.

Cheng, Chadha, Duchi: Fine-tuning is Fine in Federated Learning, 2021, and Jiang, Konecny, Rush, Kannan 2019 on why it
works. Federated averaging is that of McMahan et al. 2017; what a device trains in a round is its own model, and a
device that has not trained yet answers with what was sent.

Up: the change of the parameters. Down: the parameters. Stays: the data, and where the last training ended.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Unpack

from duetto.algorithms.common import Common, remembered, spelled_out, variant
from duetto.algorithms.fedavg import Average
from duetto.models import Net
from duetto.training import Client
from duetto.tree import Tree
from duetto.types import Algorithm, Trained


@dataclass(frozen=True)
class TunedClient(Client):
    """Trains as FedAvg's, and remembers ``own``, where it ended."""

    def finish(self, sent: Tree, memory: Mapping[str, Any], trained: Trained) -> tuple[Mapping[str, Any], Tree, float]:
        """The change; the end stays."""
        return {**memory, "own": trained.params}, trained.delta, float(trained.examples)

    def personal(self, sent: Tree, memory: Mapping[str, Any]) -> Tree:
        """Where its last training ended."""
        return remembered(memory, "own", sent["params"], sent["params"])


@spelled_out
def fedavg_ft(net: Net, params: Tree, *, server_lr: float = 1.0, **common: Unpack[Common]) -> Algorithm:
    """FedAvg whose devices answer with their own fine-tuned parameters."""
    return variant(net, params, Average(server_lr), TunedClient, **common)
