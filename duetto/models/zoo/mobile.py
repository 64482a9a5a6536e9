"""Inverted residuals with depthwise convolutions (MobileNetV2, Sandler et al. 2018), group-normalised."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from duetto.models.net import Net

V2 = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


@dataclass(frozen=True)
class Mobile(Net):
    """A stem, inverted residual blocks, a 1x1 convolution, the mean of the pixels. The defaults are MobileNetV2.

    Attributes:
        shape: ``(channels, height, width)`` of one image.
        classes: logits.
        settings: (expansion, channels, blocks, stride of the first block) of each group.
        stem: channels of the first convolution.
        stride: of the first convolution.
        last: channels of the last one.
        groups: of channels that are normalised together.
    """

    shape: tuple[int, int, int]
    classes: int
    settings: tuple[tuple[int, int, int, int], ...] = V2
    stem: int = 32
    stride: int = 2
    last: int = 1280
    groups: int = 8

    def module(self) -> nn.Module:
        """``Conv -> Inverted* -> Conv -> mean -> Linear``."""
        layers: list[nn.Module] = [*_convolved(self.shape[0], self.stem, 3, self.stride, 1, self.groups)]
        before = self.stem
        for expansion, width, blocks, stride in self.settings:
            for block in range(blocks):
                layers.append(_Inverted(before, width, expansion, 1 if block else stride, self.groups))
                before = width
        layers += _convolved(before, self.last, 1, 1, 1, self.groups)
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(self.last, self.classes))


class _Inverted(nn.Module):
    """Widen, filter each channel by itself, narrow; added to the input where sizes are equal."""

    def __init__(self, before: int, after: int, expansion: int, stride: int, groups: int) -> None:
        super().__init__()
        wide = before * expansion
        widen = _convolved(before, wide, 1, 1, 1, groups) if expansion > 1 else []
        filtered = _convolved(wide, wide, 3, stride, wide, groups)
        self.inner = nn.Sequential(
            *widen, *filtered, nn.Conv2d(wide, after, 1, bias=False), nn.GroupNorm(groups, after)
        )
        self.same = stride == 1 and before == after

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner: torch.Tensor = self.inner(x)
        return x + inner if self.same else inner


def _convolved(before: int, after: int, kernel: int, stride: int, groups: int, norms: int) -> list[nn.Module]:
    convolution = nn.Conv2d(before, after, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [convolution, nn.GroupNorm(norms, after), nn.ReLU6()]
