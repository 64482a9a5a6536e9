"""FedBN: normalisation layers stay on the device, so that users whose inputs are shifted need not share them.

Li, Jiang, Zhang, Kamp, Dou: FedBN: Federated Learning on Non-IID Features via Local Batch Normalization, ICLR 2021.
Scales and shifts stay, and the running statistics, which are parameters here (``models.norm``). A network without
normalisation layers is trained as by FedAvg.

Up: the change of all parameters but the normalisation layers'. Down: these parameters. Stays: the data, and the scales,
shifts and statistics of the normalisation layers.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Unpack

from duetto.algorithms.common import Common, spelled_out, variant
from duetto.algorithms.fedper import SplitClient, SplitServer
from duetto.models import Net
from duetto.training import BatchNorm
from duetto.tree import Tree
from duetto.types import Algorithm


@spelled_out
def fedbn(net: Net, params: Tree, *, server_lr: float = 1.0, **common: Unpack[Common]) -> Algorithm:
    """FedBN; all but the normalisation layers travels."""
    view = BatchNorm(net)
    return replace(
        variant(net, params, SplitServer(view, server_lr), partial(SplitClient, view=view), **common), view=view
    )
