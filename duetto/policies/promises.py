"""Four promises about new users, as tests: from what calibration users lose, may this threshold be promised?

A user's *gap* is what it loses by the answers that are kept: the mean over its items of (large model's quality -
quality of the answer that was given), signed, -1..1; asking always has gap 0. Users are drawn independently from one
population; their items need not be. The excess risk is the mean gap of the population.

- ``expected``: E[gap of a new user] <= target, also over the draw of the calibration users. Conformal risk control
  (Angelopoulos, Bates, Fisch, Lei & Schuster 2022, arXiv 2208.02814). Its loss must not fall when more is kept, and a
  gap does, where the small model is right and the large one wrong. So a user's loss at a threshold is the largest gap
  that it has at any threshold from "always ask" down to this one: it only rises, and is at least the gap.
- ``confident``: excess risk <= target with probability 1 - delta. A betting test (Waudby-Smith & Ramdas 2020, arXiv
  2010.09686) of "the excess risk is above the target", with the fixed sequence of Learn-then-Test (Angelopoulos, Bates,
  Candes, Jordan & Lei 2021, arXiv 2110.01052). No user loses more than ``worst_user``: 1 assumes nothing.
- ``approximate``: the same by a t bound over the users and one invented user who loses ``worst_user``, by default
  10 % or as much as the worst user seen. It is **not distribution-free**: users who lose much more and are too rare to
  be seen break it.
- ``quantile``: at least ``share`` of the new users lose at most the target, with probability 1 - delta; the exact
  binomial test (Clopper & Pearson 1934) with the same fixed sequence. It is about users with as many items.

Testing descends from "always ask" and stops at the first failure. The hypothesis at every threshold is tested, as
gaps change only where an item with a gain lies; so the first true hypothesis is rejected with probability delta at
most, and the thresholds need no grid.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from typing import Literal, TypeAlias, get_args

import numpy as np

from duetto.errors import ConfigError, DataError

Promise: TypeAlias = Literal["approximate", "confident", "expected", "quantile"]
PROMISES: tuple[str, ...] = get_args(Promise)

INVENTED = 0.1  # what the invented user of "approximate" loses at least, where nobody stated more
_SLACK = 1e-12  # float64 sums of a million items; a bound of just the target passes
_ENTRIES = 1 << 20  # gaps held at once


@dataclass(frozen=True)
class Terms:
    """What is promised: numbers only, so that they can be tested against gaps of any users.

    Args:
        promise: one of :data:`PROMISES`.
        target: the largest excess risk, 0..1 (0.01 is one point of accuracy); for ``quantile`` a user's largest gap.
        delta: with which probability the promise may be wrong, 0..1; ``expected`` has none and does not read it.
        worst_user: what no user loses more of, 0..1. None: 1, or for ``approximate`` 0.1 or the worst user seen.
        share: of the users, for ``quantile``.

    Raises:
        ConfigError: an unknown promise, or a number out of range.
    """

    promise: Promise
    target: float
    delta: float = 0.05
    worst_user: float | None = None
    share: float = 0.9

    def __post_init__(self) -> None:
        if self.promise not in PROMISES:
            raise ConfigError(f"no promise is called {self.promise!r}", f"use one of {', '.join(PROMISES)}")
        if not 0 <= self.target < 1:
            raise ConfigError(f"a target of {self.target}", "use a share from 0, below 1: 0.01 is one point")
        for name, value in (("delta", self.delta), ("share", self.share)):
            if not 0 < value < 1:
                raise ConfigError(f"{name}={value}", "use a number between 0 and 1")
        if self.worst_user is not None and not 0 < self.worst_user <= 1:
            raise ConfigError(f"worst_user={self.worst_user}", "use a share above 0, at most 1")

    def passes(self, gaps: np.ndarray) -> np.ndarray:
        """``[...]`` bool: whether the promise may be made where users have these gaps ``[..., users]``."""
        if self.promise == "confident":
            wealth = betting_wealth(gaps, self.target, self.delta, self.worst(gaps))
            return np.asarray(wealth >= -math.log(self.delta) - _SLACK)
        return np.asarray(self.bound(gaps) <= self.target + _SLACK)

    def bound(self, gaps: np.ndarray) -> np.ndarray:
        """``[...]`` the smallest target that could be promised of these gaps ``[..., users]``; 1 where none could."""
        if self.promise == "expected":
            return crc_bound(gaps, self.worst(gaps))
        if self.promise == "approximate":
            return t_bound(gaps, self.delta, self.worst(gaps))
        if self.promise == "quantile":
            return quantile_bound(gaps, self.delta, self.share)
        return betting_bound(gaps, self.delta, self.worst(gaps))

    @property
    def needed(self) -> float:
        """The fewest users from which anything but "always ask" can be promised: none of them loses. May be inf."""
        worst = INVENTED if self.promise == "approximate" else 1.0
        worst = self.worst_user or worst
        if self.promise == "quantile":
            return math.ceil(math.log(self.delta) / math.log(self.share) - _SLACK)
        if not self.target:
            return math.inf
        if self.promise == "expected":
            return max(1, math.ceil(worst / self.target - 1 - 1e-9))
        if self.promise == "confident":
            if self.target >= worst:
                return 1
            return math.ceil(math.log(self.delta) / math.log1p(-self.target / worst) - _SLACK)
        low, high = 0, 1
        while not self.passes(np.zeros(high))[()]:
            low, high = high, 2 * high
            if high > _ENTRIES:  # the bound falls as worst / n
                return math.ceil(worst * (1 + t_quantile(1 - self.delta, high)) / self.target)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self.passes(np.zeros(middle))[()] else (middle, high)
        return high

    def worst(self, gaps: np.ndarray) -> np.ndarray:
        """``[...]`` what no user is taken to lose more of, where users have these gaps ``[..., users]``."""
        if self.worst_user is not None:
            return np.full(gaps.shape[:-1], self.worst_user)
        if self.promise == "approximate":
            return np.asarray(np.maximum(INVENTED, gaps.max(axis=-1, initial=0.0)))
        return np.ones(gaps.shape[:-1])


# --------------------------------------------------------------------------------------------------------- bounds


def crc_bound(gaps: np.ndarray, worst: np.ndarray) -> np.ndarray:
    """``[...]`` conformal risk control: the mean of ``[..., users]`` and one more user who loses ``worst [...]``."""
    return np.asarray((gaps.sum(axis=-1) + worst) / (gaps.shape[-1] + 1))


def t_bound(gaps: np.ndarray, delta: float, worst: np.ndarray) -> np.ndarray:
    """``[...]`` the upper t bound of the mean of gaps ``[..., users]`` and an invented one, ``worst [...]``."""
    n = gaps.shape[-1] + 1
    if n < 2:
        return np.ones(gaps.shape[:-1])
    mean = (gaps.sum(axis=-1) + worst) / n
    squares = ((gaps - mean[..., None]) ** 2).sum(axis=-1) + (worst - mean) ** 2
    return np.asarray(mean + t_quantile(1 - delta, n - 1) * np.sqrt(squares / ((n - 1) * n)))


def betting_wealth(gaps: np.ndarray, target: float | np.ndarray, delta: float, worst: np.ndarray) -> np.ndarray:
    """``[...]`` the log of the most that a gambler ever had who began with 1 and bet on the target being kept.

    User after user a bet b >= 0 multiplies the wealth by 1 + b * (target - gap). Where the mean gap is above the
    target, the wealth does not grow on average, and is ever at least 1/delta with probability delta at most (Ville).
    A bet is sqrt(2 log(1/delta) / (users * variance of the gaps before)), as far as no user can ruin the gambler. The
    users' order must tell nothing about their gaps.

    Args:
        gaps: ``[..., users]`` at most ``worst``; a user above it ruins the gambler.
        target: ``[...]`` below ``worst``, else nothing is to be tested and the wealth is infinite.
        delta: fixes how much is bet.
        worst: ``[...]`` what no user loses more of.
    """
    n = gaps.shape[-1]
    if not n:
        return np.zeros(gaps.shape[:-1])
    target, worst = np.broadcast_arrays(np.asarray(target, np.float64), worst)
    before = np.maximum(np.arange(n), 1)
    total, squares = (np.cumsum(values, axis=-1) - values for values in (gaps, gaps * gaps))
    variance = np.maximum(squares / before - (total / before) ** 2, 0)
    room = worst - target
    with np.errstate(divide="ignore", invalid="ignore"):
        bet = np.minimum(np.sqrt(-2 * math.log(delta) / (n * variance)), (1 / room)[..., None])
        won = np.log(np.maximum(1 + bet * (target[..., None] - gaps), 0))
    most = np.maximum(np.cumsum(won, axis=-1).max(axis=-1), 0)
    return np.asarray(np.where(room > 0, most, np.inf))


def betting_bound(gaps: np.ndarray, delta: float, worst: np.ndarray) -> np.ndarray:
    """``[...]`` the smallest target at which :func:`betting_wealth` reaches 1/delta, bisected; at most ``worst``."""
    low, high = np.full(gaps.shape[:-1], -1.0), np.array(worst, np.float64)
    for _ in range(40):
        middle = (low + high) / 2
        enough = betting_wealth(gaps, middle, delta, worst) >= -math.log(delta)
        low, high = np.where(enough, low, middle), np.where(enough, middle, high)
    return high


def quantile_bound(gaps: np.ndarray, delta: float, share: float) -> np.ndarray:
    """``[...]`` what a ``share`` of all users loses at most, with probability 1 - delta, from gaps ``[..., users]``.

    It is an order statistic: of n users so many may lose more that a binomial(n, 1 - share) is at most as large with
    probability delta at most. 1 where there are too few users.
    """
    n = gaps.shape[-1]
    allowed = _allowed(n, delta, share)
    if not allowed:
        return np.ones(gaps.shape[:-1])
    return np.asarray(np.partition(gaps, n - allowed, axis=-1)[..., n - allowed])


@cache
def _allowed(n: int, delta: float, share: float) -> int:
    """One more than the users of n who may lose more than is promised; 0 where no number is small enough."""
    up, down = math.log1p(-share), math.log(share)
    chances = (
        math.exp(math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) + k * up + (n - k) * down)
        for k in range(n + 1)
    )
    return sum(chance <= delta * (1 + 1e-9) for chance in accumulate(chances))


@cache
def t_quantile(level: float, degrees: int) -> float:
    """Student's t quantile, level 0.5..1; by bisection of the integral of cos^(degrees - 1), which needs no scipy."""
    nodes, weights = np.polynomial.legendre.leggauss(80)
    log_scale = math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2) - math.log(math.pi) / 2

    def above_half(angle: float) -> float:
        cosines = np.log(np.cos(angle * (nodes + 1) / 2))
        return float(angle / 2 * (weights @ np.exp(log_scale + (degrees - 1) * cosines)))

    low, high = 0.0, math.pi / 2 if degrees < 30 else math.atan(40 / math.sqrt(degrees))  # 40 deviations
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if above_half(middle) < level - 0.5 else (low, middle)
    return math.sqrt(degrees) * math.tan((low + high) / 2)


# -------------------------------------------------------------------------------------------------------- descent


def descend(
    scores: np.ndarray,
    losses: np.ndarray,
    users: np.ndarray,
    passes: Callable[[np.ndarray], np.ndarray],
    rising: bool = False,
) -> tuple[float, np.ndarray]:
    """The lowest threshold down to which everything from "always ask" passes, and the users' gaps there.

    Items of equal score are kept or asked together. "Keep something that loses nothing" is tested first.

    Args:
        scores: ``[n]`` finite; an item is kept where its score is at least the threshold.
        losses: ``[n]`` what keeping the item adds to a mean over its user's items that is otherwise 0.
        users: ``[n]`` 0..u-1, all of which occur; their order is that of the gaps.
        passes: from gaps ``[k, u]`` to bool ``[k]``.
        rising: whether the largest gap on the way down counts, each user's own.

    Returns:
        A score, or inf where nothing passes; gaps ``[u]``.

    Raises:
        DataError: scores that are not finite.
    """
    if not np.isfinite(scores).all():
        raise DataError("scores that are NaN or infinite", "leave these items out; a score must tell who is surer")
    count = np.bincount(users)
    now = most = np.zeros(len(count))
    if not passes(now[None])[0]:
        return math.inf, now
    order = np.argsort(-scores, kind="stable")
    falling = scores[order]
    group = np.append(0, np.cumsum(np.diff(falling) != 0))
    starts = np.flatnonzero(np.append(True, np.diff(group) > 0))
    matters = np.flatnonzero(losses[order] != 0)
    at, added = group[matters], (losses / count[users])[order[matters]]
    owner = users[order[matters]]
    changes = np.unique(at)
    rows, begin = 16, 0
    while begin < len(changes):
        chunk = changes[begin : begin + rows]
        inside = slice(*np.searchsorted(at, [chunk[0], chunk[-1] + 1]))
        gaps = np.zeros((len(chunk), len(count)))
        np.add.at(gaps, (np.searchsorted(chunk, at[inside]), owner[inside]), added[inside])
        gaps[0] += now
        np.cumsum(gaps, axis=0, out=gaps)
        now = gaps[-1].copy()
        if rising:
            np.maximum(gaps[0], most, out=gaps[0])
            np.maximum.accumulate(gaps, axis=0, out=gaps)
        good = passes(gaps)
        if not good.all():
            first = int(np.argmin(good))
            failed = int(chunk[first])
            return (float(falling[starts[failed] - 1]) if failed else math.inf), gaps[first - 1] if first else most
        most, begin, rows = gaps[-1], begin + rows, max(1, min(2 * rows, _ENTRIES // len(count)))
    return float(falling[-1]), most
