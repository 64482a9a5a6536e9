"""Loss terms that add. Each maps a step's outputs to one number a row; their sum is the client's loss.

A term reads ``logits [n, classes]``, the ``batch`` (``y [n]`` int64, ``teacher [n, classes]`` logits, where the
data has them), the current ``params`` and the ``start`` of the training (what :meth:`Client.start` gave: ``params``,
and whatever else an algorithm compares with, by name); it returns ``[n]``.

A term that says ``by_row`` reads logits and batch only, each row by itself. :class:`Proximal` and :class:`Drift` read
no row at all, and their gradients are linear in the parameters. Of these three kinds an executor can train many
clients at once; a term of no kind is trained client by client.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol, TypeAlias

from torch import Tensor
from torch.nn import functional

from duetto.errors import ConfigError

Named: TypeAlias = Mapping[str, Tensor]
"""Parameters by dotted name."""


class Term(Protocol):
    """One term of a loss."""

    def __call__(self, logits: Tensor, batch: Named, params: Named, start: Mapping[str, Named]) -> Tensor: ...


@dataclass(frozen=True)
class CrossEntropy:
    """``weight * CE(labels)``; where the batch has no labels, the teacher's hard answers."""

    weight: float = 1.0
    by_row: ClassVar[bool] = True

    def __call__(self, logits: Tensor, batch: Named, params: Named, start: Mapping[str, Named]) -> Tensor:
        """[n]."""
        labels = batch["y"] if "y" in batch else batch["teacher"].argmax(1)
        return self.weight * functional.cross_entropy(logits, labels, reduction="none")


@dataclass(frozen=True)
class Distil:
    """``weight * T^2 * KL(teacher/T || student/T)`` (Hinton, Vinyals, Dean 2015).

    With ``CrossEntropy(alpha)`` beside ``Distil(1 - alpha, T)`` this is the usual distillation loss.

    Raises:
        ConfigError: a temperature that is not positive.
    """

    weight: float
    temperature: float
    by_row: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 < self.temperature < math.inf:
            raise ConfigError(f"temperature={self.temperature}", "use a positive number")

    def __call__(self, logits: Tensor, batch: Named, params: Named, start: Mapping[str, Named]) -> Tensor:
        """[n].

        Raises:
            ConfigError: the batch has no teacher's answers.
        """
        if "teacher" not in batch:
            raise ConfigError("distillation without a teacher", "name the lessons that the client was taught")
        t = self.temperature
        student = functional.log_softmax(logits / t, 1)
        teacher = functional.log_softmax(batch["teacher"] / t, 1)
        kl = functional.kl_div(student, teacher, reduction="none", log_target=True).sum(1)
        return self.weight * t * t * kl


@dataclass(frozen=True)
class Proximal:
    """``mu/2 * |params - start[to]|^2`` (FedProx, Li et al. 2020)."""

    mu: float
    to: str = "params"

    def __call__(self, logits: Tensor, batch: Named, params: Named, start: Mapping[str, Named]) -> Tensor:
        """[n], the same number in each row."""
        anchor = start[self.to]
        distance = sum((((params[name] - anchor[name]) ** 2).sum() for name in params), logits.new_zeros(()))
        return (self.mu / 2 * distance).expand(len(logits))


@dataclass(frozen=True)
class Drift:
    """``<start[slot], params>``: adds ``start[slot]`` to every gradient (SCAFFOLD, Karimireddy et al. 2020)."""

    slot: str

    def __call__(self, logits: Tensor, batch: Named, params: Named, start: Mapping[str, Named]) -> Tensor:
        """[n], the same number in each row."""
        pull = start[self.slot]
        return sum(((params[name] * pull[name]).sum() for name in params), logits.new_zeros(())).expand(len(logits))


PULLS = (Proximal, Drift)
"""The terms that read no row; their values are no part of the loss that a client tells."""
