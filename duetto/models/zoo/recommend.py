"""Recommenders whose input is a film and the films before it, so that they answer for people they never saw.

A user is the mean of the embeddings of what they had (Kabbur, Ning, Karypis, *FISM*, KDD 2013), not a row of a table:
no parameter belongs to one user. Item number 0 is none.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import nn

from duetto.errors import ConfigError
from duetto.models.net import Net


@dataclass(frozen=True)
class Ncf(Net):
    """Neural collaborative filtering (He et al. 2017): the product and a dense network of user and item, together.

    Attributes:
        shape: ``(1 + history,)``: the item in question, then items before it; as integers or floats.
        classes: logits.
        items: item numbers, 0 among them.
        width: of an embedding.
        hidden: widths of the dense network.
        dropout: on embeddings and behind every ReLU, while training.

    Raises:
        ConfigError: no history, or no item.
    """

    shape: tuple[int]
    classes: int
    items: int
    width: int = 8
    hidden: tuple[int, ...] = (16,)
    dropout: float = 0.0

    def __post_init__(self) -> None:
        _checked(self.shape, self.items)

    def module(self) -> nn.Module:
        """``(item, mean of history) -> product beside (Linear -> ReLU)* -> Linear``."""
        return _Ncf(self)


@dataclass(frozen=True)
class TwoTower(Net):
    """A tower for the user and one for the item, which meet in a product (Huang et al. 2013; Yi et al. 2019).

    The item's tower does not see the user, so that a catalogue's vectors can be made beforehand. A tower gives the
    embedding and what dense layers make of it, side by side.

    Attributes:
        shape, classes, items, width, dropout: as for :class:`Ncf`.
        hidden: widths of each tower's dense layers.

    Raises:
        ConfigError: no history, no item, or no layer.
    """

    shape: tuple[int]
    classes: int
    items: int
    width: int = 8
    hidden: tuple[int, ...] = (16,)
    dropout: float = 0.0

    def __post_init__(self) -> None:
        _checked(self.shape, self.items)
        if not self.hidden:
            raise ConfigError("towers without a layer", "name the width of one layer at least")

    def module(self) -> nn.Module:
        """``tower(mean of history) * tower(item) -> sum -> Linear``."""
        return _TwoTower(self)


def _checked(shape: tuple[int], items: int) -> None:
    if len(shape) != 1 or shape[0] < 2 or items < 2:
        raise ConfigError(f"shape {shape} of {items} items", "an item and one before it at least, of two or more")


class _Table(nn.Module):
    """Embeddings of the item and of its history, ``[n, width]`` each; two tables, since they play two parts."""

    def __init__(self, items: int, width: int, dropout: float) -> None:
        super().__init__()
        self.item = nn.Embedding(items, width)
        self.past = nn.Embedding(items, width)
        for table in (self.item, self.past):
            nn.init.normal_(table.weight, std=0.05)  # near nothing, so that a rare item stays near the mean
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        numbers = x.long()
        had = numbers[:, 1:]
        there = (had > 0).type_as(x)
        total = (self.past(had) * there.unsqueeze(2)).sum(1)
        # The root, not the number: a long history is surer than a short one (FISM's alpha of one half).
        user = total / there.sum(1, keepdim=True).clamp(min=1).sqrt()
        return self.dropout(user), self.dropout(self.item(numbers[:, 0]))


def _dense(widths: tuple[int, ...], dropout: float) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
        if dropout:
            layers.append(nn.Dropout(dropout))
    return layers


class _Ncf(nn.Module):
    def __init__(self, net: Ncf) -> None:
        super().__init__()
        self.table = _Table(net.items, net.width, net.dropout)
        widths = (2 * net.width, *net.hidden)
        self.dense = nn.Sequential(*_dense(widths, net.dropout))
        self.head = nn.Linear(net.width + widths[-1], net.classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        user, item = self.table(x)
        deep = self.dense(torch.cat([user, item], 1))
        logits: torch.Tensor = self.head(torch.cat([user * item, deep], 1))
        return logits


class _TwoTower(nn.Module):
    def __init__(self, net: TwoTower) -> None:
        super().__init__()
        self.table = _Table(net.items, net.width, net.dropout)
        *widths, last = net.width, *net.hidden
        self.user = nn.Sequential(*_dense(tuple(widths), net.dropout), nn.Linear(widths[-1], last))
        self.item = nn.Sequential(*_dense(tuple(widths), net.dropout), nn.Linear(widths[-1], last))
        self.head = nn.Linear(1, net.classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        user, item = self.table(x)
        product = (user * item).sum(1, keepdim=True) + (self.user(user) * self.item(item)).sum(1, keepdim=True)
        logits: torch.Tensor = self.head(product)
        return logits
