"""A Little Is Enough: colluders move the mean as far as the spread of honest updates hides them.

Baruch, Baruch, Goldberg: A Little Is Enough: Circumventing Defenses For Distributed Learning, NeurIPS 2019.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from duetto.attacks.poisoning import Attack, changed
from duetto.errors import ConfigError
from duetto.tree import Array, Tree
from duetto.types import Key


@dataclass(frozen=True)
class Alie(Attack):
    """All say ``mean - z * deviation``, coordinate by coordinate, of what the colluders would honestly have said.

    ``z`` is as large as lets so many honest replies be expected further out that with them the colluders are most of
    the cohort: ``Phi(z) = (n - m - s) / (n - m)``, ``s = n // 2 + 1 - m``, of ``m`` attackers among ``n``; of a small
    share of attackers it is below 0. The colluders know each other's updates within one call (a world gives a cohort
    in one call where it can), so one at a time they say something else than all at once: who is alone has one update
    and no deviation, and takes that between the entries of a leaf for that of each entry.

    Args:
        attackers: how many collude in a cohort, m.
        cohort: how many reply in a round, n.

    Raises:
        ConfigError: nobody, or no minority of at least three.
    """

    attackers: int
    cohort: int

    def __post_init__(self) -> None:
        if self.cohort < 3 or not 1 <= self.attackers <= self.cohort // 2:
            raise ConfigError(
                f"{self.attackers} colluders in a cohort of {self.cohort}",
                "at least one of at least three, and no more than half",
            )

    @property
    def z(self) -> float:
        """How many standard deviations from the mean they say."""
        honest, wanted = self.cohort - self.attackers, self.cohort // 2 + 1 - self.attackers
        return NormalDist().inv_cdf((honest - wanted) / honest)

    def lie(self, said: Sequence[Tree], keys: Sequence[Key]) -> Sequence[Tree]:
        """All the same, each with its own weight."""

        def hidden(at: str, own: Array, *updates: Array) -> Array:
            seen = np.stack([np.asarray(update, np.float64) for update in updates])
            deviation = seen.std(axis=0) if len(seen) > 1 else seen.std()
            return seen.mean(axis=0) - self.z * deviation

        told = changed(hidden, said[0], *said)
        return [changed(lambda at, own, lie: lie, each, told) for each in said]
