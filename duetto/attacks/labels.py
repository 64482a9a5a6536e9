"""Labels from what comes back: the slopes at a cut in split learning, or the gradient of a last layer.

*Norm* and *direction* for two classes (Li, Sun, Yang, Gao, Zhang, Rubinstein, Wang: Label Leakage and Protection in
Two-party Split Learning, ICLR 2022): the slope of a rare class is longer, and those of the two classes point apart.
*Sign* for any number of classes (Zhao, Mopuri, Bilen: iDLG, 2020): the gradient of one row's cross-entropy by its
logits is ``softmax - onehot``, negative at its label and nowhere else; at the last layer's weights it is that times
what the layer reads, which tells the label whenever that is not negative (after a ReLU), and the bias tells it always.

A split that sends slopes sends these. Where labels must not be known by who computes the loss they stay on the device
(a U-shaped split); then the cloud holds the middle, and what it learns of them is by :func:`clustered`.
"""

from __future__ import annotations

import numpy as np

from duetto.errors import DataError


def by_norm(slopes: np.ndarray) -> np.ndarray:
    """Scores ``[n]`` of the rarer of two classes: lengths of the slopes ``[n, ...]`` at a cut."""
    return np.asarray(np.linalg.norm(_rows(slopes), axis=1))


def by_direction(slopes: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Scores ``[n]`` of the class of one row that the attacker knows: cosines with its slope.

    Args:
        slopes: ``[n, ...]`` at a cut.
        known: ``[...]`` the slope of that row.
    """
    rows, own = _rows(slopes), np.asarray(known, np.float64).reshape(-1)
    return np.asarray(rows @ own / np.maximum(np.linalg.norm(rows, axis=1) * np.linalg.norm(own), 1e-30))


def by_sign(slopes: np.ndarray) -> np.ndarray:
    """Labels ``[n]`` from slopes at logits ``[n, classes]``: exact, of any model."""
    rows = np.asarray(slopes, np.float64)
    if rows.ndim != 2 or not rows.size:
        raise DataError(f"slopes of shape {rows.shape}", "give those at the logits, [n, classes]")
    return np.asarray(rows.argmin(1))


def of_update(bias: np.ndarray | None, weight: np.ndarray | None = None) -> int:
    """The label of a gradient of one row, by its last layer.

    Args:
        bias: ``[classes]``, or None where the layer has none.
        weight: ``[classes, features]``, read where there is no bias; features must not be negative.

    Raises:
        DataError: neither.
    """
    if bias is None and weight is None:
        raise DataError("no gradient of a last layer", "give its bias, or its weight")
    told = np.asarray(bias) if bias is not None else np.asarray(weight).sum(1)
    return int(told.argmin())


def counts(bias: np.ndarray, n: int, probability: np.ndarray) -> np.ndarray:
    """How many of ``n`` rows of a mean gradient have each label, ``[classes]``, adding up to ``n``.

    From ``mean(softmax) - counts / n``, the gradient at the bias (Wainakh et al.: User-Level Label Leakage from
    Gradients in Federated Learning, PETS 2022), with the mean softmax guessed on public inputs.

    Args:
        bias: ``[classes]`` gradient of the mean cross-entropy.
        n: rows of the batch.
        probability: ``[classes]`` mean softmax that the attacker expects.
    """
    share = np.maximum(np.asarray(probability, np.float64) - np.asarray(bias, np.float64), 0) * n
    found = np.floor(share).astype(int)
    left = n - int(found.sum())
    order = np.argsort(-(share - found), kind="stable")
    for i in range(abs(left)):
        at = order[i % len(order)] if left > 0 else int(found.argmax())
        found[at] += 1 if left > 0 else -1
    return np.asarray(found)


def clustered(slopes: np.ndarray, known: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Labels ``[n]`` of slopes ``[n, ...]`` by the nearest direction of a few known ones.

    Args:
        slopes: ``[n, ...]``.
        known: ``[k, ...]`` slopes of rows whose labels the attacker knows (its own, say).
        labels: ``[k]``.

    Raises:
        DataError: none known, or not one label each.
    """
    labels = np.asarray(labels)
    if len(known) != len(labels) or not len(known):
        raise DataError(f"{len(labels)} labels of {len(known)} known slopes", "give one each, of one at least")
    rows, own = _unit(slopes), _unit(known)
    classes = np.unique(labels)
    middle = _unit(np.stack([own[labels == c].mean(0) for c in classes]))
    return np.asarray(classes[(rows @ middle.T).argmax(1)])


def _rows(slopes: np.ndarray) -> np.ndarray:
    rows = np.asarray(slopes, np.float64)
    if rows.ndim < 2 or not np.isfinite(rows).all():
        raise DataError(f"slopes of shape {rows.shape}", "give finite ones, [n, ...]")
    return rows.reshape(len(rows), -1)


def _unit(slopes: np.ndarray) -> np.ndarray:
    rows = _rows(slopes)
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-30))
