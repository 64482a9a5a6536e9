"""What an attacker has got: how near a reconstruction is, how well members are told from others, and of whom most.

Rows are scored one by one and added up by user (:func:`duetto.evaluation.users.by`): a mean over all hides the people
who leak most, and :func:`most` is about them. A membership attack is judged where it accuses hardly anybody wrongly
(Carlini et al. 2022): an attack that is right on average about nobody in particular harms nobody in particular.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from duetto.errors import ConfigError, DataError
from duetto.evaluation import users
from duetto.evaluation.table import Interval
from duetto.evaluation.users import PerUser
from duetto.tree import Array
from duetto.types import Key

CEILING = 100.0  # dB that stand for equality
_WINDOW = 11  # pixels of the Gaussian window of SSIM, cut off at 3.5 deviations of 1.5 pixels


def psnr(truth: Array, guess: Array, span: float = 1.0) -> np.ndarray:
    """Peak signal to noise of each row, ``[n]`` dB, at most :data:`CEILING`; the higher, the nearer.

    Args:
        truth, guess: ``[n, ...]``.
        span: between the smallest and the largest value that an input may have.

    Raises:
        DataError: shapes that differ, or no rows.
        ConfigError: a span that is not above 0.
    """
    left, right = _alike(truth, guess)
    if not 0 < span < math.inf:
        raise ConfigError(f"inputs that span {span}", "give the distance between their ends, above 0")
    square = ((left - right) ** 2).reshape(len(left), -1).mean(1)
    with np.errstate(divide="ignore"):
        return np.asarray(np.minimum(10 * np.log10(span**2 / square), CEILING))


def ssim(truth: Array, guess: Array, span: float = 1.0) -> np.ndarray:
    """Structural similarity of each image, ``[n]``, 1 where equal (Wang, Bovik, Sheikh, Simoncelli 2004).

    With the paper's Gaussian window where an image has room for its 11 pixels, else with the largest uniform window of
    odd size; the mean over channels. The arithmetic is scikit-image's.

    Args:
        truth, guess: ``[n, channels, height, width]``.
        span: as of :func:`psnr`.

    Raises:
        DataError: shapes that differ, no rows, or no images of 3 pixels a side at least.
    """
    from skimage.metrics import structural_similarity

    left, right = _alike(truth, guess)
    if left.ndim != 4 or min(left.shape[2:]) < 3:
        raise DataError(f"rows of shape {left.shape[1:]}", "give images [n, channels, height, width]; else use psnr")
    side = min(left.shape[2:])
    window = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    if side < _WINDOW:
        window = {"win_size": side - 1 + side % 2}
    each = zip(left, right, strict=True)
    similar: Any = structural_similarity
    return np.array([similar(x, y, data_range=span, channel_axis=0, **window) for x, y in each])


def most(found: PerUser, share: float = 0.1) -> Array:
    """[...] the mean over the ``share`` of the users with the highest mean (at least one): who leaks most.

    Raises:
        ConfigError: a share outside 0..1.
    """
    return -users.worst(PerUser(found.names, found.count, -found.total), share)


@dataclass(frozen=True)
class Leaked:
    """A figure by user.

    Attributes:
        mean: over users, with its 95 % interval over redrawn users.
        most: over the tenth of the users of whom most is known.
    """

    mean: Interval
    most: Interval


def by_user(values: Array, user: Array, key: Key, n: int = 1000) -> Leaked:
    """The figure of rows ``[n]`` whose owners are ``user [n]``; ``key`` redraws the users.

    Raises:
        DataError: as :func:`duetto.evaluation.users.by`.
    """
    found = users.by(values, user)
    mean, top = (
        Interval(float(statistic(found)), *users.bootstrap(statistic, found, key=key, n=n))
        for statistic in (users.user_mean, most)
    )
    return Leaked(mean, top)


def tpr_at(scores: Array, member: Array, fpr: float) -> float:
    """The largest share of members that a threshold finds that accuses at most ``fpr`` of the others.

    Args:
        scores: ``[n]``, the higher the surer of a member.
        member: ``[n]`` bool.
        fpr: 0..1; what fewer than ``1 / fpr`` others can show is a threshold above all of them.

    Raises:
        DataError: not both members and others, or scores that are not finite.
    """
    wrong, right = _roc(scores, member)
    return float(right[wrong <= fpr + 1e-12].max())


def auc(scores: Array, member: Array) -> float:
    """The chance that a member has a higher score than another; 0.5 is guessing.

    Raises:
        DataError: as :func:`tpr_at`.
    """
    wrong, right = _roc(scores, member)
    return float((np.diff(wrong) * (right[1:] + right[:-1]) / 2).sum())


def _roc(scores: Array, member: Array) -> tuple[np.ndarray, np.ndarray]:
    """False and true positive rates of every threshold, rising, from none accused to all."""
    scores, member = np.asarray(scores, np.float64), np.asarray(member, bool)
    if scores.ndim != 1 or scores.shape != member.shape or member.all() or not member.any():
        raise DataError(f"{int(member.sum())} members of {member.size}", "score both members and others, one each")
    if not np.isfinite(scores).all():
        raise DataError("scores that are not finite", "clip what is certain to a large number")
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    found = np.cumsum(member[order])[ends]
    others = ends + 1 - found
    return np.append(0.0, others / (~member).sum()), np.append(0.0, found / member.sum())


def _alike(truth: Array, guess: Array) -> tuple[np.ndarray, np.ndarray]:
    left, right = np.asarray(truth, np.float64), np.asarray(guess, np.float64)
    if left.shape != right.shape or left.ndim < 2 or not len(left):
        raise DataError(f"truth {left.shape} and guesses {right.shape}", "give one guess of the same shape a row")
    return left, right
