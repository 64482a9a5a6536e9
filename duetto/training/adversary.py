"""Features at a cut that a decoder cannot undo: both are trained against each other, through reversed gradients.

Min-max training of features against an attacker (Liu, Du, Shrivastava, Zhong: Privacy Adversarial Network, IMWUT 2019;
Li, Duan, Yang, Chen, Yang: TIPRDC, KDD 2020), in one pass with the gradient reversal of Ganin, Lempitsky: Unsupervised
Domain Adaptation by Backpropagation, ICML 2015: the decoder goes down its error, the device's half goes up. It learns
to fool *this* decoder: one that is trained afterwards on what the half then gives may see more, and is the one to ask.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from duetto.errors import ConfigError
from duetto.models.net import Net, size
from duetto.training.losses import Named, Term
from duetto.tree import Tree


@dataclass(frozen=True)
class Guarded(Net):
    """A network of layers one after the other, and a decoder of what crosses after some of them.

    In evaluation it gives the logits ``[n, classes]``; in training also the decoder's guess at the input, flat:
    ``[n, classes + size]``, whose gradients are reversed on their way into the device's layers.

    Attributes:
        backbone: a network that is a sequence of layers, as Mlp and Conv are.
        layers: of it, before the cut.
        strength: what the reversed gradients are multiplied by.
        width: of the decoder's hidden layer.

    Raises:
        ConfigError: another network, no layer on either side, or a negative strength.
    """

    backbone: Net
    layers: int
    strength: float
    width: int = 128

    def __post_init__(self) -> None:
        made = self.backbone.module()
        if not isinstance(made, nn.Sequential) or not 0 < self.layers < len(made):
            raise ConfigError(f"a cut of {self.backbone} after layer {self.layers}", "cut a sequence of layers inside")
        if not 0 <= self.strength < math.inf or self.width < 1:
            raise ConfigError(f"a strength of {self.strength}, a width of {self.width}", "use numbers from 0, from 1")

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one row of the input."""
        return tuple(self.backbone.shape)

    @property
    def classes(self) -> int:
        """Logits."""
        return int(self.backbone.classes)

    def module(self) -> nn.Module:
        """The backbone, with a decoder ``Flatten -> Linear -> ReLU -> Linear`` beside it."""
        return _Guarded(self)

    def around(self, params: Tree, seed: int) -> Tree:
        """Parameters: the backbone's, with a fresh decoder."""
        return {"whole": params, "decoder": self.init(seed)["decoder"]}


@dataclass(frozen=True)
class Adversary:
    """``sum(loss)`` of the logits, plus the mean square error of a :class:`Guarded` network's guess at the input.

    Attributes:
        loss: terms of the logits.
        classes: how many logits there are.

    Raises:
        ConfigError: no terms.
    """

    loss: tuple[Term, ...]
    classes: int

    def __post_init__(self) -> None:
        if not self.loss or self.classes < 1:
            raise ConfigError(f"{len(self.loss)} terms of {self.classes} logits", "give one at least")

    def __call__(self, logits: Tensor, batch: Named, params: Named, start: Mapping[str, Named]) -> Tensor:
        """[n].

        Raises:
            ConfigError: an output without a guess at the input.
        """
        own, guess = logits[:, : self.classes], logits[:, self.classes :]
        wanted = batch["x"].flatten(1)
        if guess.shape != wanted.shape:
            raise ConfigError(f"a guess of {guess.shape[1]} numbers at {wanted.shape[1]}", "train a Guarded network")
        return sum((term(own, batch, params, start) for term in self.loss), ((guess - wanted) ** 2).mean(1))


class _Guarded(nn.Module):
    def __init__(self, net: Guarded) -> None:
        super().__init__()
        whole = net.backbone.module()
        assert isinstance(whole, nn.Sequential)
        self.whole, self.layers, self.strength = whole, net.layers, net.strength
        with torch.no_grad():
            crossing = whole[: net.layers].eval()(torch.zeros((1, *net.shape))).numel()
        whole.train()
        hidden = nn.Linear(crossing, net.width)
        self.decoder = nn.Sequential(nn.Flatten(), hidden, nn.ReLU(), nn.Linear(net.width, size(net.shape)))

    def forward(self, x: Tensor) -> Tensor:
        features = self.whole[: self.layers](x)
        logits: Tensor = self.whole[self.layers :](features)
        if not self.training:
            return logits
        reversed_ = (1 + self.strength) * features.detach() - self.strength * features
        return torch.cat([logits, self.decoder(reversed_)], 1)
