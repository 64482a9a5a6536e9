"""What may reach an aggregator: replies that are finite, of the right shape, and of bounded weight and norm."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import array_api_compat as compat
import numpy as np

from duetto import tree as trees
from duetto.errors import ConfigError
from duetto.tree import Array, Tree
from duetto.types import Index, Reply


@dataclass(frozen=True)
class Gate:
    """Lets a reply through (None), or says in one line why not. It never raises, whatever a reply holds.

    A reply passes where its weight is positive and finite, its tree has the structure of ``like`` and every
    leaf the shape and the kind of dtype (boolean, integer, floating) of the leaf there, every number is finite,
    and the whole tree as one vector has a norm of at most ``norm``. For a partial reply the index must state the
    shape of the leaf there, and name each of its positions at most once.

    Args:
        norm: the largest Euclidean norm, scalars and integers included; None accepts any. It has no default,
            because it is what keeps one party from moving everyone.
        weight: the largest weight; None accepts any that is finite.

    Raises:
        ConfigError: a bound that is not positive.
    """

    norm: float | None
    weight: float | None = None

    def __post_init__(self) -> None:
        for name, bound in (("norm", self.norm), ("weight", self.weight)):
            if bound is not None and not bound > 0:
                raise ConfigError(f"no reply has a {name} of at most {bound}", "use a positive bound, or None")

    def __call__(self, reply: Reply, like: Tree) -> str | None:
        """Why ``reply`` may not pass, or None; ``like`` is the tree that it should resemble."""
        if reply.failure is not None or reply.tree is None:
            return reply.failure or "no tree"
        if not (math.isfinite(reply.weight) and reply.weight > 0):
            return f"the weight {reply.weight} is not positive and finite"
        if self.weight is not None and reply.weight > self.weight:
            return f"the weight {reply.weight} is above {self.weight}"
        if not _alike(reply.tree, like):
            return "the tree has other branches than asked for"
        index = reply.index or {}
        if index and (strange := index.keys() - {pointer for pointer, _ in trees.leaves(like)}):
            return f"the index names {min(strange)}, which is no leaf"
        if (fault := _fault(reply.tree, like, index)) is not None:
            return fault
        if self.norm is not None and (norm := trees.norm(reply.tree)) > self.norm:
            return f"the norm {norm:.6g} is above {self.norm:g}"
        return None


def _array(leaf: Array) -> Array:
    return leaf if hasattr(leaf, "dtype") else np.asarray(leaf)


def _alike(tree: Tree, like: Tree) -> bool:
    if isinstance(tree, trees.Member):
        return _misfits(_Same(tree.bundle.spec), _Same(like)) != _BRANCHES
    if not isinstance(tree, Mapping) or not isinstance(like, Mapping):
        return not isinstance(tree, Mapping) and not isinstance(like, Mapping)
    return tree.keys() == like.keys() and all(_alike(tree[name], like[name]) for name in tree)


def _fault(tree: Tree, like: Tree, index: Index, pointer: str = "") -> str | None:
    """What is wrong with the first bad leaf of a tree that has the branches of ``like``, or None."""
    if isinstance(tree, trees.Member):
        if (fault := _misfits(_Same(tree.bundle.spec), _Same(like))) is not None:
            return f"the leaf {pointer}{fault}"
        return None if trees.finite(tree) else f"the branch {pointer or '(root)'} holds NaN or infinity"
    if isinstance(tree, Mapping):
        below = {name: f"{pointer}/{trees.escaped(name)}" for name in sorted(tree)}
        faults = (_fault(tree[name], like[name], index, where) for name, where in below.items())
        return next((fault for fault in faults if fault is not None), None)
    fault = _leaf_fault(_array(tree), _array(like), index.get(pointer))
    return None if fault is None else f"the leaf {pointer or '(root)'} {fault}"


_BRANCHES = "the branches are others"


class _Same:
    """A tree that equals itself only, and is known by that."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.tree is self.tree

    def __hash__(self) -> int:
        return id(self.tree)


@lru_cache(maxsize=1)  # a cohort's changes are of one spec, and are compared with one tree
def _misfits(spec: _Same, like: _Same) -> str | None:
    """The first leaf of a spec that does not fit, and why; or that its branches are others."""
    if not _alike(spec.tree, like.tree):
        return _BRANCHES
    for (where, shaped), (_, wanted) in zip(trees.leaves(spec.tree), trees.leaves(like.tree), strict=True):
        if (fault := _misfit(shaped.shape, np.empty(0, shaped.dtype), _array(wanted))) is not None:
            return f"{where} {fault}"
    return None


def _misfit(shape: tuple[int, ...], leaf: Array, like: Array) -> str | None:
    """Why an array of this shape, with the dtype of ``leaf``, is none like ``like``."""
    if leaf.dtype != like.dtype and _kind(leaf) != _kind(like):
        return f"has dtype {leaf.dtype}, not {like.dtype}"
    return None if shape == tuple(like.shape) else f"has shape {shape}, not {tuple(like.shape)}"


def _kind(array: Array) -> str:
    xp: Any = compat.array_namespace(array)
    kinds = ("bool", "integral", "real floating")
    return next((kind for kind in kinds if xp.isdtype(array.dtype, kind)), str(array.dtype))


def _leaf_fault(leaf: Array, like: Array, index: tuple[tuple[int, ...], Array] | None) -> str | None:
    """What is wrong with a leaf, or None."""
    if not compat.is_array_api_obj(leaf):
        return f"has dtype {leaf.dtype}, not {like.dtype}"
    fault = _misfit(tuple(like.shape if index else leaf.shape), leaf, like)
    if fault is not None:
        return fault
    if index is not None:
        shape, positions = tuple(index[0]), np.asarray(index[1])
        if shape != tuple(like.shape):
            return f"is part of the shape {shape}, not {tuple(like.shape)}"
        if positions.dtype.kind not in "iu" or positions.size != math.prod(leaf.shape):
            return "has an index that does not fit it"
        if positions.size and not 0 <= positions.min() <= positions.max() < math.prod(like.shape):
            return "has an index outside the full leaf"
        if len(np.unique(positions)) < positions.size:
            return "has a position twice in its index"
    xp: Any = compat.array_namespace(leaf)
    return None if bool(xp.all(xp.isfinite(leaf))) else "holds NaN or infinity"
