"""Terms for a learned bottleneck, whose network gives the bits of a row's code as its last column (in training).

Head distillation is ``Rated((Imitate(),), weight)`` on :class:`duetto.models.bottleneck.Restoring`; what follows it is
``Rated((CrossEntropy(a), Distil(1 - a, T)), weight)`` on the whole (BottleFit, Matsubara et al. 2022; Entropic Student,
Matsubara et al. 2022). The sequential executor trains both: nothing here needs a loop of its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from duetto.errors import ConfigError
from duetto.training.losses import Named, Term


@dataclass(frozen=True)
class Imitate:
    """``weight`` times the mean square of what the output differs from ``batch["teacher"]``, both ``[n, size]``.

    Head distillation (Matsubara et al. 2019): the teacher is what the whole model has at a cut.
    """

    weight: float = 1.0

    def __call__(self, logits: Tensor, batch: Named, params: Named, start: Mapping[str, Named]) -> Tensor:
        """[n].

        Raises:
            ConfigError: the batch has no teacher's features, or of another size.
        """
        if "teacher" not in batch or batch["teacher"].shape != logits.shape:
            told = tuple(batch["teacher"].shape) if "teacher" in batch else "nothing"
            raise ConfigError(f"features {tuple(logits.shape)} beside {told} of the teacher's", "cut both alike")
        return self.weight * ((logits - batch["teacher"]) ** 2).mean(1)


@dataclass(frozen=True)
class Rated:
    """``sum(loss) + weight * bits``, where the bits are the output's last column, which the other terms do not see.

    Attributes:
        loss: terms of what comes before the last column.
        weight: of one bit.

    Raises:
        ConfigError: no terms, or a negative weight.
    """

    loss: tuple[Term, ...]
    weight: float

    def __post_init__(self) -> None:
        if not self.loss or not 0 <= self.weight < math.inf:
            raise ConfigError(
                f"{len(self.loss)} terms and a bit's weight of {self.weight}", "give a term, and a weight from 0"
            )

    def __call__(self, logits: Tensor, batch: Named, params: Named, start: Mapping[str, Named]) -> Tensor:
        """[n]."""
        own = logits[:, :-1]
        return sum((term(own, batch, params, start) for term in self.loss), self.weight * logits[:, -1])
