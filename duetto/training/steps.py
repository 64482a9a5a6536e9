"""Single gradients and the order of batches, for clients whose step is not a gradient at where they are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call

from duetto import tree as trees
from duetto.models.net import fitting, shared, to_tensors, to_tree
from duetto.training.optimisers import Optimiser
from duetto.training.sequential import columns, order, seed
from duetto.tree import Tree
from duetto.types import Key

if TYPE_CHECKING:
    from duetto.training.client import Client


def batches(client: Client, data: Mapping[str, np.ndarray], key: Key) -> Iterator[dict[str, np.ndarray]]:
    """The batches of all epochs, in the order in which :func:`duetto.training.sequential.run` takes them."""
    for epoch in range(client.epochs):
        for rows in torch.split(order(key, epoch, len(data["x"])), client.batch_size):
            yield {name: column[rows.numpy()] for name, column in data.items()}


def gradient(client: Client, params: Tree, start: Tree, batch: Mapping[str, np.ndarray], key: Key) -> Tree:
    """The gradient at ``params`` of the mean loss that a client declares, on one batch.

    Args:
        client: its loss terms and augmentation; a dropout is off.
        params: where.
        start: what the loss terms read beside it, ``params`` among them.
        batch: ``x [n, *shape]`` and what the terms read.
        key: draws the augmentation.
    """
    tensors = {name: tensor.clone().requires_grad_() for name, tensor in fitting(client.net, params).items()}
    rows = columns(batch, next(iter(tensors.values())).dtype)
    if client.augment is not None:
        rows["x"] = client.augment(rows["x"], torch.Generator().manual_seed(seed((*key, "augment"))))
    logits = functional_call(shared(client.net), tensors, (rows["x"],))
    fixed = {name: to_tensors(tree) for name, tree in start.items()}
    loss = torch.stack([term(logits, rows, tensors, fixed) for term in client.loss]).sum(0).mean()
    slopes = torch.autograd.grad(loss, list(tensors.values()))
    return to_tree(dict(zip(tensors, slopes, strict=True)))


@dataclass(frozen=True)
class Partly:
    """An optimiser that steps some leaves and leaves the others as they are.

    Attributes:
        optimiser: of those that it steps.
        leaves: their positions among all leaves.
    """

    optimiser: Optimiser
    leaves: frozenset[int]

    def start(self, params: Iterable[Tensor]) -> torch.optim.Optimizer:
        """Over those leaves only."""
        return self.optimiser.start([tensor for i, tensor in enumerate(params) if i in self.leaves])

    def rate(self, step: int, steps: int) -> float:
        """The optimiser's."""
        return self.optimiser.rate(step, steps)

    @classmethod
    def of(cls, optimiser: Optimiser, params: Tree, part: Tree) -> Partly:
        """Only the leaves that ``part`` has of ``params``."""
        named = {pointer for pointer, _ in trees.leaves(part)}
        return cls(optimiser, frozenset(i for i, (pointer, _) in enumerate(trees.leaves(params)) if pointer in named))


def moved(params: Tree, gradient: Tree, lr: float) -> Tree:
    """``params - lr * gradient``."""
    return trees.subtract(params, trees.scale(gradient, lr))
