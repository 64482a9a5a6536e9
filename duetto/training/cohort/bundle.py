"""What a cohort has become, kept as the factors it was trained with."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from duetto import tree as trees
from duetto.models.net import to_tree
from duetto.training.cohort.group import Group
from duetto.tree import Bundle, Tree

Map = Callable[[Callable[[Any], Any], Sequence[Any]], Any]


class Factored(Bundle):
    """The "delta" or the "gradients" of every client of some groups, numbered through.

    A weighted sum is one product a layer and group; nothing is made for one client alone until somebody reads it.
    """

    def __init__(self, groups: Sequence[Group], what: str, start: Tree, each: Map) -> None:
        self.groups, self.what, self._each = groups, what, each
        self.spec = trees.spec(start)
        self._place = [(group, k) for group in groups for k in range(len(group.tasks))]

    def __len__(self) -> int:
        return len(self._place)

    def tree(self, i: int) -> Tree:
        """One client's, as arrays."""
        group, k = self._place[i]
        by = self._by[group]
        named = {part.name: part.of(group.own(k, self.what)) for part in group.parts}
        for path, layer in group.dense.items():
            named.update(_named(path, layer.one(k, by)))
        return self._tree(named)

    def factors(self, i: int) -> Mapping[str, tuple[np.ndarray, np.ndarray]]:
        """Of the dense layers."""
        group, k = self._place[i]
        found = {path: layer.factors(k, self._by[group]) for path, layer in group.dense.items()}
        return {
            f"/{path.replace('.', '/')}/weight": (both[0].numpy(), both[1].numpy())
            for path, both in found.items()
            if both is not None
        }

    def norm(self, i: int) -> float:
        """From inner products of the factors' rows."""
        group, k = self._place[i]
        squares = [layer.square(k, self._by[group]) for layer in group.dense.values()]
        return float(np.sqrt(sum(squares, float((group.own(k, self.what).double() ** 2).sum()))))

    def finite(self, i: int) -> bool:
        """From the largest factors; where their product might be beyond the dtype, by looking."""
        group, k = self._place[i]
        if self._tops[group][k] < math.sqrt(torch.finfo(group.dtype).max):
            return True
        return trees.finite(self.tree(i))

    @cached_property
    def _tops(self) -> dict[Group, list[float]]:
        """A bound of the entries of each client's factors; NaN where one is."""
        return {
            group: torch.stack(
                [torch.stack([group.own(k, self.what).abs().sum() for k in range(len(group.tasks))])]
                + [layer.largest() for layer in group.dense.values()]
            )
            .sum(0)
            .tolist()
            for group in self.groups
        }

    def total(self, weights: np.ndarray) -> Tree:
        """One product a layer and group."""
        shares = np.split(weights, np.cumsum([len(group.tasks) for group in self.groups])[:-1])
        sums = self._each(lambda each: self._sum(*each), list(zip(self.groups, shares, strict=True)))
        total = sums[0]
        for other in sums[1:]:
            for name, value in other.items():
                total[name] += value
        return self._tree(total)

    def _sum(self, group: Group, weights: np.ndarray) -> dict[str, Tensor]:
        counted = np.flatnonzero(weights)  # those of weight 0 may hold anything
        shares = torch.from_numpy(weights).to(group.dtype)
        row = torch.zeros_like(group.row)
        for k in counted.tolist():
            row.add_(group.own(k, self.what), alpha=float(weights[k]))
        named = {part.name: part.of(row) for part in group.parts}
        for path, layer in group.dense.items():
            named.update(_named(path, layer.total(shares, self._by[group])))
        return named

    @cached_property
    def _by(self) -> dict[Group, Tensor]:
        return {group: group.by(self.what) for group in self.groups}

    def _tree(self, named: dict[str, Tensor]) -> Tree:
        return trees.map(lambda shaped, leaf: leaf, self.spec, to_tree(named))  # in the order of the start


def _named(path: str, parts: tuple[Tensor, Tensor | None]) -> dict[str, Tensor]:
    weight, bias = parts
    return {f"{path}.weight": weight} | ({} if bias is None else {f"{path}.bias": bias})
