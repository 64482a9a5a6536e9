"""Nested dicts of arrays, and their bytes.

A tree is an array or a mapping from non-empty names to trees, at most :data:`DEPTH` deep. Leaves are numpy arrays
or arrays of any library that follows the array API standard (torch tensors among them): the arithmetic here uses
only that standard, so that one file serves both. What goes on a wire is host bytes: :func:`encode` writes leaves
as a safetensors buffer whose tensor names are JSON pointers (RFC 6901) into the tree. An empty mapping is kept as
a zero-length tensor whose name ends in ``/``. Nothing here can run code from a buffer.

Many trees of one structure may be kept together in a form that is smaller than they are (:class:`Bundle`); a
:class:`Member` is one of them, a mapping like any other, which becomes arrays when somebody reads it. What can be
said without reading it - its spec, its norm, whether it is finite, a weighted sum - is said without.
"""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from typing import Any, TypeAlias

import array_api_compat as compat
import numpy as np
from safetensors import SafetensorError
from safetensors import numpy as _safetensors

from duetto.errors import ConfigError, WireError

Array: TypeAlias = Any
Tree: TypeAlias = Any  # Mapping[str, Tree] | Array; spelt out, a union with Any makes mypy refuse every index
Spec: TypeAlias = Any  # Mapping[str, Spec] | Shaped

LIMIT = 1 << 30  # bytes; the largest buffer that decode accepts unless told otherwise
DEPTH = 64  # names from the root to a leaf; an empty mapping counts as one more
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


class Bundle(ABC):
    """Many trees of one spec, kept together in whatever form is small.

    Attributes:
        spec: of each of them.
    """

    spec: Spec

    @abstractmethod
    def __len__(self) -> int:
        """How many they are."""

    @abstractmethod
    def tree(self, i: int) -> Tree:
        """One of them, as arrays."""

    @abstractmethod
    def norm(self, i: int) -> float:
        """The Euclidean norm of one of them; NaN or infinite where it is not finite."""

    @abstractmethod
    def finite(self, i: int) -> bool:
        """Whether all numbers of one of them are finite."""

    @abstractmethod
    def total(self, weights: np.ndarray) -> Tree:
        """The sum of all, each times its weight ``[n]`` float64; those of weight 0 do not count, whatever they hold."""

    def factors(self, i: int) -> Mapping[str, tuple[np.ndarray, np.ndarray]]:
        """A leaf's pointer -> ``left [R, O]`` and ``right [R, D]``, where the leaf is kept as ``left.T @ right``."""
        return {}


class Member(Mapping[str, Any]):
    """``factor`` times one tree of a bundle."""

    def __init__(self, bundle: Bundle, i: int, factor: float = 1.0) -> None:
        self.bundle, self.i, self.factor = bundle, i, factor

    @cached_property
    def arrays(self) -> Mapping[str, Any]:
        """The tree, as arrays."""
        tree: Mapping[str, Any] = self.bundle.tree(self.i)
        return tree if self.factor == 1 else map(lambda a: _scaled(_array(a), self.factor), tree)

    def __getitem__(self, name: str) -> Tree:
        return self.arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.bundle.spec)

    def __len__(self) -> int:
        return len(self.bundle.spec)


def map(function: Callable[..., Any], tree: Tree, *others: Tree) -> Any:
    """Apply ``function`` leaf by leaf; ``others`` must have the structure of ``tree``.

    Raises:
        ConfigError: a name that one tree has and another lacks, a name that is none, or a tree that is too deep.
    """
    return _mapped(lambda pointer, *leaves: function(*leaves), "", tree, others)


def pointed(function: Callable[..., Any], tree: Tree, *others: Tree) -> Any:
    """As :func:`map`, but ``function`` gets the leaf's JSON pointer first.

    Raises:
        ConfigError: as :func:`map`.
    """
    return _mapped(function, "", tree, others)


def leaves(tree: Tree, pointer: str = "") -> Iterator[tuple[str, Array]]:
    """Every leaf with its JSON pointer, names in sorted order; a bare array has the pointer ``""``.

    Raises:
        ConfigError: a name that is none, or a tree that is too deep.
    """
    if not isinstance(tree, Mapping):
        yield pointer, tree
        return
    for below, child in _children(tree, pointer):
        yield from leaves(child, below)


def add(left: Tree, right: Tree) -> Tree:
    """The sum, leaf by leaf; integers wrap around, and of booleans it is "or"."""
    return map(lambda a, b: _array(_array(a) + _array(b)), left, right)


def subtract(left: Tree, right: Tree) -> Tree:
    """``left - right``, leaf by leaf; integers wrap around, so that ``right`` added gives ``left`` again.

    Raises:
        ConfigError: a boolean leaf, of which there is no difference.
    """

    def difference(pointer: str, a: Array, b: Array) -> Array:
        a, b = _array(a), _array(b)
        if _is(a, "bool") or _is(b, "bool"):
            raise ConfigError(
                f"the boolean leaf {pointer or '(root)'} cannot be subtracted", "keep masks apart from what is learned"
            )
        return _array(a - b)

    return pointed(difference, left, right)


def scale(tree: Tree, factor: float) -> Tree:
    """``factor * tree``. Floating leaves keep their dtype; integers and booleans come back in float64.

    A part of a count is no count: kept in its dtype it would be cut to nothing, and left alone it would break what
    scaling promises (a clipped norm, a weighted tau). A mean of integers comes back in float64 for the same reason.
    """
    if isinstance(tree, Member):
        return Member(tree.bundle, tree.i, tree.factor * float(factor))
    if isinstance(tree, Mapping) and bundled(tree):
        return {name: scale(child, factor) for name, child in tree.items()}
    return map(lambda a: _scaled(_array(a), float(factor)), tree)


def bundled(tree: Tree, depth: int = DEPTH) -> bool:
    """Whether a tree is, or holds, a member of a bundle."""
    if isinstance(tree, Member):
        return True
    return isinstance(tree, Mapping) and depth > 0 and any(bundled(child, depth - 1) for child in tree.values())


def total(trees: Sequence[Tree], weights: Sequence[float]) -> Tree:
    """The sum of the trees, each times its weight, in float64; all members of a bundle are added in one go.

    Raises:
        ConfigError: no trees, or trees of another structure.
    """
    if not trees:
        raise ConfigError("the sum of no trees", "add at least one")
    bundles: dict[int, tuple[Bundle, np.ndarray]] = {}
    others: list[tuple[Tree, float]] = []
    for tree, weight in zip(trees, weights, strict=True):
        if isinstance(tree, Member):
            fresh = tree.bundle, np.zeros(len(tree.bundle))
            bundles.setdefault(id(tree.bundle), fresh)[1][tree.i] += weight * tree.factor
        else:
            others.append((tree, weight))
    sums = [map(_wide, bundle.total(shares)) for bundle, shares in bundles.values()]
    if others and all(isinstance(tree, Mapping) and tree.keys() == others[0][0].keys() for tree, _ in others):
        factors = [weight for _, weight in others]
        sums.append({name: total([tree[name] for tree, _ in others], factors) for name in others[0][0]})
    else:
        sums += [map(lambda a, w=weight: _wide(a) * w, tree) for tree, weight in others]
    return reduce(add, sums)


def zeros(tree: Tree) -> Tree:
    """A tree of zeros of the same structure, shapes and dtypes, whatever the leaves hold."""
    return map(lambda a: _namespace(_array(a)).zeros_like(_array(a)), tree)


def dot(left: Tree, right: Tree) -> float:
    """The inner product of two trees as vectors, in float64; infinite where it is beyond float64.

    Raises:
        ConfigError: trees of another structure, or leaves of another shape.
    """
    products: list[float] = []

    def product(pointer: str, a: Array, b: Array) -> None:
        a, b = _wide(a), _wide(b)
        if tuple(a.shape) != tuple(b.shape):
            raise ConfigError(
                f"the leaf {pointer or '(root)'} has shapes {tuple(a.shape)} and {tuple(b.shape)}",
                "both sides must hold the same model's parameters",
            )
        products.append(float((a * b).sum()))

    with np.errstate(over="ignore", invalid="ignore"):
        pointed(product, left, right)
    return _total(products)


def norm(tree: Tree) -> float:
    """The Euclidean norm of the tree as one vector, in float64; no square of a finite number overflows.

    NaN where a leaf holds NaN, else infinite where a leaf holds infinity.
    """
    if isinstance(tree, Member):
        return abs(tree.factor) * tree.bundle.norm(tree.i)
    if bundled(tree):
        return math.hypot(*(norm(child) for child in tree.values()))
    vectors = [_namespace(a).abs(a) for a in (_wide(leaf) for _, leaf in leaves(tree)) if math.prod(a.shape)]
    tops = [float(vector.max()) for vector in vectors]
    largest = math.nan if any(math.isnan(top) for top in tops) else max(tops, default=0.0)
    if largest == 0 or not math.isfinite(largest):
        return largest
    return largest * math.sqrt(_total([float(((vector / largest) ** 2).sum()) for vector in vectors]))


def finite(tree: Tree) -> bool:
    """Whether every floating or complex leaf holds only finite numbers; integers and booleans always do."""
    if isinstance(tree, Member):
        return math.isfinite(tree.factor) and tree.bundle.finite(tree.i)
    if bundled(tree):
        return all(finite(child) for child in tree.values())
    return all(_finite(_array(leaf)) for _, leaf in leaves(tree))


def spec(tree: Tree) -> Spec:
    """The shapes and dtypes of a tree that can be encoded.

    Raises:
        ConfigError: as :func:`encode`.
    """

    if isinstance(tree, Member):
        return tree.bundle.spec
    if bundled(tree):
        return {name: spec(child) for name, child in tree.items()}

    def shaped(pointer: str, leaf: Array) -> Shaped:
        array = _host(pointer, leaf)
        return Shaped(array.shape, array.dtype.name)

    return pointed(shaped, tree)


def encode(tree: Tree) -> bytes:
    """The tree as a safetensors buffer. Leaves: host arrays of a boolean, integer or floating dtype that numpy has.

    Raises:
        ConfigError: a name that is no non-empty text, a tree that is too deep, or a leaf that is no such array.
    """
    flat = {
        pointer: np.asarray(array, order="C", dtype=array.dtype.newbyteorder("="))
        for pointer, array in ((pointer, _host(pointer, leaf)) for pointer, leaf in _named(tree, _EMPTY))
    }
    return bytes(_safetensors.save(flat))


def decode(data: bytes | memoryview, limit: int = LIMIT) -> Tree:
    """The tree that :func:`encode` wrote; ``limit`` in bytes is checked before anything is allocated.

    Raises:
        WireError: too large, truncated, malformed, an unknown dtype, a boolean that is none, or names that are no
            tree or too deep.
    """
    nbytes = memoryview(data).nbytes
    if nbytes > limit:
        raise WireError(f"a message of {nbytes} bytes", f"the limit is {limit}; raise it on both sides or send less")
    try:
        flat = _safetensors.load(bytes(data))
    except (SafetensorError, KeyError, ValueError, TypeError, OverflowError) as error:
        raise WireError("not an encoded tree", f"sent by another version or damaged on the way ({error})") from error
    return _nested(flat)


def size(spec: Spec) -> int:
    """Exactly ``len(encode(tree))`` for every tree of this spec, without making one.

    Raises:
        ConfigError: as :func:`encode`.
    """
    named = dict(_named(spec, Shaped(_EMPTY.shape, _EMPTY.dtype.name)))
    for pointer, leaf in named.items():
        if not isinstance(leaf, Shaped) or leaf.dtype not in _DTYPES:
            raise ConfigError(f"the leaf {pointer or '(root)'} is {leaf!r}", f"use one of {', '.join(_DTYPES)}")
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


# ------------------------------------------------------------------------------------------------------- arrays


def _array(leaf: Array) -> Array:
    """The leaf as an array; what numpy makes of 0-d arrays, and Python's numbers, become 0-d arrays again."""
    return np.asarray(leaf) if isinstance(leaf, np.generic) or not hasattr(leaf, "dtype") else leaf


def _namespace(array: Array) -> Any:
    return compat.array_namespace(array)


def _is(array: Array, *kinds: str) -> bool:
    return bool(_namespace(array).isdtype(array.dtype, kinds))


def _wide(leaf: Array) -> Array:
    array = _array(leaf)
    return _namespace(array).astype(array, _namespace(array).float64)


def _scaled(array: Array, factor: float) -> Array:
    if _is(array, "bool", "integral"):
        array = _wide(array)
    # numpy before 2 makes float64 of a float32 0-d array and a Python number
    return _array(array * (array.dtype.type(factor) if isinstance(array, np.ndarray) else factor))


def _finite(array: Array) -> bool:
    if not _is(array, "real floating", "complex floating"):
        return True
    xp = _namespace(array)
    if array.dtype.itemsize == 1:  # torch can do nothing with its eight-bit floats but convert them
        array = xp.astype(array, xp.float32)
    return bool(xp.all(xp.isfinite(array)))


def _total(numbers: list[float]) -> float:
    """The exact sum, rounded once; infinite or NaN where there is none."""
    try:
        return math.fsum(numbers)
    except (OverflowError, ValueError):  # beyond float64 on the way, or infinity less infinity
        return sum(numbers)


# ------------------------------------------------------------------------------------------------------- names


def _mapped(function: Callable[..., Any], pointer: str, tree: Tree, others: tuple[Tree, ...]) -> Any:
    for other in others:
        alike = isinstance(other, Mapping) == isinstance(tree, Mapping)
        if not alike or (isinstance(tree, Mapping) and other.keys() != tree.keys()):
            raise ConfigError(
                f"trees differ in structure at {pointer or '(root)'}",
                "both sides must hold the same model's parameters",
            )
    if not isinstance(tree, Mapping):
        return function(pointer, tree, *others)
    return {
        name: _mapped(function, _below(pointer, name), child, tuple(other[name] for other in others))
        for name, child in tree.items()
    }


def _below(pointer: str, name: Any) -> str:
    """The pointer to a branch of what ``pointer`` points to."""
    if not isinstance(name, str) or not name:
        raise ConfigError(f"{name!r} is no name for a branch of a tree", "names are non-empty strings")
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise ConfigError(f"the name {name!r} is no Unicode text", "it holds half of a surrogate pair") from error
    return f"{_deeper(pointer)}{escaped(name)}"


def _deeper(pointer: str) -> str:
    if pointer.count("/") >= DEPTH:
        raise ConfigError(f"a tree that is more than {DEPTH} names deep", "flatten it; a cycle is no tree")
    return f"{pointer}/"


def _children(tree: Mapping[str, Tree], pointer: str) -> list[tuple[str, Tree]]:
    """The branches with their pointers, by name; names are checked before they are compared."""
    named = sorted((name, _below(pointer, name)) for name in tree)
    return [(below, tree[name]) for name, below in named]


def escaped(name: str) -> str:
    """A name as it stands in a JSON pointer."""
    return name.replace("~", "~0").replace("/", "~1")


def _unescaped(name: str) -> str:
    return name.replace("~1", "/").replace("~0", "~")


# -------------------------------------------------------------------------------------------------------- bytes

_EMPTY = np.zeros(0, np.uint8)  # marks an empty mapping


def _named(tree: Tree, marker: Any, pointer: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves by pointer, and ``marker`` for each empty mapping."""
    if not isinstance(tree, Mapping):
        yield pointer, tree
    elif not tree:
        yield _deeper(pointer), marker
    else:
        for below, child in _children(tree, pointer):
            yield from _named(child, marker, below)


def _host(pointer: str, leaf: Any) -> np.ndarray:
    """The leaf as a numpy array of a dtype that the wire knows."""
    where = pointer or "(root)"
    try:
        array = np.asarray(leaf)
    except (TypeError, ValueError, RuntimeError) as error:  # no numpy dtype; ragged; needs a gradient or is elsewhere
        raise ConfigError(
            f"the leaf {where} is no array on the host ({error})", f"use one of {', '.join(_DTYPES)}"
        ) from error
    if array.dtype.name not in _DTYPES:
        raise ConfigError(f"the leaf {where} has dtype {array.dtype}", f"use one of {', '.join(_DTYPES)}")
    return array


def _nested(flat: Mapping[str, np.ndarray]) -> Tree:
    for pointer, array in flat.items():
        if array.dtype.name not in _DTYPES:
            raise WireError(f"the leaf {pointer or '(root)'} has dtype {array.dtype}", "send no complex numbers")
        if array.dtype == np.bool_ and array.size and array.view(np.uint8).max() > 1:
            raise WireError(f"{pointer or '(root)'} holds booleans that are neither 0 nor 1", "damaged on the way")
    if set(flat) == {""}:
        return flat[""]
    root: dict[str, Any] = {}
    # The markers of empty mappings last, deep ones first: then whatever is in such a mapping is there already.
    for pointer in sorted(flat, key=lambda pointer: (pointer.endswith("/"), -pointer.count("/"), pointer)):
        _put(root, pointer, flat[pointer])
    return root


def _put(root: dict[str, Any], pointer: str, array: np.ndarray) -> None:
    """Hang a leaf, or an empty mapping, where its pointer says."""
    remedy = "the message was not written by this library"
    head, *names = pointer.split("/")
    *parents, last = names or [""]
    strange = [name for name in names if escaped(_unescaped(name)) != name]
    if head or not names or not all(parents) or strange:
        raise WireError(f"{pointer!r} is no path into a tree", remedy)
    if len(names) > DEPTH:
        raise WireError(f"a tree that is more than {DEPTH} names deep", remedy)
    branch = root
    for name in parents:
        branch = branch.setdefault(_unescaped(name), {})
        if not isinstance(branch, dict):
            raise WireError(f"{pointer!r} passes through a leaf", remedy)
    if not last and (branch or array.shape != _EMPTY.shape or array.dtype != _EMPTY.dtype):
        raise WireError(f"{pointer!r} says that a branch is empty which is not", remedy)
    if last and _unescaped(last) in branch:
        raise WireError(f"{pointer!r} is there twice", remedy)
    if last:
        branch[_unescaped(last)] = array
