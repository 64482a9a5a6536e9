"""A model over models: the cloud's large model answers together with what the fleet has learned.

The members' log-probabilities are averaged (a product of experts, Hinton 2002; the ensemble of FedDF, Lin et al.
2020, before it is distilled into one network). A member without parameters is left out, so that the same description
serves before anything was learned.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from duetto.errors import ConfigError
from duetto.models.net import Net, log_softmax
from duetto.tree import Tree


class _Together(nn.ModuleList):  # its members are named by their places, as their parameters are
    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([torch.log_softmax(member(x), 1) for member in self]).mean(0)


@dataclass(frozen=True)
class Mixture(Net):
    """The mean log-probabilities of several networks; parameters ``{"0": ..., "1": ...}``, some may be missing.

    Raises:
        ConfigError: no members, or members of other shapes or classes.
    """

    members: tuple[Net, ...]

    def __post_init__(self) -> None:
        if len({(member.shape, member.classes) for member in self.members}) != 1:
            raise ConfigError(f"a mixture of {len(self.members)} members", "they need the same shape and classes")

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one row."""
        shape: tuple[int, ...] = self.members[0].shape
        return shape

    @property
    def classes(self) -> int:
        """Logits."""
        return int(self.members[0].classes)

    def module(self) -> nn.Module:
        """All members side by side."""
        return _Together(member.module() for member in self.members)

    def logits(self, params: Tree, x: np.ndarray) -> np.ndarray:
        """Mean log-probabilities ``[n, classes]`` float32 of the members that have parameters.

        Raises:
            ConfigError: no member has any, or parameters of another network.
        """
        heard = [
            log_softmax(member.logits(params[str(i)], x)) for i, member in enumerate(self.members) if str(i) in params
        ]
        if not heard or len(heard) < len(params):
            raise ConfigError(
                f"parameters named {sorted(params)} for a mixture of {len(self.members)} members",
                "name them by their places, from 0, at least one",
            )
        return np.asarray(np.mean(heard, axis=0), np.float32)
