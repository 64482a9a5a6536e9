"""Inputs from the features that cross a cut, by a decoder that learned to undo them.

Dosovitskiy, Brox: Inverting Visual Representations with Convolutional Networks, CVPR 2016; as an attack on split
inference: He, Zhang, Lee: Model Inversion Attacks Against Collaborative Inference, ACSAC 2019. A decoder is trained on
public people's inputs and what the device makes of them: the attacker needs the device's half as a black box, or a
stand-in (:mod:`duetto.attacks.surrogate`).

It is *adaptive* when it learns from what really arrives: features that the defence has already treated, with fresh
noise in every epoch. A decoder that learned from undefended features is *naive*: a mere change of scale fools it, and
that says nothing about privacy. What a decoder of this size does not find, a larger one with more data may.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from duetto.attacks.release import View
from duetto.errors import ConfigError, DataError
from duetto.models.net import to_tensor
from duetto.training.optimisers import Adam
from duetto.training.sequential import order, seed
from duetto.types import Key

_COARSE = 4  # pixels of the image for each position where features have none of their own


@dataclass(frozen=True)
class Inversion:
    """A decoder's architecture and training; the loss is the mean square error.

    Attributes:
        width: channels where a position of the features is one pixel; more by as much as it is coarser.
        epochs, batch_size, lr: of Adam, down a cosine.
        blocks: residual convolutions between the first and the last.

    Raises:
        ConfigError: numbers below 1, or no step at all.
    """

    width: int = 12
    epochs: int = 4
    batch_size: int = 64
    lr: float = 3e-3
    blocks: int = 1

    def __post_init__(self) -> None:
        if min(self.width, self.epochs, self.batch_size) < 1 or self.blocks < 0 or not 0 < self.lr < math.inf:
            raise ConfigError(f"{self}", "give a width, epochs and rows of one at least, and a rate above 0")

    def fit(
        self, seen: View, x: np.ndarray, key: Key, on_step: Callable[[int, int], None] = lambda step, steps: None
    ) -> Inverted:
        """The decoder trained on public inputs.

        Args:
            seen: the black box; what it draws by chance is drawn anew in every epoch.
            x: ``[n, *shape]`` of people whom the attacker knows.
            key: of the first parameters, the order and what ``seen`` draws.
            on_step: called with the steps done and those in all.

        Raises:
            DataError: fewer than two inputs, or features that are not finite.
        """
        x = np.asarray(x, np.float32)
        if len(x) < 2:
            raise DataError(f"{len(x)} public inputs", "a decoder needs two at least, and is weak with few")
        given = self._seen(seen, x, (*key, "epoch", 0))
        chancy = not np.array_equal(seen(x[:2], (*key, "one")), seen(x[:2], (*key, "two")))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed((*key, "decoder")))
            decoder = _Decoder(given, x, self.width, self.blocks)
        optimiser = Adam(self.lr, schedule="cosine")
        stepping = optimiser.start(decoder.parameters())
        wanted, step = to_tensor(x), 0
        steps = math.ceil(len(x) / self.batch_size) * self.epochs
        for epoch in range(self.epochs):
            if chancy and epoch:
                given = self._seen(seen, x, (*key, "epoch", epoch))
            rows = to_tensor(given)
            for part in torch.split(order(key, epoch, len(x)), self.batch_size):
                for group in stepping.param_groups:
                    group["lr"] = optimiser.rate(step, steps)
                stepping.zero_grad()
                functional.mse_loss(decoder(rows[part]), wanted[part]).backward()  # type: ignore[no-untyped-call]
                stepping.step()
                step += 1
                on_step(step, steps)
        return Inverted(decoder.eval(), float(x.min()), float(x.max()))

    def _seen(self, seen: View, x: np.ndarray, key: Key) -> np.ndarray:
        given = np.asarray(seen(x, key), np.float32)
        if not np.isfinite(given).all():
            raise DataError("features that are not finite", "the device's half or the defence is broken")
        return given


@dataclass(frozen=True, eq=False)
class Inverted:
    """A trained decoder.

    Attributes:
        decoder: features ``[n, ...]`` to inputs ``[n, *shape]``.
        low, high: that an input may have, from the public ones.
    """

    decoder: nn.Module
    low: float
    high: float

    def guess(self, given: np.ndarray) -> np.ndarray:
        """Inputs ``[n, *shape]`` float32 from what arrived, ``[n, ...]``."""
        with torch.inference_mode():
            parts = [self.decoder(part) for part in torch.split(to_tensor(np.asarray(given, np.float32)), 256)]
            return np.asarray(torch.cat(parts).clamp(self.low, self.high).numpy())


class _Decoder(nn.Module):
    """Features to inputs, scaled by what the training features are like."""

    middle: Tensor
    scale: Tensor

    def __init__(self, given: np.ndarray, x: np.ndarray, width: int, blocks: int) -> None:
        super().__init__()
        axes = (0, 2, 3) if given.ndim == 4 else (0,)
        self.register_buffer("middle", to_tensor(given.mean(axes, keepdims=True)))
        self.register_buffer("scale", to_tensor(np.maximum(given.std(axes, keepdims=True), 1e-6)))
        self.shape = x.shape[1:]
        if len(self.shape) == 3:
            self.whole = _image(given.shape[1:], self.shape, width, blocks)
        else:
            size, wide = math.prod(given.shape[1:]), 16 * width
            layers: list[nn.Module] = [nn.Flatten(), nn.Linear(size, wide), nn.ReLU()]
            layers += [layer for _ in range(blocks) for layer in (nn.Linear(wide, wide), nn.ReLU())]
            self.whole = nn.Sequential(*layers, nn.Linear(wide, math.prod(self.shape)))

    def forward(self, given: Tensor) -> Tensor:
        found: Tensor = self.whole((given - self.middle) / self.scale)
        return found.reshape(len(given), *self.shape)


def _image(takes: tuple[int, ...], gives: tuple[int, ...], width: int, blocks: int) -> nn.Module:
    """Convolutions at the features' own positions where these divide the image evenly, else at coarse ones of ours."""
    planes, height, across = gives
    if len(takes) == 3 and height % takes[1] == 0 and height // takes[1] * takes[2] == across:
        ratio, wide = height // takes[1], width * (height // takes[1])
        layers: list[nn.Module] = [nn.Conv2d(takes[0], wide, 3, padding=1), nn.ReLU()]
    else:
        ratio = _COARSE if height % _COARSE == across % _COARSE == 0 else 1
        wide, grid = width * ratio, (height // ratio, across // ratio)
        layers = [
            nn.Flatten(),
            nn.Linear(math.prod(takes), wide * math.prod(grid)),
            nn.Unflatten(1, (wide, *grid)),
            nn.ReLU(),
        ]
    layers += [_Added(wide) for _ in range(blocks)]
    return nn.Sequential(*layers, nn.Conv2d(wide, planes * ratio**2, 3, padding=1), nn.PixelShuffle(ratio))


class _Added(nn.Module):
    """``ReLU(x + Conv(x))``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(x + self.inner(x))
