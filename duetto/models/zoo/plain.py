"""Dense layers, and plain convolutions: small and large pairs for small inputs.

A pair for 28x28 images: ``Conv(shape, classes, (16, 32, 64))`` has 29,066 parameters (below 40 kB at eight bits),
``Conv(shape, classes, (32, 64, 128), (800,), dropout=.25)`` has 1.0 million. For feature vectors: ``Mlp``.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from torch import nn

from duetto.errors import ConfigError
from duetto.models.net import Net, size
from duetto.models.norm import Norm


@dataclass(frozen=True)
class Mlp(Net):
    """Dense layers with ReLU between them.

    Attributes:
        shape: of one row; flattened.
        classes: logits.
        hidden: widths of the layers between.
        dropout: behind every ReLU, while training.
    """

    shape: tuple[int, ...]
    classes: int
    hidden: tuple[int, ...] = (64,)
    dropout: float = 0.0

    def module(self) -> nn.Module:
        """``Flatten -> (Linear -> ReLU -> Dropout)* -> Linear``."""
        layers: list[nn.Module] = [nn.Flatten()]
        for before, after in pairwise((size(self.shape), *self.hidden)):
            layers += [nn.Linear(before, after), nn.ReLU()]
            if self.dropout:
                layers.append(nn.Dropout(self.dropout))
        return nn.Sequential(*layers, nn.Linear((size(self.shape), *self.hidden)[-1], self.classes))


@dataclass(frozen=True)
class Conv(Net):
    """3x3 convolutions, each with ReLU and 2x2 max-pooling, then dense layers.

    Attributes:
        shape: ``(channels, height, width)`` of one image.
        classes: logits.
        channels: of each convolution.
        hidden: widths of the dense layers between the last convolution and the logits.
        dropout: before every dense layer but a lone one, while training.
        norm: "batch" normalises behind every convolution (:class:`~duetto.models.norm.Norm`), so that in training rows
            of a batch depend on each other; "" does not.

    Raises:
        ConfigError: more poolings than the image has room for, a dropout outside 0..1, or another norm.
    """

    shape: tuple[int, int, int]
    classes: int
    channels: tuple[int, ...] = (16, 32, 48)
    hidden: tuple[int, ...] = ()
    dropout: float = 0.0
    norm: str = ""

    def __post_init__(self) -> None:
        if self.norm not in ("", "batch"):
            raise ConfigError(f"no normalisation is called {self.norm!r}", 'use "batch", or "" for none')
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"a dropout of {self.dropout}", "use a share from 0, below 1")
        if min(self.shape[1:]) >> len(self.channels) < 1:
            raise ConfigError(
                f"{len(self.channels)} poolings of {self.shape[1]}x{self.shape[2]} pixels leave none",
                "use fewer channels, one for each pooling",
            )

    def module(self) -> nn.Module:
        """``(Conv -> Norm -> ReLU -> MaxPool)* -> Flatten -> (Dropout -> Linear -> ReLU)* -> Dropout -> Linear``."""
        planes, height, width = self.shape
        layers: list[nn.Module] = []
        for before, after in pairwise((planes, *self.channels)):
            norm = [Norm(after)] if self.norm else []
            layers += [nn.Conv2d(before, after, 3, padding=1), *norm, nn.ReLU(), nn.MaxPool2d(2)]
            height, width = height // 2, width // 2
        widths = ((self.channels or (planes,))[-1] * height * width, *self.hidden)
        layers.append(nn.Flatten())
        for before, after in pairwise(widths):
            layers += [nn.Dropout(self.dropout), nn.Linear(before, after), nn.ReLU()]
        if self.hidden:
            layers.append(nn.Dropout(self.dropout))
        return nn.Sequential(*layers, nn.Linear(widths[-1], self.classes))
