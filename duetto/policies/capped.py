"""A hard cap on what a period may cost, in calls or dollars, spent along the period and not all at once.

Whatever the inner policy wants, at any moment of a period no more is spent than ``cap`` times what is allowed by then:
the share ``ahead`` at once, and the rest in proportion to the time that has gone by (a token bucket that starts partly
filled and is emptied when the period ends). Its total is the cap, so the cap is never exceeded, for any stream.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from duetto.errors import ConfigError, DataError
from duetto.policies.priced import costs, from_zero, positive, times
from duetto.tree import Array
from duetto.types import Action, Key, Move, Policy, Seen


@dataclass(frozen=True)
class Capped(Policy[Mapping[str, Any]]):
    """Ask where the inner policy asks and the period's cap allows it; else keep the device's answer, or go on.

    Time is the trait ``time`` of the items, in the unit of ``period`` (seconds since the epoch, say), else the number
    of items decided, so that a simulation reads no clock. A time before the latest one counts as the latest, so that
    a clock set back opens no second budget. A call costs the trait ``price``, or 1. Where ``seen.budget_left`` ``[n]``
    is known it is obeyed too: what is left before this array of items, from which the array's own calls are taken. A
    hard cap holds also where the device has no answer: the item then has none.

    Where nothing may be asked, the propensity is 1, whatever the inner policy drew.

    State: ``inner``; ``period`` (int64 scalar, which one); ``latest`` (float64, the last time); ``spent`` (float64, in
    this period); ``decided`` (int64, items).

    Args:
        inner: who wants to ask.
        cap: calls or dollars a period, from 0.
        period: its length, above 0; 30 days are 2,592,000 seconds.
        ahead: share of the cap that is free from the start, 0..1; 1 spends as it comes.

    Raises:
        ConfigError: a number out of range.
    """

    inner: Policy[Any]
    cap: float
    period: float
    ahead: float = 0.1

    def __post_init__(self) -> None:
        from_zero("cap", self.cap)
        positive("period", self.period)
        if not 0 <= self.ahead <= 1:
            raise ConfigError(f"a share of {self.ahead} ahead", "use a share from 0 to 1")

    def init(self) -> Mapping[str, Any]:
        """Nothing spent."""
        nothing = {"latest": np.array(-np.inf), "spent": np.array(0.0), "decided": np.array(0)}
        return {"inner": self.inner.init(), "period": np.array(0), **nothing}

    def choose(self, state: Mapping[str, Any], seen: Seen, key: Key) -> tuple[Mapping[str, Any], Move]:
        """As the inner policy, as far as the cap allows.

        Raises:
            DataError: prices, times or budgets that are none.
        """
        inner, move = self.inner.choose(state["inner"], seen, key)
        period, latest, spent = int(state["period"]), float(state["latest"]), float(state["spent"])
        left, used, blocked = _left(seen), 0.0, np.zeros(seen.size, bool)
        wants, cost = np.asarray(move.action) == Action.ASK, costs(seen)
        for i, time in enumerate(times(seen, int(state["decided"])).tolist()):
            latest = max(latest, time)
            if (now := int(latest // self.period)) != period:
                period, spent = now, 0.0
            gone = min(1.0, max(0.0, latest / self.period - period))
            allowed = self.cap * min(1.0, self.ahead + (1 - self.ahead) * gone)
            blocked[i] = not (spent + cost[i] <= allowed and used + cost[i] <= left[i])
            if wants[i] and not blocked[i]:
                spent, used = spent + cost[i], used + cost[i]
        after = {"inner": inner, "period": np.array(period), "latest": np.array(latest), "spent": np.array(spent)}
        instead = Action.GO if seen.answer is None and seen.stage == 0 else Action.STOP
        kept = replace(
            move,
            action=np.where(blocked & wants, instead, move.action).astype(np.int8),
            propensity=np.where(blocked & (np.asarray(move.action) != Action.GO), 1.0, move.propensity),
            why=f"{move.why}, within {self.cap:g} a period",
        )
        return {**after, "decided": state["decided"] + seen.size}, kept

    def learn(self, state: Mapping[str, Any], seen: Seen, move: Move, reward: Array) -> Mapping[str, Any]:
        """The inner policy learns, from the moves that the cap let through or turned into stops."""
        return {**state, "inner": self.inner.learn(state["inner"], seen, move, reward)}


def _left(seen: Seen) -> np.ndarray:
    if seen.budget_left is None:
        return np.full(seen.size, np.inf)
    left = np.asarray(seen.budget_left, np.float64)
    if left.shape != (seen.size,) or np.isnan(left).any():
        raise DataError(f"budgets of shape {left.shape} for {seen.size} items", "give what is left, one an item")
    return left
