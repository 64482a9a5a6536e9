"""The weighted mean of replies (federated averaging, McMahan et al. 2017), streamed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import array_api_compat as compat
import numpy as np

from duetto import tree as trees
from duetto.errors import ConfigError, DataError
from duetto.tree import Array, Tree
from duetto.types import Aggregator, Reply


@dataclass(frozen=True)
class Mean(Aggregator[Tree]):
    """The mean of the replies' trees, each counted by its weight.

    The state is ``{}`` before the first reply, then a tree of ``sum`` (weighted, float64, the leaf's shape),
    ``weight`` (float64, a scalar a leaf; the leaf's shape where a reply was partial) and ``like`` (no elements,
    the leaf's dtype). All three add, so that :func:`duetto.tree.add` merges two states, whole and partial
    replies alike; sums in float64 keep the order of replies out of the result.

    A floating leaf comes back in the dtype it came in; a mean of integers or booleans is no integer and comes
    back in float64. Every coordinate is divided by the weight that it received; one that nobody sent is 0,
    which for a delta means no change.

    Args:
        cap: no reply counts more than this; None leaves weights as they are.

    Raises:
        ConfigError: a cap that is not positive.
    """

    cap: float | None = None
    linear: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.cap is not None and not self.cap > 0:
            raise ConfigError(f"no reply can count at most {self.cap}", "use a positive cap, or None")

    def init(self) -> Tree:
        """Nothing added yet."""
        return {}

    def weigh(self, reply: Reply) -> float:
        """What the reply counts; an executor that adds a cohort's weighted sum weighs each member by it.

        Raises:
            DataError: a weight that is negative or not finite.
        """
        if not (math.isfinite(reply.weight) and reply.weight >= 0):
            raise DataError(f"{reply.sender} sent the weight {reply.weight}", "put a gate before the aggregator")
        return float(reply.weight if self.cap is None else min(reply.weight, self.cap))

    def add(self, state: Tree, reply: Reply) -> Tree:
        """Add one reply, whole or partial.

        Raises:
            DataError: no tree, a bad weight, or an index that does not fit its leaf.
            ConfigError: a tree of another structure than those before it.
        """
        if reply.tree is None:
            raise DataError(f"{reply.sender} sent no tree ({reply.failure})", "add only replies that answer")
        weight, index = self.weigh(reply), reply.index or {}

        def counted(pointer: str, leaf: Array) -> tuple[Array, Array, Array]:
            leaf = leaf if hasattr(leaf, "dtype") else np.asarray(leaf)
            xp: Any = compat.array_namespace(leaf)
            device = compat.device(leaf)
            total = xp.astype(leaf, xp.float64) * weight
            count = xp.asarray(weight, dtype=xp.float64, device=device)
            if pointer in index:
                shape, positions = index[pointer]
                at = xp.asarray(positions, dtype=xp.int64, device=device)
                values, total = total, xp.zeros(shape, dtype=xp.float64, device=device)
                if compat.size(values) != compat.size(at):
                    raise DataError(f"{reply.sender} sent an index that does not fit {pointer}", "one position a value")
                if compat.size(at) and not 0 <= int(xp.min(at)) <= int(xp.max(at)) < math.prod(shape):
                    raise DataError(f"{reply.sender} sent an index outside {pointer}", "positions are in the full leaf")
                count = xp.zeros_like(total)
                xp.reshape(total, (-1,))[xp.reshape(at, (-1,))] = xp.reshape(values, (-1,))
                xp.reshape(count, (-1,))[xp.reshape(at, (-1,))] = weight
            return total, count, xp.empty((0,), dtype=leaf.dtype, device=device)

        parts = trees.pointed(counted, reply.tree)
        names = ("sum", "weight", "like")
        return self.merge(state, {name: trees.map(lambda part, i=i: part[i], parts) for i, name in enumerate(names)})

    def extend(self, state: Tree, replies: Sequence[Reply]) -> Tree:
        """Add several replies; those whose trees are kept together, in one sum that never makes them arrays."""
        whole = [reply for reply in replies if not reply.index and trees.bundled(reply.tree)]
        if whole:
            weights = [self.weigh(reply) for reply in whole]
            total = trees.total([reply.tree for reply in whole], weights)
            added = {
                "sum": total,
                "weight": trees.map(lambda leaf: np.float64(sum(weights)), total),
                "like": trees.map(lambda shaped: np.empty(0, shaped.dtype), trees.spec(whole[0].tree)),
            }
            state = self.merge(state, added)
        return super().extend(state, [reply for reply in replies if reply.index or not trees.bundled(reply.tree)])

    def merge(self, left: Tree, right: Tree) -> Tree:
        """Two states as one: their sum, or the other one where one is empty."""
        return trees.add(left, right) if left and right else left or right

    def finish(self, state: Tree) -> tuple[Tree, Tree]:
        """The mean, and an empty state.

        Raises:
            DataError: nothing was added, or nothing that counts.
        """
        if not state or not any(bool((weight > 0).any()) for _, weight in trees.leaves(state["weight"])):
            raise DataError("no reply to take the mean of", "every reply failed or was rejected")
        return {}, trees.map(_divided, state["sum"], state["weight"], state["like"])


def _divided(total: Array, weight: Array, like: Array) -> Array:
    xp: Any = compat.array_namespace(total)
    mean = total / xp.where(weight > 0, weight, xp.ones_like(weight))  # what nobody sent has the sum 0
    return xp.asarray(xp.astype(mean, like.dtype) if xp.isdtype(like.dtype, "real floating") else mean)
