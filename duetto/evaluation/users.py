"""Accuracy as users meet it: per user, its spread, who is worst, and 95 % intervals over users.

Everything starts from :func:`by`, which adds up a column per user; a statistic is a function of the result and
works along the last axis, so that :func:`bootstrap` draws thousands of fleets in one call. Users are redrawn with
all their examples: examples of one user are not independent (Efron & Tibshirani 1993, the cluster bootstrap).
Accuracies are shares, 0..1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from duetto.errors import ConfigError, DataError
from duetto.tree import Array
from duetto.types import Key, rng

_CHUNK = 1 << 22  # entries of a redraw held at once


@dataclass(frozen=True, eq=False)
class PerUser:
    """A column added up per user; leading axes, where there are any, are redraws.

    Attributes:
        names: [u] sorted; empty in a redraw.
        count: [..., u] examples.
        total: [..., u] sum of the column over them.
    """

    names: Array
    count: Array
    total: Array

    @property
    def mean(self) -> Array:
        """[..., u] the column's mean per user; its accuracy where the column says what is correct."""
        return self.total / self.count

    def __len__(self) -> int:
        return int(self.count.shape[-1])

    def drawn(self, index: Array) -> PerUser:
        """The fleets of the users at ``index`` [..., u]."""
        return PerUser(self.names[:0], self.count[index], self.total[index])


Statistic: TypeAlias = Callable[[PerUser], Array]
"""From users [..., u] to numbers [...]."""


def by(values: Array, user: Array) -> PerUser:
    """Add up ``values`` [n] (``correct``: 1 or 0) per ``user`` [n] (names or numbers).

    Raises:
        DataError: nothing to add up, lengths that differ, or values that are not finite.
    """
    values, user = np.asarray(values, float), np.asarray(user)
    if values.ndim != 1 or values.shape != user.shape or not len(values):
        raise DataError(
            f"values of shape {values.shape} for users of shape {user.shape}", "give one of each per example, not empty"
        )
    if not np.isfinite(values).all():
        raise DataError("values that are not finite", "score every example, or leave those without truth out")
    names, which = np.unique(user, return_inverse=True)
    return PerUser(names, np.bincount(which), np.bincount(which, values))


# ----------------------------------------------------------------------------------------------------- statistics


def example_weighted(users: PerUser) -> Array:
    """[...] the mean over examples: users with many count more."""
    return users.total.sum(-1) / users.count.sum(-1)


def user_mean(users: PerUser) -> Array:
    """[...] the mean over users: each counts the same."""
    return users.mean.mean(-1)


def worst(users: PerUser, share: float = 0.1) -> Array:
    """[...] the mean over the worst ``share`` of the users (at least one user).

    Raises:
        ConfigError: a share outside 0..1.
    """
    return np.sort(users.mean, -1)[..., : _group(len(users), share)].mean(-1)


def deviation(users: PerUser) -> Array:
    """[...] the standard deviation over users (of this fleet, not of a sample from one)."""
    return users.mean.std(-1)


def jain(users: PerUser) -> Array:
    """[...] Jain's fairness index, 1/u (one user has all) .. 1 (all the same); Jain, Chiu & Hawe 1984."""
    mean = users.mean
    squares = len(users) * (mean**2).sum(-1)
    return np.where(squares > 0, mean.sum(-1) ** 2 / np.where(squares > 0, squares, 1), 1.0)


def gain(after: PerUser, before: PerUser) -> Array:
    """[u] what each user gains with one system over another.

    Raises:
        DataError: not the same users.
    """
    _same(after, before)
    return after.mean - before.mean


def percentiles(values: Array, at: Sequence[float] = (50, 95)) -> tuple[float, ...]:
    """The percentiles of ``values`` [n] (seconds, joules), linear between order statistics.

    Raises:
        DataError: no values, or values that are not finite.
    """
    values = np.asarray(values, float)
    if not values.size or not np.isfinite(values).all():
        raise DataError("percentiles of no values, or of values that are not finite", "measure every answer")
    return tuple(float(value) for value in np.percentile(values, at))


# ---------------------------------------------------------------------------------------------- signs of a failure


def noniid_gap(local: Array, common: Array) -> float:
    """How much better the users' models [u] are on their own test inputs than on everybody's: high is non-IID data.

    Raises:
        DataError: not one of each per user.
    """
    return _mean_difference(local, common)


def forgetting(before: Array, after: Array) -> float:
    """What local learning cost on the common test: accuracy [u] before minus after; above 0 something was lost.

    Raises:
        DataError: not one of each per user.
    """
    return _mean_difference(before, after)


def communication_share(communicating: Array, seconds: Array) -> float:
    """The share of all ``seconds`` [n] that was spent ``communicating`` [n] (seconds too); NaN where none was spent.

    Raises:
        DataError: more communicating than there was time.
    """
    part, whole = np.asarray(communicating, float), np.asarray(seconds, float)
    if part.shape != whole.shape or not ((part >= 0) & (part <= whole)).all():
        raise DataError("more seconds of communicating than of time", "give both per record, in seconds")
    return float(part.sum() / whole.sum()) if whole.sum() > 0 else math.nan


# ------------------------------------------------------------------------------------------------------- intervals


def bootstrap(
    statistic: Statistic, users: PerUser, *, key: Key, n: int = 2000, level: float = 0.95
) -> tuple[float, float]:
    """The percentile interval of a statistic over ``n`` fleets of users drawn with replacement.

    Raises:
        ConfigError: n below 1, or a level outside 0..1.
    """
    values = [np.broadcast_to(statistic(users.drawn(index)), len(index)) for index in _draws(len(users), n, key)]
    return _interval(np.concatenate(values), level)


def paired(
    statistic: Statistic, before: PerUser, after: PerUser, *, key: Key, n: int = 2000, level: float = 0.95
) -> tuple[float, float]:
    """The interval of ``statistic(after) - statistic(before)``, the same users drawn on both sides.

    Raises:
        DataError: not the same users.
        ConfigError: n below 1, or a level outside 0..1.
    """
    _same(before, after)
    draws = _draws(len(before), n, key)
    return _interval(
        np.concatenate([statistic(after.drawn(index)) - statistic(before.drawn(index)) for index in draws]), level
    )


def redraws(user: Array, *, key: Key, n: int = 2000) -> Iterator[Array]:
    """``n`` redraws of the fleet as weights [n_examples]: how often each example's user was drawn.

    For statistics that need examples rather than sums per user, such as the share of inputs to ask
    (:func:`duetto.evaluation.pareto.ask_share_at` takes the weight).

    Raises:
        ConfigError: n below 1.
    """
    names, which = np.unique(np.asarray(user), return_inverse=True)
    for index in _draws(len(names), n, key):
        for row in index:
            yield np.bincount(row, minlength=len(names))[which]


@dataclass(frozen=True)
class WorstGroup:
    """What the users who were worst before have gained; all figures are shares of answers.

    Attributes:
        gain: their accuracy after, on new inputs, minus the accuracy they were chosen by.
        control: the same with nothing learned, only new inputs: regression to the mean.
        difference: gain - control, what learning brought.
        low, high: the interval of the difference.
        names: who they are; users tied at the border are all named and share the places left.
    """

    gain: float
    control: float
    difference: float
    low: float
    high: float
    names: tuple[str, ...]


def worst_group_gain(
    before_select: PerUser,
    before_eval: PerUser,
    after_eval: PerUser,
    share: float = 0.1,
    *,
    key: Key,
    n: int = 2000,
    level: float = 0.95,
) -> WorstGroup:
    """The gain of the worst ``share`` of users, against a control that only re-draws the test inputs.

    Whoever is chosen for a bad score does better the next time without any learning. So the group is chosen on
    one half of the inputs (``before_select``) and measured on the other (``before_eval``, ``after_eval``), and in
    every redraw of the fleet it is chosen anew.

    Raises:
        DataError: the three are not of the same users.
        ConfigError: a share outside 0..1, n below 1, or a level outside 0..1.
    """
    _same(before_select, before_eval)
    _same(before_select, after_eval)
    group = _group(len(before_select), share)
    chosen, control, after = before_select.mean, before_eval.mean, after_eval.mean
    weight = _places(chosen, group)
    differences = []
    for index in _draws(len(before_select), n, key):
        places = _places(chosen[index], group)
        differences.append((places * (after - control)[index]).sum(-1) / group)
    low, high = _interval(np.concatenate(differences), level)
    return WorstGroup(
        gain=float((weight * (after - chosen)).sum() / group),
        control=float((weight * (control - chosen)).sum() / group),
        difference=float((weight * (after - control)).sum() / group),
        low=low,
        high=high,
        names=tuple(str(name) for name in before_select.names[weight > 0]),
    )


def _group(users: int, share: float) -> int:
    if not 0 < share <= 1:
        raise ConfigError(f"the worst {share} of the users", "give a share above 0, at most 1")
    return max(1, math.ceil(share * users - 1e-9))


def _places(scores: Array, group: int) -> Array:
    """[..., u] weights that add up to ``group``: 1 below the border, users tied at it share what is left."""
    border = np.sort(scores, -1)[..., group - 1 : group]
    below, tied = scores < border, scores == border
    left = group - below.sum(-1, keepdims=True)
    return below + tied * (left / tied.sum(-1, keepdims=True))


def _draws(users: int, n: int, key: Key) -> Iterator[Array]:
    if n < 1:
        raise ConfigError(f"{n} redraws", "ask for at least 1; 2000 give a steady interval")
    generator = rng((*key, "redraw users"))
    rows = max(1, _CHUNK // users)
    for start in range(0, n, rows):
        yield generator.integers(users, size=(min(rows, n - start), users))


def _interval(values: Array, level: float) -> tuple[float, float]:
    if not 0 < level < 1:
        raise ConfigError(f"an interval of level {level}", "give a share between 0 and 1, such as 0.95")
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _same(left: PerUser, right: PerUser) -> None:
    if not np.array_equal(left.names, right.names):
        raise DataError("two columns of different users", "compare the users that both have")


def _mean_difference(left: Array, right: Array) -> float:
    left, right = np.asarray(left, float), np.asarray(right, float)
    if left.shape != right.shape or not left.size:
        raise DataError(f"accuracies of shapes {left.shape} and {right.shape}", "give one of each per user")
    return float((left - right).mean())
