"""What a learned router reads of an item: statistics of the device's answer, and what else there is.

The statistics do not know which class is which, so that few calibration items go far: how sure the answer is by each
of the scores, and the largest probabilities in order. Beside them stand features, where there are any, and what the
members of an ensemble think of the answer.
"""

from __future__ import annotations

import numpy as np

from duetto.errors import DataError
from duetto.policies.opinions import OPINIONS, members_of, opinion
from duetto.policies.scores import confidence
from duetto.tree import Tree
from duetto.types import Seen

_TOP = 4  # largest log-probabilities that are read
_FLOOR = -30.0  # log-probabilities below are as good as none


def reads(seen: Seen) -> np.ndarray:
    """What there is to read: ``[classes, features, members]`` int64, 0 for what is missing.

    Raises:
        DataError: neither an answer nor features, or features that are not ``[n, d]`` numbers.
    """
    classes = 0 if seen.answer is None else int(np.shape(seen.answer)[-1])
    features = 0 if seen.features is None else _features(seen).shape[1]
    if not classes + features:
        raise DataError("items with neither an answer nor features", "give a router something to read")
    members = members_of(seen).shape[1] if classes and seen.scores is not None else 0
    return np.array([classes, features, members])


def signals(seen: Seen, wanted: np.ndarray) -> np.ndarray:
    """The columns ``[n, d]`` float64 that :func:`reads` promised.

    Raises:
        DataError: answers, features or members that are missing, of another width, or not finite.
    """
    classes, width, count = wanted.tolist()
    columns = [statistics(seen)] if classes else []
    if columns and np.asarray(seen.answer).shape[1] != classes:
        raise DataError(
            f"answers of shape {np.asarray(seen.answer).shape}", f"the router was fitted on {classes} classes"
        )
    if count:
        members, own = members_of(seen), np.asarray(seen.answer).argmax(1)
        if members.shape[1] != count:
            raise DataError(f"{members.shape[1]} members", f"the router was fitted on {count}")
        columns.append(np.stack([opinion(own, members, measure) for measure in OPINIONS], axis=1))
    if width:
        features = _features(seen)
        if features.shape[1] != width:
            raise DataError(f"{features.shape[1]} features", f"the router was fitted on {width}")
        columns.append(features)
    return columns[0] if len(columns) == 1 else np.concatenate(columns, axis=1)


def statistics(seen: Seen) -> np.ndarray:
    """Of the answer's logits, ``[n, 3 + min(classes, 4)]``: log-odds of the answer, entropy, energy, log-probabilities.

    Raises:
        DataError: as :func:`duetto.policies.scores.confidence`.
    """
    energy = confidence(seen.answer, "energy")
    logits = np.asarray(seen.answer, np.float64)
    log = np.maximum(logits - energy[:, None], _FLOOR)
    top = -np.sort(-log, axis=1)[:, :_TOP]
    share = np.exp(log)
    entropy = -(share * log).sum(1)
    odds = top[:, 0] - np.log(np.maximum(1 - np.exp(top[:, 0]), np.exp(_FLOOR)))
    return np.concatenate([np.stack([odds, entropy, energy], axis=1), top], axis=1)


def scaled(x: np.ndarray, shares: np.ndarray) -> Tree:
    """Mean and deviation of every column, ``{"mean" [d], "scale" [d]}``; a column that is constant has scale 1."""
    mean = shares @ x
    scale = np.sqrt(shares @ (x - mean) ** 2)
    return {"mean": mean, "scale": np.where(scale > 1e-9 * (1 + np.abs(mean)), scale, 1.0)}


def standard(x: np.ndarray, by: Tree) -> np.ndarray:
    """The columns with mean 0 and deviation 1, cut off at ten deviations: a stray item says no more than that."""
    return np.asarray(np.clip((x - by["mean"]) / by["scale"], -10, 10))


def _features(seen: Seen) -> np.ndarray:
    if seen.features is None or not hasattr(seen.features, "shape"):
        raise DataError("features that are missing or no array", "give numbers [n, d], as when the router was fitted")
    array = np.asarray(seen.features)
    if array.ndim != 2 or array.dtype.kind not in "fiub":
        raise DataError(f"features of shape {array.shape} and dtype {array.dtype}", "give numbers [n, d]")
    array = array.astype(np.float64)
    if not np.isfinite(array).all():
        raise DataError("features that are NaN or infinite", "the input is corrupt")
    return array
