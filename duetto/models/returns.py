"""What the cloud sends down for learning, beside the soft labels of :class:`duetto.models.Predict`.

- *Class prototypes*: the mean embedding of each class (Snell, Swersky, Zemel: Prototypical Networks for Few-shot
  Learning, NeurIPS 2017). A few hundred numbers teach a device a class that its last layer does not know.
- *Retrieved neighbours*: the public data nearest to what the user showed, with the large model's answers: training
  data for this user. What goes up are embeddings, not inputs; they are not anonymous, as inputs can be guessed.
- *Augmented ones*: convex mixtures of rows and of their soft labels (Zhang et al.: mixup, ICLR 2018).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from duetto.errors import ConfigError, DataError
from duetto.models.embedding import embedded
from duetto.models.net import Net
from duetto.tree import Tree
from duetto.types import Key, Local, Rows, Skill, Work, rng


@dataclass(frozen=True)
class Prototypes(Skill):
    """The class prototypes of the party's own rows, by the embedding of ``net`` with the parameters in ``slot``.

    Takes ``{}``, gives :func:`prototypes`. Both sides must hold the very same parameters: ask again after an update.

    Raises:
        ConfigError: this party holds no such parameters.
        DataError: it has no rows.
    """

    net: Net
    slot: str = "params"

    def __call__(self, local: Local, tree: Tree, key: Key, sender: str) -> tuple[Local, Tree]:
        """Average the rows of each class."""
        data = _rows(local)
        return local, prototypes(embedded(self.net, _params(local, self.slot), data.x), data.y, self.net.classes)

    def work(self, local: Local, tree: Tree) -> Work:
        """A forward pass over all its rows."""
        return self.net.work(len(local.data))


@dataclass(frozen=True)
class Neighbours(Skill):
    """The party's own rows that are nearest to embeddings, with what the model in ``teacher`` says of them.

    Takes ``{"embedding": [n, d]}`` by ``net`` with the parameters that this party has in ``slot``, gives
    ``{"x": [m, *shape], "logits": [m, classes]}``, the ``each`` nearest to every query, none twice.

    Args:
        net, slot: whose embedding it is.
        large, teacher: whose answers are sent with the rows.
        each: rows a query.

    Raises:
        ConfigError: fewer than 1 each, or this party holds no such parameters.
        DataError: it has no rows, or embeddings of another width or not finite.
    """

    net: Net
    large: Net
    each: int
    slot: str = "params"
    teacher: str = "large"

    def __post_init__(self) -> None:
        if self.each < 1:
            raise ConfigError(f"{self.each} neighbours each", "use at least 1")

    def __call__(self, local: Local, tree: Tree, key: Key, sender: str) -> tuple[Local, Tree]:
        """Look them up."""
        data = _rows(local)
        if not isinstance(tree, Mapping) or "embedding" not in tree:
            raise DataError(f"{sender} sent no embeddings", 'send {"embedding": [n, d]}')
        found = nearest(embedded(self.net, _params(local, self.slot), data.x), tree["embedding"], self.each)
        rows = data.x[np.unique(found)]
        return local, {"x": rows, "logits": self.large.logits(_params(local, self.teacher), rows)}

    def work(self, local: Local, tree: Tree) -> Work:
        """A forward pass over all its rows."""
        return self.net.work(len(local.data))


def prototypes(embeddings: np.ndarray, labels: np.ndarray, classes: int) -> Tree:
    """``{"sums": [classes, d] float64, "counts": [classes] int64}``: such trees add up over parties.

    Raises:
        DataError: no rows, other shapes, or a label outside the classes.
    """
    embeddings, labels = np.asarray(embeddings, np.float64), np.asarray(labels)
    if embeddings.ndim != 2 or labels.shape != (len(embeddings),) or not len(labels) or labels.dtype.kind not in "iu":
        raise DataError(f"embeddings {embeddings.shape} and labels {labels.shape}", "give [n, d] and [n] integers")
    if labels.min() < 0 or labels.max() >= classes:
        raise DataError(f"a label outside the {classes} classes", "labels count from 0")
    sums = np.zeros((classes, embeddings.shape[1]))
    np.add.at(sums, labels, embeddings)
    return {"sums": sums, "counts": np.bincount(labels, minlength=classes)}


def by_prototype(known: Tree, embeddings: np.ndarray) -> np.ndarray:
    """Logits ``[n, classes]``: minus the squared distance to each prototype; minus infinity for classes without one.

    Raises:
        DataError: embeddings of another width, or no class with a prototype.
    """
    sums, counts = np.asarray(known["sums"], np.float64), np.asarray(known["counts"])
    embeddings = np.asarray(embeddings, np.float64)
    if embeddings.ndim != 2 or embeddings.shape[1] != sums.shape[1]:
        raise DataError(f"embeddings of shape {embeddings.shape}", f"give [n, {sums.shape[1]}]")
    if not counts.any():
        raise DataError("no class has a prototype", "add examples of one")
    means = sums / np.maximum(counts, 1)[:, None]
    apart = ((embeddings[:, None] - means) ** 2).sum(axis=2)
    return np.where(counts > 0, -apart, -np.inf)


def nearest(points: np.ndarray, queries: np.ndarray, each: int) -> np.ndarray:
    """Which of ``points [m, d]`` are nearest to each of ``queries [n, d]``, ``[n, min(each, m)]``, nearest first.

    Raises:
        DataError: no points, other widths, or numbers that are not finite.
    """
    points, queries = np.asarray(points, np.float64), np.asarray(queries, np.float64)
    if points.ndim != 2 or queries.ndim != 2 or not len(points) or points.shape[1] != queries.shape[1]:
        raise DataError(f"queries of shape {queries.shape} among points {points.shape}", "give [n, d] and [m, d]")
    if not np.isfinite(queries).all():
        raise DataError("queries that are NaN or infinite", "remove these rows")
    # A constant of each query is left out.
    apart = (points**2).sum(axis=1) - 2 * queries @ points.T
    return np.argsort(apart, axis=1, kind="stable")[:, :each]


def mixed(x: np.ndarray, logits: np.ndarray, count: int, alpha: float, key: Key) -> tuple[np.ndarray, np.ndarray]:
    """``count`` mixtures of two rows each: ``x [count, *shape]`` and their soft labels' logits ``[count, classes]``.

    Args:
        x: ``[n, *shape]``.
        logits: ``[n, classes]`` of the same rows.
        count: how many.
        alpha: of the Beta distribution of the first row's share; small ones mix little.
        key: of which rows and shares.

    Raises:
        ConfigError: a count below 0, or an alpha not above 0.
        DataError: no rows, or as many logits as rows are not there.
    """
    if count < 0 or not 0 < alpha < math.inf:
        raise ConfigError(f"{count} mixtures by an alpha of {alpha}", "use a count from 0 and an alpha above 0")
    if not len(x) or len(x) != len(logits):
        raise DataError(f"{len(x)} rows with {len(logits)} logits", "give both of the same rows")
    draw = rng((*key, "mixed"))
    share = draw.beta(alpha, alpha, count)
    first, second = draw.integers(0, len(x), (2, count))
    shares = np.exp(logits - logits.max(axis=1, keepdims=True)).astype(np.float64)
    shares /= shares.sum(axis=1, keepdims=True)
    wide = share.reshape(-1, *[1] * (np.ndim(x) - 1))
    label = share[:, None] * shares[first] + (1 - share[:, None]) * shares[second]
    rows = wide * x[first] + (1 - wide) * x[second]
    return rows.astype(x.dtype), np.log(np.maximum(label, 1e-12)).astype(np.float32)


def _params(local: Local, slot: str) -> Tree:
    if slot not in local.memory:
        raise ConfigError(f"there are no parameters in {slot!r}", "ask a party that holds this model")
    return local.memory[slot]


def _rows(local: Local) -> Rows:
    if not isinstance(local.data, Rows) or not len(local.data):
        raise DataError("this party has no rows to teach from", "ask the cloud, which has public data")
    return local.data
