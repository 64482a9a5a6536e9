"""Centred clipping.

Karimireddy, He, Jaggi: Learning from History for Byzantine Robust Optimization, ICML 2021.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from duetto.aggregation import columns
from duetto.aggregation.median import middle
from duetto.aggregation.stack import Stack
from duetto.errors import ConfigError
from duetto.tree import Tree
from duetto.types import Aggregator, Reply


@dataclass(frozen=True)
class CentredClip(Aggregator[Tree]):
    """A centre that moves, each step, by the mean of the ways to the replies, none longer than ``radius``.

    It starts from the coordinate-wise median of the round. The paper starts from the last round's aggregate, but
    aggregation starts anew every round here (what finishes leaves nothing behind, and cohorts differ); the median
    needs no history, and no round can poison the next. Against attackers that stay within the spread of the honest
    replies, round after round, the paper relies on momentum at the clients: this alone does not stop them.

    A step is at most ``radius`` long, and ``f`` of ``n`` replies account for at most ``radius * f / n`` of it. The
    cohort stays in memory, as of :class:`Stack`; weights do not count; integers come back as of :class:`Mean`.

    Args:
        radius: in units of the replies' distances, about that of honest ones from their mean. It has no default: it
            is what an attacker is allowed.
        iterations: steps.

    Raises:
        ConfigError: a radius that is not positive and finite, or no step.
    """

    radius: float
    iterations: int = 3
    linear: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not 0 < self.radius < np.inf or self.iterations < 1:
            raise ConfigError(
                f"{self.iterations} steps of clipping to {self.radius}", "take at least one, to a positive radius"
            )

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
        """The centre after all steps, and an empty state.

        Raises:
            DataError: nothing was added.
            ConfigError: trees of another structure or shape.
        """
        cohort = columns.kept(state)
        centre = middle(cohort)
        gram, shares = columns.gram(cohort, centre), np.zeros(len(cohort))
        for _ in range(self.iterations):
            pulls = self.radius / np.maximum(columns.distances(gram, shares), self.radius) / len(cohort)
            shares = shares * (1 - pulls.sum()) + pulls
        return {}, columns.moved(cohort, centre, shares)
