"""What a network makes of an input before its last layer: where inputs of one class lie together."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.func import functional_call

from duetto.errors import ConfigError
from duetto.models.net import BATCH, Net, channels_last, fitting, shared, to_tensor
from duetto.tree import Tree


def embedded(net: Net, params: Tree, x: np.ndarray) -> np.ndarray:
    """The input of the last layer, ``[n, d]`` float32, for ``x [n, *shape]``.

    Raises:
        ConfigError: parameters of another network, or a network that is no sequence of layers.
    """
    module = shared(net)
    if not isinstance(module, nn.Sequential) or len(module) < 2:
        raise ConfigError(f"{net} has no layer before its last", "use a network of the zoo: Mlp or Conv")
    body = module[:-1]
    last = f"{len(module) - 1}."
    tensors = {name: each for name, each in fitting(net, params).items() if not name.startswith(last)}
    rows = channels_last(to_tensor(np.asarray(x, np.float32)))
    with torch.inference_mode():
        parts = [functional_call(body, tensors, (part,)) for part in torch.split(rows, BATCH)]
        found: np.ndarray = torch.cat(parts).flatten(1).numpy()
        return found
