"""A vision transformer (Dosovitskiy et al. 2021): patches as tokens, and one more that reads the class."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from duetto.errors import ConfigError
from duetto.models.net import Net
from duetto.models.zoo.encoder import Encoder


@dataclass(frozen=True)
class Vit(Net):
    """Patches, positions, encoder blocks.

    Attributes:
        shape: ``(channels, height, width)`` of one image, in whole patches.
        classes: logits.
        patch: pixels of its side.
        width, depth, heads: of the encoder.

    Raises:
        ConfigError: an image that is not whole patches, or a width that is not whole heads.
    """

    shape: tuple[int, int, int]
    classes: int
    patch: int = 4
    width: int = 64
    depth: int = 4
    heads: int = 4

    def __post_init__(self) -> None:
        if self.shape[1] % self.patch or self.shape[2] % self.patch or self.width % self.heads:
            raise ConfigError(f"patches of {self.patch} in {self.shape}, {self.heads} heads in {self.width}", "divide")

    def module(self) -> nn.Module:
        """``Patches -> + positions -> Encoder* -> Norm -> first token -> Linear``."""
        return _Vit(self)


class _Vit(nn.Module):
    def __init__(self, net: Vit) -> None:
        super().__init__()
        channels, height, width = net.shape
        tokens = (height // net.patch) * (width // net.patch)
        self.patches = nn.Conv2d(channels, net.width, net.patch, net.patch)
        self.reader = nn.Parameter(torch.randn(1, 1, net.width) * 0.02)
        self.positions = nn.Parameter(torch.randn(1, tokens + 1, net.width) * 0.02)
        self.blocks = nn.Sequential(*(Encoder(net.width, net.heads, 4 * net.width) for _ in range(net.depth)))
        self.norm = nn.LayerNorm(net.width)
        self.head = nn.Linear(net.width, net.classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.reader.expand(x.shape[0], -1, -1), tokens], 1) + self.positions
        logits: torch.Tensor = self.head(self.norm(self.blocks(tokens))[:, 0])
        return logits


def vit_s16(classes: int = 1000) -> Vit:
    """ViT-S/16, 224 pixels."""
    return Vit((3, 224, 224), classes, 16, 384, 12, 6)
