"""Views of a text, each with two heads: will the small model be right, will the large one.

A view turns texts into rows of numbers once (:meth:`View.row`), fits both heads on rows, and predicts both from a row
and its fitted tree of arrays, with numpy only. All are strongly regularised: a few hundred labels must do.

- :class:`Hashed`: tf-idf of hashed n-grams (Sparck Jones 1972; Weinberger et al. 2009) and logistic regression.
- :class:`Boosted`: shallow boosted trees (Friedman 2001) over what the texts look like.
- :class:`Linear`: logistic regression over the same, or over an embedding.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from duetto.policies import text_features
from duetto.tree import Array, Tree

_ANSWER = np.uint32(0x9E3779B9)  # sets an answer's n-grams apart from those of its prompt
_FAR = 4.0  # standard deviations beyond which a number counts no more
Text = tuple[str, str | None]
"""A prompt, and the small model's answer where there is one."""


class View(ABC):
    """One way to look at a text.

    Attributes:
        strengths: of regularisation to choose from, strongest first.
    """

    strengths: Sequence[float] = (1.0,)

    @abstractmethod
    def row(self, text: Text) -> Any:
        """What the heads read of a text."""

    @abstractmethod
    def fit(self, rows: Sequence[Any], qualities: np.ndarray, strength: float) -> Tree:
        """Both heads on ``qualities`` ``[n, 2]`` in 0..1, as a tree of arrays."""

    @abstractmethod
    def predict(self, fitted: Tree, row: Any) -> np.ndarray:
        """``[2]`` how good the small and the large model's answer will be."""


@dataclass(frozen=True)
class Hashed(View):
    """Logistic regression over the tf-idf of hashed n-grams; prompt and answer are normalised each by itself.

    Args:
        grams: "words" (1- and 2-grams) or "characters" (3- to 5-grams of bytes).
        bits: 2**bits buckets.
    """

    grams: str
    bits: int = 15
    strengths = (0.1, 0.3, 1.0)

    def row(self, text: Text) -> list[tuple[np.ndarray, np.ndarray]]:
        """For prompt and answer, the buckets and their counts."""
        found = text_features.word_grams if self.grams == "words" else text_features.character_grams
        parts = [found(text[0])] + ([] if text[1] is None else [found(text[1]) ^ _ANSWER])
        return [text_features.counted(each, self.bits) for each in parts]

    def fit(self, rows: Sequence[Any], qualities: np.ndarray, strength: float) -> Tree:
        """State: ``idf`` ``[2**bits]``, ``weight`` ``[2, 2**bits]``, both float16, and ``bias`` ``[2]``."""
        from scipy import sparse

        size = 1 << self.bits
        seen = np.bincount(np.concatenate([part[0] for row in rows for part in row]), minlength=size)
        idf = (np.log((1 + len(rows)) / (1 + seen)) + 1).clip(min=0).astype(np.float16)
        weighed = [_weighed(row, idf) for row in rows]
        ends = np.append(0, np.cumsum([len(buckets) for buckets, _ in weighed]))
        matrix = sparse.csr_matrix(
            (np.concatenate([each[1] for each in weighed]), np.concatenate([each[0] for each in weighed]), ends),
            shape=(len(rows), size),
        )
        weight, bias = _logistic(matrix, qualities, strength)
        return {"idf": idf, "weight": weight.astype(np.float16), "bias": bias}

    def predict(self, fitted: Tree, row: Any) -> np.ndarray:
        """As fitted; a text without n-grams gets the bias alone."""
        buckets, values = _weighed(row, fitted["idf"])
        return _sigmoid(fitted["weight"][:, buckets].astype(np.float32) @ values + fitted["bias"])


def _weighed(row: Any, idf: Array) -> tuple[np.ndarray, np.ndarray]:
    """Buckets and tf-idf values of a row, each part of length 1."""
    parts = []
    for buckets, counts in row:
        values = counts * idf[buckets]
        parts.append(values / max(math.sqrt(float(values @ values)), 1e-12))
    return np.concatenate([buckets for buckets, _ in row]), np.concatenate(parts).astype(np.float32)


def _looks(text: Text) -> np.ndarray:
    prompt = text_features.surface(text[0])
    return prompt if text[1] is None else np.concatenate([prompt, text_features.answered(text[0], text[1])])


@dataclass(frozen=True)
class Linear(View):
    """Logistic regression over standardised numbers: what a text looks like, or an embedding of it.

    Args:
        embed: from texts to ``[n, d]`` numbers; None takes what the text looks like.
    """

    embed: Callable[[list[str]], Array] | None = None
    strengths = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1)

    def row(self, text: Text) -> np.ndarray:
        """``[d]``; an answer is embedded beside its prompt."""
        if self.embed is None:
            return _looks(text)
        both = [text[0]] if text[1] is None else list(text)
        return np.concatenate([np.asarray(self.embed([each]), np.float64)[0] for each in both if each is not None])

    def fit(self, rows: Sequence[Any], qualities: np.ndarray, strength: float) -> Tree:
        """State: ``mean`` and ``scale`` ``[d]``, ``weight`` ``[2, d]``, ``bias`` ``[2]``."""
        x = np.array(rows)
        mean, scale = x.mean(0), x.std(0)
        scale = np.where(scale > 1e-9, scale, 1.0)
        weight, bias = _logistic(np.clip((x - mean) / scale, -_FAR, _FAR), qualities, strength)
        return {"mean": mean, "scale": scale, "weight": weight, "bias": bias}

    def predict(self, fitted: Tree, row: Any) -> np.ndarray:
        """As fitted."""
        x = np.clip((row - fitted["mean"]) / fitted["scale"], -_FAR, _FAR)
        return _sigmoid(fitted["weight"] @ x + fitted["bias"])


@dataclass(frozen=True)
class Boosted(View):
    """Boosted shallow trees over what a text looks like: which mixtures of looks are hard.

    Args:
        trees: of each head.
        depth: of a tree.
    """

    trees: int = 80
    depth: int = 3

    def row(self, text: Text) -> np.ndarray:
        """``[d]`` numbers."""
        return _looks(text)

    def fit(self, rows: Sequence[Any], qualities: np.ndarray, strength: float) -> Tree:
        """State: complete trees: ``feature``, ``threshold`` ``[2, trees, 2**depth - 1]`` and ``leaf``; ``bias``."""
        from sklearn.ensemble import GradientBoostingRegressor

        x, nodes = np.array(rows, np.float32), (1 << self.depth) - 1
        feature = np.zeros((2, self.trees, nodes), np.int16)
        threshold = np.full((2, self.trees, nodes), np.inf, np.float32)
        leaf = np.zeros((2, self.trees, nodes + 1), np.float32)
        for head in range(2):
            boosted = GradientBoostingRegressor(
                learning_rate=0.05,
                n_estimators=self.trees,
                max_depth=self.depth,
                subsample=0.5,
                max_features=0.3,
                min_samples_leaf=max(2, min(20, len(x) // 20)),
                random_state=0,
            ).fit(x, qualities[:, head])
            for i, (tree,) in enumerate(boosted.estimators_):
                _complete(tree.tree_, self.depth, feature[head, i], threshold[head, i], leaf[head, i])
        return {"feature": feature, "threshold": threshold, "leaf": leaf * 0.05, "bias": qualities.mean(0)}

    def predict(self, fitted: Tree, row: Any) -> np.ndarray:
        """As fitted, within 0..1."""
        feature, threshold, leaf = fitted["feature"], fitted["threshold"], fitted["leaf"]
        right = row.astype(np.float32)[feature] > threshold  # [2, trees, nodes], all nodes at once
        heads, trees = np.arange(2)[:, None], np.arange(feature.shape[1])[None]
        at = np.zeros(feature.shape[:2], np.int64)
        for _ in range(int(math.log2(leaf.shape[2]))):
            at = 2 * at + 1 + right[heads, trees, at]
        total = leaf[heads, trees, at - feature.shape[2]].sum(1, dtype=np.float64)
        return np.asarray(np.clip(fitted["bias"] + total, 0, 1))


def _complete(tree: Any, depth: int, feature: np.ndarray, threshold: np.ndarray, leaf: np.ndarray) -> None:
    """Copy one of sklearn's trees into a complete one; a leaf above the last level is repeated below it."""
    at = {0: 0}  # node of the complete tree -> node of sklearn's
    for node in range(2 * len(feature) + 1):
        source = at[node]
        split = tree.children_left[source] >= 0
        if node >= len(feature):
            leaf[node - len(feature)] = tree.value[source].item()
            continue
        at[2 * node + 1] = tree.children_left[source] if split else source
        at[2 * node + 2] = tree.children_right[source] if split else source
        if split:
            feature[node] = tree.feature[source]
            # A float32 is at most a float64 threshold exactly where it is at most the next float32 below that.
            rounded = np.float32(tree.threshold[source])
            above = float(rounded) > tree.threshold[source]
            threshold[node] = np.nextafter(rounded, np.float32(-np.inf)) if above else rounded


def _logistic(x: Any, qualities: np.ndarray, strength: float) -> tuple[np.ndarray, np.ndarray]:
    """``[2, d]`` weights and ``[2]`` biases; a head of one class has no weights."""
    from sklearn.linear_model import LogisticRegression

    weight, bias = np.zeros((2, x.shape[1])), np.zeros(2)
    for head in range(2):
        quality = qualities[:, head]
        if quality.min() == quality.max() and quality[0] in (0, 1):
            share = (quality.sum() + 0.5) / (len(quality) + 1)
            bias[head] = math.log(share / (1 - share))
            continue
        rows, labels, counts = np.arange(len(quality)), quality, None
        if not np.isin(quality, (0, 1)).all():  # a quality between is right that often and wrong the rest
            rows, labels = np.tile(rows, 2), np.repeat([0.0, 1.0], len(quality))
            counts = np.concatenate([1 - quality, quality])
        fitted = LogisticRegression(C=strength, max_iter=200, tol=1e-4).fit(x[rows], labels, counts)
        weight[head], bias[head] = fitted.coef_[0], fitted.intercept_[0]
    return weight, bias


def _sigmoid(logit: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-np.clip(logit, -30, 30))))


def standard(bits: int, embed: Callable[[list[str]], Array] | None = None) -> Mapping[str, View]:
    """The views that are tried, by name."""
    views: dict[str, View] = {
        "boosted": Boosted(),
        "characters": Hashed("characters", bits),
        "linear": Linear(),
        "words": Hashed("words", bits),
    }
    return views if embed is None else {**views, "embedding": Linear(embed)}
