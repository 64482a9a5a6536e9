"""A network that shows what its last layer reads, beside its logits, so that a teacher can look inside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from duetto.errors import ConfigError
from duetto.models.features import chain
from duetto.models.net import Net


@dataclass(frozen=True)
class Shown(Net):
    """``[n, classes + width]``: the logits of ``net``, then its features, or what a regressor makes of them.

    Parameters lie in ``net``, those of the regressor in ``regressor`` beside it. Features are what the last dense layer
    reads. The regressor (Romero et al. 2015) is a dense layer that speaks the teacher's width; it is thrown away.

    Attributes:
        net: ends in a dense layer, as ``Mlp``, ``Conv`` and ``Chained`` do.
        width: numbers that the regressor gives; 0 shows the features as they are, and has none.

    Raises:
        ConfigError: a width below 0; from :meth:`module`, a network that does not end in a dense layer.
    """

    net: Net
    width: int = 0

    def __post_init__(self) -> None:
        if self.width < 0:
            raise ConfigError(f"a regressor of width {self.width}", "use the teacher's width, or 0 for none")

    @property
    def shape(self) -> Any:
        """Of one row."""
        return self.net.shape

    @property
    def classes(self) -> int:
        """Logits, which come first."""
        return int(self.net.classes)

    def module(self) -> nn.Module:
        """Both."""
        inner, last = chain(self.net)
        return _Shown(inner, nn.Linear(last.in_features, self.width) if self.width else None)


class _Shown(nn.Module):
    def __init__(self, net: nn.Sequential, regressor: nn.Linear | None) -> None:
        super().__init__()
        self.net, self.regressor = net, regressor

    def forward(self, x: Tensor) -> Tensor:
        features = self.net[:-1](x).flatten(1)
        told = features if self.regressor is None else self.regressor(features)
        return torch.cat([self.net[-1](features), told], 1)
