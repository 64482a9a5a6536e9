"""Inputs from the features that cross a cut, by a search of who has the device's half.

Mahendran, Vedaldi: Understanding Deep Image Representations by Inverting Them, CVPR 2015; He, Zhang, Lee: Model
Inversion Attacks Against Collaborative Inference, ACSAC 2019 (their white box). Searched is the input whose features
are nearest to those seen, with a prior for smooth images. The attacker is *adaptive* where the search passes its own
features through the same defence: straight through where that rounds, the mean of several draws where it draws.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from duetto.attacks.release import Release
from duetto.errors import ConfigError
from duetto.models.graph import unfused
from duetto.models.net import to_tensor
from duetto.models.staged import Half
from duetto.training.optimisers import Adam
from duetto.types import Key


@dataclass(frozen=True)
class Search:
    """The search of a white-box attacker, who has the device's half itself.

    Attributes:
        steps, lr: of Adam, down a cosine.
        smooth: weight of the total variation of an image, beside the relative square distance of the features.
        draws: of a defence by chance, whose mean the search expects.
        within: the smallest and the largest value that an input may have, or None.

    Raises:
        ConfigError: no steps, no draws, or a negative weight.
    """

    steps: int = 300
    lr: float = 0.05
    smooth: float = 1e-3
    draws: int = 4
    within: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.steps < 1 or self.draws < 1 or self.smooth < 0:
            raise ConfigError(f"{self}", "give a step and a draw at least, and a weight from 0")

    def guess(
        self, half: Half, given: np.ndarray, start: np.ndarray, key: Key, release: Release | None = None
    ) -> np.ndarray:
        """Inputs ``[n, *shape]`` whose features are nearest to ``given [n, ...]``, searched together.

        Args:
            half: of the device, with one output.
            given: what arrived.
            start: the mean public input ``[*shape]``.
            key: of what the defence draws.
            release: the defence; None is an attacker who does not know it.
        """
        module, target = half.module().eval(), to_tensor(np.asarray(given, np.float32))
        ((value,),) = [tuple(half.outputs.values())]
        layout, n = half.graph.layouts[value], len(given)
        x = to_tensor(np.repeat(start[None], n, 0).astype(np.float32)).clone().requires_grad_()
        optimiser = Adam(self.lr, schedule="cosine")
        stepping = optimiser.start([x])
        weight = target.flatten(1).square().sum(1).clamp(min=1e-9)
        for step in range(self.steps):
            for group in stepping.param_groups:
                group["lr"] = optimiser.rate(step, self.steps)
            stepping.zero_grad()
            with unfused():
                (stored,) = module(x)
            own = layout.restored(stored)
            if release is not None:
                drawn = own.detach().numpy()
                draws = self.draws if release.noise else 1
                treated = np.mean([release(drawn, (*key, step, draw)) for draw in range(draws)], 0)
                own = own + to_tensor(treated.astype(np.float32)) - own.detach()
            distance = (own - target).flatten(1).square().sum(1) / weight
            (distance + self.smooth * variation(x)).sum().backward()  # type: ignore[no-untyped-call]
            stepping.step()
            if self.within is not None:
                x.data.clamp_(*self.within)
        return np.asarray(x.detach().numpy())


def variation(x: Tensor) -> Tensor:
    """Total variation of images, ``[n]``: the sum of steps between neighbours; 0 of rows that are no images."""
    if x.ndim != 4:
        return x.new_zeros(len(x))
    down, across = (x[:, :, 1:] - x[:, :, :-1]).abs(), (x[..., 1:] - x[..., :-1]).abs()
    return down.flatten(1).sum(1) + across.flatten(1).sum(1)
