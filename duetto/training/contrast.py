"""A term that draws a model's features towards the shared model's, away from the device's own last ones."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from duetto.errors import ConfigError
from duetto.models.features import features, head
from duetto.models.net import Net
from duetto.training.losses import Named


@dataclass(frozen=True)
class Contrast:
    """``mu * -log(e^(s/t) / (e^(s/t) + e^(r/t)))`` with the cosines ``s`` of the features to those of
    ``start["params"]`` and ``r`` to those of ``start[away]`` (Li, He, Song 2021).

    The features are what the last layer reads.

    Args:
        net: whose features.
        mu: the weight; 0 is no term.
        temperature: ``t``.
        away: the slot of the parameters to be unlike.

    Raises:
        ConfigError: a negative weight, a temperature that is not positive, or a network that does not end in one
            linear layer.
    """

    net: Net
    mu: float
    temperature: float = 0.5
    away: str = "previous"

    def __post_init__(self) -> None:
        if not 0 <= self.mu < math.inf:
            raise ConfigError(f"mu={self.mu}", "use a number from 0")
        if not 0 < self.temperature < math.inf:
            raise ConfigError(f"temperature={self.temperature}", "use a positive number")
        head(self.net)

    def __call__(self, logits: Tensor, batch: Named, params: Named, start: Mapping[str, Named]) -> Tensor:
        """[n]."""
        own = features(self.net, params, batch["x"])
        with torch.no_grad():
            near, far = (features(self.net, start[slot], batch["x"]) for slot in ("params", self.away))
        cosines = torch.stack([functional.cosine_similarity(own, other) for other in (near, far)], 1)
        return -self.mu * functional.log_softmax(cosines / self.temperature, 1)[:, 0]
