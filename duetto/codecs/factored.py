"""A dense layer's change as the few rows it was made of, where those are smaller, losslessly.

After a few steps on a few examples the change of a dense layer is a product ``g.T @ x`` of what came back and what went
in, ``[R, O]`` and ``[R, D]`` for R examples (see docs/concepts.md). An executor that keeps a cohort so can send it so:
R (D + O) numbers in place of D O. What is rounded is the product itself, as it would be on the device.

The rows tell more plainly than their product what the inputs of a layer were: not for data that may not leave.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from duetto import tree as trees
from duetto.errors import ConfigError, WireError
from duetto.tree import Spec, Tree
from duetto.types import Codec, Domain, Key

_LEFT, _RIGHT = "factor_left", "factor_right"


@dataclass(frozen=True)
class Factored(Codec[Tree]):
    """Factors of matrices that are kept as such (:meth:`duetto.tree.Bundle.factors`); all else passes unchanged."""

    takes: ClassVar[frozenset[Domain]] = frozenset({Domain.FLOATS})
    gives: ClassVar[Domain] = Domain.FLOATS

    def encode(self, state: Tree, tree: Tree, key: Key) -> tuple[Tree, Tree]:
        """Nothing is drawn or remembered.

        Raises:
            ConfigError: a tree that has branches of the names that mark factors.
        """
        return state, _split(tree)

    def decode(self, tree: Tree) -> Tree:
        """Multiply.

        Raises:
            WireError: factors that do not fit each other.
        """
        return _product(tree)

    def becomes(self, spec: Spec) -> Spec | None:
        """It depends on how many rows there were."""
        return None


def _split(tree: Tree) -> Tree:
    if isinstance(tree, trees.Member):
        factors = tree.bundle.factors(tree.i)

        def smaller(pointer: str, leaf: Any) -> Tree:
            if pointer not in factors or sum(part.size for part in factors[pointer]) >= leaf.size:
                return leaf
            left, right = factors[pointer]
            return {_LEFT: left * left.dtype.type(tree.factor), _RIGHT: right}

        return trees.pointed(smaller, dict(tree))
    if not isinstance(tree, Mapping):
        return tree
    if _LEFT in tree or _RIGHT in tree:
        raise ConfigError(f"a tree with a branch called {_LEFT!r}", "call it otherwise")
    return {name: _split(child) for name, child in tree.items()}


def _product(tree: Tree) -> Tree:
    if not isinstance(tree, Mapping):
        return tree
    if _LEFT not in tree and _RIGHT not in tree:
        return {name: _product(child) for name, child in tree.items()}
    left, right = _array(tree.get(_LEFT)), _array(tree.get(_RIGHT))
    fits = left.ndim == right.ndim == 2 and len(left) == len(right) and left.dtype == right.dtype
    if len(tree) != 2 or not fits:
        raise WireError("factors that do not fit each other", "sent by another version or damaged on the way")
    if left.shape[1] * right.shape[1] * left.itemsize > trees.LIMIT:
        raise WireError(f"factors of a matrix {left.shape[1]} x {right.shape[1]}", "no leaf is that large")
    return left.T @ right


def _array(leaf: Any) -> np.ndarray:
    return leaf if isinstance(leaf, np.ndarray) else np.zeros(0)
