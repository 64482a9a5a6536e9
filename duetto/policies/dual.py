"""A budget by its dual price: ask where what is gained is worth more than the price of what is left.

Balseiro, Lu, Mirrokni: The Best of Many Worlds: Dual Mirror Descent for Online Allocation Problems, Operations Research
2023 (first ICML 2020), with the Euclidean mirror map; for one budget it is the adaptive pacing of Balseiro & Gur 2019.
An item's gain is 1 less the inner policy's score, its cost c is a call, or dollars. It is asked where
``gain > price * c``, and after every item the price moves by ``step * (spent - budget)``.

The moves add up: ``price_n - price_0 = step * (spent - budget * n)`` as long as the price is free. Where all costs are
1 and scores are within 0..1, nothing is asked at a price of 1 or more and everything below 0, so that the price stays
within ``-step * budget`` and ``1 + step * (1 - budget)``, whatever the sequence, and **for every stream** (with the
first price within 0..1)

    |asked - budget * n|  <=  1 / step + 1.

Against :class:`duetto.policies.Budgeted`: the price lives on the score's own scale, not on that of ranks. It needs no
window, knows what an item costs, and may leave money unspent; scores without bounds (``energy``) carry no promise, and
when scores drift the price has to travel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from duetto.errors import ConfigError
from duetto.policies.priced import costs, from_zero
from duetto.policies.scores import Scored
from duetto.policies.threshold import sure, unanswered
from duetto.tree import Array
from duetto.types import Held, Key, Move, Outcomes, Policy, Seen


@dataclass(frozen=True)
class Dual(Policy[Mapping[str, Any]]):
    """Ask where ``1 - score > price * cost``; the price follows what is spent against the budget of an item.

    The inner policy's own threshold is not used. What has no answer to judge is passed on and not counted. A cost is
    the trait ``price``, in dollars, or 1 where there is none. State: ``inner``, ``price`` (float64 scalar).

    Args:
        inner: a policy with a score, such as ``Threshold``, ``Calibrated`` or a bandit.
        budget: what an item may cost on average: the offload rate where a call costs 1, else dollars.
        step: how far the price moves for one unit too much, above 0.
        start: the price at first.
        spend_all: whether the price may fall below 0, so that the budget is met from both sides; without it nothing
            is asked that gains nothing, and the budget is only an upper bound.

    Raises:
        ConfigError: an inner policy without a score, or a number out of range.
    """

    inner: Policy[Any]
    budget: float
    step: float = 0.02
    start: float = 0.5
    spend_all: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.inner, Scored):
            raise ConfigError(f"{type(self.inner).__name__} has no score to price", "use Threshold or Calibrated")
        from_zero("budget", self.budget)
        from_zero("first price", self.start)
        if not 0 < self.step < np.inf:
            raise ConfigError(f"a step of {self.step}", "use a number above 0")

    def init(self) -> Mapping[str, Any]:
        """Nothing fitted or spent."""
        return {"inner": self.inner.init(), "price": np.array(self.start, np.float64)}

    def fit(self, outcomes: Outcomes) -> Held[Mapping[str, Any]]:
        """Fit the inner policy where it can be, and start at the price at which these items meet the budget of calls.

        Errors are those of the inner ``fit``.
        """
        fit = getattr(self.inner, "fit", None)
        inner = self.inner.init() if fit is None else fit(outcomes).state
        price = np.quantile(1 - self._scores(inner, outcomes.seen), 1 - min(1.0, self.budget))
        return Held(self, {"inner": inner, "price": np.asarray(price if self.spend_all else max(0.0, price))})

    def choose(self, state: Mapping[str, Any], seen: Seen, key: Key) -> tuple[Mapping[str, Any], Move]:
        """Stop or ask, item after item."""
        if (move := unanswered(seen)) is not None:
            return state, move
        price, keep = float(state["price"]), []
        gains = 1 - self._scores(state["inner"], seen)
        for gain, cost in zip(gains.tolist(), costs(seen).tolist(), strict=True):
            keep.append(not gain > price * cost)
            price += self.step * ((not keep[-1]) * cost - self.budget)
            if not self.spend_all:
                price = max(0.0, price)
        why = f"a dual price for {self.budget:.4g} an item"
        return {**state, "price": np.array(price)}, sure(np.array(keep, bool), why)

    def learn(self, state: Mapping[str, Any], seen: Seen, move: Move, reward: Array) -> Mapping[str, Any]:
        """The inner policy learns."""
        return {**state, "inner": self.inner.learn(state["inner"], seen, move, reward)}

    def scores(self, state: Mapping[str, Any], seen: Seen) -> np.ndarray:
        """The inner policy's, ``[n]``."""
        return self._scores(state["inner"], seen)

    def _scores(self, inner: Any, seen: Seen) -> np.ndarray:
        assert isinstance(self.inner, Scored)
        return self.inner.scores(inner, seen)
