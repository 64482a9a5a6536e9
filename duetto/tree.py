"""Nested dicts of arrays, and their bytes.

A tree is an array or a mapping from non-empty names to trees. Leaves are numpy arrays or arrays of any
library that follows the array API standard (torch tensors among them): the arithmetic here only uses
operators, so that one file serves both. What goes on a wire is host bytes: :func:`encode` writes numpy
leaves as a safetensors buffer whose tensor names are JSON pointers (RFC 6901) into the tree. An empty
mapping is kept as a zero-length tensor whose name ends in ``/``. Nothing here can run code from a buffer.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from safetensors import SafetensorError
from safetensors import numpy as _safetensors

from duetto.errors import ConfigError, WireError

Array: TypeAlias = Any
Tree: TypeAlias = Any  # Mapping[str, Tree] | Array; spelt out, a union with Any makes mypy refuse every index
Spec: TypeAlias = Any  # Mapping[str, Spec] | Shaped

LIMIT = 1 << 30  # bytes; the largest buffer that decode accepts unless told otherwise
_ALIGN = 8  # safetensors pads its header to this many bytes
_DTYPES = {  # numpy's name to safetensors', in the order in which safetensors lays tensors out, last first
    "bool": "BOOL",
    "uint8": "U8",
    "int8": "I8",
    "int16": "I16",
    "uint16": "U16",
    "float16": "F16",
    "int32": "I32",
    "uint32": "U32",
    "float32": "F32",
    "float64": "F64",
    "int64": "I64",
    "uint64": "U64",
}


@dataclass(frozen=True)
class Shaped:
    """The shape and the numpy dtype name of a leaf; a tree of these is a :data:`Spec`."""

    shape: tuple[int, ...]
    dtype: str = "float32"

    @property
    def nbytes(self) -> int:
        """Bytes of the leaf's data, without any header."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


def map(function: Callable[..., Any], tree: Tree, *others: Tree) -> Any:
    """Apply ``function`` leaf by leaf; ``others`` must have the structure of ``tree``.

    Raises:
        ConfigError: a name that one tree has and another lacks.
    """
    if not isinstance(tree, Mapping):
        return function(tree, *others)
    for other in others:
        if not isinstance(other, Mapping) or other.keys() != tree.keys():
            raise ConfigError(
                f"trees differ in structure at {sorted(tree)}", "both sides must hold the same model's parameters"
            )
    return {name: map(function, child, *(other[name] for other in others)) for name, child in tree.items()}


def leaves(tree: Tree, pointer: str = "") -> Iterator[tuple[str, Array]]:
    """Every leaf with its JSON pointer, names in sorted order; a bare array has the pointer ``""``."""
    if not isinstance(tree, Mapping):
        yield pointer, tree
        return
    for name in sorted(tree):
        yield from leaves(tree[name], f"{pointer}/{_escaped(name)}")


def add(left: Tree, right: Tree) -> Tree:
    """The sum, leaf by leaf."""
    return map(lambda a, b: a + b, left, right)


def subtract(left: Tree, right: Tree) -> Tree:
    """``left - right``, leaf by leaf."""
    return map(lambda a, b: a - b, left, right)


def scale(tree: Tree, factor: float) -> Tree:
    """``factor * tree``; leaves keep their dtype."""
    return map(lambda a: a * _like(factor, a), tree)


def zeros(tree: Tree) -> Tree:
    """A tree of zeros of the same structure, shapes and dtypes."""
    return map(lambda a: a * _like(0, a), tree)


def dot(left: Tree, right: Tree) -> float:
    """The inner product of two trees as vectors, in the leaves' own precision and summed in Python floats."""
    pairs = zip(leaves(left), leaves(right), strict=True)
    return math.fsum(float((a * b).sum()) for (_, a), (_, b) in pairs)


def norm(tree: Tree) -> float:
    """The Euclidean norm of the tree as one vector."""
    return math.sqrt(dot(tree, tree))


def finite(tree: Tree) -> bool:
    """Whether every floating leaf holds only finite numbers."""
    return all(bool((array - array == 0).all()) for _, array in leaves(tree))


def spec(tree: Tree) -> Spec:
    """The shapes and dtypes of a tree of numpy leaves."""
    return map(lambda a: Shaped(tuple(np.shape(a)), np.asarray(a).dtype.name), tree)


def encode(tree: Tree) -> bytes:
    """The tree as a safetensors buffer. Leaves: numpy arrays of a boolean, integer or floating dtype.

    Raises:
        ConfigError: an empty name, or a leaf that is no such array.
    """
    return bytes(_safetensors.save({name: _leaf(name, array) for name, array in _named(tree)}))


def decode(data: bytes | memoryview, limit: int = LIMIT) -> Tree:
    """The tree that :func:`encode` wrote; ``limit`` in bytes is checked before anything is allocated.

    Raises:
        WireError: too large, truncated, malformed, an unknown dtype, or names that are no tree.
    """
    if len(data) > limit:
        raise WireError(f"a message of {len(data)} bytes", f"the limit is {limit}; raise it on both sides or send less")
    try:
        flat = _safetensors.load(bytes(data))
    except (SafetensorError, KeyError, ValueError, TypeError, OverflowError) as error:
        raise WireError("not an encoded tree", f"sent by another version or damaged on the way ({error})") from error
    return _nested(flat)


def size(spec: Spec) -> int:
    """Exactly ``len(encode(tree))`` for every tree of this spec, without making one."""
    named = dict(_named(spec))
    rank = list(_DTYPES).index
    order = sorted(named, key=lambda name: (-rank(named[name].dtype), name))
    header: dict[str, Any] = {}
    offset = 0
    for name in order:
        leaf = named[name]
        header[name] = {
            "dtype": _DTYPES[leaf.dtype],
            "shape": list(leaf.shape),
            "data_offsets": [offset, offset + leaf.nbytes],
        }
        offset += leaf.nbytes
    text = len(json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode())
    return 8 + -(-text // _ALIGN) * _ALIGN + offset


def _like(factor: float, array: Array) -> Any:
    """``factor`` as the array's own scalar type, so that numpy's float32 is not promoted by a numpy float64."""
    return array.dtype.type(factor) if isinstance(array, np.ndarray | np.generic) else factor


def _escaped(name: str) -> str:
    if not isinstance(name, str) or not name:
        raise ConfigError(f"{name!r} is no name for a branch of a tree", "names are non-empty strings")
    return name.replace("~", "~0").replace("/", "~1")


def _named(tree: Tree, pointer: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves by pointer, and a marker for each empty mapping."""
    if not isinstance(tree, Mapping):
        yield pointer, tree
    elif not tree:
        yield f"{pointer}/", Shaped((0,), "uint8")
    else:
        for name in sorted(tree):
            yield from _named(tree[name], f"{pointer}/{_escaped(name)}")


def _leaf(pointer: str, array: Any) -> np.ndarray:
    if isinstance(array, Shaped):
        return np.zeros(array.shape, array.dtype)
    array = np.asarray(array)
    if array.dtype.name not in _DTYPES:
        raise ConfigError(f"the leaf {pointer or '(root)'} has dtype {array.dtype}", f"use one of {', '.join(_DTYPES)}")
    return np.asarray(array, order="C", dtype=array.dtype.newbyteorder("="))


def _nested(flat: Mapping[str, np.ndarray]) -> Tree:
    if set(flat) == {""}:
        return flat[""]
    root: dict[str, Any] = {}
    for pointer, array in flat.items():
        head, *names = pointer.split("/")
        if head or not names:
            raise WireError(f"{pointer!r} is no path into a tree", "the message was not written by this library")
        *parents, last = (name.replace("~1", "/").replace("~0", "~") for name in names)
        branch = root
        for name in parents:
            branch = branch.setdefault(name, {}) if name else {"": None}
            if not isinstance(branch, dict) or "" in branch:
                raise WireError(f"{pointer!r} passes through a leaf", "the message was not written by this library")
        if last in branch or (not last and (array.size or branch)):
            raise WireError(f"{pointer!r} is there twice", "the message was not written by this library")
        if last:
            branch[last] = array
    return root
