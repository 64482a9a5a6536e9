"""Few of the values: the largest, or some drawn by chance.

Aji, Heafield: Sparse Communication for Distributed Gradient Descent, EMNLP 2017 (top-k); Konečný et al.: Federated
Learning: Strategies for Improving Communication Efficiency, 2016 (random masks, of which only the seed travels). Both
belong inside :class:`duetto.codecs.Feedback`, and before a quantiser: what is kept stays a floating leaf.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from duetto.codecs.leaves import OTHERS, becomes, decoded, encoded, shape_of
from duetto.errors import ConfigError, WireError
from duetto.tree import Shaped, Spec, Tree
from duetto.types import Codec, Domain, Key, rng


@dataclass(frozen=True)
class TopK(Codec[Tree]):
    """The ``share`` of each leaf's values that are largest in size, at least one; the others come back as 0.

    A leaf becomes ``values [k]``, ``where`` (uint8: a bitmap, or where that is smaller the gaps between positions, all
    low bytes before all high ones, of which an entropy coder makes about 6 bits at a share of 5 %) and ``shape``. NaN
    counts as the largest, so that a gate behind the wire still sees it.

    Raises:
        ConfigError: a share outside 0..1, or 0.
    """

    share: float
    takes: ClassVar[frozenset[Domain]] = frozenset({Domain.FLOATS})
    gives: ClassVar[Domain] = Domain.FLOATS

    def __post_init__(self) -> None:
        _check(self.share)

    def encode(self, state: Tree, tree: Tree, key: Key) -> tuple[Tree, Tree]:
        """Nothing is drawn or remembered."""
        return state, encoded(tree, _TOP, self._encoded, key)

    def decode(self, tree: Tree) -> Tree:
        """Zeros but for what was kept.

        Raises:
            WireError: not what :meth:`encode` gives.
        """
        return decoded(tree, _TOP, _filled)

    def becomes(self, spec: Spec) -> Spec:
        """Shapes fix it."""

        def form(leaf: Shaped) -> Spec:
            size, kept = math.prod(leaf.shape), _kept(self.share, math.prod(leaf.shape))
            return {
                "values": Shaped((kept,), leaf.dtype),
                "where": Shaped((-(-size // 8) if _bitmap(size, kept) else kept * _bytes(size),), "uint8"),
                "shape": Shaped((len(leaf.shape),), "int64"),
            }

        return becomes(spec, _TOP, form)

    def _encoded(self, leaf: np.ndarray, key: Key) -> Tree:
        flat = leaf.reshape(-1)
        kept = _kept(self.share, flat.size)
        size = np.nan_to_num(np.abs(flat.astype(np.float64)), nan=np.inf, posinf=np.inf)
        at = np.sort(np.argpartition(-size, kept - 1)[:kept]) if kept else np.zeros(0, np.int64)
        if _bitmap(flat.size, kept):
            mask = np.zeros(flat.size, bool)
            mask[at] = True
            where = np.packbits(mask)
        else:
            where = _gaps(at, _bytes(flat.size))
        return {"values": flat[at], "where": where, "shape": np.array(leaf.shape, np.int64)}


@dataclass(frozen=True)
class RandomK(Codec[Tree]):
    """A ``share`` of each leaf's values at random positions, of which only the seed travels.

    Args:
        share: above 0, at most 1; at least one value of a leaf.
        unbiased: scale what is kept by 1 / share, so that the mean of many codings is the value.

    Raises:
        ConfigError: a share outside 0..1, or 0.
    """

    share: float
    unbiased: bool = False
    takes: ClassVar[frozenset[Domain]] = frozenset({Domain.FLOATS})
    gives: ClassVar[Domain] = Domain.FLOATS

    def __post_init__(self) -> None:
        _check(self.share)

    def encode(self, state: Tree, tree: Tree, key: Key) -> tuple[Tree, Tree]:
        """Draw positions by the key, for each leaf."""
        return state, encoded(tree, _RANDOM, self._encoded, key)

    def decode(self, tree: Tree) -> Tree:
        """Zeros but for what was kept.

        Raises:
            WireError: not what :meth:`encode` gives.
        """
        return decoded(tree, _RANDOM, self._decoded)

    def becomes(self, spec: Spec) -> Spec:
        """Shapes fix it."""

        def form(leaf: Shaped) -> Spec:
            kept = _kept(self.share, math.prod(leaf.shape))
            return {
                "values": Shaped((kept,), leaf.dtype),
                "seed": Shaped((1,), "int64"),
                "shape": Shaped((len(leaf.shape),), "int64"),
            }

        return becomes(spec, _RANDOM, form)

    def _encoded(self, leaf: np.ndarray, key: Key) -> Tree:
        seed = int(rng((*key, "random-k")).integers(2**62))
        at = _drawn(seed, leaf.size, _kept(self.share, leaf.size))
        factor = leaf.size / max(1, len(at)) if self.unbiased else 1.0
        values = leaf.reshape(-1)[at]
        if factor != 1:
            most = np.finfo(leaf.dtype).max  # what the dtype cannot hold becomes the most that it can
            with np.errstate(over="ignore"):
                values = np.clip(values * np.float64(factor), -most, most).astype(leaf.dtype)
        return {"values": values, "seed": np.array([seed], np.int64), "shape": np.array(leaf.shape, np.int64)}

    def _decoded(self, coded: Mapping[str, np.ndarray]) -> np.ndarray:
        values, seed, shape = coded["values"], coded["seed"], shape_of(coded["shape"])
        size = math.prod(shape)
        if values.ndim != 1 or seed.shape != (1,) or seed.dtype != np.int64 or len(values) > size:
            raise WireError("values without their positions", OTHERS)
        full = np.zeros(size, values.dtype)
        full[_drawn(int(seed[0]), size, len(values))] = values
        return full.reshape(shape)


_TOP = frozenset({"values", "where", "shape"})
_RANDOM = frozenset({"values", "seed", "shape"})


def _check(share: float) -> None:
    if not 0 < share <= 1:
        raise ConfigError(f"a share of {share} of the values", "use one above 0 and at most 1")


def _kept(share: float, size: int) -> int:
    return min(size, max(1, round(share * size)))


def _bytes(size: int) -> int:
    """Of a position in a leaf of that size."""
    return 2 if size <= 1 << 16 else 4


def _bitmap(size: int, kept: int) -> bool:
    return -(-size // 8) < kept * _bytes(size)


def _gaps(at: np.ndarray, width: int) -> np.ndarray:
    """What lies between positions that rise, in ``width`` bytes each: the lowest bytes of all, then the next ones."""
    gaps = np.diff(at, prepend=0).astype(f"<u{width}")
    return np.ascontiguousarray(gaps.view(np.uint8).reshape(-1, width).T).reshape(-1)


def _positions(where: np.ndarray, width: int) -> np.ndarray:
    """The positions of which :func:`_gaps` came."""
    gaps = np.ascontiguousarray(where.reshape(width, -1).T).view(f"<u{width}").reshape(-1)
    return np.cumsum(gaps, dtype=np.int64)


def _drawn(seed: int, size: int, kept: int) -> np.ndarray:
    return np.sort(rng(("random-k", seed)).choice(size, kept, replace=False)) if kept else np.zeros(0, np.int64)


def _filled(coded: Mapping[str, np.ndarray]) -> np.ndarray:
    values, where, shape = coded["values"], coded["where"], shape_of(coded["shape"])
    size = math.prod(shape)
    if values.ndim != 1 or values.dtype.kind != "f" or where.ndim != 1 or len(values) > size:
        raise WireError("values without their positions", OTHERS)
    bitmap, width = _bitmap(size, len(values)), _bytes(size)
    if where.dtype != np.uint8 or len(where) != (-(-size // 8) if bitmap else len(values) * width):
        raise WireError("positions that do not fit their leaf", OTHERS)
    at = np.flatnonzero(np.unpackbits(where, count=size)) if bitmap else _positions(where, width)
    if len(at) and int(at[-1]) >= size:
        raise WireError("positions outside a leaf", OTHERS)
    if len(at) != len(values) or (np.diff(at) <= 0).any():
        raise WireError("positions that are not one for each value", OTHERS)
    full = np.zeros(size, values.dtype)
    full[at] = values
    return full.reshape(shape)
