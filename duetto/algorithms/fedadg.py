"""FedADG: every device's features are drawn, class by class, to one generated distribution, so that domains look alike.

Zhang, Lei, Shi, Huang, Chen: Federated Learning with Domain Generalization, 2021. Beside its network a device trains a
generator, which makes features of a class from noise, and a discriminator, which learns to tell them from the network's
own; the network learns its labels and to pass for generated, the generator to pass for the network's. So the reference
follows all domains while they follow it, and what is learned should hold on one that nobody has seen. The paper trains
the three in turns, after some plain epochs, and smooths labels; here all three step at once, from the first round on
(``training.Align``). With ``weight`` 0 the network is FedAvg's.

Up: the changes of the network and of the generator, which tells what features of each class are like. Down: both, as
they are on average over devices. Stays: the data; the discriminator, remembered as ``stays``, which knows how this
device's features differ.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Unpack

from duetto.algorithms.common import Common, spelled_out, variant
from duetto.algorithms.fedper import SplitClient, SplitServer
from duetto.models import Net
from duetto.models.aligned import Aligned
from duetto.training import Align, Body
from duetto.tree import Tree
from duetto.types import Algorithm, Local, Work

STAYS = Body(("discriminator.*",))


@dataclass(frozen=True)
class AlignedClient(SplitClient):
    """Trains all three networks, and keeps the discriminator."""

    def work(self, local: Local, tree: Tree) -> Work:
        """The rows pass through the network twice: for their labels, and to be aligned."""
        once = super().work(local, tree)
        return replace(once, flops=2 * once.flops, bytes=2 * once.bytes)


@spelled_out
def fedadg(
    net: Net,
    params: Tree,
    *,
    weight: float = 0.2,
    noise: int = 16,
    hidden: int = 64,
    server_lr: float = 1.0,
    **common: Unpack[Common],
) -> Algorithm:
    """FedADG; ``weight`` is that of the alignment beside the labels, ``noise`` and ``hidden`` sizes of its networks."""
    three = Aligned(net, noise, hidden)
    start = {**three.init(0), "net": params}
    client = partial(AlignedClient, view=STAYS)
    built = variant(three, start, SplitServer(STAYS, server_lr), client, (Align(three, weight),), **common)
    return replace(built, view=STAYS)
