"""kNN-Per: the shared model's features look up a device's own rows; their labels are mixed into its answer.

Marfoq, Neglia, Kameni, Vidal: Personalized Federated Learning through Local Memorization, ICML 2022. Training is
FedAvg's. A device remembers the features of its rows, as the last layer reads them, and labels; the nearest ``k`` vote
with ``e^(-distance/scale)``, and the votes are ``lam`` of the answer. ``lam = 0`` is FedAvg. The features are of the
parameters that the device was last sent when it trained.

Up: the change of the parameters. Down: the parameters. Stays: the data, and the features and labels of its rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Unpack

import numpy as np

from duetto import tree as trees
from duetto.algorithms.common import Common, positive, spelled_out, variant
from duetto.algorithms.fedavg import Average
from duetto.errors import ConfigError
from duetto.models import Net
from duetto.models.features import last_features
from duetto.models.net import log_softmax
from duetto.training import Client
from duetto.tree import Tree
from duetto.types import Algorithm, Local, Trained


@dataclass(frozen=True)
class KnnPerClient(Client):
    """Trains as FedAvg's; remembers ``near``: ``features [n, d]`` and ``labels [n]``.

    Raises:
        ConfigError: a ``lam`` outside 0..1, or a number that is not positive.
    """

    k: int = 10
    lam: float = 0.5
    scale: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(k=self.k, scale=self.scale)
        if not 0 <= self.lam <= 1:
            raise ConfigError(f"lam={self.lam}", "use a number from 0 to 1")

    def _reply(self, local: Local, tree: Tree, trained: Trained) -> tuple[Local, Tree]:
        after, answer = super()._reply(local, tree, trained)
        rows = self._part(local)
        near = {"features": self._features(tree, rows.x), "labels": np.asarray(rows.y, np.int64)}
        return after.remembering(near=near), answer

    def logits(self, sent: Tree, memory: Mapping[str, Any], x: np.ndarray) -> np.ndarray:
        """The logarithm of the mixture; the shared model's answer where nothing is remembered."""
        shared = super().logits(sent, memory, x)
        if "near" not in memory or not self.lam:
            return shared
        keys, labels = memory["near"]["features"], memory["near"]["labels"]
        asked, k = self._features(sent, x), min(self.k, len(labels))
        squares = (asked**2).sum(1)[:, None] + (keys**2).sum(1) - 2 * asked @ keys.T
        nearest = np.argpartition(squares, k - 1, axis=1)[:, :k]
        distance = np.sqrt(np.maximum(np.take_along_axis(squares, nearest, 1), 0))
        weight = np.exp((distance.min(1, keepdims=True) - distance) / self.scale)
        votes = np.zeros_like(shared)
        np.add.at(votes, (np.arange(len(votes))[:, None], labels[nearest]), weight)
        mixed = self.lam * votes / votes.sum(1, keepdims=True) + (1 - self.lam) * np.exp(log_softmax(shared))
        return np.asarray(np.log(np.maximum(mixed, np.finfo(np.float32).tiny)), np.float32)

    def _features(self, sent: Tree, x: np.ndarray) -> np.ndarray:
        single = trees.map(lambda leaf: leaf.astype(np.float32), sent["params"])
        return last_features(self.net, single, x)


@spelled_out
def knn_per(
    net: Net,
    params: Tree,
    *,
    k: int = 10,
    lam: float = 0.5,
    scale: float = 1.0,
    server_lr: float = 1.0,
    **common: Unpack[Common],
) -> Algorithm:
    """kNN-Per; ``lam`` is the neighbours' share of an answer."""
    return variant(net, params, Average(server_lr), partial(KnnPerClient, k=k, lam=lam, scale=scale), **common)
