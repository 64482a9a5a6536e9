"""Features at a cut that depend less on the input: distance correlation as a term of the loss.

Vepakomma, Singh, Gupta, Raskar: NoPeek: Information leakage reduction to share activations in distributed deep
learning, ICDM workshops 2020, after Székely, Rizzo, Bakirov: Measuring and testing dependence by correlation of
distances, 2007. It lowers a *statistic* of one batch; what an attacker gets who learns from the features as they became
must be measured (:mod:`duetto.attacks.inversion`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.func import functional_call

from duetto.errors import ConfigError
from duetto.models.graph import unfused
from duetto.models.staged import Half
from duetto.training.losses import Named

_EPS = 1e-9


@dataclass(frozen=True)
class NoPeek:
    """``weight`` times the distance correlation of a batch's inputs and the features that a device makes of them.

    Attributes:
        front: the device's half of the network that is trained, ``stage(...)[:cut]``; it computes as in evaluation,
            with the parameters of the step.
        weight: from 0.

    Raises:
        ConfigError: a negative weight, or a half with several inputs.
    """

    front: Half
    weight: float

    def __post_init__(self) -> None:
        if not 0 <= self.weight < math.inf or len(self.front.inputs) != 1:
            raise ConfigError(
                f"a weight of {self.weight}, a half of {len(self.front.inputs)} inputs", "give one from 0, and of one"
            )

    def __call__(self, logits: Tensor, batch: Named, params: Named, start: Mapping[str, Named]) -> Tensor:
        """[n], the same number in each row.

        Raises:
            ConfigError: parameters of another network than the half's.
        """
        if missing := sorted(self.front.learnable.keys() - params.keys()):
            raise ConfigError(f"parameters without {missing[0]}", "cut the network that is trained")
        inside = {own: params[name] for name, own in self.front.learnable.items()}
        with unfused():
            found = functional_call(_module(self.front), inside, (batch["x"],))
        features = torch.cat([each.flatten(1) for each in found], 1)
        return (self.weight * distance_correlation(batch["x"].flatten(1), features)).expand(len(logits))


def distance_correlation(x: Tensor, y: Tensor) -> Tensor:
    """Of rows ``x [n, p]`` and ``y [n, q]``, 0 to 1: 0 only where they are independent; a scalar."""
    one, two = _centred(x), _centred(y)
    both, own = (one * two).mean(), (one * one).mean() * (two * two).mean()
    return torch.sqrt(both.clamp(min=_EPS) / torch.sqrt(own.clamp(min=_EPS**2)))


def _centred(x: Tensor) -> Tensor:
    """Distances between rows, less the means of their row and column, plus the mean of all."""
    square = (x * x).sum(1)
    apart = torch.sqrt((square[:, None] + square - 2 * x @ x.T).clamp(min=_EPS))
    return apart - apart.mean(0, keepdim=True) - apart.mean(1, keepdim=True) + apart.mean()


@lru_cache(8)
def _module(half: Half) -> nn.Module:
    return half.module()
