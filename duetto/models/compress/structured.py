"""Channels removed for real: a narrower dense network, with the channels that matter most.

Li, Kadav, Durdanovic, Samet, Graf: Pruning Filters for Efficient ConvNets, ICLR 2017. A channel matters as much as what
it adds to the next layer: its mean absolute activation on calibration inputs, times the norm of the weights that read
it (the data-driven form of Hu, Peng, Tai, Tang: Network Trimming, 2016). The narrower networks are those of
:mod:`duetto.models.narrow`, which keeps windows of channels; here the channels are chosen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.func import functional_call

from duetto.errors import ConfigError
from duetto.models import narrow
from duetto.models.compress.model import Material, Model
from duetto.models.narrow import Window
from duetto.models.net import Net, channels_last, fitting, shared, to_tensor
from duetto.models.norm import Norm
from duetto.tree import Tree
from duetto.types import Key

_KINDS = (nn.Linear, nn.Conv1d, nn.Conv2d)
ROWS = 512  # calibration inputs that are looked at


@dataclass(frozen=True)
class Structured:
    """Keep this share of the channels of every hidden layer, rounded up.

    Attributes:
        keep: above 0, at most 1.

    Raises:
        ConfigError: a share outside; when called, a network of which there is no narrower one.
    """

    keep: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.keep <= 1:
            raise ConfigError(f"keep={self.keep}", "use a share above 0, at most 1")

    def __call__(self, model: Model, material: Material, key: Key) -> Model:
        """The narrower model."""
        net = narrow.narrowed(model.net, self.keep)
        matters = importances(model.net, model.params, material.calibration[:ROWS])
        chosen = [np.sort(np.argsort(-each, kind="stable")[: math.ceil(self.keep * len(each))]) for each in matters]
        return replace(model, net=net, params=narrow.cut(model.params, kept(model.net, chosen)))


def importances(net: Net, params: Tree, x: np.ndarray) -> list[np.ndarray]:
    """How much each channel of each hidden layer matters, ``[channels]`` a layer.

    Args:
        net: a chain of layers.
        params: its parameters.
        x: inputs ``[m, *shape]``.

    Raises:
        ConfigError: parameters of another network, or one that is no chain.
    """
    layers, tensors = _layers(net), fitting(net, params)
    read: dict[str, torch.Tensor] = {}

    def watch(name: str) -> Any:
        def hook(layer: nn.Module, given: tuple[torch.Tensor, ...]) -> None:
            read[name] = given[0].abs().mean(0)

        return shared(net).get_submodule(name).register_forward_pre_hook(hook)

    watched = [watch(name) for name, _ in layers[1:]]
    try:
        with torch.inference_mode():
            functional_call(shared(net), tensors, (channels_last(to_tensor(np.asarray(x, np.float32))),))
    finally:
        for each in watched:
            each.remove()
    found = []
    for (name, _), (after, _) in pairwise(layers):
        channels = len(tensors[f"{name}.weight"])
        weight = tensors[f"{after}.weight"]
        norm = weight.flatten(2).norm(dim=2) if weight.ndim > 2 else weight.abs()
        size = read[after].flatten(1).mean(1) if weight.ndim > 2 else read[after].flatten()
        per_input = norm.norm(dim=0) * size  # of each column that the next layer reads
        found.append(per_input.reshape(channels, -1).norm(dim=1).double().numpy())
    return found


def kept(net: Net, channels: Sequence[np.ndarray]) -> Window:
    """What a narrower network keeps of every leaf, for :func:`duetto.models.narrow.cut`.

    Args:
        net: a chain of layers.
        channels: of each hidden layer, the positions that stay, ascending int64.

    Raises:
        ConfigError: a network that is no chain, or channels of another number of layers.
    """
    layers = _layers(net)
    if len(channels) != len(layers) - 1:
        raise ConfigError(f"channels of {len(channels)} layers", f"{type(net).__name__} has {len(layers) - 1} hidden")
    found: dict[str, tuple[np.ndarray, ...]] = {}
    before, width = np.zeros(1, np.int64), 1  # the input is one block that the first layer reads whole
    place = 0
    for name, module in shared(net).named_modules():
        at = f"/{name.replace('.', '/')}"
        if isinstance(module, Norm):
            found |= {f"{at}/{leaf}": (before,) for leaf, _ in module.named_parameters()}
        if not isinstance(module, _KINDS):
            continue
        rows, columns = module.weight.shape[:2]
        block = columns // width  # behind a flatten, a channel is so many columns
        across = (before[:, None] * block + np.arange(block)).ravel()
        before = np.asarray(channels[place]) if place < len(channels) else np.arange(rows)
        width, place = rows, place + 1
        found[f"{at}/weight"] = (before, across, *(np.arange(size) for size in module.weight.shape[2:]))
        if module.bias is not None:
            found[f"{at}/bias"] = (before,)
    return found


def hidden(net: Net) -> tuple[int, ...]:
    """Channels of each hidden layer of a chain.

    Raises:
        ConfigError: a network that is no chain.
    """
    return tuple(len(dict(layer.named_parameters())["weight"]) for _, layer in _layers(net)[:-1])


def _layers(net: Net) -> list[tuple[str, nn.Module]]:
    """Layers with weights, in the order in which they are called."""
    whole = shared(net)
    passing = (nn.ReLU, nn.Flatten, nn.Dropout, nn.MaxPool1d, nn.MaxPool2d, Norm)
    if not isinstance(whole, nn.Sequential) or not all(isinstance(each, (*_KINDS, *passing)) for each in whole):
        raise ConfigError(f"{type(net).__name__} is no chain of layers", "use Mlp, Conv or Signal")
    return [(name, module) for name, module in whole.named_children() if isinstance(module, _KINDS)]
