"""A one-dimensional convolutional network over windows of signals."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from torch import nn

from duetto.errors import ConfigError
from duetto.models.net import Net


@dataclass(frozen=True)
class Signal(Net):
    """Convolutions over time, each with ReLU and pooling by two, then dense layers.

    Attributes:
        shape: ``(channels, samples)`` of one window.
        classes: logits.
        channels: of each convolution.
        hidden: widths of the dense layers between the last convolution and the logits.
        kernel: samples that a convolution sees; odd.
        dropout: before every dense layer, while training.

    Raises:
        ConfigError: an even kernel, a dropout outside 0..1, or more poolings than the window has room for.
    """

    shape: tuple[int, int]
    classes: int
    channels: tuple[int, ...] = (16, 32)
    hidden: tuple[int, ...] = ()
    kernel: int = 5
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.kernel < 1 or self.kernel % 2 == 0 or not 0 <= self.dropout < 1:
            raise ConfigError(
                f"kernel {self.kernel}, dropout {self.dropout}", "use an odd kernel and a share from 0, below 1"
            )
        if not self.channels or self.shape[1] >> len(self.channels) < 1:
            raise ConfigError(
                f"{len(self.channels)} poolings of {self.shape[1]} samples",
                "use one convolution at least, and no more than leave a sample",
            )

    def module(self) -> nn.Module:
        """``(Conv1d -> ReLU -> MaxPool)* -> Flatten -> (Dropout -> Linear -> ReLU)* -> Dropout -> Linear``."""
        layers: list[nn.Module] = []
        samples = self.shape[1]
        for before, after in pairwise((self.shape[0], *self.channels)):
            layers += [nn.Conv1d(before, after, self.kernel, padding=self.kernel // 2), nn.ReLU(), nn.MaxPool1d(2)]
            samples //= 2
        widths = (self.channels[-1] * samples, *self.hidden)
        layers.append(nn.Flatten())
        for before, after in pairwise(widths):
            layers += [nn.Dropout(self.dropout), nn.Linear(before, after), nn.ReLU()]
        if self.dropout:
            layers.append(nn.Dropout(self.dropout))
        return nn.Sequential(*layers, nn.Linear(widths[-1], self.classes))
