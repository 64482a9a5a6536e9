"""FedRep: a device first fits its own head on the shared body, then takes a few steps with the body alone.

Collins, Hassani, Mokhtari, Shakkottai: Exploiting Shared Representations for Personalized Federated Learning, ICML
2021. FedPer's split; head and body are trained one after the other, and the other one lies still.

Up: the change of the body. Down: the body. Stays: the data, and the head.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Unpack

from duetto import tree as trees
from duetto.algorithms.common import Common, spelled_out, variant
from duetto.algorithms.fedper import SplitClient, SplitServer
from duetto.errors import ConfigError
from duetto.models import Net
from duetto.training import Body, Partly, last_layer, sequential
from duetto.tree import Tree
from duetto.types import Algorithm, Key, Local


@dataclass(frozen=True)
class FedRepClient(SplitClient):
    """Trains what stays for ``head_epochs``, then what travels for ``epochs``.

    Raises:
        ConfigError: a negative number of passes.
    """

    head_epochs: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.head_epochs < 0:
            raise ConfigError(f"head_epochs={self.head_epochs}", "use a number from 0")

    def __call__(self, local: Local, tree: Tree, key: Key, sender: str) -> tuple[Local, Tree]:
        """One after the other."""
        params = begin = self.personal(tree, local.memory)
        data = self.examples(local, params)
        for part, epochs in ((self.view.stays, self.head_epochs), (self.view.travels, self.epochs)):
            steps = Partly.of(self.optimiser, params, part(params, ""))
            if steps.leaves:
                alone = replace(self, epochs=epochs, optimiser=steps)
                trained = sequential.run(alone, {"params": params}, data, (*key, part.__name__))
                params = trained.params
        return self._reply(local, tree, replace(trained, start=begin, delta=trees.subtract(params, begin)))


@spelled_out
def fedrep(
    net: Net,
    params: Tree,
    *,
    head: tuple[str, ...] | None = None,
    head_epochs: int = 5,
    server_lr: float = 1.0,
    **common: Unpack[Common],
) -> Algorithm:
    """FedRep; ``head`` are patterns of the leaves that stay, None is the last layer; ``epochs`` are the body's."""
    view = Body((last_layer(net),) if head is None else head)
    client = partial(FedRepClient, view=view, head_epochs=head_epochs)
    return replace(variant(net, params, SplitServer(view, server_lr), client, **common), view=view)
