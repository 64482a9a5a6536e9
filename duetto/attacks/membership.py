"""Whether a row, or a user, was trained on: the likelihood ratio of shadow models, and a threshold that needs none.

*LiRA* (Carlini, Chien, Nasr, Song, Terzis, Tramèr: Membership Inference Attacks From First Principles, S&P 2022):
shadow models are trained as the target was, each on a half of rows like those in question; a row's logit-scaled
confidence is compared with what models say that had it (*online*), or only with those that had not (*offline*, so that
shadows need not be trained anew for every row). *Loss* (Yeom, Giacomelli, Fredrikson, Jha 2018) has no shadows: the
surer, the likelier.

Scores are judged where few are accused wrongly, :func:`duetto.evaluation.leakage.tpr_at`; an average over rows hides
what happens to the few who are unlike the others. The attacker is adaptive where shadows are trained with the target's
own defence: pass the client that declares it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from duetto.errors import ConfigError, DataError
from duetto.training import sequential
from duetto.training.client import Client
from duetto.tree import Tree
from duetto.types import Key, rng

_LEAST = 1e-2  # the smallest deviation that is believed, in logits


def confidence(logits: np.ndarray, y: np.ndarray) -> np.ndarray:
    """``[n]`` of ``logits [n, classes]`` for labels ``y [n]``: ``log(p / (1 - p))``, nearly normal, without overflow.

    Raises:
        DataError: shapes that do not fit.
    """
    logits, y = np.asarray(logits, np.float64), np.asarray(y)
    if logits.ndim != 2 or y.shape != (len(logits),) or logits.shape[1] < 2:
        raise DataError(f"logits {logits.shape} for labels {y.shape}", "give [n, classes] and [n]")
    rows = np.arange(len(y))
    others = logits.copy()
    others[rows, y] = -np.inf
    most = others.max(1)
    return np.asarray(logits[rows, y] - most - np.log(np.exp(others - most[:, None]).sum(1)))


def by_loss(logits: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Scores ``[n]``: the lower a row's cross-entropy, the likelier a member; needs nothing but the target."""
    return np.asarray(-np.logaddexp(0.0, -confidence(logits, y)))


def offline(target: np.ndarray, shadows: np.ndarray) -> np.ndarray:
    """Scores ``[n]``: how many deviations the target is surer than shadows that never had the row.

    Args:
        target: ``[n]`` confidences of the attacked model.
        shadows: ``[k, n]`` of models that were trained without the row; NaN where one had it.

    Raises:
        DataError: a row that fewer than two shadows lack.
    """
    mean, deviation = _normal(shadows, np.isfinite(shadows))
    return np.asarray((target - mean) / deviation)


def online(target: np.ndarray, shadows: np.ndarray, inside: np.ndarray, *, common: bool = True) -> np.ndarray:
    """Scores ``[n]``: log-likelihood ratio of the target's confidence among shadows that had the row and that had not.

    Args:
        target: ``[n]`` confidences of the attacked model.
        shadows: ``[k, n]`` of all shadows.
        inside: ``[k, n]`` bool, which of them had the row.
        common: one deviation for all rows, as the paper does with few shadows.

    Raises:
        DataError: a row that fewer than two shadows have, or lack.
    """
    told = np.zeros(len(target))
    for which, sign in ((inside, 1.0), (~np.asarray(inside, bool), -1.0)):
        mean, deviation = _normal(shadows, which)
        if common:
            deviation = np.full_like(deviation, np.sqrt(np.mean(deviation**2)))
        told += sign * (-((target - mean) ** 2) / (2 * deviation**2) - np.log(deviation))
    return told


@dataclass(frozen=True)
class Shadows:
    """How shadow models are trained.

    Attributes:
        client: as the target was, its defence included.
        count: of models; each has a half of the rows, drawn so that every row is in half of them.

    Raises:
        ConfigError: fewer than four, or an odd number.
    """

    client: Client
    count: int = 16

    def __post_init__(self) -> None:
        if self.count < 4 or self.count % 2:
            raise ConfigError(f"{self.count} shadow models", "train an even number, four at least")

    def train(
        self, x: np.ndarray, y: np.ndarray, key: Key, on_step: Callable[[int, int], None] = lambda step, steps: None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Confidences ``[k, n]`` of the shadows in rows ``x [n, *shape]`` labelled ``y [n]``, and who had which."""
        inside = np.zeros((self.count, len(x)), bool)
        for pair in range(0, self.count, 2):
            half = rng((*key, "half", pair)).permutation(len(x))[: len(x) // 2]
            inside[pair, half], inside[pair + 1] = True, True
            inside[pair + 1, half] = False
        told = np.zeros((self.count, len(x)))
        net = self.client.net
        for k in range(self.count):
            start: Tree = {"params": net.init(sequential.seed((*key, "start", k)) % 2**31)}
            rows: dict[str, np.ndarray] = {
                "x": np.asarray(x[inside[k]], np.float32),
                "y": np.asarray(y[inside[k]], np.int64),
            }
            params = sequential.run(self.client, start, rows, (*key, "shadow", k)).params
            told[k] = confidence(net.logits(params, np.asarray(x, np.float32)), y)
            on_step(k + 1, self.count)
        return told, inside


def by_user(scores: np.ndarray, owner: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Names ``[u]`` and the mean score of each user's rows: whether *anything* of a user was trained on.

    Raises:
        DataError: not one owner a row.
    """
    scores, owner = np.asarray(scores, np.float64), np.asarray(owner)
    if scores.shape != owner.shape or not scores.size:
        raise DataError(f"{scores.size} scores of {owner.size} owners", "give one each")
    names, which = np.unique(owner, return_inverse=True)
    return names, np.bincount(which, scores) / np.bincount(which)


def _normal(shadows: np.ndarray, which: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of each row's confidences by the shadows that count."""
    shadows, which = np.asarray(shadows, np.float64), np.asarray(which, bool)
    count = which.sum(0)
    if shadows.ndim != 2 or which.shape != shadows.shape or not (count >= 2).all():
        raise DataError("a row that fewer than two shadows can speak of", "train more shadows")
    kept = np.where(which, shadows, 0.0)
    mean = kept.sum(0) / count
    spread = np.where(which, (shadows - mean) ** 2, 0.0).sum(0) / (count - 1)
    return mean, np.sqrt(np.maximum(spread, _LEAST**2))
