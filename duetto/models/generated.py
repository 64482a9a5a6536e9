"""Networks whose last layer is made by another network from a context, and moved within a few directions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from duetto.models.features import chain
from duetto.models.net import Net, size
from duetto.tree import Tree


@dataclass(frozen=True)
class Generated(Net):
    """``net`` whose last dense layer is its own plus what a small network makes of a context.

    A row is ``[context + inputs]``, the context first: what is known of whoever asks, the same in all of its rows.
    Parameters: ``net``, and ``maker`` (two dense layers, of which the second begins at zero).

    Attributes:
        net: ends in a dense layer, as ``Mlp`` and ``Conv`` do.
        context: numbers of a context.
        hidden: width of the maker.
    """

    net: Net
    context: int
    hidden: int = 16

    @property
    def shape(self) -> Any:
        """Of one row, the context with it."""
        return (self.context + size(self.net.shape),)

    @property
    def classes(self) -> int:
        """Logits."""
        return int(self.net.classes)

    def module(self) -> nn.Module:
        """Both networks.

        Raises:
            ConfigError: the network does not end in a dense layer.
        """
        return _Made(*chain(self.net), tuple(self.net.shape), self.context, self.hidden)

    def rows(self, context: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Rows ``[n, *shape]`` float32 for inputs ``x [n, ...]`` in one ``context [context]``."""
        told = np.broadcast_to(np.asarray(context, np.float32), (len(x), self.context))
        return np.concatenate([told, np.asarray(x, np.float32).reshape(len(x), size(self.net.shape))], axis=1)

    def made(self, params: Tree, context: np.ndarray) -> Tree:
        """The parameters of ``net`` in that context."""
        first, second = params["maker"]["0"], params["maker"]["2"]
        inside = np.maximum(first["weight"] @ np.asarray(context, first["weight"].dtype) + first["bias"], 0)
        moved = second["weight"] @ inside + second["bias"]
        last = max(params["net"], key=int)
        bias, weight = params["net"][last]["bias"], params["net"][last]["weight"]
        head = {"bias": bias + moved[: len(bias)], "weight": weight + moved[len(bias) :].reshape(weight.shape)}
        return {**params["net"], last: head}


class _Made(nn.Module):
    def __init__(self, net: nn.Sequential, head: nn.Linear, shape: tuple[int, ...], context: int, hidden: int) -> None:
        super().__init__()
        self.net, self._shape, self._context = net, shape, context
        self._head = (head,)  # in a tuple, because it is in the network already
        last = nn.Linear(hidden, head.out_features * (head.in_features + 1))
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.maker = nn.Sequential(nn.Linear(context, hidden), nn.ReLU(), last)

    def forward(self, rows: Tensor) -> Tensor:
        inputs = rows[:, self._context :].reshape(len(rows), *self._shape)
        features = self.net[:-1](inputs)
        moved = self.maker(rows[:, : self._context])
        (head,) = self._head
        classes = len(head.bias)
        weight = head.weight + moved[:, classes:].view(-1, *head.weight.shape)
        logits: Tensor = torch.einsum("nci,ni->nc", weight, features) + head.bias + moved[:, :classes]
        return logits
