"""Few levels around zero, by chance, so that the mean of many codings is the value.

Alistarh, Grubic, Li, Tomioka, Vojnovic: QSGD: Communication-Efficient SGD via Gradient Quantization and Encoding,
NeurIPS 2017. Small values become 0; a byte codec behind it makes use of that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from duetto.codecs.leaves import OTHERS, becomes, decoded, encoded, finite
from duetto.errors import ConfigError, WireError
from duetto.tree import Shaped, Spec, Tree
from duetto.types import Codec, Domain, Key, rng

_NAMES = frozenset({"levels", "norm", "of"})


@dataclass(frozen=True)
class QSGD(Codec[Tree]):
    """Each value of a leaf as ``norm * level / levels``, the level drawn between its two neighbours.

    A leaf becomes ``levels`` (int8, its shape), ``norm [1]`` (its Euclidean norm) and ``of [1]`` (how many levels).

    Args:
        levels: on either side of 0, at most 127.

    Raises:
        ConfigError: fewer than one level, or more than 127.
    """

    levels: int = 15
    takes: ClassVar[frozenset[Domain]] = frozenset({Domain.FLOATS})
    gives: ClassVar[Domain] = Domain.CODES

    def __post_init__(self) -> None:
        if not 1 <= self.levels <= 127:
            raise ConfigError(f"{self.levels} levels", "use 1 to 127")

    def encode(self, state: Tree, tree: Tree, key: Key) -> tuple[Tree, Tree]:
        """Draw by the key.

        Raises:
            DataError: a leaf that is not finite.
        """
        return state, encoded(tree, _NAMES, self._levels, key)

    def decode(self, tree: Tree) -> Tree:
        """Levels, times the norm.

        Raises:
            WireError: not what :meth:`encode` gives.
        """
        return decoded(tree, _NAMES, _values)

    def becomes(self, spec: Spec) -> Spec:
        """Shapes fix it."""

        def form(leaf: Shaped) -> Spec:
            return {"levels": Shaped(leaf.shape, "int8"), "norm": Shaped((1,), leaf.dtype), "of": Shaped((1,), "uint8")}

        return becomes(spec, _NAMES, form)

    def _levels(self, leaf: np.ndarray, key: Key) -> Tree:
        wide = finite(leaf).astype(np.float64)
        top = np.abs(wide).max(initial=0.0)
        length = top * np.sqrt(((wide / top) ** 2).sum()) if top else 0.0
        norm = np.array([min(length, np.finfo(leaf.dtype).max)], leaf.dtype)
        position = wide / norm[0] * self.levels if norm[0] else np.zeros_like(wide)
        chosen = np.floor(position + rng((*key, "qsgd")).random(leaf.shape))
        levels = np.clip(chosen, -self.levels, self.levels).astype(np.int8)
        return {"levels": levels, "norm": norm, "of": np.array([self.levels], np.uint8)}


def _values(coded: Mapping[str, np.ndarray]) -> np.ndarray:
    levels, norm, of = coded["levels"], coded["norm"], coded["of"]
    fits = levels.dtype == np.int8 and levels.ndim and norm.shape == of.shape == (1,) and norm.dtype.kind == "f"
    if not fits or of.dtype != np.uint8 or not of[0] or np.abs(levels.astype(np.int16)).max(initial=0) > int(of[0]):
        raise WireError("levels that are none", OTHERS)
    return np.asarray((levels / int(of[0]) * norm[0].astype(np.float64)).astype(norm.dtype))
