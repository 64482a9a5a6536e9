"""The coordinate-wise trimmed mean.

Yin, Chen, Ramchandran, Bartlett: Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates, ICML 2018.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import array_api_compat as compat

from duetto.aggregation import columns
from duetto.aggregation.stack import Stack
from duetto.errors import ConfigError
from duetto.tree import Array, Tree
from duetto.types import Aggregator, Reply


@dataclass(frozen=True)
class Trimmed(Aggregator[Tree]):
    """The mean of every coordinate without its largest and its smallest values; weights do not count.

    Of ``n`` replies ``share * n``, rounded up, are left out at either end, but never the middle one (or two). While
    no more than that are malicious, no coordinate leaves the range of the honest ones. The cohort stays in memory,
    as of :class:`Stack`; integers come back as of :class:`Mean`.

    Args:
        share: of the replies, at either end: from 0, which is the unweighted mean, below 1/2. It has no default: it
            is the share of malicious ones that does no harm.

    Raises:
        ConfigError: a share out of range.
    """

    share: float
    linear: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not 0 <= self.share < 0.5:
            raise ConfigError(f"a share of {self.share} trimmed at either end", "use one from 0, below 0.5")

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
        """The trimmed mean, and an empty state.

        Raises:
            DataError: nothing was added.
            ConfigError: trees of another structure or shape.
        """

        def rule(slab: Array) -> Array:
            xp: Any = compat.array_namespace(slab)
            n = slab.shape[-1]
            cut = min(math.ceil(self.share * n - 1e-9), (n - 1) // 2)  # 0.14 * 50 is a little more than 7
            return xp.mean(xp.sort(slab, axis=-1)[:, cut : n - cut], axis=-1)

        return {}, columns.by_column(rule, columns.kept(state))
