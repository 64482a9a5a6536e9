"""Narrower networks whose layers are windows of a wide one's: which channels each layer keeps, and their parameters.

Diao, Ding, Tarokh: HeteroFL: Computation and Communication Efficient Federated Learning for Heterogeneous Clients,
ICLR 2021, keeps the first channels of every hidden layer; Alam, Liu, Yan, Zhang: FedRolex: Model-Heterogeneous
Federated Learning with Rolling Sub-Model Extraction, NeurIPS 2022, keeps a window that rolls over all of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import TypeAlias

import numpy as np
from torch import nn

from duetto import tree as trees
from duetto.errors import ConfigError
from duetto.models.net import Net, shared
from duetto.models.norm import Norm
from duetto.models.zoo import Conv, Mlp, Residual, Signal
from duetto.tree import Tree
from duetto.types import Index

Window: TypeAlias = Mapping[str, tuple[np.ndarray, ...]]
"""A leaf's JSON pointer -> the positions kept of each of its axes, int64, ascending."""


@cache
def narrowed(net: Net, width: float) -> Net:
    """The network with this share of the channels of every hidden layer, rounded up; inputs and logits stay.

    Channels that are normalised in groups stay as many groups, so they are rounded up to a multiple of that.

    Raises:
        ConfigError: a width outside (0, 1], or a network of which no narrower one is known.
    """
    if not 0 < width <= 1:
        raise ConfigError(f"width={width}", "use a share above 0, at most 1")
    if width == 1:
        return net

    def fewer(widths: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(math.ceil(width * each) for each in widths)

    if isinstance(net, Conv):
        return replace(net, channels=fewer(net.channels), hidden=fewer(net.hidden))
    if isinstance(net, Signal):
        return replace(net, channels=fewer(net.channels), hidden=fewer(net.hidden))
    if isinstance(net, Mlp):
        return replace(net, hidden=fewer(net.hidden))
    if isinstance(net, Residual):
        return replace(net, widths=tuple(math.ceil(width * each / net.groups) * net.groups for each in net.widths))
    raise ConfigError(f"no narrower {type(net).__name__} is known", "use Mlp, Conv, Signal or Residual, or width 1")


@cache
def window(net: Net, width: float, offset: int = 0) -> Window:
    """What :func:`narrowed` keeps of every leaf: channels from ``offset`` on, beginning again after the last one.

    Raises:
        ConfigError: as :func:`narrowed`.
    """
    if width == 1:
        named = shared(net).named_parameters()
        return {f"/{name.replace('.', '/')}": tuple(np.arange(size) for size in leaf.shape) for name, leaf in named}
    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.GroupNorm, Norm)
    layers = [
        [(name, module) for name, module in shared(each).named_modules() if isinstance(module, kinds)]
        for each in (net, narrowed(net, width))
    ]
    kept: dict[str, tuple[np.ndarray, ...]] = {}
    before, channels = np.zeros(1, np.int64), 1  # the input is one block that every layer of the first kind reads whole
    entered = before, channels
    for (name, wide), (_, thin) in zip(*layers, strict=True):
        at = f"/{name.replace('.', '/')}"
        if isinstance(wide, nn.GroupNorm | Norm):
            kept |= {f"{at}/{leaf}": (before,) for leaf, _ in wide.named_parameters()}
            continue
        if name.endswith(".first"):  # of a residual block, around which another layer may lead
            entered = before, channels
        elif name.endswith(".beside"):
            before, channels = entered
        rows, columns = wide.weight.shape[:2]
        block = columns // channels  # behind a flatten, a channel is so many columns
        across = (before[:, None] * block + np.arange(block)).ravel()
        before, channels = np.sort((np.arange(len(thin.weight)) + offset) % rows), rows
        if len(thin.weight) == rows:
            before = np.arange(rows)
        kept[f"{at}/weight"] = (before, across, *(np.arange(size) for size in wide.weight.shape[2:]))
        if wide.bias is not None:
            kept[f"{at}/bias"] = (before,)
    return kept


def cut(params: Tree, kept: Window) -> Tree:
    """The parameters of the narrower network. Copies."""
    return trees.pointed(lambda pointer, leaf: np.asarray(leaf)[np.ix_(*kept[pointer])], params)


def positions(params: Tree, kept: Window) -> Index:
    """Where in the wide network's parameters those of the narrower one are."""
    shapes = {pointer: np.shape(leaf) for pointer, leaf in trees.leaves(params)}
    return {
        pointer: (shapes[pointer], np.ravel_multi_index(np.ix_(*axes), shapes[pointer]).ravel())
        for pointer, axes in kept.items()
    }
