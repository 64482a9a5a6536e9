"""Loss terms that add. Each maps a step's outputs to one number a row; their sum is the client's loss.

A term reads ``logits [n, classes]``, the ``batch`` (``y [n]`` int64, ``teacher [n, classes]`` logits, where the
data has them), the current ``params`` and what the party was ``sent``; it returns ``[n]``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from duetto.errors import ConfigError


class Term(Protocol):
    """One term of a loss."""

    def __call__(
        self, logits: Tensor, batch: Mapping[str, Tensor], params: Mapping[str, Tensor], sent: Mapping[str, Tensor]
    ) -> Tensor: ...


@dataclass(frozen=True)
class CrossEntropy:
    """``weight * CE(labels)``; where the batch has no labels, the teacher's hard answers."""

    weight: float = 1.0

    def __call__(
        self, logits: Tensor, batch: Mapping[str, Tensor], params: Mapping[str, Tensor], sent: Mapping[str, Tensor]
    ) -> Tensor:
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

    def __post_init__(self) -> None:
        if not 0 < self.temperature < math.inf:
            raise ConfigError(f"temperature={self.temperature}", "use a positive number")

    def __call__(
        self, logits: Tensor, batch: Mapping[str, Tensor], params: Mapping[str, Tensor], sent: Mapping[str, Tensor]
    ) -> Tensor:
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
    """``mu/2 * |params - sent|^2`` (FedProx, Li et al. 2020)."""

    mu: float

    def __call__(
        self, logits: Tensor, batch: Mapping[str, Tensor], params: Mapping[str, Tensor], sent: Mapping[str, Tensor]
    ) -> Tensor:
        """[n], the same number in each row."""
        distance = sum((((params[name] - sent[name]) ** 2).sum() for name in params), torch.zeros(()))
        return (self.mu / 2 * distance).expand(len(logits))
