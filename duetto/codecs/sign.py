"""One bit a value.

Bernstein, Wang, Azizzadenesheli, Anandkumar: signSGD, ICML 2018; scaled by the mean size as in Karimireddy et al.,
Error Feedback Fixes SignSGD, ICML 2019. Inside :class:`duetto.codecs.Feedback`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from duetto.codecs.leaves import OTHERS, becomes, decoded, encoded, finite, shape_of
from duetto.errors import WireError
from duetto.tree import Shaped, Spec, Tree
from duetto.types import Codec, Domain, Key

_NAMES = frozenset({"signs", "size", "shape"})


@dataclass(frozen=True)
class Sign(Codec[Tree]):
    """Plus or minus each leaf's mean size; 0 counts as plus.

    A leaf becomes ``signs`` (bits), ``size [1]`` and ``shape``.
    """

    takes: ClassVar[frozenset[Domain]] = frozenset({Domain.FLOATS})
    gives: ClassVar[Domain] = Domain.CODES

    def encode(self, state: Tree, tree: Tree, key: Key) -> tuple[Tree, Tree]:
        """Nothing is drawn or remembered.

        Raises:
            DataError: a leaf that is not finite.
        """
        return state, encoded(tree, _NAMES, _signs, key)

    def decode(self, tree: Tree) -> Tree:
        """The signs, times the size.

        Raises:
            WireError: not what :meth:`encode` gives.
        """
        return decoded(tree, _NAMES, _values)

    def becomes(self, spec: Spec) -> Spec:
        """Shapes fix it."""

        def form(leaf: Shaped) -> Spec:
            bits = Shaped((-(-math.prod(leaf.shape) // 8),), "uint8")
            return {"signs": bits, "size": Shaped((1,), leaf.dtype), "shape": Shaped((len(leaf.shape),), "int64")}

        return becomes(spec, _NAMES, form)


def _signs(leaf: np.ndarray, key: Key) -> Tree:
    flat = finite(leaf).reshape(-1)
    mean = np.abs(flat.astype(np.float64)).mean() if flat.size else 0.0
    size = np.array([min(mean, np.finfo(leaf.dtype).max)], leaf.dtype)
    return {"signs": np.packbits(flat >= 0), "size": size, "shape": np.array(leaf.shape, np.int64)}


def _values(coded: Mapping[str, np.ndarray]) -> np.ndarray:
    signs, size, shape = coded["signs"], coded["size"], shape_of(coded["shape"])
    count = math.prod(shape)
    if signs.dtype != np.uint8 or signs.shape != (-(-count // 8),) or size.shape != (1,) or size.dtype.kind != "f":
        raise WireError("signs that do not fit their leaf", OTHERS)
    plus = np.unpackbits(signs, count=count).astype(bool)
    return np.asarray(np.where(plus, size[0], -size[0]).astype(size.dtype).reshape(shape))
