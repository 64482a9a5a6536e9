"""A recurrent network over token sequences of one length."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from duetto.models.net import Net


@dataclass(frozen=True)
class Recurrent(Net):
    """Embedded tokens, LSTM layers (Hochreiter & Schmidhuber 1997), the output at the last token.

    Attributes:
        shape: ``(tokens,)``; rows hold token numbers, below ``vocabulary``, as integers or floats.
        classes: logits.
        vocabulary: token numbers.
        width: of the embedding.
        hidden: of each layer.
        depth: layers.
    """

    shape: tuple[int]
    classes: int
    vocabulary: int = 256
    width: int = 8
    hidden: int = 64
    depth: int = 1

    def module(self) -> nn.Module:
        """``Embedding -> LSTM* -> last -> Linear``."""
        return _Recurrent(self)


class _Recurrent(nn.Module):
    def __init__(self, net: Recurrent) -> None:
        super().__init__()
        self.tokens = nn.Embedding(net.vocabulary, net.width)
        widths = (net.width, *[net.hidden] * net.depth)
        # One layer each: executors know how to train those of many clients.
        self.layers = nn.ModuleList(nn.LSTM(before, net.hidden, batch_first=True) for before in widths[:-1])
        self.head = nn.Linear(net.hidden, net.classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.tokens(x.long())
        for layer in self.layers:
            tokens = layer(tokens)[0]
        logits: torch.Tensor = self.head(tokens[:, -1])
        return logits
