"""A malicious cloud in split learning teaches the device's half to give away what it sees.

Pasquini, Ateniese, Bernaschi: Unleashing the Tiger: Inference Attacks on Split Learning, CCS 2021 (FSHA). The cloud
ignores the task: on public inputs it trains a *pilot* of the device's half with a decoder that undoes it, and a
discriminator that tells the pilot's features from the device's. The slopes that it sends back are those that make the
device's features pass for the pilot's; once they do, the decoder works on them.

A pilot of the cloud's own matches the *distribution* of features; that the same features then mean the same inputs
rests on the networks being alike. A cloud that gave out the parameters that devices start from has a better pilot: that
very half, kept as it was.

It is an attack on training, so no codec of features stops it, and a device that checks nothing cannot tell it from
learning. What shows: the device's own loss, where it knows labels, does not fall.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from duetto.errors import ConfigError, DataError
from duetto.models.net import to_tensor
from duetto.models.staged import Half
from duetto.training.sequential import seed
from duetto.types import Key


@dataclass(frozen=True)
class Hijack:
    """What the malicious cloud trains.

    Attributes:
        width: of its networks' hidden layers.
        lr: of Adam for pilot and decoder.
        discriminating: of Adam for the discriminator.
        positive: whether the device's features end in a ReLU, so that the pilot's must.

    Raises:
        ConfigError: numbers that are not above 0.
    """

    width: int = 128
    lr: float = 1e-3
    discriminating: float = 1e-3
    positive: bool = False

    def __post_init__(self) -> None:
        if self.width < 1 or not 0 < self.lr < math.inf or not 0 < self.discriminating < math.inf:
            raise ConfigError(f"{self}", "give a width and rates above 0")

    def start(self, public: np.ndarray, frontier: tuple[int, ...], key: Key, half: Half | None = None) -> Hijacking:
        """A cloud that knows public inputs ``[n, *shape]`` and the shape of one row's features.

        Args:
            public: of people whom it knows.
            frontier: of one row of features.
            key: of all chance.
            half: of the device as the cloud gave it out, of one output; it is the pilot then.

        Raises:
            DataError: no public inputs.
        """
        if not len(public):
            raise DataError("no public inputs", "the attack learns from some")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed((*key, "hijack")))
            return Hijacking(self, np.asarray(public, np.float32), frontier, key, half)


class Hijacking:
    """The cloud's side of an attack that runs: it changes with every batch."""

    def __init__(
        self, what: Hijack, public: np.ndarray, frontier: tuple[int, ...], key: Key, half: Half | None
    ) -> None:
        shape = public.shape[1:]
        self._public, self._frontier = to_tensor(public), frontier
        self._low, self._high = float(public.min()), float(public.max())
        if half is None:
            self._pilot: nn.Module = nn.Sequential(_dense(shape, what.width, frontier), *[nn.ReLU()] * what.positive)
        else:
            self._pilot = _Given(half)
        self._decoder = _dense(frontier, what.width, shape)
        self._judge = _dense(frontier, what.width, (1,))
        both = [*self._pilot.parameters(), *self._decoder.parameters()]
        self._own = torch.optim.Adam(both, what.lr)
        self._judging = torch.optim.Adam(self._judge.parameters(), what.discriminating)
        self._chance = torch.Generator().manual_seed(seed((*key, "batches")))

    def slopes(self, features: np.ndarray) -> np.ndarray:
        """What is sent back for a batch of features ``[n, *frontier]``; trains the cloud's networks by one step.

        Raises:
            DataError: features of another shape, or not finite.
        """
        given = to_tensor(np.asarray(features, np.float32)).clone()
        if given.shape[1:] != self._frontier or not torch.isfinite(given).all():
            raise DataError(f"features {tuple(given.shape)}", f"send finite [n, {self._frontier}]")
        known = self._public[torch.randint(len(self._public), (len(given),), generator=self._chance)]
        piloted = self._pilot(known)
        self._step(self._own, functional.mse_loss(self._decoder(piloted), known))
        self._step(self._judging, _apart(self._judge(piloted.detach()), 1) + _apart(self._judge(given), 0))
        given.requires_grad_()
        (found,) = torch.autograd.grad(_apart(self._judge(given), 1), [given])
        return np.asarray(found.numpy())

    def guess(self, features: np.ndarray) -> np.ndarray:
        """Inputs ``[n, *shape]`` float32 of features ``[n, *frontier]``."""
        with torch.inference_mode():
            found = self._decoder(to_tensor(np.asarray(features, np.float32)))
            return np.asarray(found.clamp(self._low, self._high).numpy())

    def _step(self, optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()


class _Given(nn.Module):
    """A half as it was given out."""

    def __init__(self, half: Half) -> None:
        super().__init__()
        self.kept = half.module().requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.kept(x)[0]
        return found


def _apart(said: Tensor, wanted: float) -> Tensor:
    return functional.binary_cross_entropy_with_logits(said, torch.full_like(said, wanted))


def _dense(takes: tuple[int, ...], width: int, gives: tuple[int, ...]) -> nn.Module:
    layers: list[nn.Module] = [nn.Flatten(), nn.Linear(math.prod(takes), width), nn.ReLU()]
    layers += [nn.Linear(width, width), nn.ReLU(), nn.Linear(width, math.prod(gives)), nn.Unflatten(1, gives)]
    return nn.Sequential(*layers)
