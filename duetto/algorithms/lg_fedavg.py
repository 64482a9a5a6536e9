"""LG-FedAvg: each device has its own representation, and all share the head on top of it.

Liang, Liu, Ziyin, Allen, Auerbach, Brent, Salakhutdinov, Morency: Think Locally, Act Globally: Federated Learning with
Local and Global Representations, 2020. FedPer's split the other way round. The paper begins with rounds of FedAvg;
pass what these came to as ``params``, and as ``first`` the seed it all began with.

Up: the change of the head. Down: the head. Stays: the data, and the body.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Unpack

from duetto.algorithms.common import Common, spelled_out, variant
from duetto.algorithms.fedper import SplitClient, SplitServer
from duetto.models import Net
from duetto.training import Head, last_layer
from duetto.tree import Tree
from duetto.types import Algorithm


@spelled_out
def lg_fedavg(
    net: Net, params: Tree, *, head: tuple[str, ...] | None = None, server_lr: float = 1.0, **common: Unpack[Common]
) -> Algorithm:
    """LG-FedAvg; ``head`` are patterns of the leaves that travel, None is the last layer."""
    view = Head((last_layer(net),) if head is None else head)
    return replace(
        variant(net, params, SplitServer(view, server_lr), partial(SplitClient, view=view), **common), view=view
    )
