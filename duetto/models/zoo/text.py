"""A transformer that classifies token sequences of one length, or tells what comes next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from duetto.errors import ConfigError
from duetto.models.net import Net
from duetto.models.zoo.encoder import Encoder


@dataclass(frozen=True)
class Text(Net):
    """Embedded tokens, positions, encoder blocks, the mean of the tokens or the last one.

    Attributes:
        shape: ``(tokens,)``; rows hold token numbers, below ``vocabulary``, as integers or floats.
        classes: logits.
        vocabulary: token numbers.
        width, depth, heads: of the encoder.
        read: what the logits are made of: the "mean" of the tokens, or the "last" one, as suits what comes next.

    Raises:
        ConfigError: another way to read.
    """

    shape: tuple[int]
    classes: int
    vocabulary: int = 256
    width: int = 64
    depth: int = 2
    heads: int = 4
    read: Literal["mean", "last"] = "mean"

    def __post_init__(self) -> None:
        if self.read not in ("mean", "last"):
            raise ConfigError(f"to read {self.read!r}", 'read the "mean" of the tokens or the "last" one')

    def module(self) -> nn.Module:
        """``Embedding -> + positions -> Encoder* -> Norm -> mean or last -> Linear``."""
        return _Text(self)


class _Text(nn.Module):
    def __init__(self, net: Text) -> None:
        super().__init__()
        self.tokens = nn.Embedding(net.vocabulary, net.width)
        self.positions = nn.Parameter(torch.randn(1, net.shape[0], net.width) * 0.02)
        self.blocks = nn.Sequential(*(Encoder(net.width, net.heads, 4 * net.width) for _ in range(net.depth)))
        self.norm = nn.LayerNorm(net.width)
        self.head = nn.Linear(net.width, net.classes)
        self.last = net.read == "last"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.norm(self.blocks(self.tokens(x.long()) + self.positions))
        logits: torch.Tensor = self.head(tokens[:, -1] if self.last else tokens.mean(1))
        return logits
