"""What cohort policies share: what parties are known for, and draws whose probabilities are known."""

from __future__ import annotations

import numpy as np

from duetto.errors import ConfigError, DataError
from duetto.tree import Array, Tree
from duetto.types import Action, Key, Move, Seen, rng

HUGE = 1e30
"""No loss, no count and no time is meant that large; sums of what is smaller stay finite."""


def sized(size: int) -> None:
    """Raises ConfigError where a cohort has not at least one party."""
    if size < 1:
        raise ConfigError(f"a cohort of {size}", "use a size from 1")


def trait(seen: Seen, name: str) -> np.ndarray:
    """A trait of every party, ``[n]`` float64; NaN where it is not known, or no number below :data:`HUGE`.

    Raises:
        DataError: a column of another length.
    """
    column = (seen.traits or {}).get(name)
    if column is None:
        return np.full(seen.size, np.nan)
    column = np.asarray(column, np.float64)
    if column.shape != (seen.size,):
        raise DataError(f"a trait {name!r} of shape {column.shape} for {seen.size} parties", "give one number a party")
    return np.where(np.abs(column) < HUGE, column, np.nan)


def examples(seen: Seen) -> np.ndarray:
    """How many examples each party has, ``[n]`` float64; 1 where it is not known."""
    return np.asarray(np.nan_to_num(trait(seen, "examples"), nan=1.0))


def told(seen: Seen, name: str, reward: Array) -> np.ndarray:
    """What those whose answer counted told, ``[n]`` float64; NaN elsewhere."""
    return np.where(np.asarray(reward, np.float64) > 0, trait(seen, name), np.nan)


def remembered(state: Tree, name: str, seen: Seen, fill: float) -> np.ndarray:
    """A column of the state, ``[n]``, or one full of ``fill`` where the state has none yet.

    Raises:
        DataError: the state is that of another fleet.
    """
    column = state.get(name)
    if column is None:
        return np.full(seen.size, fill)
    if len(column) != seen.size:
        raise DataError(
            f"a state of {len(column)} parties for a fleet of {seen.size}", "start afresh when the fleet changes"
        )
    return np.asarray(column)


def proportional(weights: np.ndarray, among: np.ndarray, count: int) -> np.ndarray:
    """The probabilities ``[n]`` with which ``count`` parties are drawn in proportion to their weights.

    They are ``min(1, c * weight)`` for the ``c`` with which they add up to ``count``, 0 outside ``among`` (``[n]``
    bool), and 1 for all within where there are no more. Parties without a positive weight are all equally likely to
    fill up where the others do not suffice.
    """
    heavy, light = among & (weights > 0), among & ~(weights > 0)
    spare = count - int(heavy.sum())
    if spare >= 0:
        return heavy + light * min(1.0, spare / max(1, int(light.sum())))
    rows = np.flatnonzero(heavy)
    rows = rows[np.argsort(-weights[rows], kind="stable")]
    ranked = weights[rows]
    left = np.cumsum(ranked[::-1])[::-1]
    # The heaviest are certain for as long as their share of what is left asks for one place or more.
    certain = int(np.argmax((count - np.arange(len(rows))) * ranked < left))
    chances = np.zeros(len(weights))
    chances[rows] = (count - certain) * ranked / left[certain]
    chances[rows[:certain]] = 1.0
    return chances


def systematic(chances: np.ndarray, key: Key) -> np.ndarray:
    """A draw in which everyone is in with its own probability and the number is fixed, ``[n]`` bool.

    ``chances`` ``[n]`` add up to that number. It is systematic sampling (Madow: On the Theory of Systematic Sampling
    II, 1949) in random order (Goodman & Kish 1950): the chances are laid end to end, and a comb with teeth one apart
    is dropped on them. Where all are equally likely, all cohorts are, too.
    """
    chosen = chances >= 1
    draw = rng(key)
    rows = draw.permutation(np.flatnonzero((chances > 0) & ~chosen))
    ends = np.cumsum(chances[rows])
    if count := round(ends[-1]) if len(rows) else 0:
        teeth = draw.random() + np.arange(count)
        # The last end is the count but for rounding, and a tooth may fall beyond it.
        hit = np.searchsorted(ends, teeth, side="right")
        chosen[rows[np.minimum(hit, len(rows) - 1)]] = True
    return chosen


def highest(scores: np.ndarray, among: np.ndarray, count: int, key: Key) -> tuple[np.ndarray, np.ndarray]:
    """The ``count`` of the highest scores (no NaN), ties at random: who, ``[n]`` bool, and with which chances, ``[n]``.

    All of ``among`` (``[n]`` bool) where there are no more.
    """
    rows = rng(key).permutation(np.flatnonzero(among))
    chosen, count = np.zeros(len(scores), bool), min(count, len(rows))
    if not count:
        return chosen, np.zeros(len(scores))
    rows = rows[np.argsort(-scores[rows], kind="stable")]
    chosen[rows[:count]] = True
    last = scores[rows[count - 1]]
    above, tied = among & (scores > last), among & (scores == last)
    return chosen, above + tied * ((count - above.sum()) / tied.sum())


def asking(chosen: np.ndarray, chances: np.ndarray, why: str) -> Move:
    """Ask the chosen (``[n]`` bool); ``chances`` ``[n]`` are those of being chosen."""
    action = np.where(chosen, Action.ASK, Action.STOP).astype(np.int8)
    return Move(action, np.where(chosen, chances, 1 - chances), why)
