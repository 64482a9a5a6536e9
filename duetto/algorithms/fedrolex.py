"""FedRolex: the part of the model that narrow devices train rolls over all channels, so that all are trained evenly.

Alam, Liu, Yan, Zhang: FedRolex: Model-Heterogeneous Federated Learning with Rolling Sub-Model Extraction, NeurIPS 2022.
As HeteroFL, but in round ``j`` a device's channels begin with the ``j``-th of every layer, and after the last one with
the first again: even where no device can bear the whole model, every parameter is trained. Width 1 is FedAvg.

Up: the change of the narrow model. Down: the narrow model of this round, its width and first channel. Stays: the data.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np

from duetto.algorithms.common import Common, spelled_out, variant
from duetto.algorithms.heterofl import NarrowClient, Narrowing
from duetto.models import Net
from duetto.tree import Tree
from duetto.types import Algorithm, Key


@dataclass(frozen=True)
class Rolling(Narrowing):
    """Moves on by a channel whenever somebody has answered."""

    def init(self, params: Tree) -> Tree:
        """The first channel."""
        return {"offset": np.int64(0)}

    def offset(self, state: Any) -> int:
        """That of this round."""
        return int(state["offset"])

    def step(
        self, state: Any, params: Tree, collected: Tree | None, *, cohort_size: int, fleet_size: int, key: Key
    ) -> tuple[Any, Tree]:
        """Add what was collected, and roll on; an empty cohort changes nothing."""
        if collected is None:
            return state, params
        _, params = super().step(state, params, collected, cohort_size=cohort_size, fleet_size=fleet_size, key=key)
        return {"offset": np.int64(self.offset(state) + 1)}, params


@spelled_out
def fedrolex(
    net: Net, params: Tree, *, levels: tuple[float, ...], server_lr: float = 1.0, **common: Unpack[Common]
) -> Algorithm:
    """FedRolex; ``levels`` are the widths that devices may have, shares of the channels.

    Raises:
        ConfigError: a level outside (0, 1], or a network of which no narrower one is known.
    """
    return variant(net, params, Rolling(server_lr, net, tuple(levels)), NarrowClient, **common)
