"""How well scores order items: hits and gain at the top of a list, and the AUC of each user.

HitRate@k and NDCG@k as He et al., *Neural Collaborative Filtering* (WWW 2017) have them, with one relevant item a
list; whether the list is all items or a sample is the caller's to say (Krichene & Rendle, KDD 2020: a sample can
turn the order of systems around). GAUC is the users' AUC weighted by their impressions (Zhu et al., *Optimized Cost
per Click in Taobao Display Advertising*, KDD 2017): ``users.example_weighted(auc(...))``.
"""

from __future__ import annotations

import numpy as np

from duetto.errors import ConfigError, DataError
from duetto.evaluation.users import PerUser
from duetto.tree import Array


def ranks(scores: Array, target: Array, left_out: Array | None = None) -> Array:
    """How many items stand before the target in each list, ``[n]`` int64, 0 is the top.

    Ties count against the target, so whoever scores everything the same hits nothing.

    Args:
        scores: ``[n, items]``, high is first.
        target: ``[n]`` the position of the relevant item.
        left_out: ``[n, items]`` True for items that are no candidates; the target always is one.

    Raises:
        DataError: shapes that do not fit, or scores of candidates that are not finite.
    """
    scores, target = np.asarray(scores, float), np.asarray(target)
    out = np.zeros(scores.shape, bool) if left_out is None else np.array(left_out, bool)
    if scores.ndim != 2 or target.shape != (len(scores),) or out.shape != scores.shape:
        raise DataError(
            f"scores {scores.shape}, targets {target.shape}, left out {out.shape}",
            "give scores [n, items], a target for each of n, and what is left out [n, items]",
        )
    rows = np.arange(len(scores))
    out[rows, target] = True  # it does not stand before itself
    own = scores[rows, target]
    if not (np.isfinite(scores) | out).all() or not np.isfinite(own).all():
        raise DataError("scores that are not finite", "score every candidate")
    before: Array = ((scores >= own[:, None]) & ~out).sum(1)
    return before


def hit_rate(ranks: Array, k: int = 10) -> Array:
    """``[n]`` 1 where the target is among the first ``k``, else 0.

    Raises:
        ConfigError: k below 1.
    """
    return (np.asarray(ranks) < _top(k)).astype(float)


def ndcg(ranks: Array, k: int = 10) -> Array:
    """``[n]`` 1 / log2(rank + 2) where the target is among the first ``k``, else 0; the best list has 1.

    Raises:
        ConfigError: k below 1.
    """
    ranks = np.asarray(ranks)
    return np.where(ranks < _top(k), 1 / np.log2(ranks + 2.0), 0.0)


def auc(scores: Array, positive: Array, user: Array) -> PerUser:
    """The AUC of each user's impressions, counted by these, so that ``example_weighted`` of it is GAUC.

    A user's AUC is the share of (positive, negative) pairs in which the positive has the higher score; a tie is half.
    Users without both kinds are left out: nothing can be ordered wrongly.

    Args:
        scores: ``[n]``, high is positive.
        positive: ``[n]`` 1 or 0.
        user: ``[n]`` names or numbers.

    Raises:
        DataError: lengths that differ, scores that are not finite, or nobody with both kinds.
    """
    scores, positive, user = np.asarray(scores, float), np.asarray(positive, bool), np.asarray(user)
    if scores.ndim != 1 or not scores.shape == positive.shape == user.shape:
        raise DataError(
            f"scores {scores.shape}, positives {positive.shape}, users {user.shape}", "give one of each per impression"
        )
    if not np.isfinite(scores).all():
        raise DataError("scores that are not finite", "score every impression")
    names, which = np.unique(user, return_inverse=True)
    order = np.lexsort((scores, which))
    which, scores, positive = which[order], scores[order], positive[order]
    count = np.bincount(which)
    start = np.repeat(np.cumsum(count) - count, count)
    # A tie has the mean of the places it takes (Mann and Whitney's statistic).
    fresh = np.r_[True, (np.diff(which) != 0) | (np.diff(scores) != 0)][: len(which)]
    tie = np.cumsum(fresh) - 1
    size = np.bincount(tie)
    place = (np.flatnonzero(fresh) + (size + 1) / 2)[tie] - start
    positives = np.bincount(which, positive)
    pairs = positives * (count - positives)
    kept = pairs > 0
    if not kept.any():
        raise DataError("no user with a positive and a negative", "give impressions of both kinds")
    over = np.bincount(which, place * positive) - positives * (positives + 1) / 2
    return PerUser(names[kept], count[kept], (count * over)[kept] / pairs[kept])


def _top(k: int) -> int:
    if k < 1:
        raise ConfigError(f"the first {k} of a list", "use k of at least 1")
    return k
