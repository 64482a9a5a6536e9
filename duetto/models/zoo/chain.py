"""Convolutions and poolings in a chain, then dense layers: AlexNet and VGG, which split computing began with."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import nn

from duetto.errors import ConfigError
from duetto.models.net import Net


@dataclass(frozen=True)
class Chained(Net):
    """Convolutions with ReLU, max-poolings, then dense layers with ReLU.

    Attributes:
        shape: ``(channels, height, width)`` of one image.
        classes: logits.
        layers: ``(channels, kernel, stride, padding)`` for a convolution, ``(kernel, stride)`` for a pooling.
        hidden: widths of the dense layers before the logits.
        dropout: before every dense layer, while training.

    Raises:
        ConfigError: a layer of another length.
    """

    shape: tuple[int, int, int]
    classes: int
    layers: tuple[tuple[int, ...], ...]
    hidden: tuple[int, ...] = ()
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if any(len(layer) not in (2, 4) for layer in self.layers):
            raise ConfigError(
                "a layer of neither 2 nor 4 numbers", "give channels, kernel, stride, padding; or kernel, stride"
            )

    def module(self) -> nn.Module:
        """``(Conv -> ReLU | MaxPool)* -> Flatten -> (Dropout -> Linear -> ReLU)* -> Linear``."""
        planes = self.shape[0]
        layers: list[nn.Module] = []
        for layer in self.layers:
            if len(layer) == 2:
                layers.append(nn.MaxPool2d(layer[0], layer[1]))
            else:
                channels, kernel, stride, padding = layer
                layers += [nn.Conv2d(planes, channels, kernel, stride, padding), nn.ReLU()]
                planes = channels
        convolutions = nn.Sequential(*layers)
        with torch.no_grad():
            width = convolutions.to("meta")(torch.empty((1, *self.shape), device="meta")).numel()
        convolutions.to_empty(device="cpu")
        for made in convolutions:
            if isinstance(made, nn.Conv2d):
                made.reset_parameters()
        dense: list[nn.Module] = [nn.Flatten()]
        for before, after in pairwise((width, *self.hidden)):
            dense += [nn.Dropout(self.dropout), nn.Linear(before, after), nn.ReLU()]
        return nn.Sequential(*convolutions, *dense, nn.Linear((width, *self.hidden)[-1], self.classes))


def alexnet(classes: int = 1000) -> Chained:
    """Krizhevsky 2014, one column, 224 pixels."""
    layers = ((64, 11, 4, 2), (3, 2), (192, 5, 1, 2), (3, 2), (384, 3, 1, 1), (256, 3, 1, 1), (256, 3, 1, 1), (3, 2))
    return Chained((3, 224, 224), classes, layers, (4096, 4096), 0.5)


def vgg11(classes: int = 1000) -> Chained:
    """Simonyan, Zisserman 2015, configuration A, 224 pixels."""
    layers: list[tuple[int, ...]] = []
    for widths in ((64,), (128,), (256, 256), (512, 512), (512, 512)):
        layers += [*((width, 3, 1, 1) for width in widths), (2, 2)]
    return Chained((3, 224, 224), classes, tuple(layers), (4096, 4096), 0.5)
