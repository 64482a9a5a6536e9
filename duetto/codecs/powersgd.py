"""Matrices as the product of two thin ones.

Vogels, Karimireddy, Jaggi: PowerSGD: Practical Low-Rank Gradient Compression for Distributed Optimization, NeurIPS
2019: one step of the power method, from a start that is drawn anew. Inside :class:`duetto.codecs.Feedback`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from duetto.codecs.leaves import OTHERS, becomes, decoded, encoded, finite, shape_of
from duetto.errors import ConfigError, WireError
from duetto.tree import Shaped, Spec, Tree
from duetto.types import Codec, Domain, Key, rng

_NAMES = frozenset({"left", "right", "shape"})


@dataclass(frozen=True)
class PowerSGD(Codec[Tree]):
    """Leaves of two and more axes, as ``[first, rest]``, at a rank; others, and those no smaller so, pass unchanged.

    A leaf becomes ``left [first, rank]`` (orthonormal columns), ``right [rest, rank]`` and ``shape``.

    Args:
        rank: at least 1.

    Raises:
        ConfigError: a rank below 1.
    """

    rank: int = 2
    takes: ClassVar[frozenset[Domain]] = frozenset({Domain.FLOATS})
    gives: ClassVar[Domain] = Domain.FLOATS

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ConfigError(f"a rank of {self.rank}", "use 1 or more")

    def encode(self, state: Tree, tree: Tree, key: Key) -> tuple[Tree, Tree]:
        """Draw the start by the key.

        Raises:
            DataError: a leaf that is not finite.
        """
        return state, encoded(tree, _NAMES, self._factors, key)

    def decode(self, tree: Tree) -> Tree:
        """Multiply.

        Raises:
            WireError: not what :meth:`encode` gives.
        """
        return decoded(tree, _NAMES, _product)

    def becomes(self, spec: Spec) -> Spec:
        """Shapes fix it."""

        def form(leaf: Shaped) -> Spec:
            if not self._smaller(leaf.shape):
                return leaf
            first, rest = leaf.shape[0], math.prod(leaf.shape[1:])
            thin = {"left": Shaped((first, self.rank), leaf.dtype), "right": Shaped((rest, self.rank), leaf.dtype)}
            return {**thin, "shape": Shaped((len(leaf.shape),), "int64")}

        return becomes(spec, _NAMES, form)

    def _smaller(self, shape: tuple[int, ...]) -> bool:
        if len(shape) < 2:
            return False
        first, rest = shape[0], math.prod(shape[1:])
        return self.rank * (first + rest) < first * rest

    def _factors(self, leaf: np.ndarray, key: Key) -> Tree:
        if not self._smaller(leaf.shape):
            return leaf
        matrix = finite(leaf).reshape(leaf.shape[0], -1).astype(np.float64)
        size = np.abs(matrix).max() or 1.0  # so that no product overflows
        start = rng((*key, "powersgd")).normal(size=(matrix.shape[1], self.rank))
        left = np.linalg.qr(matrix / size @ start)[0]
        right = (matrix / size).T @ left * size
        top = np.finfo(leaf.dtype).max
        return {
            "left": left.astype(leaf.dtype),
            "right": np.clip(right, -top, top).astype(leaf.dtype),
            "shape": np.array(leaf.shape, np.int64),
        }


def _product(coded: Mapping[str, np.ndarray]) -> np.ndarray:
    left, right, shape = coded["left"], coded["right"], shape_of(coded["shape"])
    fits = left.ndim == right.ndim == 2 and left.shape[1] == right.shape[1] and left.dtype == right.dtype
    if not fits or len(shape) < 2 or (len(left), len(right)) != (shape[0], math.prod(shape[1:])):
        raise WireError("factors that do not fit their leaf", OTHERS)
    top = np.finfo(left.dtype).max if left.dtype.kind == "f" else np.inf
    wide = left.astype(np.float64) @ right.astype(np.float64).T
    return np.asarray(np.clip(wide, -top, top).astype(left.dtype).reshape(shape))
