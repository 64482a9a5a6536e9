"""What the last layer of a network reads: features that cost a device nothing beyond its answer."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn
from torch.func import functional_call

from duetto.errors import ConfigError
from duetto.models.net import Net, channels_last, fitting, shared, to_tensor
from duetto.tree import Tree


def last_features(net: Net, params: Tree, x: np.ndarray) -> np.ndarray:
    """What the last layer of a network reads, ``[n, d]`` float32; costs nothing beyond its answer.

    Raises:
        ConfigError: parameters of another network, or one that does not end in one linear layer.
    """
    tensors = fitting(net, params)
    with torch.inference_mode():
        rows = channels_last(to_tensor(np.asarray(x, np.float32)))
        parts = [features(net, tensors, part) for part in torch.split(rows, 128)]
    return np.asarray(torch.cat(parts).numpy())


def features(net: Net, tensors: Mapping[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """The same of tensors, ``[n, d]``, with gradients."""
    read: list[torch.Tensor] = []
    watched = head(net).register_forward_pre_hook(lambda layer, given: read.append(given[0]))
    try:
        functional_call(shared(net), dict(tensors), (x,))
    finally:
        watched.remove()
    return read[0].flatten(1)


def head(net: Net) -> nn.Linear:
    """The layer that gives the logits: the last one of a sequence, or what the network calls ``head``.

    Raises:
        ConfigError: a network without.
    """
    whole = shared(net)
    layer = whole[-1] if isinstance(whole, nn.Sequential) else getattr(whole, "head", None)
    if not isinstance(layer, nn.Linear):
        raise ConfigError(f"{type(net).__name__} does not end in one linear layer", "take one that does, as an Mlp")
    return layer


def chain(net: Net) -> tuple[nn.Sequential, nn.Linear]:
    """A module of the network's own, layers one after the other, and the dense layer that it ends in.

    Raises:
        ConfigError: another network.
    """
    made = net.module()
    if not (isinstance(made, nn.Sequential) and isinstance(made[-1], nn.Linear)):
        raise ConfigError(f"{type(net).__name__} does not end in a dense layer", "use Mlp or Conv")
    return made, made[-1]
