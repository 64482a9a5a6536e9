"""Recommenders: their logits by a few lines of numpy, and clients trained together as one by one."""

from typing import Any

import numpy as np
import pytest

from duetto import tree as trees
from duetto.errors import ConfigError
from duetto.models import Ncf, TwoTower
from duetto.training import SGD, Client, Cohort, CrossEntropy, Sequential
from duetto.training.executor import Task

DRAW = np.random.default_rng(0)
X = DRAW.integers(1, 9, (6, 4)).astype(np.float32)
X[0, 2:], X[1, 1:] = 0, 0  # one film before, and none
NETS = [Ncf((4,), 2, 9, 3, (5, 4)), Ncf((4,), 3, 9, 3, ()), TwoTower((4,), 2, 9, 3, (5, 4))]


def linear(params: Any, x: np.ndarray) -> np.ndarray:
    """A dense layer."""
    return x @ params["weight"].T + params["bias"]


def dense(params: Any, x: np.ndarray, *, last: bool) -> np.ndarray:
    """Dense layers with ReLU behind each, or behind each but the last."""
    names = sorted(params, key=int)
    for name in names:
        x = linear(params[name], x)
        x = x if last and name == names[-1] else np.maximum(x, 0)
    return x


@pytest.mark.parametrize("net", NETS, ids=str)
def test_logits_by_hand(net: Ncf | TwoTower) -> None:
    params: Any = net.init(1)
    item = params["table"]["item"]["weight"][X[:, 0].astype(int)]
    user = np.zeros_like(item)
    for row, had in enumerate(X[:, 1:].astype(int)):
        there = had[had > 0]
        user[row] = params["table"]["past"]["weight"][there].sum(0) / max(1, len(there)) ** 0.5
    if isinstance(net, Ncf):
        both = np.concatenate([user, item], 1)
        deep = dense(params["dense"], both, last=False) if net.hidden else both
        expected = linear(params["head"], np.concatenate([user * item, deep], 1))
    else:
        towers = [dense(params[name], x, last=True) for name, x in (("user", user), ("item", item))]
        product = (user * item).sum(1, keepdims=True) + (towers[0] * towers[1]).sum(1, keepdims=True)
        expected = linear(params["head"], product)
    np.testing.assert_allclose(net.logits(params, X), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("net", NETS, ids=str)
def test_clients_in_one_call_learn_what_each_learns_alone(net: Ncf | TwoTower) -> None:
    client = Client(net, (CrossEntropy(),), SGD(0.1, 0.9), 2, 4)
    start = {"params": trees.map(lambda leaf: leaf.astype(np.float64), net.init(0))}
    clients = [
        Task(start, {"x": DRAW.integers(0, 9, (n, 4)).astype(np.float32), "y": DRAW.integers(0, 2, n)}, (0, n))
        for n in (5, 8, 3)
    ]
    alone, together = Sequential().train(client, clients), Cohort().train(client, clients)
    for one, other in zip(alone, together, strict=True):
        for (_, mine), (_, theirs) in zip(trees.leaves(one.delta), trees.leaves(other.delta), strict=True):
            np.testing.assert_allclose(theirs, mine, rtol=1e-9, atol=1e-12)


def test_what_cannot_be_built_is_told() -> None:
    with pytest.raises(ConfigError, match="before it"):
        Ncf((1,), 2, 9)
    with pytest.raises(ConfigError, match="two or more"):
        TwoTower((4,), 2, 1)
    with pytest.raises(ConfigError, match="without a layer"):
        TwoTower((4,), 2, 9, hidden=())
