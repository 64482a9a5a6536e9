"""The sandwich rule with in-place distillation: at every step the largest sub-network, the smallest, and some between.

Yu, Huang: Universally Slimmable Networks and Improved Training Techniques, ICCV 2019. The largest learns what the
client's other terms say, and all others learn its answers at that very step, from which it learns nothing in turn.
Their gradients add up in the one set of weights. ``Client(net, (CrossEntropy(), Sandwich(net)), ...)`` is all that is
needed: executors, algorithms and teachers run it as any other training.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import functional_call

from duetto.errors import ConfigError
from duetto.models.elastic import Slimmable, Sub
from duetto.training.losses import CrossEntropy, Distil, Named
from duetto.training.sequential import learning


@dataclass(frozen=True)
class Sandwich:
    """The sum over a step's sub-networks of ``weight * T^2 * KL(largest/T || sub-network/T)``.

    Those between are drawn without replacement by torch's generator, which whoever trains seeds by its key, as for a
    dropout; where all of them are taken, nothing is drawn.

    Args:
        net: whose sub-networks; the client trains it.
        between: of those that are neither the largest nor the smallest, so many at each step; None takes all.
        weight: of each.
        temperature: T.
        labels: share of each sub-network's loss that the labels teach it instead, 0..1; the paper has none.

    Raises:
        ConfigError: a negative number, a temperature of 0, or a share above 1.
    """

    net: Slimmable
    between: int | None = 2
    weight: float = 1.0
    temperature: float = 1.0
    labels: float = 0.0

    def __post_init__(self) -> None:
        if self.between is not None and self.between < 0:
            raise ConfigError(f"{self.between} sub-networks between", "use a number from 0, or None for all")
        if not 0 <= self.weight < math.inf or not 0 <= self.labels <= 1:
            raise ConfigError(
                f"weight={self.weight}, labels={self.labels}", "use a weight from 0 and a share from 0 to 1"
            )
        _ = Distil(self.weight, self.temperature)

    def __call__(self, logits: Tensor, batch: Named, params: Named, start: Mapping[str, Named]) -> Tensor:
        """[n], of the largest's ``logits [n, classes]``."""
        taught = {**batch, "teacher": logits.detach()}
        distil = Distil(self.weight * (1 - self.labels), self.temperature)
        total = logits.new_zeros(len(logits))
        for sub in self.step():
            found = functional_call(learning(self.net.sub(sub)), self.net.tensors(params, sub), (batch["x"],))
            total = total + distil(found, taught, params, start)
            if self.labels:
                total = total + CrossEntropy(self.weight * self.labels)(found, batch, params, start)
        return total

    def step(self) -> tuple[Sub, ...]:
        """The sub-networks of a step, beside the largest."""
        smallest, between = self.net.subs[:-1][:1], self.net.subs[1:-1]
        if self.between is None or self.between >= len(between):
            return (*smallest, *between)
        drawn = torch.randperm(len(between))[: self.between].tolist()
        return (*smallest, *(between[i] for i in sorted(drawn)))
