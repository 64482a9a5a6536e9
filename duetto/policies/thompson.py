"""Ask as often as asking is likely to be best: linear Thompson sampling.

Agrawal, Goyal: Thompson Sampling for Contextual Bandits with Linear Payoffs, ICML 2013. An arm's weights are drawn from
the normal ``N(A^-1 b, spread^2 A^-1)``, anew for every item; what an arm then promises for ``x`` is normal with mean
``x' A^-1 b`` and standard deviation ``spread * sqrt(x' A^-1 x)``, and only that number is drawn. Asking is best with
the probability that the difference of two such numbers is positive, which is known in closed form.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from duetto.errors import ConfigError
from duetto.policies.linear import ASK, STOP, begun, checked, described, estimated, heard, passed, surplus, unjudged
from duetto.tree import Array, Tree
from duetto.types import Action, Key, Move, Policy, Seen, rng

_LEAST = 1e-300  # a chance that float64 rounds to nothing is still one


@dataclass(frozen=True)
class Thompson(Policy[Tree]):
    """Draw what each arm is worth, and take the better one; the propensity is exact.

    An item's draw belongs to the key and to the item's place among all that were decided. Arguments and state are
    those of :class:`duetto.policies.LinUCB`; ``spread`` scales the posterior's standard deviation.

    Raises:
        ConfigError: a number out of range.
    """

    spread: float = 0.2
    dimension: int = 8
    ridge: float = 0.3
    price: float = 0.0
    full_information_on_ask: bool = False

    def __post_init__(self) -> None:
        checked(self.dimension, self.ridge, self.price)
        if not 0 < self.spread < math.inf:
            raise ConfigError(f"a spread of {self.spread}", "use a number above 0")

    def init(self) -> Tree:
        """The prior."""
        return begun(self.dimension, self.ridge, self.price)

    def choose(self, state: Tree, seen: Seen, key: Key) -> tuple[Tree, Move]:
        """Stop or ask, item by item; go on or ask where there is nothing to judge."""
        x = described(seen, self.dimension)
        if x is None:
            return state, unjudged(seen)
        means, widths = estimated(state, x)
        first = int(state["seen"])
        drawn = np.array([rng((*key, "thompson", first + i)).standard_normal(2) for i in range(seen.size)])
        worth = means + self.spread * widths * drawn.reshape(-1, 2)
        ask = worth[:, ASK] >= worth[:, STOP]
        apart = self.spread * np.sqrt((widths**2).sum(axis=1))
        ahead = (means[:, ASK] - means[:, STOP]) / apart
        chance = np.array([math.erfc(-each / math.sqrt(2)) / 2 for each in np.where(ask, ahead, -ahead).tolist()])
        action = np.where(ask, Action.ASK, Action.STOP).astype(np.int8)
        return passed(state, seen.size), Move(action, np.clip(chance, _LEAST, 1.0), "drawn from what is believed")

    def learn(self, state: Tree, seen: Seen, move: Move, reward: Array) -> Tree:
        """Learn from rewards; see :func:`duetto.policies.linear.heard`."""
        return heard(state, seen, move, reward, self.dimension, self.full_information_on_ask, self.price)

    def scores(self, state: Tree, seen: Seen) -> np.ndarray:
        """How much more stopping is expected to earn than asking, ``[n]``."""
        return surplus(state, seen, self.dimension)
