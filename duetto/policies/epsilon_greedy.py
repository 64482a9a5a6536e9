"""Do what seems best, and now and then something else: epsilon-greedy with a falling epsilon.

Auer, Cesa-Bianchi, Fischer: Finite-time Analysis of the Multiarmed Bandit Problem, Machine Learning 2002 (epsilon_t
falls as 1/t), over the linear arms of :mod:`duetto.policies.linear`. Where asking alone teaches, to explore is to ask.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from duetto.errors import ConfigError
from duetto.policies.linear import ASK, STOP, begun, checked, described, estimated, heard, passed, surplus, unjudged
from duetto.tree import Array, Tree
from duetto.types import Action, Key, Move, Policy, Seen, rng


@dataclass(frozen=True)
class EpsilonGreedy(Policy[Tree]):
    """Explore with the probability ``epsilon / (1 + t / steps)``, ``t`` decisions after the first; else the better arm.

    To explore is to take an arm at random, or with ``full_information_on_ask`` to ask. Other arguments and the state
    are those of :class:`duetto.policies.LinUCB`; the propensity is exact.

    Args:
        epsilon: at first, 0..1.
        steps: decisions after which it has halved, above 0.
        dimension, ridge, price, full_information_on_ask: as of LinUCB.

    Raises:
        ConfigError: a number out of range.
    """

    epsilon: float = 0.3
    steps: float = 50.0
    dimension: int = 8
    ridge: float = 0.3
    price: float = 0.0
    full_information_on_ask: bool = False

    def __post_init__(self) -> None:
        checked(self.dimension, self.ridge, self.price)
        if not 0 <= self.epsilon <= 1:
            raise ConfigError(f"an epsilon of {self.epsilon}", "use a share from 0 to 1")
        if not self.steps > 0:
            raise ConfigError(f"an epsilon that halves in {self.steps} steps", "use a number above 0")

    def init(self) -> Tree:
        """The prior."""
        return begun(self.dimension, self.ridge, self.price)

    def choose(self, state: Tree, seen: Seen, key: Key) -> tuple[Tree, Move]:
        """Stop or ask, item by item; go on or ask where there is nothing to judge."""
        x = described(seen, self.dimension)
        if x is None:
            return state, unjudged(seen)
        means, _ = estimated(state, x)
        at = int(state["seen"]) + np.arange(seen.size)
        epsilon = self.epsilon / (1 + at / self.steps)
        drawn = np.array([rng((*key, "explore", i)).random(2) for i in at.tolist()]).reshape(-1, 2)
        best = means[:, ASK] >= means[:, STOP]
        asks = 1.0 if self.full_information_on_ask else 0.5  # of those that explore
        chance = epsilon * asks + (1 - epsilon) * best
        ask = np.where(drawn[:, 0] < epsilon, drawn[:, 1] < asks, best)
        action = np.where(ask, Action.ASK, Action.STOP).astype(np.int8)
        return passed(state, seen.size), Move(action, np.where(ask, chance, 1 - chance), "the better arm, or explored")

    def learn(self, state: Tree, seen: Seen, move: Move, reward: Array) -> Tree:
        """Learn from rewards; see :func:`duetto.policies.linear.heard`."""
        return heard(state, seen, move, reward, self.dimension, self.full_information_on_ask, self.price)

    def scores(self, state: Tree, seen: Seen) -> np.ndarray:
        """How much more stopping is expected to earn than asking, ``[n]``."""
        return surplus(state, seen, self.dimension)
