"""Federated averaging against a mean by numpy."""

from dataclasses import replace

import numpy as np
import pytest

from duetto import policies
from duetto import tree as trees
from duetto.algorithms import fedavg
from duetto.algorithms.fedavg import Average
from duetto.errors import ConfigError
from duetto.models import Mlp
from duetto.protocols import rounds
from duetto.simulation.engine import simulate
from duetto.simulation.fleet import fleet
from duetto.training import SGD, Client, CrossEntropy, sequential
from duetto.tree import Tree
from duetto.types import Algorithm, Party, Rows

NET = Mlp((3,), 2, (4,))
PARAMS = NET.init(0)
DRAW = np.random.default_rng(0)
DATA = {}
for _user, _n in {"ann": 5, "ben": 9, "eve": 2}.items():
    _x = DRAW.normal(size=(_n, 3)).astype(np.float32)
    DATA[_user] = Rows(_x, (_x.sum(1) > 0).astype(np.int64))


def learned(algorithm: Algorithm, steps: int, users: tuple[str, ...] = ("ann", "ben", "eve"), seed: int = 3) -> Tree:
    """The cloud's parameters after so many rounds."""
    log = simulate(
        fleet=fleet("phones", list(users), data=DATA.__getitem__),
        device=Party(skills=(Client,)),
        cloud=rounds(algorithm, steps=steps, seed=seed),
    )
    assert [record.metrics["failed"] for record in log.records] == [0] * steps
    assert [record.metrics["cohort"] for record in log.records] == [len(users)] * steps
    return log.memory["cloud"]["params"]


def one(user: str, start: Tree, step: int, client: Client, seed: int = 3) -> Tree:
    """What a user's training alone gives."""
    data = {"x": DATA[user].x, "y": DATA[user].y}
    return sequential.run(client, {"params": start}, data, (seed, "round", step, user)).params


def close(left: Tree, right: Tree) -> None:
    """To float32."""
    trees.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), left, right)


@pytest.mark.parametrize("server_lr", [1.0, 0.3])
def test_rounds_are_the_weighted_mean_of_clients_trained_alone(server_lr: float) -> None:
    algorithm = fedavg(NET, PARAMS, lr=0.2, epochs=2, batch_size=4, momentum=0.5, server_lr=server_lr)
    assert algorithm.client == Client(NET, (CrossEntropy(),), SGD(0.2, 0.5), 2, 4)
    expected, weights = PARAMS, {user: len(rows) for user, rows in DATA.items()}
    for step in range(2):
        alone = {user: one(user, expected, step, algorithm.client) for user in DATA}

        def mean(start: np.ndarray, *trained: np.ndarray) -> np.ndarray:
            total = sum(
                weight * np.asarray(params, float) for weight, params in zip(weights.values(), trained, strict=True)
            )
            return np.asarray(start + server_lr * (total / sum(weights.values()) - start), np.float32)

        expected = trees.map(mean, expected, *alone.values())
    close(learned(algorithm, 2), expected)
    assert trees.norm(trees.subtract(expected, PARAMS)) > 0.01


def test_a_fleet_of_one_is_local_training() -> None:
    algorithm = fedavg(NET, PARAMS, lr=0.1, epochs=1, batch_size=4)
    expected = PARAMS
    for step in range(3):
        expected = one("ben", expected, step, algorithm.client)
    close(learned(algorithm, 3, ("ben",)), expected)


def test_one_client_s_full_batch_is_gradient_descent() -> None:
    """Three rounds of one step each are three steps, by torch's own gradient of the mean."""
    import torch

    x, y = torch.tensor(DATA["ben"].x), torch.tensor(DATA["ben"].y)
    first, second = (
        (torch.tensor(PARAMS[i]["weight"]).requires_grad_(), torch.tensor(PARAMS[i]["bias"]).requires_grad_())
        for i in ("1", "3")
    )
    for _ in range(3):
        logits = torch.relu(x @ first[0].T + first[1]) @ second[0].T + second[1]
        loss = -torch.log_softmax(logits, 1)[torch.arange(9), y].mean()
        for leaf, slope in zip((*first, *second), torch.autograd.grad(loss, (*first, *second)), strict=True):
            with torch.no_grad():
                leaf -= 0.3 * slope
    params = learned(fedavg(NET, PARAMS, lr=0.3, epochs=1, batch_size=9), 3, ("ben",))
    for name, (weight, bias) in (("1", first), ("3", second)):
        np.testing.assert_allclose(params[name]["weight"], weight.detach().numpy(), atol=1e-6)
        np.testing.assert_allclose(params[name]["bias"], bias.detach().numpy(), atol=1e-6)


def test_an_empty_cohort_changes_nothing() -> None:
    state, params = Average().step({}, PARAMS, None, cohort_size=0, fleet_size=3, key=(0,))
    assert params is PARAMS
    assert state == {}


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan")])
def test_a_server_s_rate_that_is_not_positive_is_refused(rate: float) -> None:
    with pytest.raises(ConfigError, match=r"^server_lr=.*: use a positive number$"):
        fedavg(NET, PARAMS, lr=0.1, epochs=1, server_lr=rate)


def test_who_takes_part_is_the_cohort_policy_s() -> None:
    algorithm = fedavg(NET, PARAMS, lr=0.1, epochs=1, cohort=policies.Uniform(2))
    log = simulate(
        fleet=fleet("phones", list(DATA), data=DATA.__getitem__),
        device=Party(skills=(Client,)),
        cloud=rounds(algorithm, steps=4),
    )
    assert [record.metrics["cohort"] for record in log.records] == [2] * 4
    assert fedavg(NET, PARAMS, lr=0.1, epochs=1).cohort == policies.Everyone()
    assert replace(algorithm, cohort=policies.Everyone()).cohort != algorithm.cohort
