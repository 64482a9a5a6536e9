"""Residual networks of basic blocks (He et al. 2016), with group normalisation (Wu, He 2018) in place of batch's."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from duetto.models.net import Net


@dataclass(frozen=True)
class Residual(Net):
    """A stem, then groups of blocks, each group at half the size of the one before, then the mean of the pixels.

    Attributes:
        shape: ``(channels, height, width)`` of one image.
        classes: logits.
        widths: channels of each group.
        blocks: in each group.
        stem: kernel of the first convolution; above 3 it has stride 2, and a pooling behind it.
        groups: of channels that are normalised together.
    """

    shape: tuple[int, int, int]
    classes: int
    widths: tuple[int, ...] = (16, 32, 64)
    blocks: int = 2
    stem: int = 3
    groups: int = 8

    def module(self) -> nn.Module:
        """``Conv -> Norm -> ReLU -> Block* -> mean -> Linear``."""
        wide = self.stem > 3
        first = self.widths[0]
        layers: list[nn.Module] = [
            nn.Conv2d(self.shape[0], first, self.stem, 2 if wide else 1, self.stem // 2, bias=False),
            nn.GroupNorm(self.groups, first),
            nn.ReLU(),
        ]
        if wide:
            layers.append(nn.MaxPool2d(3, 2, 1))
        before = first
        for group, width in enumerate(self.widths):
            for block in range(self.blocks):
                layers.append(_Block(before, width, 2 if group and not block else 1, self.groups))
                before = width
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, self.classes))


class _Block(nn.Module):
    """``x + Norm(Conv(ReLU(Norm(Conv(x)))))``; where sizes differ, x goes through a 1x1 convolution."""

    def __init__(self, before: int, after: int, stride: int, groups: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.first_norm = nn.GroupNorm(groups, after)
        self.second = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.second_norm = nn.GroupNorm(groups, after)
        self.beside = nn.Identity() if (before, stride) == (after, 1) else nn.Conv2d(before, after, 1, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = functional.relu(self.first_norm(self.first(x)))
        return functional.relu(self.beside(x) + self.second_norm(self.second(inner)))


def resnet18(classes: int = 1000) -> Residual:
    """He et al. 2016, 224 pixels."""
    return Residual((3, 224, 224), classes, (64, 128, 256, 512), 2, 7, 32)
