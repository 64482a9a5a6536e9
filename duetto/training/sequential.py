"""The reference executor: one client, one step after the other, plain autograd."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from duetto import tree as trees
from duetto.errors import DataError, Error, caught
from duetto.models.net import Net, built, by_thread, fitting, to_tensor, to_tensors, to_tree
from duetto.training.losses import PULLS
from duetto.tree import Tree
from duetto.types import Key, Trained, rng

if TYPE_CHECKING:
    from duetto.training.client import Client
    from duetto.training.executor import Task


@by_thread
def learning(net: Net) -> nn.Module:
    """This thread's one module of this description in training mode; its own parameters are never used."""
    return built(net).train().requires_grad_(False)


@dataclass(frozen=True)
class Sequential:
    """One client after the other, as :func:`run` does."""

    def train(self, client: Client, tasks: Sequence[Task]) -> list[Trained | Error]:
        """Each for itself."""
        return [caught(run, client, task.start, task.data, task.key) for task in tasks]


def run(
    client: Client,
    start: Tree,
    data: Mapping[str, np.ndarray],
    key: Key,
    on_step: Callable[[int, int], None] = lambda step, steps: None,
) -> Trained:
    """Train as ``client`` declares, in the dtype of the parameters.

    Args:
        client: loss terms, optimiser, epochs, batch size.
        start: ``{"params": ...}``, where training starts; what else the loss terms read lies beside it.
        data: ``x [n, *shape]`` and whatever the terms read: ``y [n]``, ``teacher [n, classes]``.
        key: orders the rows, and draws dropout and augmentation.
        on_step: called with the steps done and those in all.

    Raises:
        DataError: no rows.
        ConfigError: parameters of another network.
    """
    module, n = learning(client.net), len(data["x"])
    if not n:
        raise DataError("training without examples", "give it at least one")
    params = {name: tensor.clone().requires_grad_() for name, tensor in fitting(client.net, start["params"]).items()}
    fixed = {name: to_tensors(tree) for name, tree in start.items()}
    rows = columns(data, next(iter(params.values())).dtype)
    optimiser = client.optimiser.start(params.values())
    total, step = steps(client, n), 0
    sums = {name: torch.zeros_like(tensor) for name, tensor in params.items()} if client.sums_gradients else {}
    generator = torch.Generator().manual_seed(seed((*key, "augment")))
    loss_sum = torch.zeros(())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed((*key, "dropout")))
        for epoch in range(client.epochs):
            loss_sum = torch.zeros(())
            for part in torch.split(order(key, epoch, n), client.batch_size):
                batch = {name: column[part] for name, column in rows.items()}
                if client.augment is not None:
                    batch["x"] = client.augment(batch["x"], generator)
                logits = functional_call(module, params, (batch["x"],))
                terms = [term(logits, batch, params, fixed) for term in client.loss]
                for group in optimiser.param_groups:
                    group["lr"] = client.optimiser.rate(step, total)
                optimiser.zero_grad()
                torch.stack(terms).sum(0).mean().backward()  # type: ignore[no-untyped-call]
                for name, tensor in sums.items():
                    tensor += params[name].grad  # type: ignore[arg-type]
                optimiser.step()
                read = [
                    each.detach() for each, term in zip(terms, client.loss, strict=True) if not isinstance(term, PULLS)
                ]
                loss_sum += torch.stack(read).sum() if read else 0
                step += 1
                on_step(step, total)
    loss = float(loss_sum) / n if client.epochs else math.nan
    delta = trees.subtract(to_tree(dict(params)), start["params"])
    return Trained(start["params"], delta, to_tree(sums), step, n, loss)


def steps(client: Client, n: int) -> int:
    """How many steps a training on ``n`` rows takes."""
    return math.ceil(n / client.batch_size) * client.epochs


def order(key: Key, epoch: int, n: int) -> Tensor:
    """The order of the rows in an epoch, ``[n]`` int64."""
    return torch.from_numpy(rng((*key, "order", epoch)).permutation(n))


def seed(key: Key) -> int:
    """A seed for torch's own generators."""
    return int(rng(key).integers(2**62))


def columns(data: Mapping[str, np.ndarray], dtype: torch.dtype) -> dict[str, Tensor]:
    """The data as tensors, those that are floating in ``dtype``."""
    tensors = {name: to_tensor(column) for name, column in data.items()}
    return {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
