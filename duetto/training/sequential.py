"""The reference executor: one client, one step after the other, plain autograd."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from duetto.errors import DataError
from duetto.models.net import Net, built, fitting, to_tensor, to_tensors, to_tree
from duetto.tree import Tree
from duetto.types import Key, Trained, rng

if TYPE_CHECKING:
    from duetto.training.client import Client


@cache
def _learning(net: Net) -> nn.Module:
    """The one module of this description in training mode; its own parameters are never used."""
    return built(net).train().requires_grad_(False)


def run(
    client: Client,
    start: Tree,
    sent: Tree,
    data: Mapping[str, np.ndarray],
    key: Key,
    on_step: Callable[[int, int], None] = lambda step, steps: None,
) -> Trained:
    """Train as ``client`` declares.

    Args:
        client: loss terms, optimiser, epochs, batch size.
        start: the parameters to start from.
        sent: the parameters that the loss terms may compare with.
        data: ``x [n, *shape]`` and whatever the terms read: ``y [n]``, ``teacher [n, classes]``.
        key: orders the rows, and draws dropout and augmentation.
        on_step: called with the steps done and those in all.

    Raises:
        DataError: no rows.
        ConfigError: parameters of another network.
    """
    module, n = _learning(client.net), len(data["x"])
    if not n:
        raise DataError("training without examples", "give it at least one")
    params = {name: tensor.clone().requires_grad_() for name, tensor in fitting(client.net, start).items()}
    fixed = to_tensors(sent)
    rows = {name: to_tensor(column) for name, column in data.items()}
    optimiser = client.optimiser.start(params.values())
    per_epoch = math.ceil(n / client.batch_size)
    total, step = per_epoch * client.epochs, 0
    sums = {name: torch.zeros_like(tensor) for name, tensor in params.items()} if client.sums_gradients else {}
    generator = torch.Generator().manual_seed(int(rng((*key, "augment")).integers(2**62)))
    loss_sum = torch.zeros(())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(rng((*key, "dropout")).integers(2**62)))
        for epoch in range(client.epochs):
            order = torch.from_numpy(rng((*key, "order", epoch)).permutation(n))
            loss_sum = torch.zeros(())
            for part in torch.split(order, client.batch_size):
                batch = {name: column[part] for name, column in rows.items()}
                if client.augment is not None:
                    batch["x"] = client.augment(batch["x"], generator)
                per_row = _loss(client, functional_call(module, params, (batch["x"],)), batch, params, fixed)
                for group in optimiser.param_groups:
                    group["lr"] = client.optimiser.rate(step, total)
                optimiser.zero_grad()
                per_row.mean().backward()  # type: ignore[no-untyped-call]
                for name, tensor in sums.items():
                    tensor += params[name].grad  # type: ignore[arg-type]
                optimiser.step()
                loss_sum += per_row.detach().sum()
                step += 1
                on_step(step, total)
    return Trained(
        start, to_tree(dict(params)), to_tree(sums), step, n, float(loss_sum) / n if client.epochs else math.nan
    )


def _loss(
    client: Client,
    logits: Tensor,
    batch: Mapping[str, Tensor],
    params: Mapping[str, Tensor],
    sent: Mapping[str, Tensor],
) -> Tensor:
    """[rows]."""
    terms = [term(logits, batch, params, sent) for term in client.loss]
    return torch.stack(terms).sum(0)
