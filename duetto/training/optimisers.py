"""Local optimisers as declarations; torch's own do the work."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from duetto.errors import ConfigError


class Optimiser(Protocol):
    """What a client update declares."""

    def start(self, params: Iterable[Tensor]) -> torch.optim.Optimizer:
        """A fresh optimiser over these leaves, which it changes in place."""

    def rate(self, step: int, steps: int) -> float:
        """The learning rate of a step of so many."""


def _check(lr: float, schedule: str, **others: float) -> None:
    for name, value in {"lr": lr, **others}.items():
        if not 0 <= value < math.inf:
            raise ConfigError(f"{name}={value}", "use a number from 0")
    if schedule not in ("constant", "cosine"):
        raise ConfigError(f"no schedule is called {schedule!r}", 'use "constant" or "cosine"')


def _rate(lr: float, schedule: str, step: int, steps: int) -> float:
    if schedule == "cosine":  # Loshchilov, Hutter 2017, down to 2 %
        return lr * (0.02 + 0.98 * (1 + math.cos(math.pi * step / max(1, steps))) / 2)
    return lr


@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent: a linear recurrence in the gradients.

    Attributes:
        lr: learning rate.
        momentum, weight_decay, nesterov: as in ``torch.optim.SGD``.
        schedule: "constant", or "cosine" over the steps of one local training.

    Raises:
        ConfigError: a negative number, an unknown schedule, or Nesterov's step without momentum.
    """

    lr: float
    momentum: float = 0.0
    weight_decay: float = 0.0
    schedule: str = "constant"
    nesterov: bool = False

    def __post_init__(self) -> None:
        _check(self.lr, self.schedule, momentum=self.momentum, weight_decay=self.weight_decay)
        if self.nesterov and not self.momentum:
            raise ConfigError("Nesterov's step without momentum", "give a momentum above 0")

    def start(self, params: Iterable[Tensor]) -> torch.optim.Optimizer:
        """``torch.optim.SGD``."""
        return torch.optim.SGD(params, self.lr, self.momentum, weight_decay=self.weight_decay, nesterov=self.nesterov)

    def rate(self, step: int, steps: int) -> float:
        """By the schedule."""
        return _rate(self.lr, self.schedule, step, steps)


@dataclass(frozen=True)
class Adam:
    """Adam (Kingma, Ba 2015); not linear in the gradients. Arguments and errors are those of :class:`SGD`."""

    lr: float
    weight_decay: float = 0.0
    schedule: str = "constant"

    def __post_init__(self) -> None:
        _check(self.lr, self.schedule, weight_decay=self.weight_decay)

    def start(self, params: Iterable[Tensor]) -> torch.optim.Optimizer:
        """``torch.optim.Adam``."""
        return torch.optim.Adam(params, self.lr, weight_decay=self.weight_decay)

    def rate(self, step: int, steps: int) -> float:
        """By the schedule."""
        return _rate(self.lr, self.schedule, step, steps)
