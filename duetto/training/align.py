"""A term that draws a network's features, class by class, to those that a generator makes, which follows them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from duetto.errors import ConfigError
from duetto.models.aligned import Aligned, Three
from duetto.models.net import shared
from duetto.training.losses import Named


@dataclass(frozen=True)
class Align:
    """Three losses, each of which moves one network of an :class:`~duetto.models.aligned.Aligned` and no other.

    With ``D`` the discriminator's sureness that features were generated, of its row's class (Zhang et al. 2021, after
    Mao et al., Least Squares Generative Adversarial Networks, ICCV 2017): ``weight * (1 - D(features))^2`` for the
    network, ``D(generated)^2`` for the generator, ``D(features)^2 + (1 - D(generated))^2`` for the discriminator.

    Args:
        net: the three.
        weight: of the first; 0 leaves the network as it would be without.

    Raises:
        ConfigError: a weight that is negative.
    """

    net: Aligned
    weight: float

    def __post_init__(self) -> None:
        if not 0 <= self.weight < math.inf:
            raise ConfigError(f"weight={self.weight}", "use a number from 0")

    def __call__(self, logits: Tensor, batch: Named, params: Named, start: Mapping[str, Named]) -> Tensor:
        """[n]."""
        whole = shared(self.net)
        assert isinstance(whole, Three)
        told = functional.one_hot(batch["y"], self.net.classes).to(logits.dtype)
        features = _said(whole.net[:-1], params, "net", batch["x"]).flatten(1)
        noise = torch.rand(len(told), self.net.noise, dtype=logits.dtype)  # sequential.run seeds it by its key
        made = _said(whole.generator, params, "generator", torch.cat([noise, told], 1))
        through = torch.from_numpy(self.net.projection(features.shape[1])).to(logits.dtype)

        def sure(features: Tensor, judge: Named) -> Tensor:
            return _said(whole.discriminator, judge, "discriminator", torch.cat([features @ through, told], 1))[:, 0]

        still = {name: value.detach() for name, value in params.items()}
        drawn = self.weight * (1 - sure(features, still)) ** 2 + sure(made, still) ** 2
        return drawn + sure(features.detach(), params) ** 2 + (1 - sure(made.detach(), params)) ** 2


def _said(part: nn.Module, params: Named, name: str, x: Tensor) -> Tensor:
    """What a part of the three says with its share of the parameters."""
    wanted = {each for each, _ in part.named_parameters()}
    own = {each: params[f"{name}.{each}"] for each in wanted}
    found: Tensor = functional_call(part, own, (x,))
    return found
