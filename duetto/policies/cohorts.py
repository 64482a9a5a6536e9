"""Who takes part in a round: policies over a :class:`duetto.types.Seen` of the whole fleet.

``ASK`` are the chosen, ``STOP`` the others; parties that are offline are never chosen. ``sampling`` names the
scheme for a privacy accountant.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from duetto.errors import ConfigError
from duetto.policies.availability import online
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
