"""Terms for a network that shows its features beside its logits (:class:`duetto.models.compress.Shown`).

Romero, Ballas, Kahou, Chassang, Gatta, Bengio: FitNets: Hints for Thin Deep Nets, ICLR 2015: a regressor turns the
student's features into the teacher's; unlike theirs, which teaches the lower half first, the term adds to the others.
What the teacher showed is in the batch, ``features [n, d]``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from duetto.errors import ConfigError
from duetto.training.losses import Named, Term


@dataclass(frozen=True)
class OfLogits:
    """A term of the first ``classes`` numbers, which are the logits.

    Raises:
        ConfigError: no classes.
    """

    term: Term
    classes: int

    def __post_init__(self) -> None:
        if self.classes < 1:
            raise ConfigError(f"{self.classes} classes", "give those of the network")

    @property
    def by_row(self) -> bool:
        """As the term."""
        return bool(getattr(self.term, "by_row", False))

    def __call__(self, logits: Tensor, batch: Named, params: Named, start: Mapping[str, Named]) -> Tensor:
        """[n]."""
        return self.term(logits[:, : self.classes], batch, params, start)


@dataclass(frozen=True)
class Hint:
    """``weight * mean over d of (shown - features)^2``, each feature in units of the batch's own deviation.

    Raises:
        ConfigError: a weight that is negative or not finite.
    """

    weight: float
    classes: int
    by_row: ClassVar[bool] = False  # the deviation is the batch's

    def __post_init__(self) -> None:
        if not 0 <= self.weight < math.inf:
            raise ConfigError(f"weight={self.weight}", "use a number from 0")

    def __call__(self, logits: Tensor, batch: Named, params: Named, start: Mapping[str, Named]) -> Tensor:
        """[n].

        Raises:
            ConfigError: no features in the batch, or of another width than the network shows.
        """
        shown, wanted = seen(logits, batch, self.classes)
        if shown.shape != wanted.shape:
            raise ConfigError(
                f"features of width {shown.shape[1]} for hints of width {wanted.shape[1]}",
                "give Shown the teacher's width",
            )
        return self.weight * ((shown - wanted) / wanted.std().clamp_min(1e-6)).square().mean(1)


def seen(logits: Tensor, batch: Named, classes: int) -> tuple[Tensor, Tensor]:
    """What the student shows and what the teacher showed, ``[n, *]`` each.

    Raises:
        ConfigError: a network that shows nothing, or a batch without features.
    """
    if logits.shape[1] <= classes:
        raise ConfigError(f"a network of {logits.shape[1]} numbers for {classes} classes", "train a Shown network")
    if "features" not in batch:
        raise ConfigError("no features to imitate", "prepare the material with features=True")
    return logits[:, classes:], batch["features"]
