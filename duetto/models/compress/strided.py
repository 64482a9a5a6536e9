"""A smaller architecture for the same inputs: convolutions that step over pixels where the original pools.

Springenberg, Dosovitskiy, Brox, Riedmiller: Striving for Simplicity: The All Convolutional Net, ICLR 2015 (workshop).
A pooling looks at every pixel of a convolution and throws three of four away; a convolution of stride 2 never computes
them, which is a quarter of the work. What it loses, a teacher has to bring back.
"""

from __future__ import annotations

import math

from duetto.errors import ConfigError
from duetto.models.narrow import narrowed
from duetto.models.net import Net
from duetto.models.zoo import Chained, Conv, Mlp


def strided(net: Net, width: float = 1.0, multiple: int = 1) -> Net:
    """The network with strides for poolings, and this share of the channels of every hidden layer, rounded up.

    The first convolution sees 5x5 pixels, as it steps over half of them. An ``Mlp``, which pools nothing, becomes
    narrower only.

    Args:
        net: the network.
        width: share of the channels.
        multiple: to which the channels of convolutions are rounded up, but not beyond the network's own: a runtime that
            computes blocks of channels (onnxruntime on AVX-512: 16) takes as long for the whole block.

    Raises:
        ConfigError: a width outside (0, 1], a multiple below 1, or a network that is neither ``Conv`` nor ``Mlp``.
    """
    if isinstance(net, Mlp):
        return narrowed(net, width)
    if not isinstance(net, Conv) or net.norm:
        raise ConfigError(f"no strided {type(net).__name__} is known", "use Mlp, or Conv without normalisation")
    if not 0 < width <= 1 or multiple < 1:
        raise ConfigError(f"width={width}, multiple={multiple}", "use a share above 0, at most 1, and 1 or more")
    kernels = (5, *(3 for _ in net.channels[1:]))
    widths = (min(c, multiple * math.ceil(width * c / multiple)) for c in net.channels)
    layers = tuple((c, k, 2, k // 2) for c, k in zip(widths, kernels, strict=True))
    hidden = tuple(math.ceil(width * each) for each in net.hidden)
    return Chained(net.shape, net.classes, layers, hidden, net.dropout)
