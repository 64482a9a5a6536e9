"""The reference executor against a loop that is written out here."""

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from duetto import tree as trees
from duetto.errors import ConfigError, DataError
from duetto.models import Conv, Mlp
from duetto.models.net import to_tensors
from duetto.training import SGD, Adam, Client, CrossEntropy, Distil, Drift, Proximal, sequential
from duetto.tree import Tree
from duetto.types import rng

DRAW = np.random.default_rng(0)
NET = Mlp((3,), 4, (5,))
DATA = {"x": DRAW.normal(size=(11, 3)), "y": DRAW.integers(0, 4, 11), "teacher": DRAW.normal(size=(11, 4))}
START = trees.map(lambda leaf: leaf.astype(np.float64), NET.init(0))
SENT = trees.map(lambda leaf: leaf + DRAW.normal(size=leaf.shape), START)
CLIENT = Client(NET, (CrossEntropy(),), SGD(0.1), 3, 4)
KEY = ("seed", 7)


def close(left: Tree, right: Tree, tolerance: float) -> None:
    """Every leaf."""
    trees.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance), left, right)


def by_hand(client: Client, start: Tree, data: dict[str, np.ndarray], sent: Tree = SENT) -> tuple[Tree, Tree, float]:
    """Parameters, summed gradients and the last epoch's mean loss, with torch's layers and optimisers only."""
    module = nn.Sequential(nn.Flatten(), nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 4)).double()
    module.load_state_dict(to_tensors(start))
    fixed = to_tensors(sent)
    make = torch.optim.SGD if isinstance(client.optimiser, SGD) else torch.optim.Adam
    momentum = {}
    if isinstance(client.optimiser, SGD):
        momentum = {"momentum": client.optimiser.momentum, "nesterov": client.optimiser.nesterov}
    optimiser = make(module.parameters(), client.optimiser.lr, weight_decay=client.optimiser.weight_decay, **momentum)
    sums = {name: torch.zeros_like(p) for name, p in module.named_parameters()}
    n, step, epoch_loss = len(data["x"]), 0, math.nan
    total = math.ceil(n / client.batch_size) * client.epochs
    for epoch in range(client.epochs):
        order, epoch_loss = rng((*KEY, "order", epoch)).permutation(n), 0.0
        for begin in range(0, n, client.batch_size):
            rows = order[begin : begin + client.batch_size]
            logits = module(torch.tensor(data["x"][rows]))
            log = torch.log_softmax(logits, 1)
            loss, pulls = torch.zeros(len(rows), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
            for term in client.loss:
                if isinstance(term, CrossEntropy):
                    loss = loss - term.weight * log[torch.arange(len(rows)), torch.tensor(data["y"][rows])]
                elif isinstance(term, Distil):
                    p = torch.softmax(torch.tensor(data["teacher"][rows]) / term.temperature, 1)
                    q = torch.log_softmax(logits / term.temperature, 1)
                    loss = loss + term.weight * term.temperature**2 * (p * (p.log() - q)).sum(1)
                elif isinstance(term, Proximal):
                    moved = sum(((p - fixed[name]) ** 2).sum() for name, p in module.named_parameters())
                    pulls = pulls + term.mu / 2 * moved
                elif isinstance(term, Drift):
                    pulls = pulls + sum((p * fixed[name] / 3).sum() for name, p in module.named_parameters())
            if client.optimiser.schedule == "cosine":
                share = 0.02 + 0.98 * (1 + math.cos(math.pi * step / total)) / 2
                optimiser.param_groups[0]["lr"] = client.optimiser.lr * share
            optimiser.zero_grad()
            (loss.mean() + pulls).backward()
            for name, p in module.named_parameters():
                sums[name] += p.grad
            optimiser.step()
            epoch_loss, step = epoch_loss + float(loss.detach().sum()), step + 1
    params = {name: p.detach().numpy() for name, p in module.named_parameters()}
    nest = {"1": {}, "3": {}}
    gradients: Tree = {"1": {}, "3": {}}
    for name, array in params.items():
        nest[name[0]][name[2:]] = array
        gradients[name[0]][name[2:]] = sums[name].numpy()
    return nest, gradients, epoch_loss / n


@dataclass(frozen=True)
class Summing(Client):
    """Asks for the sum of the gradients, as SCAFFOLD does."""

    sums_gradients: ClassVar[bool] = True


@pytest.mark.parametrize(
    "client",
    [
        CLIENT,
        replace(CLIENT, optimiser=SGD(0.05, 0.9, 0.02)),
        replace(CLIENT, optimiser=SGD(0.05, 0.9, nesterov=True)),
        replace(CLIENT, optimiser=SGD(0.3, 0.5, schedule="cosine"), batch_size=3),
        replace(CLIENT, optimiser=Adam(0.02, 0.1, "cosine"), batch_size=11),
        replace(CLIENT, batch_size=100, epochs=1),
        replace(
            CLIENT, loss=(CrossEntropy(0.1), Distil(0.9, 2.0), Proximal(0.3, "sent"), Drift("drift")), batch_size=1
        ),
        Summing(NET, (CrossEntropy(),), SGD(0.1, 0.9), 2, 4),
    ],
    ids=["sgd", "momentum", "nesterov", "cosine", "adam", "one batch", "terms that add", "sum of gradients"],
)
def test_training_is_the_loop_written_out(client: Client) -> None:
    drift = trees.map(lambda leaf: leaf / 3, SENT)
    trained = sequential.run(client, {"params": START, "sent": SENT, "drift": drift}, DATA, KEY)
    params, gradients, loss = by_hand(client, START, DATA)
    close(trained.params, params, 1e-12)
    assert trained.loss == pytest.approx(loss, rel=1e-6)  # reported in float32
    assert (trained.steps, trained.examples) == (client.epochs * math.ceil(11 / client.batch_size), 11)
    assert trained.start is START
    if client.sums_gradients:
        close(trained.gradients, gradients, 1e-12)
    else:
        assert trained.gradients == {}
    assert max(np.abs(a - b).max() for (_, a), (_, b) in zip(*map(trees.leaves, (params, START)), strict=True)) > 1e-3


def test_in_float32_it_is_the_same_to_float32() -> None:
    start = trees.map(lambda leaf: leaf.astype(np.float32), START)
    data = {**DATA, "x": DATA["x"].astype(np.float32)}
    trained = sequential.run(CLIENT, {"params": start}, data, KEY)
    params, _, _ = by_hand(CLIENT, START, DATA)
    assert {leaf.dtype.name for _, leaf in trees.leaves(trained.params)} == {"float32"}
    close(trained.params, params, 1e-5)


def test_without_epochs_nothing_changes() -> None:
    trained = sequential.run(replace(CLIENT, epochs=0), {"params": START}, DATA, KEY)
    assert trees.encode(trained.params) == trees.encode(START)
    assert (trained.steps, trained.examples, math.isnan(trained.loss)) == (0, 11, True)


def test_what_it_is_given_stays_as_it_was() -> None:
    before = trees.encode({"start": START, "data": DATA})
    sequential.run(CLIENT, {"params": START}, DATA, KEY)
    assert trees.encode({"start": START, "data": DATA}) == before


def test_a_key_is_all_the_chance_there_is() -> None:
    """Order, dropout and augmentation come from the key; torch's own chance is neither used nor moved."""

    def shaken(x: Tensor, generator: torch.Generator) -> Tensor:
        return x + 0.1 * torch.rand(x.shape, generator=generator)

    net = Conv((1, 4, 4), 2, (3,), (8,), dropout=0.5)
    start = net.init(0)
    data = {"x": DRAW.normal(size=(9, 1, 4, 4)).astype(np.float32), "y": np.arange(9) % 2}
    whole = {"x": np.tile(data["x"][:1], (8, 1, 1, 1)), "y": np.zeros(8, np.int64)}  # order changes nothing here
    clients = {
        "order": (Client(NET, (CrossEntropy(),), SGD(0.1), 1, 2), START, DATA),
        "dropout": (Client(net, (CrossEntropy(),), SGD(0.1), 1, 8), start, whole),
        "augment": (Client(replace(net, dropout=0.0), (CrossEntropy(),), SGD(0.1), 1, 8, augment=shaken), start, whole),
    }
    for what, (client, begin, rows) in clients.items():
        torch.manual_seed(1)
        state = torch.get_rng_state()
        once = trees.encode(sequential.run(client, {"params": begin}, rows, ("a", 1)).params)
        assert torch.equal(state, torch.get_rng_state()), what
        torch.manual_seed(2)
        assert once == trees.encode(sequential.run(client, {"params": begin}, rows, ("a", 1)).params), what
        assert once != trees.encode(sequential.run(client, {"params": begin}, rows, ("a", 2)).params), what
        assert once != trees.encode(sequential.run(client, {"params": begin}, rows, ("b", 1)).params), what


def test_every_step_is_told() -> None:
    told: list[tuple[int, int]] = []
    sequential.run(CLIENT, {"params": START}, DATA, KEY, lambda step, of: told.append((step, of)))
    assert told == [(step, 9) for step in range(1, 10)]


def test_nothing_to_learn_from_is_told() -> None:
    with pytest.raises(DataError):
        sequential.run(CLIENT, {"params": START}, {"x": np.zeros((0, 3)), "y": np.zeros(0, np.int64)}, KEY)


def test_parameters_of_another_network_are_told() -> None:
    with pytest.raises(ConfigError):
        sequential.run(CLIENT, {"params": {"1": START["1"]}}, DATA, KEY)
