"""The encoder block that the transformers share (Vaswani et al. 2017, normalised first as in Xiong et al. 2020)."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


class Encoder(nn.Module):
    """``x + Attention(Norm(x))``, then ``x + Dense(GELU(Dense(Norm(x))))``, on ``[rows, tokens, width]``."""

    def __init__(self, width: int, heads: int, inner: int) -> None:
        super().__init__()
        self.heads = heads
        self.first_norm = nn.LayerNorm(width)
        self.queries = nn.Linear(width, 3 * width)
        self.joined = nn.Linear(width, width)
        self.second_norm = nn.LayerNorm(width)
        self.widened = nn.Linear(width, inner)
        self.narrowed = nn.Linear(inner, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows, tokens, width = x.shape
        parts = self.queries(self.first_norm(x)).reshape(rows, tokens, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(query, key, value)
        x = x + self.joined(seen.transpose(1, 2).reshape(rows, tokens, width))
        dense: torch.Tensor = self.narrowed(functional.gelu(self.widened(self.second_norm(x))))
        return x + dense
