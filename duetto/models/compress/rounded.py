"""A network that computes as its int8 file will, in floating point, so that training can feel the rounding.

Jacob et al.: Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference, CVPR 2018.
Weights are symmetric, one scale a channel; activations are asymmetric, one scale a tensor; slopes pass straight
through what is not clipped (torch's own ``fake_quantize``). The places are those of onnxruntime's static int8: the
input, what a ReLU gives, what a layer without a ReLU behind it gives. Biases, which are kept in 32 bits, stay.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from duetto.errors import ConfigError
from duetto.models.net import BATCH, Net, channels_last, fitting, shared, to_tensor
from duetto.tree import Tree


@dataclass(frozen=True)
class Rounded(Net):
    """The network in so many bits; parameters by the same names.

    Attributes:
        net: a chain of dense layers, convolutions, ReLU and poolings.
        ranges: least and most of each rounded activation, as :func:`ranges` finds them; none takes those of the rows at
            hand, as in training.
        bits: of weights and activations, 2 to 8.

    Raises:
        ConfigError: bits outside; from :meth:`module`, another network, or ranges of another.
    """

    net: Net
    ranges: tuple[tuple[float, float], ...] = ()
    bits: int = 8

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 8:
            raise ConfigError(f"{self.bits} bits", "use 2 to 8")

    @property
    def shape(self) -> Any:
        """Of one row."""
        return self.net.shape

    @property
    def classes(self) -> int:
        """Logits."""
        return int(self.net.classes)

    def module(self) -> nn.Module:
        """The network's module, rounding at its places."""
        whole = self.net.module()
        places = _places(self.net, whole)
        if self.ranges and len(self.ranges) != len(places) + 1:
            raise ConfigError(
                f"{len(self.ranges)} ranges for {len(places) + 1} activations", "measure this network: ranges(...)"
            )
        given = self.ranges or (None,) * (len(places) + 1)
        for name, layer in list(whole.named_children()):
            if isinstance(layer, nn.Linear):
                whole._modules[name] = _Dense(layer, self.bits)
            elif isinstance(layer, nn.Conv1d):
                whole._modules[name] = _Conv1d(layer, self.bits)
            elif isinstance(layer, nn.Conv2d):
                whole._modules[name] = _Conv2d(layer, self.bits)
        whole.register_forward_pre_hook(lambda _, told: (_activation(told[0], given[0], self.bits),))
        for place, bounds in zip(places, given[1:], strict=True):

            def hook(_: nn.Module, told: Any, said: Tensor, bounds: tuple[float, float] | None = bounds) -> Tensor:
                return _activation(said, bounds, self.bits)

            whole._modules[place].register_forward_hook(hook)  # type: ignore[union-attr]
        return whole


def ranges(net: Net, params: Tree, x: np.ndarray) -> tuple[tuple[float, float], ...]:
    """Least and most of every activation that is rounded, on inputs ``x [n, *shape]``, the input's own first.

    Raises:
        ConfigError: parameters of another network, or one that is no plain chain of layers.
    """
    whole, tensors = shared(net), fitting(net, params)
    places = ["", *_places(net, whole)]
    found = np.tile([np.inf, -np.inf], (len(places), 1))

    def watch(row: int, name: str) -> torch.utils.hooks.RemovableHandle:
        def widen(told: Tensor) -> None:
            least, most = told.aminmax()
            found[row] = min(found[row, 0], float(least)), max(found[row, 1], float(most))

        if not name:
            return whole.register_forward_pre_hook(lambda _, told: widen(told[0]))
        return whole.get_submodule(name).register_forward_hook(lambda _, told, said: widen(said))

    watched = [watch(row, name) for row, name in enumerate(places)]
    try:
        with torch.inference_mode():
            for part in torch.split(channels_last(to_tensor(np.asarray(x, np.float32))), BATCH):
                functional_call(whole, tensors, (part,))
    finally:
        for each in watched:
            each.remove()
    return tuple((float(least), float(most)) for least, most in found)


def _places(net: Net, whole: nn.Module) -> list[str]:
    """The modules whose outputs are rounded, by name."""
    passing = (nn.Flatten, nn.Dropout, nn.MaxPool1d, nn.MaxPool2d)
    layers = (nn.Linear, nn.Conv1d, nn.Conv2d)
    if not isinstance(whole, nn.Sequential) or not all(
        isinstance(each, (*passing, *layers, nn.ReLU)) for each in whole
    ):
        raise ConfigError(f"{type(net).__name__} cannot be rounded in training", "use Mlp, Conv, Chained or Signal")
    named = [(name, each) for name, each in whole.named_children() if not isinstance(each, nn.Dropout)]
    found = []
    for place, (name, each) in enumerate(named):
        behind = named[place + 1][1] if place + 1 < len(named) else None
        if isinstance(each, nn.ReLU) or (isinstance(each, layers) and not isinstance(behind, nn.ReLU)):
            found.append(name)
    return found


def _weight(weight: Tensor, bits: int) -> Tensor:
    most = 2 ** (bits - 1) - 1
    scale = (weight.detach().flatten(1).abs().amax(1) / most).clamp_min(1e-12)
    zero = torch.zeros(len(weight), dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(weight, scale, zero, 0, -most, most)


def _activation(x: Tensor, bounds: tuple[float, float] | None, bits: int) -> Tensor:
    least, most = (float(each) for each in x.detach().aminmax()) if bounds is None else bounds
    least, most = min(least, 0.0), max(most, 0.0)  # zero is a number of the scale, as padding needs it
    scale = max(most - least, 1e-12) / (2**bits - 1)
    return torch.fake_quantize_per_tensor_affine(x, scale, round(-least / scale), 0, 2**bits - 1)


class _Dense(nn.Linear):
    def __init__(self, layer: nn.Linear, bits: int) -> None:
        super().__init__(layer.in_features, layer.out_features, layer.bias is not None)
        self.load_state_dict(layer.state_dict())
        self.bits = bits

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, _weight(self.weight, self.bits), self.bias)


def _copied(made: nn.Module, layer: nn.Module, bits: int) -> None:
    made.load_state_dict(layer.state_dict())
    made.bits = bits  # type: ignore[assignment]


class _Conv1d(nn.Conv1d):
    bits: int

    def __init__(self, layer: nn.Conv1d, bits: int) -> None:
        super().__init__(**_how(layer))
        _copied(self, layer, bits)

    def forward(self, x: Tensor) -> Tensor:
        said: Tensor = self._conv_forward(x, _weight(self.weight, self.bits), self.bias)
        return said


class _Conv2d(nn.Conv2d):
    bits: int

    def __init__(self, layer: nn.Conv2d, bits: int) -> None:
        super().__init__(**_how(layer))
        _copied(self, layer, bits)

    def forward(self, x: Tensor) -> Tensor:
        said: Tensor = self._conv_forward(x, _weight(self.weight, self.bits), self.bias)
        return said


def _how(layer: nn.Conv1d | nn.Conv2d) -> dict[str, Any]:
    names = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups")
    return {**{name: getattr(layer, name) for name in names}, "bias": layer.bias is not None}
