"""A frozen network beside a patch of few numbers: its last layer moves within directions that all devices know."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from duetto import tree as trees
from duetto.errors import ConfigError
from duetto.models.net import Net, shared
from duetto.tree import Array, Tree
from duetto.types import rng


@dataclass(frozen=True)
class Patched(Net):
    """``net`` whose last layer is moved by ``code @ directions``; parameters ``net``, frozen, and ``code [size]``.

    The directions are orthonormal, drawn by ``seed``: every party makes the same, so they never travel.

    Attributes:
        net: the network.
        size: numbers of a patch; no more than the last layer has.
        seed: of the directions.

    Raises:
        ConfigError: a size that is not positive or too large.
    """

    net: Net
    size: int
    seed: int = 0

    def __post_init__(self) -> None:
        numbers = sum(leaf.numel() for leaf in self._last().values())
        if not 1 <= self.size <= numbers:
            raise ConfigError(f"a patch of {self.size} numbers", f"the last layer has {numbers}")

    def _last(self) -> dict[str, Tensor]:
        named = dict(shared(self.net).named_parameters())
        layer = list(named)[-1].rpartition(".")[0]
        return {name: leaf for name, leaf in named.items() if name.rpartition(".")[0] == layer}

    @property
    def shape(self) -> Any:
        """Of one row."""
        return self.net.shape

    @property
    def classes(self) -> int:
        """Logits."""
        return int(self.net.classes)

    def directions(self) -> dict[str, np.ndarray]:
        """A last layer's dotted name -> ``[size, *shape]`` float64."""
        leaves = self._last()
        drawn = rng((self.seed, "patch")).normal(size=(sum(leaf.numel() for leaf in leaves.values()), self.size))
        rows, at, found = np.linalg.qr(drawn)[0].T, 0, {}
        for name, leaf in leaves.items():
            found[name] = rows[:, at : at + leaf.numel()].reshape(self.size, *leaf.shape)
            at += leaf.numel()
        return found

    def joined(self, params: Tree, code: Array) -> Tree:
        """The network's parameters with the patch applied."""
        moves = {f"/{name.replace('.', '/')}": np.tensordot(code, each, 1) for name, each in self.directions().items()}
        return trees.pointed(lambda at, leaf: (leaf + moves[at]).astype(leaf.dtype) if at in moves else leaf, params)

    def module(self) -> nn.Module:
        """The network, called with the patch applied."""
        return _Patch(self.net.module(), {name: torch.from_numpy(each) for name, each in self.directions().items()})

    def init(self, seed: int) -> Tree:
        """The network's own, and a patch that changes nothing."""
        return {"net": self.net.init(seed), "code": np.zeros(self.size, np.float32)}


class _Patch(nn.Module):
    def __init__(self, net: nn.Module, directions: dict[str, Tensor]) -> None:
        super().__init__()
        self.net, self._directions = net, directions
        self.code = nn.Parameter(torch.zeros(len(next(iter(directions.values())))))

    def forward(self, x: Tensor) -> Tensor:
        params = {name: leaf.detach() for name, leaf in self.net.named_parameters()}
        for name, each in self._directions.items():
            params[name] = params[name] + torch.tensordot(self.code, each.to(self.code.dtype), 1)
        found: Tensor = functional_call(self.net, params, (x,))
        return found
