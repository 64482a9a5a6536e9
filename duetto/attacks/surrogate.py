"""A stand-in for a device's half, by who has only the cloud's.

He, Zhang, Lee: Model Inversion Attacks Against Collaborative Inference, ACSAC 2019 (their query-free attack): the
attacker trains a half of the same architecture in front of the cloud's, which stays as it is, on public labelled rows;
what it gives then stands in for what the device gives. A decoder that learns from it needs no access to a device. It is
weaker than the black box: many halves serve the same cloud, and the device's is one of them.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from duetto import tree as trees
from duetto.errors import ConfigError
from duetto.models.staged import Half
from duetto.training import sequential
from duetto.training.client import Client
from duetto.training.steps import Partly
from duetto.tree import Array, Tree
from duetto.types import Key


def surrogate(client: Client, params: Tree, front: Half, x: np.ndarray, y: np.ndarray, key: Key) -> Tree:
    """The network's parameters with a front of the attacker's own.

    Args:
        client: how it trains: the network, loss terms and optimiser.
        params: the network's, of which the front's are never read.
        front: the device's half, which says which parameters these are.
        x, y: public rows ``[n, *shape]`` and their labels ``[n]``.
        key: of the fresh front and the order of rows.

    Raises:
        ConfigError: a front without parameters, or of another network.
    """
    own = {f"/{name.replace('.', '/')}" for name in front.learnable}
    if not own or not own <= {pointer for pointer, _ in trees.leaves(params)}:
        raise ConfigError("a front that has no parameters of this network", "cut the network deeper, or the same one")
    fresh = client.net.init(sequential.seed((*key, "surrogate")) % 2**31)

    def mine(pointer: str, known: Array, new: Array) -> Array:
        return new if pointer in own else known

    start = trees.pointed(mine, params, fresh)
    leaves = frozenset(i for i, (pointer, _) in enumerate(trees.leaves(params)) if pointer in own)
    learning = replace(client, optimiser=Partly(client.optimiser, leaves))
    rows: dict[str, np.ndarray] = {"x": np.asarray(x, np.float32), "y": np.asarray(y, np.int64)}
    return sequential.run(learning, {"params": start}, rows, (*key, "surrogate")).params
