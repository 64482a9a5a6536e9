"""Ask where asking may pay: a contextual bandit by upper confidence bounds.

Li, Chu, Langford, Schapire: A Contextual-Bandit Approach to Personalized News Article Recommendation, WWW 2010
(LinUCB with disjoint arms). Where asking alone teaches (see :mod:`duetto.policies.linear`), an optimist who stops
learns nothing: this is apple tasting (Helmbold, Littlestone, Long 2000), and only asking has a bonus.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from duetto.errors import ConfigError
from duetto.policies.linear import ASK, STOP, begun, checked, described, estimated, heard, passed, surplus, unjudged
from duetto.policies.threshold import sure
from duetto.tree import Array, Tree
from duetto.types import Key, Move, Policy, Seen


@dataclass(frozen=True)
class LinUCB(Policy[Tree]):
    """Ask where asking's upper bound reaches stopping's; nothing is random, every propensity is 1.

    Before anything was heard it goes by its prior: the answer's largest probability against ``1 - price``. State:
    ``A`` ``[2, d, d]`` and ``b`` ``[2, d]`` float64, arms stop and ask; ``seen``, int64 scalar.

    Args:
        alpha: widths of the confidence bound, from 0 (greedy).
        dimension: of the numbers that describe a decision, whatever the classes and features.
        ridge: how many times the prior counts as heard, above 0.
        price: of asking, in the unit of quality; rewards are told with it taken off.
        full_information_on_ask: learn both arms where the cloud was asked.

    Raises:
        ConfigError: a number out of range.
    """

    alpha: float = 0.7
    dimension: int = 8
    ridge: float = 0.3
    price: float = 0.0
    full_information_on_ask: bool = False

    def __post_init__(self) -> None:
        checked(self.dimension, self.ridge, self.price)
        if not 0 <= self.alpha < math.inf:
            raise ConfigError(f"an alpha of {self.alpha}", "use a number from 0")

    def init(self) -> Tree:
        """The prior."""
        return begun(self.dimension, self.ridge, self.price)

    def choose(self, state: Tree, seen: Seen, key: Key) -> tuple[Tree, Move]:
        """Stop or ask, item by item; go on or ask where there is nothing to judge."""
        x = described(seen, self.dimension)
        if x is None:
            return state, unjudged(seen)
        means, widths = estimated(state, x)
        bonus = self.alpha * widths
        if self.full_information_on_ask:
            bonus[:, STOP] = 0.0
        bounds = means + bonus
        keep = bounds[:, STOP] > bounds[:, ASK]
        return passed(state, seen.size), sure(keep, f"upper bounds of {self.alpha:g} widths")

    def learn(self, state: Tree, seen: Seen, move: Move, reward: Array) -> Tree:
        """Learn from rewards; see :func:`duetto.policies.linear.heard`."""
        return heard(state, seen, move, reward, self.dimension, self.full_information_on_ask, self.price)

    def scores(self, state: Tree, seen: Seen) -> np.ndarray:
        """How much more stopping is expected to earn than asking, ``[n]``."""
        return surplus(state, seen, self.dimension)
