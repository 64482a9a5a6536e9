"""Krum and multi-Krum: the replies that lie closest to their neighbours.

Blanchard, El Mhamdi, Guerraoui, Stainer: Machine Learning with Adversaries: Byzantine Tolerant Gradient Descent,
NeurIPS 2017.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import array_api_compat as compat
import numpy as np

from duetto.aggregation import columns
from duetto.aggregation.median import middle
from duetto.aggregation.stack import Stack
from duetto.errors import ConfigError, DataError
from duetto.tree import Tree
from duetto.types import Aggregator, Reply


@dataclass(frozen=True)
class Krum(Aggregator[Tree]):
    """The mean of the ``keep`` replies of the least score; weights do not count.

    A reply's score is the sum of the squared distances to its ``n - attackers - 2`` nearest others; of equal scores
    the first sender's name wins. With honest replies no further than ``r`` from each other, each that is kept is
    within ``r * sqrt((n - f - 2) / (n - 2f - 1))`` of an honest one, where ``f`` is ``attackers``. The cohort stays
    in memory, as of :class:`Stack`; integers come back as of :class:`Mean`.

    Args:
        attackers: how many replies may be malicious. It has no default: it is what one is protected from.
        keep: 1 is Krum, more is multi-Krum.

    Raises:
        ConfigError: fewer than no attackers, or nothing kept.
    """

    attackers: int
    keep: int = 1
    linear: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.attackers < 0 or self.keep < 1:
            raise ConfigError(
                f"Krum against {self.attackers} attackers that keeps {self.keep}", "use at least 0 and at least 1"
            )

    @property
    def least(self) -> int:
        """How many replies it needs: ``2 * attackers + 3``, and ``keep`` beside the attackers."""
        return max(2 * self.attackers + 3, self.attackers + self.keep)

    def init(self) -> Tree:
        """Nothing added yet."""
        return {}

    def add(self, state: Tree, reply: Reply) -> Tree:
        """Keep one reply.

        Raises:
            DataError: no tree, a partial tree, a second one of the same sender, NaN or infinity.
        """
        return columns.keep(state, reply)

    def merge(self, left: Tree, right: Tree) -> Tree:
        """Both.

        Raises:
            DataError: a sender that is in both.
        """
        return Stack().merge(left, right)

    def finish(self, state: Tree) -> tuple[Tree, Tree]:
        """The mean of those that are kept, and an empty state.

        Raises:
            DataError: fewer than :attr:`least` were added.
            ConfigError: trees of another structure or shape.
        """
        if len(state) < self.least:
            raise DataError(
                f"{len(state)} replies, where {self} needs {self.least}", "ask more peers, or expect fewer attackers"
            )
        cohort = columns.kept(state)
        scores = _scores(columns.gram(cohort, middle(cohort)), len(cohort) - self.attackers - 2)
        chosen = [cohort[i] for i in np.argsort(scores, kind="stable")[: self.keep]]

        return {}, columns.by_column(lambda slab: compat.array_namespace(slab).mean(slab, axis=-1), chosen)


def _scores(gram: np.ndarray, neighbours: int) -> np.ndarray:
    """[n]: the sum of the squared distances to so many nearest others."""
    norms = np.diag(gram)
    squares = np.maximum(norms[:, None] + norms[None, :] - 2 * gram, 0)
    np.fill_diagonal(squares, np.inf)
    return np.asarray(np.sort(squares, axis=1)[:, :neighbours].sum(axis=1))
