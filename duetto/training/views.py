"""Which parameters travel and which stay on the device.

A view names leaves by pattern, as the shell names files, on their dotted names: ``"4.*"`` is all of layer 4,
``"*.bias"`` every bias. Whatever it names, ``join(travels(params), stays(params)) == params``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
from torch import nn

from duetto.errors import ConfigError
from duetto.models.net import Net, shared
from duetto.tree import Tree
from duetto.types import rng


@dataclass(frozen=True)
class Full:
    """All travels, nothing stays."""

    def travels(self, params: Tree, peer: str = "") -> Tree:
        """Everything."""
        return params

    def stays(self, params: Tree, peer: str = "") -> Tree:
        """Nothing."""
        return {}

    def join(self, travels: Tree, stays: Tree) -> Tree:
        """What travelled."""
        return travels


@dataclass(frozen=True)
class Head:
    """What ``names`` match travels, such as the last layer; all else stays.

    Attributes:
        names: patterns of dotted names; none of them, and nothing travels.
    """

    names: tuple[str, ...]

    def travels(self, params: Tree, peer: str = "") -> Tree:
        """What is named."""
        return picked(params, self._named)

    def stays(self, params: Tree, peer: str = "") -> Tree:
        """What is not."""
        return picked(params, lambda name: not self._named(name))

    def join(self, travels: Tree, stays: Tree) -> Tree:
        """Both, as one tree."""
        return joined(travels, stays)

    def _named(self, name: str) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in self.names)


@dataclass(frozen=True)
class Body:
    """All but what ``head`` matches travels.

    Attributes:
        head: patterns of dotted names that stay; none of them, and all travels.
    """

    head: tuple[str, ...]

    def travels(self, params: Tree, peer: str = "") -> Tree:
        """What is not named."""
        return Head(self.head).stays(params)

    def stays(self, params: Tree, peer: str = "") -> Tree:
        """What is."""
        return Head(self.head).travels(params)

    def join(self, travels: Tree, stays: Tree) -> Tree:
        """Both, as one tree."""
        return joined(travels, stays)


@dataclass(frozen=True)
class Masked:
    """A share of the entries of every leaf travels, the same ones for everybody, drawn by a seed.

    What travels is flat, ``[entries]`` a leaf; what stays has the leaf's shape, and 0 where an entry travelled.

    Raises:
        ConfigError: a share outside 0..1.
    """

    share: float
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ConfigError(f"a share of {self.share} of the entries", "use a number from 0 to 1")

    def travels(self, params: Tree, peer: str = "") -> Tree:
        """The entries that are drawn."""
        return _by_name(lambda name, leaf: np.asarray(leaf).reshape(-1)[self._drawn(name, np.size(leaf))], params)

    def stays(self, params: Tree, peer: str = "") -> Tree:
        """The others, in place."""

        def left(name: str, leaf: Any) -> np.ndarray:
            flat = np.array(leaf).reshape(-1)
            flat[self._drawn(name, flat.size)] = 0
            return flat.reshape(np.shape(leaf))

        return _by_name(left, params)

    def join(self, travels: Tree, stays: Tree) -> Tree:
        """Every entry in its place."""

        def put(name: str, leaf: Any, entries: Any) -> np.ndarray:
            flat = np.array(leaf).reshape(-1)
            flat[self._drawn(name, flat.size)] = entries
            return flat.reshape(np.shape(leaf))

        return _by_name(put, stays, travels)

    def _drawn(self, name: str, size: int) -> np.ndarray:
        return np.sort(rng((self.seed, "masked", name)).choice(size, round(self.share * size), replace=False))


def BatchNorm(net: Net) -> Body:
    """All but the scales and shifts of the normalisation layers (batch, group, layer, instance) travels."""
    kinds = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
    names = [name for name, module in shared(net).named_modules() if isinstance(module, kinds)]
    return Body(tuple(f"{name}.*" for name in names))


def last_layer(net: Net) -> str:
    """The pattern of a network's last layer with parameters."""
    *_, (name, _) = shared(net).named_parameters()
    return f"{name.rpartition('.')[0]}.*"


def picked(tree: Tree, wanted: Callable[[str], bool], name: str = "") -> dict[str, Any]:
    """The leaves whose dotted name is wanted; a branch without any is left out."""
    found: dict[str, Any] = {}
    for key, child in tree.items():
        below = f"{name}.{key}" if name else str(key)
        if isinstance(child, Mapping):
            if inner := picked(child, wanted, below):
                found[key] = inner
        elif wanted(below):
            found[key] = child
    return found


def joined(left: Tree, right: Tree) -> dict[str, Any]:
    """The leaves of both trees.

    Raises:
        ConfigError: a leaf that both have.
    """
    both: dict[str, Any] = dict(left)
    for key, child in right.items():
        if key in both and not (isinstance(both[key], Mapping) and isinstance(child, Mapping)):
            raise ConfigError(f"both sides of a view hold {key!r}", "a leaf travels or stays")
        both[key] = joined(both[key], child) if key in both else child
    return dict(sorted(both.items()))


def _by_name(function: Callable[..., Any], tree: Tree, *others: Tree, name: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, child in tree.items():
        below, beside = f"{name}.{key}" if name else str(key), [other[key] for other in others]
        deeper = isinstance(child, Mapping)
        found[key] = _by_name(function, child, *beside, name=below) if deeper else function(below, child, *beside)
    return found
