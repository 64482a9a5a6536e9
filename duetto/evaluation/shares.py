"""Whether a share has fallen: counts of two systems, one-sided tests with a margin.

Agresti & Caffo, "Simple and Effective Confidence Intervals for Proportions and Differences of Proportions" (The
American Statistician, 2000): a success and a failure are added to each side, so that few answers prove little. Answers
of one device are not independent; where it is known whose each is, the variance is the larger of the binomial one and
that of a ratio between devices (Cochran, Sampling Techniques, 1977, 6.3).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

from duetto.errors import DataError


def share(hits: float, n: float) -> tuple[float, float]:
    """A share and its variance, of ``hits`` among ``n`` independent answers."""
    found = (hits + 1) / (n + 2)
    return found, found * (1 - found) / (n + 2)


def shared(hits: Sequence[float], n: Sequence[float]) -> tuple[float, float]:
    """The same of several devices, each with its ``hits`` among its ``n`` answers; those of one device may be alike.

    Raises:
        DataError: not one of each per device.
    """
    if len(hits) != len(n):
        raise DataError(f"{len(hits)} counts of {len(n)} devices", "give both of each device")
    found, variance = share(sum(hits), sum(n))
    devices = sum(each > 0 for each in n)
    if devices < 2:
        return found, variance
    mean = sum(hits) / sum(n)
    between = sum((hit - mean * each) ** 2 for hit, each in zip(hits, n, strict=True)) / sum(n) ** 2
    return found, max(variance, between * devices / (devices - 1))


def fallen(before: tuple[float, float], after: tuple[float, float], margin: float, error: float) -> bool:
    """Whether it is shown, wrongly with probability ``error`` at most, that a share fell by more than the margin.

    Args:
        before, after: shares and their variances.
        margin: by which it may fall, from 0.
        error: of the one-sided test, between 0 and 1.
    """
    needed = NormalDist().inv_cdf(1 - error)
    return before[0] - after[0] - margin > needed * math.sqrt(before[1] + after[1])


def held(before: tuple[float, float], after: tuple[float, float], margin: float, error: float) -> bool:
    """Whether it is shown, wrongly with probability ``error`` at most, that a share did not fall by the margin."""
    needed = NormalDist().inv_cdf(1 - error)
    return margin - (before[0] - after[0]) > needed * math.sqrt(before[1] + after[1])
