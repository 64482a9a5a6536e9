"""Layers as products of two thinner ones, from the singular values of their weights.

Denton, Zaremba, Bruna, LeCun, Fergus: Exploiting Linear Structure Within Convolutional Networks for Efficient
Evaluation, NeurIPS 2014; a convolution becomes one of few channels and a 1x1 convolution behind it, as in Zhang, Zou,
He, Sun: Accelerating Very Deep Convolutional Networks, 2016. Eckart and Young: no product of that rank is nearer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from duetto.errors import ConfigError
from duetto.models.compress.model import Material, Model
from duetto.models.net import Net, fitting, shared, to_tree
from duetto.tree import Tree
from duetto.types import Key


@dataclass(frozen=True)
class Factored(Net):
    """A network some of whose layers are two: ``layer.0`` to ``rank`` channels, ``layer.1`` from there.

    Attributes:
        net: the network.
        ranks: layers by their dotted names, and the rank of each.

    Raises:
        ConfigError: from :meth:`module`, a layer that is not there, or can be no product.
    """

    net: Net
    ranks: tuple[tuple[str, int], ...]

    @property
    def shape(self) -> Any:
        """Of one row."""
        return self.net.shape

    @property
    def classes(self) -> int:
        """Logits."""
        return int(self.net.classes)

    def module(self) -> nn.Module:
        """The network's module, with these layers replaced."""
        whole = self.net.module()
        for name, rank in self.ranks:
            parent = whole.get_submodule(name.rpartition(".")[0])
            parent._modules[name.rpartition(".")[2]] = _pair(name, whole.get_submodule(name), rank)
        return whole


@dataclass(frozen=True)
class LowRank:
    """Every layer by the smallest rank that keeps a share of its weights' energy, where that is fewer numbers.

    Attributes:
        energy: share of the sum of squared singular values, above 0, at most 1.

    Raises:
        ConfigError: a share outside.
    """

    energy: float = 0.9

    def __post_init__(self) -> None:
        if not 0 < self.energy <= 1:
            raise ConfigError(f"energy={self.energy}", "use a share above 0, at most 1")

    def __call__(self, model: Model, material: Material, key: Key) -> Model:
        """The model with its layers factored; as it is where no layer gets smaller."""
        ranks = {}
        for name, tensor in fitting(model.net, model.params).items():
            layer, _, leaf = name.rpartition(".")
            if leaf != "weight" or not _can(shared(model.net).get_submodule(layer)):
                continue
            flat = tensor.flatten(1).double()
            energy = torch.linalg.svdvals(flat).square().cumsum(0)
            rank = int((energy < self.energy * energy[-1] * (1 - 1e-12)).sum()) + 1
            if rank * sum(flat.shape) < flat.numel():
                ranks[layer] = rank
        return replace(model, **factored(model.net, model.params, ranks)) if ranks else model


def factored(net: Net, params: Tree, ranks: Mapping[str, int]) -> dict[str, Any]:
    """``{"net", "params"}`` with these layers as products of these ranks, each half of the singular values.

    Raises:
        ConfigError: parameters of another network, a layer that can be no product, or a rank that it does not have.
    """
    tensors = dict(fitting(net, params))
    for layer, rank in ranks.items():
        if f"{layer}.weight" not in tensors or not _can(shared(net).get_submodule(layer)):
            raise ConfigError(f"{layer!r} is no layer to factor", "name a dense layer, or a convolution of one group")
        weight = tensors.pop(f"{layer}.weight")
        left, middle, right = torch.linalg.svd(weight.flatten(1).double(), full_matrices=False)
        if not 1 <= rank <= len(middle):
            raise ConfigError(f"rank {rank} of the layer {layer!r}", f"use 1 to {len(middle)}")
        root = middle[:rank].sqrt()
        outer = (left[:, :rank] * root).to(weight.dtype)
        inner = (root[:, None] * right[:rank]).to(weight.dtype)
        tensors[f"{layer}.0.weight"] = inner.reshape(rank, *weight.shape[1:])
        tensors[f"{layer}.1.weight"] = outer.reshape(*outer.shape, *(1 for _ in weight.shape[2:]))
        if f"{layer}.bias" in tensors:
            tensors[f"{layer}.1.bias"] = tensors.pop(f"{layer}.bias")
    return {"net": Factored(net, tuple(ranks.items())), "params": to_tree(tensors)}


def _can(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv1d | nn.Conv2d) and layer.groups == 1)


def _pair(name: str, layer: nn.Module, rank: int) -> nn.Sequential:
    if isinstance(layer, nn.Linear):
        return nn.Sequential(
            nn.Linear(layer.in_features, rank, bias=False),
            nn.Linear(rank, layer.out_features, bias=layer.bias is not None),
        )
    if not _can(layer):
        raise ConfigError(f"{name!r} is no layer to factor", "name a dense layer, or a convolution of one group")
    assert isinstance(layer, nn.Conv1d | nn.Conv2d)
    kind: Any = type(layer)
    how = {"stride": layer.stride, "padding": layer.padding, "dilation": layer.dilation}
    return nn.Sequential(
        kind(layer.in_channels, rank, layer.kernel_size, bias=False, **how),
        kind(rank, layer.out_channels, 1, bias=layer.bias is not None),
    )
