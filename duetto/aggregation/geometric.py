"""The geometric median, by smoothed Weiszfeld steps (RFA).

Pillutla, Kakade, Harchaoui: Robust Aggregation for Federated Learning, IEEE Transactions on Signal Processing 2022.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from duetto.aggregation import columns
from duetto.aggregation.mean import Mean
from duetto.aggregation.median import middle
from duetto.aggregation.stack import Stack
from duetto.errors import ConfigError, DataError
from duetto.tree import Tree
from duetto.types import Aggregator, Reply


@dataclass(frozen=True)
class GeometricMedian(Aggregator[Tree]):
    """The point of the least sum of distances to the replies, nearly.

    Each step is a mean in which a reply counts by one over its distance from the last point. The first point is the
    coordinate-wise median; the paper's, the mean, may be anywhere, and few steps do not lead back. After any number
    of steps the point is within ``2 * d / (h - f)`` of that median, for ``h`` honest replies whose distances from it
    sum up to ``d``, ``f`` malicious ones, and a smoothing of nearly 0; by weight, where weights count. The cohort
    stays in memory, as of :class:`Stack`; integers come back as of :class:`Mean`.

    Args:
        iterations: steps.
        smooth: a distance below this counts as this; in units of the replies.
        weighted: whether replies count by their weight too, as in the paper. A weight is only claimed: then half
            of the weight must be honest, so bound it (``Gate(weight=...)``).

    Raises:
        ConfigError: no step, or a smoothing that is not positive.
    """

    iterations: int = 3
    smooth: float = 1e-6
    weighted: bool = False
    linear: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.iterations < 1 or not self.smooth > 0:
            raise ConfigError(
                f"{self.iterations} steps to a geometric median smoothed by {self.smooth}",
                "take at least one, and a positive smoothing",
            )

    def init(self) -> Tree:
        """Nothing added yet."""
        return {}

    def add(self, state: Tree, reply: Reply) -> Tree:
        """Keep one reply, and its weight.

        Raises:
            DataError: no tree, a partial tree, a second one of the same sender, NaN or infinity, or a bad weight
                where weights count.
        """
        weight = np.float64(Mean().weigh(reply) if self.weighted else 1.0)
        tree = None if reply.tree is None else {"tree": reply.tree, "weight": weight}
        return columns.keep(state, replace(reply, tree=tree))

    def merge(self, left: Tree, right: Tree) -> Tree:
        """Both.

        Raises:
            DataError: a sender that is in both.
        """
        return Stack().merge(left, right)

    def finish(self, state: Tree) -> tuple[Tree, Tree]:
        """The geometric median, and an empty state.

        Raises:
            DataError: nothing was added, or nothing that counts.
            ConfigError: trees of another structure or shape.
        """
        replies = columns.kept(state)
        weights = np.array([float(reply["weight"]) for reply in replies])
        if not weights.max() > 0:
            raise DataError("no reply to take the median of", "every weight is 0")
        weights = weights / weights.max()  # their sum must not overflow
        cohort = [reply["tree"] for reply in replies]
        centre = middle(cohort)
        gram, shares = columns.gram(cohort, centre), np.zeros(len(cohort))
        for _ in range(self.iterations):
            pulls = weights / np.maximum(columns.distances(gram, shares), self.smooth)
            shares = pulls / pulls.sum()
        return {}, columns.moved(cohort, centre, shares)
