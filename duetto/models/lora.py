"""A network whose matrices are frozen, each beside the product of two thin ones that are learned.

Hu, Shen, Wallis, Allen-Zhu, Li, Wang, Wang, Chen: LoRA: Low-Rank Adaptation of Large Language Models, ICLR 2022.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from duetto import tree as trees
from duetto.errors import ConfigError
from duetto.models.net import Net, to_tree
from duetto.tree import Array, Tree
from duetto.types import rng


@dataclass(frozen=True)
class Lora(Net):
    """``net`` with ``base + left @ right`` in place of each matrix.

    Its parameters are ``base`` (the matrices, which no gradient reaches), ``left`` and ``right`` (``[out, rank]`` and
    ``[rank, in]`` for each; a kernel counts as ``[out, in]`` with everything but its first axis in one), and ``rest``
    (leaves of fewer than two axes, learned as they are).

    Attributes:
        net: the network.
        rank: of the products; no more than a matrix has columns.
        fixed: whether ``right`` is frozen too.

    Raises:
        ConfigError: a rank below 1.
    """

    net: Net
    rank: int
    fixed: bool = False

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ConfigError(f"rank={self.rank}", "use a rank from 1")

    @property
    def shape(self) -> Any:
        """Of one row."""
        return self.net.shape

    @property
    def classes(self) -> int:
        """Logits."""
        return int(self.net.classes)

    def module(self) -> nn.Module:
        """The network, called with the sums."""
        inner = self.net.module()
        return _Low(inner, self.beside(to_tree(dict(inner.named_parameters())), 0), self.fixed)

    def init(self, seed: int) -> Tree:
        """Those of the network, and products that are zero."""
        return self.beside(self.net.init(seed), seed)

    def beside(self, params: Tree, seed: int) -> Tree:
        """The network's parameters with products beside them that are zero: ``right`` has orthonormal rows."""
        base, rest = _where(params, _is_matrix), _where(params, lambda leaf: not _is_matrix(leaf))

        def right(pointer: str, leaf: Array) -> np.ndarray:
            columns = leaf[0].size
            drawn = rng((seed, "lora", pointer)).normal(size=(columns, min(self.rank, columns)))
            return np.asarray(np.linalg.qr(drawn)[0].T, leaf.dtype)

        rights = trees.pointed(right, base)
        lefts = trees.map(lambda leaf, thin: np.zeros((len(leaf), len(thin)), leaf.dtype), base, rights)
        return {"base": base, "left": lefts, "right": rights, "rest": rest}


def joined(params: Tree) -> Tree:
    """The network's parameters that a :class:`Lora`'s stand for."""
    return united(trees.add(params["base"], products(params["left"], params["right"], params["base"])), params["rest"])


def products(left: Tree, right: Tree, like: Tree) -> Tree:
    """``left @ right`` in the shapes of ``like``."""
    return trees.map(lambda a, b, whole: np.asarray(a @ b).reshape(whole.shape), left, right, like)


def nearest(product: Array, right: Array) -> tuple[Array, Array]:
    """The factors whose product is nearest, shaped as those of ``right``; the thin one keeps orthonormal rows."""
    u, s, v = np.linalg.svd(product.reshape(len(product), -1), full_matrices=False)
    left, thin = np.zeros((len(product), len(right))), np.array(right, np.float64)
    kept = min(len(right), int((s > 1e-12 * s[0]).sum()))
    left[:, :kept] = u[:, :kept] * s[:kept]
    if kept:
        rest = thin - thin @ v[:kept].T @ v[:kept]  # what is free goes on in the old directions, but for these
        thin = np.concatenate([v[:kept], np.linalg.svd(rest, full_matrices=False)[2][: len(thin) - kept]])
    return left.astype(right.dtype), thin.astype(right.dtype)


def united(one: Tree, other: Tree) -> Tree:
    """The leaves of both, which have none in common."""
    if not isinstance(one, Mapping):
        return one
    both = {name: united(one[name], other[name]) for name in one.keys() & other.keys()}
    return {name: both.get(name, one.get(name, other.get(name))) for name in sorted(one.keys() | other.keys())}


def _where(tree: Tree, chosen: Callable[[Array], bool]) -> Tree:
    """The leaves that are chosen; branches without any are left out."""
    kept = {name: _where(each, chosen) if isinstance(each, Mapping) else each for name, each in tree.items()}
    return {name: each for name, each in kept.items() if (each if isinstance(each, Mapping) else chosen(each))}


def _is_matrix(leaf: Array) -> bool:
    return np.ndim(leaf) > 1


class _Low(nn.Module):
    def __init__(self, inner: nn.Module, params: Tree, fixed: bool) -> None:
        super().__init__()
        for name, tree in params.items():
            setattr(self, name, _holding(tree))
        self._inner = (inner,)  # in a tuple, so that its parameters are not these
        self._fixed = fixed

    def train(self, mode: bool = True) -> _Low:
        self._inner[0].train(mode)
        return super().train(mode)

    def forward(self, x: Tensor) -> Tensor:
        left, right = (dict(self.get_submodule(name).named_parameters()) for name in ("left", "right"))
        params: dict[str, Tensor] = dict(self.get_submodule("rest").named_parameters())
        for name, frozen in self.get_submodule("base").named_parameters():
            thin = right[name].detach() if self._fixed else right[name]
            params[name] = frozen.detach() + (left[name] @ thin).view_as(frozen)
        found: Tensor = functional_call(self._inner[0], params, (x,))
        return found


def _holding(tree: Tree) -> nn.Module:
    """A module whose parameters are named as the leaves of a tree."""
    module = nn.Module()
    for name, each in tree.items():
        if isinstance(each, Mapping):
            module.add_module(name, _holding(each))
        else:
            module.register_parameter(name, nn.Parameter(torch.from_numpy(np.array(each))))
    return module
