"""What the last layer of a network reads: features that cost a device nothing beyond its answer."""

from __future__ import annotations

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
        ConfigError: parameters of another network, or one that is no sequence of layers.
    """
    whole = shared(net)
    if not isinstance(whole, nn.Sequential):
        raise ConfigError(f"{type(net).__name__} is no sequence of layers", "read the features of a Conv or an Mlp")
    body, last = whole[:-1], f"{len(whole) - 1}."
    tensors = {name: value for name, value in fitting(net, params).items() if not name.startswith(last)}
    with torch.inference_mode():
        rows = channels_last(to_tensor(np.asarray(x, np.float32)))
        parts = [functional_call(body, tensors, (part,)) for part in torch.split(rows, 128)]
    return np.asarray(torch.cat(parts).flatten(1).numpy())
