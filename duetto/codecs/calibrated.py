"""Quantisation by ranges that calibration data fixed: no look at a message's own range, and nearly no header.

The devices and the cloud hold the same codec, so that a message carries codes alone. A floating leaf that has a range
becomes a branch with one uint8 leaf, named for the leaf's dtype: the codes, in the leaf's own shape. Below 8 bits the
codes are packed along the last axis (first code in the low bits), and the name ends in the number of codes that fill
the last byte up, where there are any (``float32-1``). Rows stay rows: coded messages can be joined and sliced.

With ``step = (high - low) / (2**bits - 1)`` a value between low and high is off by at most ``step / 2`` and rounding
(:meth:`Ranged.error`); a value outside of them comes back as the nearer of the two. Arithmetic is in float32 but for
leaves of float64, a block that fits the cache at a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np

from duetto import tree as trees
from duetto.codecs.leaves import FLOATS, OTHERS, floating
from duetto.codecs.packing import packed, unpacked
from duetto.errors import ConfigError, DataError, WireError
from duetto.tree import Shaped, Spec, Tree
from duetto.types import Codec, Domain, Key

Range: TypeAlias = tuple[str, float, float]
"""A leaf's JSON pointer, and the values that its first and its last code stand for."""

_BLOCK = 1 << 15  # values; with their codes 160 KiB, within a core's second cache
_WIDE = (1e-30, 1e38)  # steps and ends that float32 can compute with


@dataclass(frozen=True)
class Ranged(Codec[Tree]):
    """Code the floating leaves that have a range with ``bits`` bits a value; other leaves pass unchanged.

    Args:
        bits: 8, 4 or 2.
        ranges: of :func:`ranges`; both sides must hold the same.
        packed: whether codes of 4 and 2 bits share a byte. Without it each has its own, for an entropy coder of single
            symbols behind it.

    Raises:
        ConfigError: other ``bits``, a pointer that is there twice, or a range that is none.
    """

    bits: Literal[8, 4, 2] = 8
    ranges: tuple[Range, ...] = ()
    packed: bool = True
    takes: ClassVar[frozenset[Domain]] = frozenset({Domain.FLOATS})
    gives: ClassVar[Domain] = Domain.CODES

    def __post_init__(self) -> None:
        if self.bits not in (8, 4, 2):
            raise ConfigError(f"{self.bits!r} bits", "quantise to 8, 4 or 2")
        if len({pointer for pointer, _, _ in self.ranges}) < len(self.ranges):
            raise ConfigError("two ranges for one leaf", "give one")
        for pointer, low, high in self.ranges:
            if not low <= high or not math.isfinite(high - low):
                raise ConfigError(f"a range of {low} to {high} for {pointer or '(root)'}", "give low, then high")

    def encode(self, state: Tree, tree: Tree, key: Key) -> tuple[Tree, Tree]:
        """Code the tree.

        Raises:
            DataError: a coded leaf with a value that is not finite.
            ConfigError: a branch, in place of a leaf, that looks like a coded one; a floating dtype of no wire format.
        """
        known = self._known
        return state, walked(tree, "", lambda leaf, pointer: self._encoded(leaf, pointer, known), self._refused)

    def decode(self, tree: Tree) -> Tree:
        """Leaves of the shapes and dtypes that went in; bits and ranges must be those of the encoder.

        Raises:
            WireError: not what :meth:`encode` gives.
        """
        known = self._known

        def plain(leaf: Any, pointer: str) -> Any:
            if pointer in known and floating(leaf):
                raise WireError(f"the leaf {pointer or '(root)'} was not coded", OTHERS)
            return leaf

        def coded(branch: Mapping[str, Any], pointer: str) -> Any:
            found = read(branch) if pointer in known else None
            return None if found is None else self._decoded(*found, known[pointer])

        return walked(tree, "", plain, coded)

    def becomes(self, spec: Spec) -> Spec:
        """The spec of the coded tree; shapes fix it always."""
        known = self._known

        def form(leaf: Any, pointer: str) -> Spec:
            if pointer not in known or not leaf.shape or leaf.dtype not in FLOATS:
                return leaf
            fill = -leaf.shape[-1] % self._each
            return {named(leaf.dtype, fill): Shaped((*leaf.shape[:-1], (leaf.shape[-1] + fill) // self._each), "uint8")}

        return walked(spec, "", form, self._refused)

    def error(self, tree: Tree) -> dict[str, float]:
        """The most that a value of each coded leaf of this tree is off: pointer -> distance, in the leaf's unit.

        It is half a step, or where a value lies outside of its range its distance from there if that is more, and what
        float32 and the leaf's own dtype round.
        """
        known, found = self._known, {}
        for pointer, leaf in trees.leaves(tree):
            if pointer in known and floating(leaf):
                found[pointer] = self._error(np.asarray(leaf), known[pointer])
        return found

    def codes(self, tree: Tree) -> dict[str, np.ndarray]:
        """The codes of each coded leaf, one a byte: pointer -> uint8, in the leaf's shape.

        Raises:
            DataError: as :meth:`encode`.
        """
        known = self._known
        pairs = ((pointer, np.asarray(leaf)) for pointer, leaf in trees.leaves(tree) if floating(leaf))
        return {p: quantised(leaf, p, *known[p], self._levels) for p, leaf in pairs if p in known}

    @property
    def _known(self) -> dict[str, tuple[float, float]]:
        return {pointer: (low, high) for pointer, low, high in self.ranges}

    @property
    def _levels(self) -> int:
        return (1 << self.bits) - 1

    @property
    def _each(self) -> int:
        """Codes a byte."""
        return 8 // self.bits if self.packed else 1

    def _encoded(self, leaf: Any, pointer: str, known: Mapping[str, tuple[float, float]]) -> Any:
        if pointer not in known or not floating(leaf):
            return leaf
        leaf = np.asarray(leaf)
        if leaf.dtype.name not in FLOATS:
            raise ConfigError(f"a leaf of dtype {leaf.dtype}", f"use one of {', '.join(FLOATS)}")
        codes = quantised(leaf, pointer, *known[pointer], self._levels)
        fill = -leaf.shape[-1] % self._each
        return {named(leaf.dtype.name, fill): packed(codes, self._each)}

    def _decoded(self, codes: np.ndarray, dtype: str, fill: int, ends: tuple[float, float]) -> np.ndarray:
        if codes.dtype != np.uint8 or not codes.ndim or fill >= self._each or (fill and not codes.shape[-1]):
            raise WireError("codes that are none", OTHERS)
        try:
            values = table(*ends, self.bits, self._each, dtype).take(codes).view(dtype)
        except IndexError as fault:
            raise WireError(f"codes above {self._levels}", OTHERS) from fault
        return np.ascontiguousarray(values[..., : values.shape[-1] - fill]) if fill else values

    def _refused(self, branch: Mapping[str, Any], pointer: str) -> None:
        if pointer in self._known and read(branch) is not None:
            raise ConfigError(f"a branch named {sorted(branch)} looks like a coded leaf", "rename it")

    def _error(self, leaf: np.ndarray, ends: tuple[float, float]) -> float:
        low, high = ends
        size, exact = step(low, high, self._levels)
        work = np.finfo(_work(leaf.dtype.name, low, high, size))
        kept = np.finfo(leaf.dtype)
        rounding = max(abs(low), abs(high)) * (8 * float(work.eps) + float(kept.eps)) + float(kept.smallest_subnormal)
        outside = 0.0
        if leaf.size:
            outside = max(low - float(leaf.min()), float(leaf.max()) - high, 0.0)
        return (max(size / 2, outside) if exact else high - low + outside) + rounding


def ranges(messages: Iterable[Tree], keep: float = 1.0) -> tuple[Range, ...]:
    """The range of every floating leaf (that has an axis) over calibration data, for :class:`Ranged`.

    Args:
        messages: trees of one structure, as they will be sent.
        keep: the share of the values within, 0.5 to 1; as many are cut off at either end, unless that end is a single
            value that more of them have, as zero after a ReLU. Fewer bits gain by cutting: a step is smaller then.

    Raises:
        DataError: no messages, or a value that is not finite.
        ConfigError: another ``keep``.
    """
    if not 0.5 <= keep <= 1:
        raise ConfigError(f"a share of {keep}", "keep 0.5 to 1 of the values")
    seen: dict[str, list[np.ndarray]] = {}
    for message in messages:
        for pointer, leaf in trees.leaves(message):
            if floating(leaf):
                seen.setdefault(pointer, []).append(np.asarray(leaf).reshape(-1))
    if not seen:
        raise DataError("no floating leaf to calibrate on", "give the trees that a device would send")
    found = []
    for pointer, parts in sorted(seen.items()):
        values = np.concatenate(parts)
        if not values.size or not np.isfinite(values).all():
            raise DataError(f"the leaf {pointer or '(root)'} is empty or not finite", "calibrate on good data")
        if keep < 1:
            cut = int(values.size * (1 - keep) / 2)
            values = np.partition(values, (cut, values.size - 1 - cut))
            low, high = float(values[cut]), float(values[values.size - 1 - cut])
        else:
            low, high = float(values.min()), float(values.max())
        found.append((pointer, low, high))
    return tuple(found)


def quantised(leaf: np.ndarray, pointer: str, low: float, high: float, levels: int) -> np.ndarray:
    """The nearest codes of a range, uint8 in the leaf's shape.

    Raises:
        DataError: a value that is not finite.
    """
    size, exact = step(low, high, levels)
    work = np.dtype(_work(leaf.dtype.name, low, high, size))
    # half a step lower, so that cutting off what follows the point rounds to the nearest level
    start = work.type(low - size / 2)
    factor = work.type(1 / size if exact else 0)
    zero, top = work.type(0), work.type(levels + 0.5)
    flat, codes = leaf.reshape(-1), np.empty(leaf.size, np.uint8)
    block = np.empty(min(_BLOCK, leaf.size), work)
    with np.errstate(over="ignore", invalid="ignore"):
        for i in range(0, leaf.size, _BLOCK):
            values = flat[i : i + _BLOCK]
            at = block[: len(values)]
            np.subtract(values, start, out=at, dtype=work)
            np.multiply(at, factor, out=at)
            if not math.isfinite(np.dot(at, at)) and not np.isfinite(values).all():
                raise DataError(
                    f"the leaf {pointer or '(root)'} holds NaN or infinity", "only finite numbers can be quantised"
                )
            np.clip(at, zero, top, out=at)
            codes[i : i + _BLOCK] = at
    return codes.reshape(leaf.shape)


def step(low: float, high: float, levels: int) -> tuple[float, bool]:
    """The step, and whether it can be divided by; else all values take the first code."""
    size = (high - low) / levels
    return size, size > 1e-300


def _work(dtype: str, low: float, high: float, size: float) -> str:
    """What to compute in."""
    fits = size > _WIDE[0] and max(abs(low), abs(high), high - low) < _WIDE[1]
    return "float32" if fits and dtype != "float64" else "float64"


@lru_cache(256)
def table(low: float, high: float, bits: int, each: int, dtype: str) -> np.ndarray:
    """What every byte stands for: ``[256 or levels]`` of one opaque item that holds ``each`` values of the dtype."""
    levels = (1 << bits) - 1
    most = float(np.finfo(dtype).max)
    size, exact = step(low, high, levels)
    values = np.clip(low + np.arange(levels + 1) * (size if exact else 0), low, high)
    values = np.clip(values, -most, most).astype(dtype)
    if each > 1:
        values = values[unpacked(np.arange(256, dtype=np.uint8), each)]
    size = each * np.dtype(dtype).itemsize
    item = {2: "u2", 4: "u4", 8: "u8", 16: "c16"}.get(size, f"V{size}")  # numbers are taken faster than void
    items = np.ascontiguousarray(values).reshape(-1).view(item)
    items.setflags(write=False)
    return items


def named(dtype: str, fill: int) -> str:
    """The name of a coded leaf."""
    return f"{dtype}-{fill}" if fill else dtype


def read(branch: Mapping[str, Any]) -> tuple[np.ndarray, str, int] | None:
    """Codes, dtype and fill of a branch that looks like a coded leaf."""
    if len(branch) != 1:
        return None
    ((name, codes),) = branch.items()
    dtype, dash, fill = name.partition("-")
    if isinstance(codes, Mapping) or dtype not in FLOATS or (dash and fill not in ("1", "2", "3")):
        return None
    return np.asarray(codes), dtype, int(fill or 0)


def walked(
    tree: Tree,
    pointer: str,
    leaf: Callable[[Any, str], Any],
    branch: Callable[[Mapping[str, Any], str], Any],
) -> Tree:
    """``leaf`` in place of every leaf, and of a branch what ``branch`` gives unless that is None."""
    if not isinstance(tree, Mapping):
        return leaf(tree, pointer)
    found = branch(tree, pointer)
    if found is not None:
        return found
    return {name: walked(child, f"{pointer}/{trees.escaped(name)}", leaf, branch) for name, child in tree.items()}
