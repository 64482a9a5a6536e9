"""A network beside the two that its features are aligned with: a generator of features, and who tells them apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn

from duetto.models.features import chain
from duetto.models.net import Net
from duetto.types import rng


@dataclass(frozen=True)
class Aligned(Net):
    """``net`` beside a ``generator`` and a ``discriminator`` of its features; answers as ``net``.

    Parameters by these names. Features are what the last layer of ``net`` reads, ``[d]`` a row. The generator reads
    noise and a class, the discriminator features and a class.

    Attributes:
        net: ends in a dense layer, as ``Mlp`` and ``Conv`` do.
        noise: numbers that the generator draws from.
        hidden: width of the one layer within the two.
        seen: numbers that the discriminator sees of features: a random projection, the same for all.
    """

    net: Net
    noise: int = 16
    hidden: int = 64
    seen: int = 32

    @property
    def shape(self) -> Any:
        """Of one row."""
        return self.net.shape

    @property
    def classes(self) -> int:
        """Logits."""
        return int(self.net.classes)

    def module(self) -> nn.Module:
        """All three.

        Raises:
            ConfigError: the network does not end in a dense layer.
        """
        inner, last = chain(self.net)
        made = nn.Sequential(*self._dense(self.noise, last.in_features), nn.ReLU())  # as the features: from 0
        return Three(inner, made, nn.Sequential(*self._dense(self.seen, 1), nn.Sigmoid()))

    def projection(self, features: int) -> np.ndarray:
        """What the discriminator sees features through, ``[features, seen]`` float32."""
        drawn = rng(("aligned", features, self.seen)).normal(size=(features, self.seen))
        return np.asarray(drawn / np.sqrt(features), np.float32)

    def _dense(self, given: int, wanted: int) -> tuple[nn.Module, ...]:
        return nn.Linear(given + self.classes, self.hidden), nn.LeakyReLU(), nn.Linear(self.hidden, wanted)


class Three(nn.Module):
    """The networks of an :class:`Aligned`, by their names."""

    def __init__(self, net: nn.Sequential, generator: nn.Sequential, discriminator: nn.Sequential) -> None:
        super().__init__()
        self.net, self.generator, self.discriminator = net, generator, discriminator

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(x)
        return logits
