"""Two networks whose logits add, of which one is learned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from duetto.errors import ConfigError
from duetto.models.net import Net


@dataclass(frozen=True)
class Beside(Net):
    """The sum of the logits of ``frozen`` and ``net``; parameters by these names, of which ``frozen`` gets no gradient.

    Raises:
        ConfigError: networks of other shapes or classes.
    """

    frozen: Net
    net: Net

    def __post_init__(self) -> None:
        if (self.frozen.shape, self.frozen.classes) != (self.net.shape, self.net.classes):
            raise ConfigError("two networks whose logits cannot add", "they need the same shape and classes")

    @property
    def shape(self) -> Any:
        """Of one row."""
        return self.net.shape

    @property
    def classes(self) -> int:
        """Logits."""
        return int(self.net.classes)

    def module(self) -> nn.Module:
        """Both, side by side."""
        return _Sum(self.frozen.module(), self.net.module())


class _Sum(nn.Module):
    def __init__(self, frozen: nn.Module, net: nn.Module) -> None:
        super().__init__()
        self.frozen, self.net = frozen, net

    def train(self, mode: bool = True) -> _Sum:
        super().train(mode)
        self.frozen.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            known = self.frozen(x)
        added: Tensor = known + self.net(x)
        return added
