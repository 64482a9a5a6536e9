"""Replies side by side, some coordinates at a time: what the robust aggregators share.

A cohort is a sequence of trees of one structure. Nobody ever builds its matrix ``[coordinates, replies]``: a slab of
it passes by, in float64. Distances come from one pass, as the Gram matrix of the replies around a centre, and
whatever moves between the centre and the replies is then ``[replies]`` numbers, its shares, not a tree. The centre
should lie among the honest replies (their coordinate-wise median does), or what lies far off drowns the distances
between those that do not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import reduce
from typing import Any

import array_api_compat as compat
import numpy as np

from duetto import tree as trees
from duetto.aggregation.stack import Stack
from duetto.errors import ConfigError, DataError
from duetto.tree import Array, Tree
from duetto.types import Reply

_ENTRIES = 1 << 22  # of a slab: 32 MiB
_FAR = 1e100  # whatever is further from zero counts as this, so that no sum of squares overflows


def keep(state: Tree, reply: Reply) -> Tree:
    """As :meth:`Stack.add`, of numbers only: an order of NaN would be a matter of chance.

    Raises:
        DataError: NaN or infinity, or as :meth:`Stack.add`.
    """
    if reply.tree is not None and not trees.finite(reply.tree):
        raise DataError(f"{reply.sender} sent NaN or infinity", "put a gate before the aggregator")
    return Stack().add(state, reply)


def kept(state: Tree) -> list[Tree]:
    """What was kept, by the names of the senders.

    Raises:
        DataError: nothing.
    """
    return list(Stack().finish(state)[1].values())


def by_column(rule: Callable[[Array], Array], cohort: Sequence[Tree]) -> Tree:
    """The tree whose coordinates are ``rule`` of those of the cohort, ``[c, n]`` to ``[c]``.

    Floating leaves keep their dtype; integers and booleans come back in float64, as of :class:`Mean`.

    Raises:
        ConfigError: trees of another structure, or leaves of another shape.
    """

    def leaf(pointer: str, *leaves: Array) -> Array:
        arrays = _alike(pointer, leaves)
        xp: Any = compat.array_namespace(*arrays)
        dtype = reduce(xp.result_type, {array.dtype for array in arrays})
        found = xp.reshape(xp.concat([rule(slab) for slab in _slabs(arrays)]), tuple(arrays[0].shape))
        return xp.asarray(xp.astype(found, dtype) if xp.isdtype(dtype, "real floating") else found)

    return trees.pointed(leaf, *cohort)


def gram(cohort: Sequence[Tree], centre: Tree) -> np.ndarray:
    """[n, n] float64: the inner products of the replies less ``centre``, on the host.

    Raises:
        ConfigError: as :func:`by_column`.
    """
    products: list[np.ndarray] = [np.zeros((len(cohort), len(cohort)))]

    def leaf(pointer: str, *leaves: Array) -> None:
        for slab in _slabs(_alike(pointer, leaves)):
            away = slab[:, 1:] - slab[:, :1]
            products[0] = products[0] + np.asarray(compat.to_device(away.T @ away, "cpu"))

    trees.pointed(leaf, centre, *cohort)
    return products[0]


def distances(gram: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """[n]: how far each reply is from the point that :func:`moved` by these ``shares [n]`` gives."""
    squares = np.diag(gram) - 2 * (gram @ shares) + shares @ gram @ shares
    return np.asarray(np.sqrt(np.maximum(squares, 0)))


def moved(cohort: Sequence[Tree], centre: Tree, shares: np.ndarray) -> Tree:
    """``centre`` plus each reply's way from it, times its share ``[n]``."""

    def point(slab: Array) -> Array:
        xp: Any = compat.array_namespace(slab)
        ways = slab[:, 1:] - slab[:, :1]
        return slab[:, 0] + ways @ xp.asarray(shares, dtype=xp.float64, device=compat.device(slab))

    return by_column(point, [centre, *cohort])


def _alike(pointer: str, leaves: Sequence[Array]) -> list[Array]:
    arrays = [leaf if hasattr(leaf, "dtype") else np.asarray(leaf) for leaf in leaves]
    shapes = [tuple(array.shape) for array in arrays]
    if len(set(shapes)) > 1:
        shown = " and ".join(map(str, sorted(set(shapes))[:2]))
        raise ConfigError(f"the leaf {pointer or '(root)'} has shapes {shown}", "put a gate before the aggregator")
    return arrays


def _slabs(arrays: Sequence[Array]) -> Iterator[Array]:
    """[c, n] float64 at a time, a column an array; one slab without rows where the arrays are empty."""
    xp: Any = compat.array_namespace(*arrays)
    flat = [xp.reshape(array, (-1,)) for array in arrays]
    width = max(1, _ENTRIES // len(flat))
    for at in range(0, max(1, math.prod(arrays[0].shape)), width):
        slab = xp.stack([xp.astype(row[at : at + width], xp.float64) for row in flat], axis=-1)
        yield xp.clip(slab, -_FAR, _FAR)
