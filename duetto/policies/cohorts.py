"""Who takes part in a round: policies over a :class:`duetto.types.Seen` of the whole fleet.

``ASK`` are the chosen, ``STOP`` the others; parties that are offline are never chosen. ``sampling`` names the
scheme for a privacy accountant: "all", "fixed-size" (all cohorts of one size equally likely), "poisson", or
"data-dependent", which no accountant can be charged with.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from duetto.errors import ConfigError
from duetto.policies.availability import online
from duetto.policies.draws import asking, examples, proportional, sized, systematic
from duetto.tree import Tree
from duetto.types import Action, Key, Move, Policy, Seen, rng


@dataclass(frozen=True)
class Everyone(Policy[Tree]):
    """Everyone who is online."""

    sampling: ClassVar[str] = "all"

    def choose(self, state: Tree, seen: Seen, key: Key) -> tuple[Tree, Move]:
        """Choose; the propensity is 1."""
        return state, Move.sure(np.where(online(seen), Action.ASK, Action.STOP), "everyone online")


@dataclass(frozen=True)
class Uniform(Policy[Tree]):
    """A fixed number of those online, all equally likely, without replacement.

    Args:
        size: how many; all who are online where they are fewer.
        share: or how many as a share of the fleet, above 0 and at most 1, rounded, at least one.

    Raises:
        ConfigError: not just one of the two, or a number out of range.
    """

    size: int | None = None
    share: float | None = None
    sampling: ClassVar[str] = "fixed-size"

    def __post_init__(self) -> None:
        if (self.size is None) == (self.share is None):
            raise ConfigError(f"a cohort of size={self.size} and share={self.share}", "give one of the two")
        if self.size is not None and self.size < 1:
            raise ConfigError(f"a cohort of {self.size}", "use a size from 1")
        if self.share is not None and not 0 < self.share <= 1:
            raise ConfigError(f"a cohort of {self.share} of the fleet", "use a share above 0 and at most 1")

    def choose(self, state: Tree, seen: Seen, key: Key) -> tuple[Tree, Move]:
        """Choose; the propensity is the probability of being chosen, or of not being chosen, given who is online."""
        eligible = np.flatnonzero(online(seen))
        wanted = self.size if self.share is None else max(1, int(self.share * seen.size + 0.5))
        count = min(wanted or 0, len(eligible))
        action = np.full(seen.size, Action.STOP, np.int8)
        propensity = np.ones(seen.size)
        if count:
            propensity[eligible] = 1 - count / len(eligible)
            chosen = rng(key).choice(eligible, count, replace=False)
            action[chosen], propensity[chosen] = Action.ASK, count / len(eligible)
        return state, Move(action, propensity, f"{count} of {len(eligible)} online")


@dataclass(frozen=True)
class Poisson(Policy[Tree]):
    """Each of those online independently of the others, so that nobody may be in: what privacy accountants assume.

    Args:
        rate: the probability of each, above 0 and at most 1.

    Raises:
        ConfigError: a rate out of range.
    """

    rate: float
    sampling: ClassVar[str] = "poisson"

    def __post_init__(self) -> None:
        if not 0 < self.rate <= 1:
            raise ConfigError(f"a rate of {self.rate}", "use a probability above 0 and at most 1")

    def choose(self, state: Tree, seen: Seen, key: Key) -> tuple[Tree, Move]:
        """Choose; the propensity is the probability of being chosen, or of not being chosen, given who is online."""
        chances = online(seen) * self.rate
        return state, asking(rng(key).random(seen.size) < chances, chances, f"each online at {self.rate:g}")


@dataclass(frozen=True)
class BySize(Policy[Tree]):
    """A fixed number of those online, without replacement, in proportion to the examples they have.

    The probability of being in is itself proportional to the examples, and 1 for those whose share asks for more
    than that (see :func:`duetto.policies.draws.systematic`), which drawing one after the other does not give. Who
    has no examples is in only where the others do not suffice. How much data somebody has decides, so the scheme is
    "data-dependent".

    Args:
        size: how many; all who are online where they are fewer.

    Raises:
        ConfigError: a size below 1.
    """

    size: int
    sampling: ClassVar[str] = "data-dependent"

    def __post_init__(self) -> None:
        sized(self.size)

    def choose(self, state: Tree, seen: Seen, key: Key) -> tuple[Tree, Move]:
        """Choose; the propensity is the probability of being chosen, or of not being chosen, given who is online."""
        chances = proportional(examples(seen), online(seen), self.size)
        return state, asking(systematic(chances, key), chances, "in proportion to their examples")
