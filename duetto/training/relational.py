"""What a teacher knows of the relations between rows: which are near, and in what directions others lie.

Park, Kim, Lu, Cho: Relational Knowledge Distillation, CVPR 2019. Student and teacher may show features of any widths.
As in the authors' code, distances are divided by the mean of those that are not zero, and both losses are means over
all ordered pairs or triplets, a row with itself among them, of Huber's function with 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from duetto.errors import ConfigError
from duetto.training.hints import seen
from duetto.training.losses import Named


@dataclass(frozen=True)
class Relational:
    """``distance * RKD-D + angle * RKD-A`` over the rows of a batch.

    Attributes:
        distance, angle: the weights; the paper's are 25 and 50. Angles take time with the cube of the rows.
        classes: numbers before the features.

    Raises:
        ConfigError: a weight that is negative or not finite.
    """

    distance: float
    angle: float
    classes: int
    by_row: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not (0 <= self.distance < math.inf and 0 <= self.angle < math.inf):
            raise ConfigError(f"distance={self.distance}, angle={self.angle}", "use numbers from 0")

    def __call__(self, logits: Tensor, batch: Named, params: Named, start: Mapping[str, Named]) -> Tensor:
        """[n]; a row's is the mean over the pairs and triplets that it begins.

        Raises:
            ConfigError: no features in the batch, or a network that shows none.
        """
        shown, wanted = seen(logits, batch, self.classes)
        loss = logits.new_zeros(len(logits))
        if self.distance:
            loss = loss + self.distance * _apart(_distances(shown), _distances(wanted)).mean(1)
        if self.angle:
            loss = loss + self.angle * _apart(_angles(shown), _angles(wanted)).mean((1, 2))
        return loss


def _apart(student: Tensor, teacher: Tensor) -> Tensor:
    return functional.smooth_l1_loss(student, teacher, reduction="none")


def _distances(rows: Tensor) -> Tensor:
    """``[n, n]``, their mean 1 where they are not zero."""
    found = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist")
    return found / found[found > 0].mean() if bool((found > 0).any()) else found


def _angles(rows: Tensor) -> Tensor:
    """``[n, n, n]``: the cosine at i between the directions to j and to k."""
    ways = functional.normalize(rows[None] - rows[:, None], dim=2)
    return ways @ ways.transpose(1, 2)
