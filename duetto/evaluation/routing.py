"""How good a router is: quality against calls by the exact protocol, always beside what costs nothing to try.

The protocol of RouteLLM (Ong et al. 2024) without its bins: every threshold is a point, and items of equal score are
a straight segment, which is the mean over all orders in which they could be asked. Binned, the oracle's APGR comes
out at half of what it is, because its scores are nearly all tied.

A router's log can also be used to judge another router (off-policy evaluation): by inverse propensity (Horvitz &
Thompson 1952), self-normalised (Swaminathan & Joachims 2015), or doubly robust (Dudik et al. 2011).

A *score* says how much an item deserves the large model: **the highest are asked first**, as in
:mod:`duetto.evaluation.pareto`. For a :class:`duetto.policies.Scored` it is minus its score.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from duetto.errors import ConfigError, DataError
from duetto.evaluation import pareto
from duetto.evaluation.users import redraws
from duetto.tree import Array
from duetto.types import Key, Outcomes

BASELINES = ("random", "prompt length", "oracle gain", "oracle weak wrong")

_TINY = 1e-12


@dataclass(frozen=True)
class Interval:
    """A figure with its bootstrap interval; NaN where there is no figure.

    Attributes:
        value: on the data as they are.
        low, high: the percentile interval.
    """

    value: float
    low: float = math.nan
    high: float = math.nan

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


@dataclass(frozen=True)
class Routed:
    """What one score is worth.

    Attributes:
        name: of the router or baseline.
        apgr: average performance gap recovered: 0.5 by chance.
        cpt50, cpt80: share of calls that recovers 50 % and 80 % of the gap between the models.
        area: 0 by chance, 1 as the oracle (:func:`duetto.evaluation.pareto.area`).
    """

    name: str
    apgr: Interval
    cpt50: Interval
    cpt80: Interval
    area: Interval


Statistic: TypeAlias = Callable[[Array, Array, Array, Array | None], float]
"""From (score, small, large, weight), each [n], to a number."""


# ---------------------------------------------------------------------------------------------------- the figures


def apgr(score: Array, small: Array, large: Array, weight: Array | None = None) -> float:
    """The mean share of the gap between the two models that is recovered, over all shares of calls from 0 to 1.

    0.5 by chance; an oracle is above 1, because it is better than the large model alone. NaN where the large model
    is no better than the small one, so that there is no gap.

    Args:
        score: ``[n]``; the highest are asked first.
        small, large: ``[n]`` qualities of the two answers.
        weight: ``[n]`` how often each item counts.

    Raises:
        DataError: empty, lengths that differ, or values that are not finite.
    """
    share, quality = pareto.curve(score, small, large, weight)
    gap = quality[-1] - quality[0]
    if gap <= _TINY:
        return math.nan
    under = float((np.diff(share) * (quality[1:] + quality[:-1]) / 2).sum())
    return float((under - quality[0]) / gap)


def cpt(score: Array, small: Array, large: Array, recovered: float, weight: Array | None = None) -> float:
    """CPT: the smallest share of calls at which this share of the gap is recovered; NaN where there is no gap.

    Within a segment of equal scores it is where the straight line crosses.

    Raises:
        ConfigError: a share of the gap outside 0..1.
        DataError: as :func:`apgr`.
    """
    if not 0 <= recovered <= 1:
        raise ConfigError(f"{recovered} of the gap", "give a share from 0 to 1, such as 0.5")
    share, quality = pareto.curve(score, small, large, weight)
    gap = quality[-1] - quality[0]
    if gap <= _TINY:
        return math.nan
    target = quality[0] + recovered * gap
    first = int(np.argmax(quality >= target - _TINY))
    if first == 0:
        return 0.0
    rise = quality[first] - quality[first - 1]
    part = min(1.0, max(0.0, (target - quality[first - 1]) / rise))
    return float(share[first - 1] + part * (share[first] - share[first - 1]))


def cpt50(score: Array, small: Array, large: Array, weight: Array | None = None) -> float:
    """:func:`cpt` at half of the gap."""
    return cpt(score, small, large, 0.5, weight)


def cpt80(score: Array, small: Array, large: Array, weight: Array | None = None) -> float:
    """:func:`cpt` at 80 % of the gap."""
    return cpt(score, small, large, 0.8, weight)


def baselines(outcomes: Outcomes) -> dict[str, np.ndarray]:
    """The scores that belong beside every router, those of :data:`BASELINES`; without prompts there is no length.

    ``random`` is one score for all, which the exact protocol makes the mean over all orders. ``oracle gain`` knows
    both qualities, ``oracle weak wrong`` only the small model's.
    """
    found = {"random": np.zeros(len(outcomes))}
    if isinstance(outcomes.seen.features, Mapping) and "prompt" in outcomes.seen.features:
        found["prompt length"] = np.array([len(str(text)) for text in outcomes.seen.features["prompt"]], float)
    return found | {"oracle gain": outcomes.gain, "oracle weak wrong": -outcomes.small}


# ---------------------------------------------------------------------------------------------------- intervals


def interval(
    statistic: Statistic,
    score: Array,
    outcomes: Outcomes,
    *,
    key: Key,
    n: int = 1000,
    level: float = 0.95,
    by_user: bool = True,
) -> Interval:
    """A statistic and its bootstrap interval; users are redrawn with all their items, where there are users.

    Args:
        statistic: such as :func:`apgr`.
        score: ``[n_items]``, the highest are asked first.
        outcomes: of the same items.
        key: of the redraws; the same key draws the same for every score.
        n: redraws.
        level: such as 0.95.
        by_user: False redraws item by item all the same.

    Raises:
        ConfigError: n below 1, or a level outside 0..1.
        DataError: as the statistic.
    """
    order = np.argsort(-np.asarray(score, float), kind="stable")  # sorting what is sorted costs next to nothing
    columns = (np.asarray(score, float)[order], outcomes.small[order], outcomes.large[order])
    value = statistic(*columns, None)
    drawn = redraws(_user(outcomes, by_user)[order], key=key, n=n)
    return _around(value, np.array([statistic(*columns, weight) for weight in drawn]), level)


def difference(
    statistic: Statistic,
    score: Array,
    other: Array,
    outcomes: Outcomes,
    *,
    key: Key,
    n: int = 1000,
    level: float = 0.95,
    by_user: bool = True,
) -> Interval:
    """``statistic(score) - statistic(other)`` with its interval, the same users drawn on both sides.

    Arguments and errors are those of :func:`interval`.
    """
    both = []
    weights = list(redraws(_user(outcomes, by_user), key=key, n=n))
    for each in (score, other):
        order = np.argsort(-np.asarray(each, float), kind="stable")
        columns = (np.asarray(each, float)[order], outcomes.small[order], outcomes.large[order])
        both.append([statistic(*columns, None), *(statistic(*columns, weight[order]) for weight in weights)])
    gap = np.array(both[0]) - both[1]
    return _around(float(gap[0]), gap[1:], level)


def judge(
    scores: Mapping[str, Array],
    outcomes: Outcomes,
    *,
    key: Key,
    n: int = 1000,
    level: float = 0.95,
    by_user: bool = True,
) -> list[Routed]:
    """Each score and then each baseline, with intervals; see :func:`interval`."""
    figures: dict[str, Statistic] = {"apgr": apgr, "cpt50": cpt50, "cpt80": cpt80, "area": pareto.area}

    def together(score: Array, small: Array, large: Array, weight: Array | None) -> list[float]:
        return [figure(score, small, large, weight) for figure in figures.values()]

    found = []
    for name, score in {**scores, **baselines(outcomes)}.items():
        order = np.argsort(-np.asarray(score, float), kind="stable")
        columns = (np.asarray(score, float)[order], outcomes.small[order], outcomes.large[order])
        drawn = [together(*columns, each) for each in redraws(_user(outcomes, by_user)[order], key=key, n=n)]
        around = [
            _around(value, column, level)
            for value, column in zip(together(*columns, None), np.array(drawn).T, strict=True)
        ]
        found.append(Routed(name, *around))
    return found


# --------------------------------------------------------------------------------------------- off-policy evaluation


@dataclass(frozen=True, eq=False)
class Logged:
    """What a router did, and what came of it.

    Attributes:
        asked: [n] bool, whether the large model was asked.
        propensity: [n] with which probability the router did what it did, above 0 and at most 1.
        reward: [n] what came of it: the quality of the answer that was given, less the price of asking.
        users: [n] whose item each is; None takes every item by itself.

    Raises:
        DataError: empty, lengths that differ, a reward that is not finite, or a propensity that is no probability.
    """

    asked: np.ndarray
    propensity: np.ndarray
    reward: np.ndarray
    users: np.ndarray | None = None

    def __post_init__(self) -> None:
        for name, kind in (("asked", bool), ("propensity", float), ("reward", float)):
            object.__setattr__(self, name, np.asarray(getattr(self, name), kind))
        shapes = {np.shape(each) for each in (self.asked, self.propensity, self.reward, self.users) if each is not None}
        if len(shapes) > 1 or self.asked.ndim != 1 or not len(self.asked):
            raise DataError(f"a log with columns of shapes {sorted(shapes)}", "give one of each per item, not empty")
        if not np.isfinite(self.reward).all():
            raise DataError("rewards that are NaN or infinite", "leave out what nobody has scored")
        if not ((self.propensity > 0) & (self.propensity <= 1)).all():
            raise DataError("a propensity that is not above 0 and at most 1", "log the probability of what was done")


@dataclass(frozen=True)
class Value:
    """What a router would have earned per item on another router's log.

    Attributes:
        reward: the estimate with its interval.
        effective: how many items the weighted log is worth (Kish 1965); few, and the interval is too narrow.
        uncovered: share of the new router's choices, by probability, that the old one never made anywhere near this
            item in the log: 1 minus the mean weight. Far from 0, the estimate is not to be trusted.
    """

    reward: Interval
    effective: float
    uncovered: float


def ips(log: Logged, ask: Array, *, key: Key, n: int = 1000, level: float = 0.95) -> Value:
    """Inverse propensity scoring: unbiased where every action had a chance; its variance grows as chances shrink.

    Args:
        log: of the old router.
        ask: ``[n]`` with which probability the new router asks for each item, 0..1; 0 or 1 where it is sure.
        key: of the redraws.
        n: redraws, by user where there are users.
        level: of the interval.

    Raises:
        DataError: another length, or something that is no probability.
        ConfigError: n below 1, or a level outside 0..1.
    """
    weight = _weights(log, ask)
    return _value(log, weight, weight * log.reward, np.ones(len(weight)), key, n, level)


def self_normalised(log: Logged, ask: Array, *, key: Key, n: int = 1000, level: float = 0.95) -> Value:
    """As :func:`ips`, divided by the sum of the weights: slightly biased, far less variable; never beyond the rewards.

    NaN where the new router does nothing that was ever done.
    """
    weight = _weights(log, ask)
    return _value(log, weight, weight * log.reward, weight, key, n, level)


def doubly_robust(
    log: Logged, ask: Array, kept: Array, asked: Array, *, key: Key, n: int = 1000, level: float = 0.95
) -> Value:
    """A model of the reward, corrected by the log: right where either the model or the propensities are.

    Args:
        log, ask, key, n, level: as in :func:`ips`.
        kept, asked: ``[n]`` what the model expects where the item is answered here, and where the large model is
            asked. Fit it on other items than these.

    Raises:
        DataError: as :func:`ips`, or an expectation that is not finite.
    """
    weight, ask = _weights(log, ask), np.asarray(ask, float)
    kept, asked = np.asarray(kept, float), np.asarray(asked, float)
    if kept.shape != log.asked.shape or asked.shape != log.asked.shape:
        raise DataError(f"expectations of shapes {kept.shape} and {asked.shape}", f"give {len(log.asked)} of each")
    if not (np.isfinite(kept).all() and np.isfinite(asked).all()):
        raise DataError("expectations that are NaN or infinite", "the model of the reward diverged")
    expected = ask * asked + (1 - ask) * kept
    corrected = expected + weight * (log.reward - np.where(log.asked, asked, kept))
    return _value(log, weight, corrected, np.ones(len(weight)), key, n, level)


def _weights(log: Logged, ask: Array) -> np.ndarray:
    ask = np.asarray(ask, float)
    if ask.shape != log.asked.shape:
        raise DataError(f"probabilities of shape {ask.shape} for {len(log.asked)} logged items", "give one an item")
    if not ((ask >= 0) & (ask <= 1)).all():
        raise DataError("a chance of asking that is no probability", "give numbers from 0 to 1")
    return np.asarray(np.where(log.asked, ask, 1 - ask) / log.propensity)


def _value(
    log: Logged, weight: np.ndarray, above: np.ndarray, below: np.ndarray, key: Key, n: int, level: float
) -> Value:
    user = np.arange(len(weight)) if log.users is None else log.users
    # Sums per user first: a redraw of 7,000 users with 1,000 repeats would otherwise touch every item each time.
    names, which = np.unique(np.asarray(user), return_inverse=True)
    top, bottom = np.bincount(which, above), np.bincount(which, below)
    drawn = [_ratio(times @ top, times @ bottom) for times in redraws(np.arange(len(names)), key=key, n=n)]
    squares = float((weight**2).sum())
    return Value(
        _around(_ratio(above.sum(), below.sum()), np.array(drawn), level),
        float(weight.sum() ** 2 / squares) if squares > 0 else 0.0,
        float(1 - weight.mean()),
    )


def _ratio(above: float, below: float) -> float:
    return float(above / below) if below > 0 else math.nan


def _around(value: float, drawn: np.ndarray, level: float) -> Interval:
    if not 0 < level < 1:
        raise ConfigError(f"an interval of level {level}", "give a share between 0 and 1, such as 0.95")
    known = drawn[np.isfinite(drawn)]
    if math.isnan(value) or not len(known):
        return Interval(value)
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high))


def _user(outcomes: Outcomes, by_user: bool) -> np.ndarray:
    return np.arange(len(outcomes)) if outcomes.users is None or not by_user else np.asarray(outcomes.users)
