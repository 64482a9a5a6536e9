"""Codecs that code each floating leaf with an axis by itself: a leaf becomes a branch of known names."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from duetto.errors import ConfigError, DataError, WireError
from duetto.tree import LIMIT, Shaped, Spec, Tree
from duetto.types import Key

FLOATS = ("float16", "float32", "float64")
OTHERS = "both sides must use the same codecs"


def floating(leaf: Any) -> bool:
    """Whether a leaf is coded: floating, and not a scalar."""
    array = np.asarray(leaf)
    return array.ndim > 0 and array.dtype.kind == "f"


def encoded(tree: Tree, names: frozenset[str], code: Callable[[np.ndarray, Key], Tree], key: Key) -> Tree:
    """``code(leaf, key with the leaf's path)`` in place of every such leaf.

    Raises:
        ConfigError: a branch that has just the names of a coded leaf, or a floating dtype of no wire format.
    """
    if isinstance(tree, Mapping):
        _check(frozenset(tree), names)
        return {name: encoded(child, names, code, (*key, name)) for name, child in tree.items()}
    if not floating(tree):
        return tree
    leaf = np.asarray(tree)
    if leaf.dtype.name not in FLOATS:
        raise ConfigError(f"a leaf of dtype {leaf.dtype}", f"use one of {', '.join(FLOATS)}")
    return code(leaf, key)


def decoded(tree: Tree, names: frozenset[str], read: Callable[[Mapping[str, np.ndarray]], np.ndarray]) -> Tree:
    """``read`` in place of every branch of these names."""
    if not isinstance(tree, Mapping):
        return tree
    if frozenset(tree) == names and not any(isinstance(child, Mapping) for child in tree.values()):
        return read({name: np.asarray(leaf) for name, leaf in tree.items()})
    return {name: decoded(child, names, read) for name, child in tree.items()}


def becomes(spec: Spec, names: frozenset[str], form: Callable[[Shaped], Spec]) -> Spec:
    """``form`` of every such leaf's shape."""
    if isinstance(spec, Mapping):
        _check(frozenset(spec), names)
        return {name: becomes(child, names, form) for name, child in spec.items()}
    return form(spec) if spec.shape and spec.dtype in FLOATS else spec


def shape_of(told: np.ndarray, itemsize: int = 8) -> tuple[int, ...]:
    """The shape that a message tells, before anything of that size is made.

    Raises:
        WireError: none, or of a leaf that is too large.
    """
    if told.dtype != np.int64 or told.ndim != 1 or not len(told) or (told < 0).any():
        raise WireError("a coded leaf without a shape", OTHERS)
    shape = tuple(int(axis) for axis in told)
    if math.prod(max(1, axis) for axis in shape) * itemsize > LIMIT:
        raise WireError(f"a coded leaf of shape {shape}", "no leaf is that large")
    return shape


def frame(leaf: Any) -> bytes:
    """The bytes of a compressed tree.

    Raises:
        WireError: something else.
    """
    if not isinstance(leaf, np.ndarray) or leaf.dtype != np.uint8 or leaf.ndim != 1:
        raise WireError("not a leaf of compressed bytes", OTHERS)
    return leaf.tobytes()


def within(size: int, limit: int) -> None:
    """Raises WireError for a decompressed tree of more bytes than both sides allow."""
    if size > limit:
        raise WireError(f"a compressed tree of {size} bytes", f"the limit is {limit}; raise it on both sides")


def finite(leaf: np.ndarray) -> np.ndarray:
    """The leaf.

    Raises:
        DataError: it holds NaN or infinity.
    """
    if not np.isfinite(leaf).all():
        raise DataError("a leaf holds NaN or infinity", "only finite numbers can be coded")
    return leaf


def _check(names: frozenset[str], coded: frozenset[str]) -> None:
    if names == coded:
        raise ConfigError(f"a branch named {sorted(coded)} looks like a coded leaf", "rename one of them")
