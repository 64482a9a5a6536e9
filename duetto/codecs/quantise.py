"""Fewer bits a number: uniform (affine, min to max) quantisation, per leaf or per channel.

A floating leaf with at least one axis becomes a branch of

- ``codes``: uint8; the leaf's own shape at 8 bits, else one axis of packed codes (first code in the low bits);
- ``range``: ``[2]``, or ``[channels, 2]``, the smallest and the largest value, in the leaf's dtype;
- ``shape``: int64 ``[axes]``, the leaf's shape; only below 8 bits, where packing loses it.

With ``step = (largest - smallest) / (2**bits - 1)`` the error of a value is at most ``step / 2`` (rounding to
nearest; constant leaves are exact) plus the rounding of the arithmetic in float64 and of the leaf's own dtype.
With ``stochastic`` it is less than ``step`` and zero in the mean (QSGD, Alistarh et al. 2017, with levels
between the extremes instead of around zero). The smallest and the largest value are exact.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from duetto import tree as trees
from duetto.codecs.packing import packed, unpacked
from duetto.errors import ConfigError, DataError, WireError
from duetto.tree import Array, Shaped, Spec, Tree
from duetto.types import Codec, Domain, Key, rng

_FLOATS = ("float16", "float32", "float64")
_BLOCK = 1 << 14  # values


@dataclass(frozen=True)
class Quantise(Codec[Tree]):
    """Code every floating leaf that has an axis with ``bits`` bits a value; other leaves pass unchanged.

    Args:
        bits: 8, 4 or 2.
        axis: "leaf" keeps one range a leaf; "channel" keeps one for every index of the first axis, where a
            leaf has at least two axes.
        stochastic: round up or down by chance, so that the mean of many codings is the value.

    Raises:
        ConfigError: another ``bits`` or ``axis``.
    """

    bits: Literal[8, 4, 2] = 8
    axis: Literal["leaf", "channel"] = "leaf"
    stochastic: bool = False
    takes: ClassVar[frozenset[Domain]] = frozenset({Domain.FLOATS})
    gives: ClassVar[Domain] = Domain.CODES

    def __post_init__(self) -> None:
        if self.bits not in (8, 4, 2):
            raise ConfigError(f"{self.bits!r} bits", "quantise to 8, 4 or 2")
        if self.axis not in ("leaf", "channel"):
            raise ConfigError(f"{self.axis!r} is no axis to quantise by", 'use "leaf" or "channel"')

    def encode(self, state: Tree, tree: Tree, key: Key) -> tuple[Tree, Tree]:
        """Code the tree.

        Raises:
            DataError: a leaf with a value, or a range, that is not finite.
            ConfigError: a branch that has just the names of a coded leaf, or a floating dtype of no wire format.
        """
        return state, self._encoded(tree, (), key)

    def decode(self, tree: Tree) -> Tree:
        """Leaves of the shapes and dtypes that went in; the bits must be those of the encoder.

        Raises:
            WireError: not what :meth:`encode` gives.
        """
        if not isinstance(tree, Mapping):
            if _coded(tree):
                raise WireError("a floating leaf that was not coded", "both sides must use the same codecs")
            return tree
        if set(tree) == self._names and not any(isinstance(child, Mapping) for child in tree.values()):
            return self._decoded(**{name: np.asarray(leaf) for name, leaf in tree.items()})
        return {name: self.decode(child) for name, child in tree.items()}

    def becomes(self, spec: Spec) -> Spec:
        """The spec of the coded tree; shapes fix it always."""
        if isinstance(spec, Mapping):
            self._check(set(spec))
            return {name: self.becomes(child) for name, child in spec.items()}
        if not spec.shape or spec.dtype not in _FLOATS:
            return spec
        bounds = Shaped((spec.shape[0], 2) if self._channels(spec.shape) else (2,), spec.dtype)
        if self.bits == 8:
            return {"codes": Shaped(spec.shape, "uint8"), "range": bounds}
        packed = -(-math.prod(spec.shape) * self.bits // 8)
        shape = Shaped((len(spec.shape),), "int64")
        return {"codes": Shaped((packed,), "uint8"), "range": bounds, "shape": shape}

    def error(self, tree: Tree) -> dict[str, float]:
        """The most that a value of each coded leaf of this tree is off: pointer -> distance, in the leaf's unit."""
        found = {}
        for pointer, leaf in trees.leaves(tree):
            if not _coded(leaf):
                continue
            array = np.asarray(leaf)
            rows = array.reshape(_rows(array.shape, self._channels(array.shape))).astype(np.float64)
            step = max(np.ptp(rows, axis=1) / self._levels, default=0.0) if rows.size else 0.0
            eps = float(np.finfo(array.dtype).eps) + 8 * float(np.finfo(np.float64).eps)
            rounding = float(np.abs(rows).max(initial=0)) * eps + float(np.finfo(array.dtype).smallest_subnormal)
            found[pointer] = float(step) / (1 if self.stochastic else 2) + rounding
        return found

    @property
    def _levels(self) -> int:
        return (1 << self.bits) - 1

    @property
    def _names(self) -> set[str]:
        return {"codes", "range"} if self.bits == 8 else {"codes", "range", "shape"}

    def _channels(self, shape: tuple[int, ...]) -> bool:
        return self.axis == "channel" and len(shape) > 1

    def _check(self, names: set[str]) -> None:
        if names == self._names:
            raise ConfigError(
                f"a branch named {sorted(self._names)} looks like a coded leaf", "rename one of the three"
            )

    def _encoded(self, tree: Tree, path: tuple[str, ...], key: Key) -> Tree:
        if isinstance(tree, Mapping):
            self._check(set(tree))
            return {name: self._encoded(child, (*path, name), key) for name, child in tree.items()}
        if not _coded(tree):
            return tree
        leaf, where = np.asarray(tree), "/".join(("", *path)) or "(root)"
        if leaf.dtype.name not in _FLOATS:
            raise ConfigError(f"the leaf {where} has dtype {leaf.dtype}", f"use one of {', '.join(_FLOATS)}")
        if not np.isfinite(leaf).all():
            raise DataError(f"the leaf {where} holds NaN or infinity", "only finite numbers can be quantised")
        rows = leaf.reshape(_rows(leaf.shape, self._channels(leaf.shape)))
        bounds = np.zeros((len(rows), 2), leaf.dtype.newbyteorder("="))
        if rows.size:
            bounds[:, 0], bounds[:, 1] = rows.min(axis=1), rows.max(axis=1)
        low, span = _low_and_span(bounds)
        if not np.isfinite(span).all():
            raise DataError(f"the range of the leaf {where} overflows", "clip it before it is quantised")
        codes, width = np.empty(rows.shape, np.uint8), np.where(span > 0, span, 1)
        chance = rng((*key, *path)).random(rows.shape) if self.stochastic else None
        for part in _blocks(rows.shape):
            position = (rows[part] - low[part[0]]) / width[part[0]] * self._levels
            codes[part] = np.rint(position) if chance is None else np.floor(position + chance[part])
        coded = {"codes": codes.reshape(leaf.shape), "range": bounds if self._channels(leaf.shape) else bounds[0]}
        if self.bits == 8:
            return coded
        return {**coded, "codes": packed(codes.reshape(-1), 8 // self.bits), "shape": np.array(leaf.shape)}

    def _decoded(self, codes: Array, range: Array, shape: Array | None = None) -> np.ndarray:
        if codes.dtype != np.uint8 or range.dtype.name not in _FLOATS:
            raise WireError("codes or a range of a wrong dtype", "both sides must use the same codecs")
        if shape is None:
            full = codes.shape
        else:
            if shape.dtype != np.int64 or shape.ndim != 1 or codes.ndim != 1 or (shape < 0).any():
                raise WireError("packed codes without a shape", "both sides must use the same codecs")
            full = tuple(shape.tolist())
            if len(codes) != -(-math.prod(full) * self.bits // 8):
                raise WireError(
                    f"{len(codes)} bytes of codes for {full}", "both sides must use the same number of bits"
                )
        if not full or (range.shape != (2,) and (len(full) < 2 or range.shape != (full[0], 2))):
            raise WireError(f"a range of {range.shape} for codes of {full}", "both sides must use the same codecs")
        if not np.isfinite(range).all() or (range[..., 0] > range[..., 1]).any():
            raise WireError("a range that is none", "the message was not written by this library")
        bounds = range.reshape(-1, 2)
        low, span = _low_and_span(bounds)
        if not np.isfinite(span).all():
            raise WireError("a range that overflows", "the message was not written by this library")
        try:
            rows = unpacked(codes, 8 // self.bits).reshape(-1)[: math.prod(full)].reshape(_rows(full, range.ndim == 2))
            lone = len(bounds) == 1
            levels = np.arange(self._levels + 1, dtype=np.uint8) if lone else rows
            # The clip undoes the last rounding: without it the largest value of a dtype could become infinity.
            values = np.clip(low + levels / self._levels * span, low, bounds[:, 1:]).astype(range.dtype)
            return np.asarray((values[0].take(rows) if lone else values).reshape(full))
        except ValueError as error:
            raise WireError(f"{full} is no shape", "the message was not written by this library") from error


def _coded(leaf: Array) -> bool:
    """Whether a leaf is coded: floating, and not a scalar."""
    array: np.ndarray = np.asarray(leaf)
    return array.ndim > 0 and array.dtype.kind == "f"


def _rows(shape: tuple[int, ...], channels: bool) -> tuple[int, int]:
    """The leaf as rows that share a range."""
    rows = shape[0] if channels else 1
    return rows, math.prod(shape) // rows if rows else 0


def _blocks(shape: tuple[int, int]) -> Iterator[tuple[slice, slice]]:
    """The rows in parts whose float64 stays in a core's cache."""
    rows, columns = shape
    high = max(1, _BLOCK // max(1, columns))
    for row in range(0, rows, high):
        for column in range(0, columns, _BLOCK):
            yield slice(row, row + high), slice(column, column + _BLOCK)


def _low_and_span(bounds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The smallest value and the width of every row, ``[rows, 1]`` in float64; the width may overflow."""
    wide = bounds.astype(np.float64)
    with np.errstate(over="ignore"):
        return wide[:, :1], wide[:, 1:] - wide[:, :1]
