"""An entropy coder that knows beforehand how often each code occurs: rANS with a prior for each channel.

Duda: Asymmetric numeral systems, 2013; by the library ``constriction`` (Bamler: Understanding Entropy Coding With
Asymmetric Numeral Systems, 2022). A general compressor needs hundreds of bytes to find out what codes are frequent: a
learned bottleneck's whole message is that short, and its priors are known. Early features are another matter, whose
neighbours resemble each other: there :class:`duetto.codecs.Zstd` is as small or smaller, and decodes ten times as fast.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, TypeAlias

import numpy as np

from duetto import tree as trees
from duetto.codecs.leaves import OTHERS
from duetto.errors import ConfigError, DataError, WireError
from duetto.tree import Spec, Tree
from duetto.types import Codec, Domain, Key

Prior: TypeAlias = tuple[str, int, tuple[tuple[int, ...], ...]]
"""A leaf's pointer, its channel axis, and how often each code occurs: ``[channels][codes]``; or one row for all."""

_ODD = "the message was not written by this library"
_DEEPEST = 32  # axes of an array


@dataclass(frozen=True)
class Rans(Codec[Tree]):
    """Code the uint8 leaves that have a prior; with whatever else the tree holds, as one uint8 leaf ``[bytes]``.

    That leaf is a checksum (4 bytes, of the message and of the priors, so that other priors are noticed), the shapes,
    the rest of the tree where there is any, and the codes of all channels in one stream. Needs the extra ``codec``.

    Args:
        priors: of :func:`priors`, or learned; both sides must hold the same.
        limit: bytes of the decoded tree above which neither side goes.

    Raises:
        ConfigError: a pointer that is there twice, or a prior that is none.
    """

    priors: tuple[Prior, ...] = ()
    limit: int = trees.LIMIT
    takes: ClassVar[frozenset[Domain]] = frozenset({Domain.FLOATS, Domain.CODES})
    gives: ClassVar[Domain] = Domain.BYTES

    def __post_init__(self) -> None:
        if len({pointer for pointer, _, _ in self.priors}) < len(self.priors):
            raise ConfigError("two priors for one leaf", "give one")
        for pointer, axis, counts in self.priors:
            where = pointer or "(root)"
            if axis < 0 or not counts or len({len(row) for row in counts}) > 1 or not 2 <= len(counts[0]) <= 256:
                raise ConfigError(f"a prior for {where} that is none", "give an axis, and 2 to 256 counts a channel")
            if any(count < 1 for row in counts for count in row):
                raise ConfigError(f"a prior for {where} with a code that cannot occur", "count each at least once")

    def encode(self, state: Tree, tree: Tree, key: Key) -> tuple[Tree, Tree]:
        """Code the tree.

        Raises:
            DataError: a leaf that its prior does not fit: another number of channels, or a code that it lacks.
            WireError: a tree above the limit, which the other side would refuse.
            ConfigError: a leaf of no wire format; constriction is not installed.
        """
        flat = {pointer: np.asarray(leaf) for pointer, leaf in trees.leaves(tree)}
        coded = {p: flat[p] for p, _, _ in self.priors if p in flat and flat[p].dtype == np.uint8 and flat[p].ndim}
        rest = _without(tree, "", frozenset(coded))
        other = b"" if rest is None else trees.encode(rest)
        self._check(sum(leaf.size for leaf in coded.values()) + len(other))
        head = bytearray()
        for pointer, _, _ in self.priors:
            shape = coded[pointer].shape if pointer in coded else ()
            head += b"".join(_varint(number) for number in (len(shape), *shape))
        head += _varint(len(other)) + other
        coder = _library().stream.stack.AnsCoder()
        for pointer, axis, counts in reversed(self.priors):
            if pointer in coded:
                channels = _channels(coded[pointer], pointer, axis, counts)
                for codes, model in reversed(list(zip(channels, _models(counts), strict=True))):
                    coder.encode_reverse(codes, model)
        body = bytes(head) + np.asarray(coder.get_compressed(), "<u4").tobytes()
        return state, np.frombuffer(self._checksum(body) + body, np.uint8)

    def decode(self, tree: Tree) -> Tree:
        """Decode.

        Raises:
            WireError: not what :meth:`encode` gives by these priors, altered, or too large.
            ConfigError: constriction is not installed.
        """
        if not isinstance(tree, np.ndarray) or tree.dtype != np.uint8 or tree.ndim != 1:
            raise WireError("not a leaf of coded bytes", OTHERS)
        data = tree.tobytes()
        if len(data) < 4 or data[:4] != self._checksum(data[4:]):
            raise WireError("a message that fails its checksum", "damaged on the way, or coded by other priors")
        shapes: list[tuple[int, ...]] = []
        at = 4
        for _ in self.priors:
            axes, at = _number(data, at)
            if axes > _DEEPEST:
                raise WireError(f"a leaf with {axes} axes", _ODD)
            shape: list[int] = []
            for _ in range(axes):
                size, at = _number(data, at)
                shape.append(size)
            shapes.append(tuple(shape))
        length, at = _number(data, at)
        other, words = data[at : at + length], data[at + length :]
        if len(other) < length or len(words) % 4:
            raise WireError("a message that is cut short", _ODD)
        self._check(sum(math.prod(max(1, size) for size in sizes) for sizes in shapes if sizes) + length)
        try:
            coder = _library().stream.stack.AnsCoder(np.frombuffer(words, "<u4").astype(np.uint32))
        except ValueError as error:
            raise WireError("no coded stream", _ODD) from error
        found: Any = trees.decode(other, self.limit) if length else None
        for (pointer, axis, counts), sizes in zip(self.priors, shapes, strict=True):
            if sizes:
                found = _put(found, pointer, _leaf(coder, sizes, axis, counts))
        if not coder.is_empty():
            raise WireError("more codes than leaves", _ODD)
        return {} if found is None else found

    def becomes(self, spec: Spec) -> None:
        """Unknown: what comes out depends on the values."""
        return None

    def bits(self, tree: Tree) -> float:
        """What the codes of a tree cost by the priors alone, in bits: what a perfect coder would send.

        Raises:
            DataError: as :meth:`encode`.
        """
        flat, total = dict(trees.leaves(tree)), 0.0
        for pointer, axis, counts in self.priors:
            if pointer in flat:
                for codes, row in zip(_channels(np.asarray(flat[pointer]), pointer, axis, counts), counts, strict=True):
                    total -= float(np.log2(np.array(row) / sum(row))[codes].sum())
        return total

    def _checksum(self, body: bytes) -> bytes:
        return zlib.crc32(body, _fingerprint(self.priors)).to_bytes(4, "little")

    def _check(self, size: int) -> None:
        if size > self.limit:
            raise WireError(f"a coded tree of {size} bytes", f"the limit is {self.limit}; raise it on both sides")


def priors(messages: Iterable[Tree], codes: int, axis: int = 1, shared: bool = False) -> tuple[Prior, ...]:
    """How often each code occurs in every uint8 leaf of calibration data, for :class:`Rans`; none is impossible.

    Args:
        messages: trees of one structure, coded as they will be sent.
        codes: how many there are, 2 to 256.
        axis: the channels'; a leaf that has no such axis gets one row of counts.
        shared: count all channels together.

    Raises:
        DataError: no uint8 leaf, a code too many, or leaves of one name that differ in their channels.
    """
    counted: dict[str, np.ndarray] = {}
    for message in messages:
        for pointer, leaf in trees.leaves(message):
            array = np.asarray(leaf)
            if array.dtype != np.uint8 or not array.ndim:
                continue
            one = shared or array.ndim <= axis
            rows = array.reshape(1, -1) if one else np.moveaxis(array, axis, 0).reshape(array.shape[axis], -1)
            if array.size and array.max() >= codes:
                raise DataError(f"a code of {array.max()} in {pointer or '(root)'}", f"there are {codes}, from 0 on")
            table = counted.setdefault(pointer, np.ones((len(rows), codes), np.int64))
            if len(table) != len(rows):
                raise DataError(f"{pointer or '(root)'} has {len(table)} channels, then {len(rows)}", "name the axis")
            table += np.stack([np.bincount(row, minlength=codes) for row in rows])
    if not counted:
        raise DataError("no leaf of codes to count", "give trees that were quantised, one code a byte")
    return tuple((p, axis, tuple(tuple(row) for row in table.tolist())) for p, table in sorted(counted.items()))


def _channels(leaf: np.ndarray, pointer: str, axis: int, counts: tuple[tuple[int, ...], ...]) -> np.ndarray:
    """The codes by channel, int32.

    Raises:
        DataError: the prior does not fit them.
    """
    where = pointer or "(root)"
    rows = leaf.reshape(1, -1)
    if len(counts) > 1:
        if axis >= leaf.ndim or leaf.shape[axis] != len(counts):
            raise DataError(f"{where} has shape {leaf.shape}", f"its prior has {len(counts)} channels on axis {axis}")
        rows = np.moveaxis(leaf, axis, 0).reshape(len(counts), leaf.size // len(counts))
    if leaf.size and leaf.max() >= len(counts[0]):
        raise DataError(f"a code of {leaf.max()} in {where}", f"its prior has {len(counts[0])}, from 0 on")
    return np.ascontiguousarray(rows, np.int32)


def _leaf(coder: Any, shape: tuple[int, ...], axis: int, counts: tuple[tuple[int, ...], ...]) -> np.ndarray:
    if len(counts) == 1:
        return np.asarray(coder.decode(_models(counts)[0], math.prod(shape)), np.uint8).reshape(shape)
    if axis >= len(shape) or shape[axis] != len(counts):
        raise WireError(f"a coded leaf of shape {shape}", OTHERS)
    others = shape[:axis] + shape[axis + 1 :]
    rows = np.stack([np.asarray(coder.decode(model, math.prod(others)), np.uint8) for model in _models(counts)])
    return np.ascontiguousarray(np.moveaxis(rows.reshape(len(counts), *others), 0, axis))


@lru_cache(64)
def _models(counts: tuple[tuple[int, ...], ...]) -> list[Any]:
    models = _library().stream.model
    return [models.Categorical(np.array(row) / sum(row), perfect=False) for row in counts]


@lru_cache(64)
def _fingerprint(priors: tuple[Prior, ...]) -> int:
    return zlib.crc32(repr(priors).encode())


def _without(tree: Tree, pointer: str, coded: frozenset[str]) -> Tree | None:
    """The tree without those leaves, and without branches that held nothing else; None where nothing is left."""
    if not isinstance(tree, Mapping):
        return None if pointer in coded else tree
    if not tree:
        return {}
    children = {name: _without(child, f"{pointer}/{trees.escaped(name)}", coded) for name, child in tree.items()}
    return {name: child for name, child in children.items() if child is not None} or None


def _put(tree: Any, pointer: str, leaf: np.ndarray) -> Any:
    """The tree with a leaf where the pointer says."""
    if not pointer:
        if tree is not None:
            raise WireError("a leaf beside the root", _ODD)
        return leaf
    root: Any = {} if tree is None else tree
    branch, (*parents, last) = root, [name.replace("~1", "/").replace("~0", "~") for name in pointer.split("/")[1:]]
    for name in parents:
        branch = branch.setdefault(name, {}) if isinstance(branch, dict) else branch
    if not isinstance(branch, dict) or last in branch:
        raise WireError(f"{pointer!r} passes through a leaf", _ODD)
    branch[last] = leaf
    return root


def _varint(number: int) -> bytes:
    """Seven bits a byte, low ones first; the eighth says that more follow."""
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def _number(data: bytes, at: int) -> tuple[int, int]:
    """A number, and where it ends."""
    number = 0
    for i in range(5):
        if at + i >= len(data):
            break
        number |= (data[at + i] & 127) << 7 * i
        if data[at + i] < 128:
            return number, at + i + 1
    raise WireError("a message without its shapes", _ODD)


def _library() -> Any:
    try:
        import constriction
    except ImportError as error:
        raise ConfigError("constriction is not installed", "pip install 'duetto[codec]'") from error
    return constriction
