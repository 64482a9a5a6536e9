"""A network taught by answers alone: for clouds, and for what devices do beside their own training."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from duetto.models.net import Net
from duetto.training import sequential
from duetto.training.client import Client
from duetto.tree import Tree
from duetto.types import Key


def distilled(student: Client, net: Net, params: Tree, x: np.ndarray, teacher: np.ndarray, key: Key) -> Tree:
    """The parameters after training as ``student`` declares, whatever its own network is.

    Args:
        student: loss terms that read the ``teacher``, optimiser, epochs, batch size.
        net: what is taught.
        params: where it starts.
        x: inputs ``[n, *shape]``.
        teacher: logits ``[n, classes]``.
        key: orders the rows.
    """
    return sequential.run(replace(student, net=net), {"params": params}, {"x": x, "teacher": teacher}, key).params
