"""kNN-Per: the shared model's features look up a device's own rows; their labels are mixed into its answer.

Marfoq, Neglia, Kameni, Vidal: Personalized Federated Learning through Local Memorization, ICML 2022. Training is
FedAvg's. A device remembers the features of its rows, as the last layer reads them, and labels; the nearest ``k`` vote
with ``e^(-distance/scale)``, and the votes are ``lam`` of the answer; 0 is FedAvg. A device may choose ``lam`` itself:
each of its rows is asked of all its others. The features are of the parameters it was sent when it last trained.

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
    """Trains as FedAvg's; remembers ``near``: ``features [n, d]``, ``labels [n]``, ``lam``. ConfigError: wrong ones."""

    k: int = 10
    lam: float | None = None
    scale: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(k=self.k, scale=self.scale)
        if self.lam is not None and not 0 <= self.lam <= 1:
            raise ConfigError(f"lam={self.lam}", "use a number from 0 to 1")

    def _reply(self, local: Local, tree: Tree, trained: Trained) -> tuple[Local, Tree]:
        after, answer = super()._reply(local, tree, trained)
        rows = self._part(local)
        sent = {"params": trees.map(lambda leaf: leaf.astype(np.float32), tree["params"])}
        near = {"features": last_features(self.net, sent["params"], rows.x), "labels": np.asarray(rows.y, np.int64)}
        return after.remembering(near={**near, "lam": np.float64(self._likeliest(sent, rows.x, near))}), answer

    def logits(self, sent: Tree, memory: Mapping[str, Any], x: np.ndarray) -> np.ndarray:
        """The logarithm of the mixture; the shared model's answer where nothing is remembered."""
        shared, near = super().logits(sent, memory, x), memory.get("near", {"lam": 0.0})
        lam = float(near["lam"]) if self.lam is None or "labels" not in near else self.lam
        return _mixed(self._votes(near, last_features(self.net, sent["params"], x)), shared, lam) if lam else shared

    def _votes(self, near: Mapping[str, Any], asked: np.ndarray, others: bool = False) -> np.ndarray:
        """[n, classes], which add up to 1; with ``others`` the i-th asked is the i-th remembered, and has no vote."""
        keys, labels = near["features"], near["labels"]
        squares = (asked**2).sum(1)[:, None] + (keys**2).sum(1) - 2 * asked @ keys.T
        if others:
            np.fill_diagonal(squares, np.inf)
        k = min(self.k, len(labels) - others)
        nearest = np.argpartition(squares, k - 1, axis=1)[:, :k]
        distance = np.sqrt(np.maximum(np.take_along_axis(squares, nearest, 1), 0))
        weight = np.exp((distance.min(1, keepdims=True) - distance) / self.scale)
        votes = (np.eye(self.net.classes, dtype=np.float32)[labels[nearest]] * weight[:, :, None]).sum(1)
        return np.asarray(votes / votes.sum(1, keepdims=True))

    def _likeliest(self, sent: Tree, x: np.ndarray, near: Mapping[str, Any]) -> float:
        """The share under which the own labels are likeliest, each asked of all others, unless it is given."""
        if self.lam is not None or len(x) < 2:
            return self.lam or 0.0
        shares = np.arange(11) / 10
        votes, shared = self._votes(near, near["features"], others=True), super().logits(sent, {}, x)
        told = [_mixed(votes, shared, lam)[np.arange(len(x)), near["labels"]].sum() for lam in shares]
        return float(shares[np.argmax(told)])


def _mixed(votes: np.ndarray, shared: np.ndarray, lam: float) -> np.ndarray:
    mixed = lam * votes + (1 - lam) * np.exp(log_softmax(shared))
    return np.asarray(np.log(np.maximum(mixed, np.finfo(np.float32).tiny)), np.float32)


@spelled_out
def knn_per(
    net: Net,
    params: Tree,
    *,
    k: int = 10,
    lam: float | None = None,
    scale: float = 1.0,
    server_lr: float = 1.0,
    **common: Unpack[Common],
) -> Algorithm:
    """kNN-Per; ``lam`` is the neighbours' share of an answer, None is what each device finds best."""
    return variant(net, params, Average(server_lr), partial(KnnPerClient, k=k, lam=lam, scale=scale), **common)
