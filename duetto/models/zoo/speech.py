"""A transformer over log-mel frames, four frames a token, as speech encoders have it (after Gulati et al. 2020)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from duetto.models.net import Net
from duetto.models.zoo.encoder import Encoder


@dataclass(frozen=True)
class Speech(Net):
    """Two strided convolutions over time, positions, encoder blocks, the mean of the tokens.

    Attributes:
        shape: ``(bands, frames)`` of one log-mel picture; 10 s are 1,000 frames.
        classes: logits.
        width, depth, heads: of the encoder.
    """

    shape: tuple[int, int]
    classes: int
    width: int = 256
    depth: int = 12
    heads: int = 4

    def module(self) -> nn.Module:
        """``Conv1d -> GELU -> Conv1d -> GELU -> + positions -> Encoder* -> Norm -> mean -> Linear``."""
        return _Speech(self)


class _Speech(nn.Module):
    def __init__(self, net: Speech) -> None:
        super().__init__()
        bands, frames = net.shape
        self.convolutions = nn.Sequential(
            nn.Conv1d(bands, net.width, 3, 2, 1), nn.GELU(), nn.Conv1d(net.width, net.width, 3, 2, 1), nn.GELU()
        )
        tokens = ((frames + 1) // 2 + 1) // 2
        self.positions = nn.Parameter(torch.randn(1, tokens, net.width) * 0.02)
        self.blocks = nn.Sequential(*(Encoder(net.width, net.heads, 4 * net.width) for _ in range(net.depth)))
        self.norm = nn.LayerNorm(net.width)
        self.head = nn.Linear(net.width, net.classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.convolutions(x).transpose(1, 2) + self.positions
        logits: torch.Tensor = self.head(self.norm(self.blocks(tokens)).mean(1))
        return logits
