"""Loss terms for a network with exits, whose logits are ``[n, exits + 1, classes]``, the final ones last.

Joint training adds up a term over the exits (BranchyNet, Teerapittayanon et al. 2016; MSDNet, Huang et al. 2018); in
self-distillation the exits also learn from the network's own final answer (Zhang et al. 2019, "Be your own teacher",
without its term on features).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from duetto.errors import ConfigError
from duetto.training.losses import Distil, Named, Term


@dataclass(frozen=True)
class EveryExit:
    """``sum of weights[k] * term(logits[:, k])``, a term that reads rows.

    Args:
        term: such as :class:`duetto.training.CrossEntropy`.
        weights: one an exit, the final one last. BranchyNet weighs early exits more, MSDNet all the same.

    Raises:
        ConfigError: no weights, or one that is negative or not finite.
    """

    term: Term
    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.weights or not all(0 <= weight < math.inf for weight in self.weights):
            raise ConfigError(f"weights {self.weights} of the exits", "use numbers from 0, the final one last")

    @property
    def by_row(self) -> bool:
        """Whether the term reads each row by itself."""
        return bool(getattr(self.term, "by_row", False))

    def __call__(self, logits: Tensor, batch: Named, params: Named, start: Mapping[str, Named]) -> Tensor:
        """[n].

        Raises:
            ConfigError: logits of another number of exits.
        """
        if logits.ndim != 3 or logits.shape[1] != len(self.weights):
            raise ConfigError(
                f"logits of shape {tuple(logits.shape)} for {len(self.weights)} exits",
                "train a Branched network, with a weight for each exit and for the final logits",
            )
        terms = [self.term(logits[:, k], batch, params, start) for k in range(len(self.weights))]
        return sum((weight * each for weight, each in zip(self.weights, terms, strict=True)), logits.new_zeros(()))


@dataclass(frozen=True)
class SelfDistil:
    """``weight * T^2 * sum over exits of KL(final/T || exit/T)``; the final logits learn nothing from it.

    Args:
        weight: of each exit.
        temperature: T.

    Raises:
        ConfigError: a temperature that is not positive.
    """

    weight: float
    temperature: float
    by_row: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _ = self._distil

    def __call__(self, logits: Tensor, batch: Named, params: Named, start: Mapping[str, Named]) -> Tensor:
        """[n].

        Raises:
            ConfigError: logits of a network without exits.
        """
        if logits.ndim != 3 or logits.shape[1] < 2:
            raise ConfigError(f"logits of shape {tuple(logits.shape)}", "train a Branched network")
        own = {"teacher": logits[:, -1].detach()}
        terms = [self._distil(logits[:, k], own, params, start) for k in range(logits.shape[1] - 1)]
        return sum(terms[1:], terms[0])

    @property
    def _distil(self) -> Distil:
        return Distil(self.weight, self.temperature)
