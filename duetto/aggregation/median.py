"""The coordinate-wise median.

Yin, Chen, Ramchandran, Bartlett: Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates, ICML 2018.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import array_api_compat as compat

from duetto.aggregation import columns
from duetto.aggregation.stack import Stack
from duetto.tree import Array, Tree
from duetto.types import Aggregator, Reply


@dataclass(frozen=True)
class Median(Aggregator[Tree]):
    """The median of every coordinate, the mean of the two middle ones of an even cohort; weights do not count.

    While fewer than half of the replies are malicious, no coordinate leaves the range of the honest ones. The
    cohort stays in memory, as of :class:`Stack`; integers come back as of :class:`Mean`.
    """

    linear: ClassVar[bool] = False

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
        """The median, and an empty state.

        Raises:
            DataError: nothing was added.
            ConfigError: trees of another structure or shape.
        """
        return {}, middle(columns.kept(state))


def middle(cohort: list[Tree]) -> Tree:
    """The coordinate-wise median of trees."""

    def rule(slab: Array) -> Array:
        xp: Any = compat.array_namespace(slab)
        ordered, n = xp.sort(slab, axis=-1), slab.shape[-1]
        return (ordered[:, (n - 1) // 2] + ordered[:, n // 2]) / 2

    return columns.by_column(rule, cohort)
