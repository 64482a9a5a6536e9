"""Branches of several kernel sizes side by side (Szegedy et al. 2015): frontiers of several tensors."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from duetto.models.net import Net


@dataclass(frozen=True)
class Inception(Net):
    """A stem with pooling, then branching blocks with pooling between them, then the mean of the pixels.

    Attributes:
        shape: ``(channels, height, width)`` of one image.
        classes: logits.
        stem: channels of the first convolution.
        widths: channels of each of the four branches, for every block.
    """

    shape: tuple[int, int, int]
    classes: int
    stem: int = 32
    widths: tuple[int, ...] = (16, 32, 48)

    def module(self) -> nn.Module:
        """``Conv -> ReLU -> MaxPool -> (Branches -> MaxPool)* -> mean -> Linear``."""
        layers: list[nn.Module] = [nn.Conv2d(self.shape[0], self.stem, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        before = self.stem
        for i, width in enumerate(self.widths):
            layers += [nn.MaxPool2d(2)] if i else []
            layers.append(_Branches(before, width))
            before = 4 * width
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, self.classes))


class _Branches(nn.Module):
    """1x1; 1x1 and 3x3; 1x1 and 5x5; pooling and 1x1; side by side."""

    def __init__(self, before: int, width: int) -> None:
        super().__init__()
        half = max(1, width // 2)
        self.one = nn.Conv2d(before, width, 1)
        self.three = nn.Sequential(nn.Conv2d(before, half, 1), nn.ReLU(), nn.Conv2d(half, width, 3, padding=1))
        self.five = nn.Sequential(nn.Conv2d(before, half, 1), nn.ReLU(), nn.Conv2d(half, width, 5, padding=2))
        self.pooled = nn.Sequential(nn.MaxPool2d(3, 1, 1), nn.Conv2d(before, width, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(torch.cat([self.one(x), self.three(x), self.five(x), self.pooled(x)], 1))
