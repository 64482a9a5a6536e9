"""What steps of compression take and give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from duetto.models.net import Net
from duetto.tree import Tree
from duetto.types import Key


@dataclass(frozen=True, eq=False)
class Model:
    """A network with its parameters, and how its file will keep them (one of :data:`~duetto.models.compress.FORMS`)."""

    net: Net
    params: Tree
    form: str = "float32"


@dataclass(frozen=True, eq=False)
class Material:
    """What steps work with; a step reads what it needs.

    Attributes:
        x: inputs to train on ``[n, *shape]`` float32.
        y: their labels ``[n]`` int64.
        teacher: what the model to imitate says of them, logits ``[n, classes]`` float32.
        features: what its last layer reads ``[n, d]`` float32, where a step imitates features.
        calibration: inputs that show the ranges of activations ``[m, *shape]`` float32.
    """

    x: np.ndarray
    y: np.ndarray
    teacher: np.ndarray
    calibration: np.ndarray
    features: np.ndarray | None = None


class Step(Protocol):
    """One way to make a model smaller: a frozen dataclass of its settings."""

    def __call__(self, model: Model, material: Material, key: Key) -> Model:
        """The smaller model; what it was given stays as it is."""


def compressed(steps: Sequence[Step], model: Model, material: Material, key: Key) -> Model:
    """The model after all steps, in their order, each with a key of its own."""
    for place, step in enumerate(steps):
        model = step(model, material, (*key, place))
    return model
