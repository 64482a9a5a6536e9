"""The sandwich rule: the gradient of one set of weights, against sums derived by numpy on a tiny network."""

import numpy as np
import pytest
import torch

from duetto import tree as trees
from duetto.errors import ConfigError
from duetto.models import Mlp, Slimmable, Sub
from duetto.training import SGD, Client, CrossEntropy, Sandwich, gradient, sequential

NET = Slimmable(Mlp((3,), 2, (4,)), (0.25, 0.5, 0.75, 1.0))
DRAW = np.random.default_rng(0)
X = DRAW.normal(size=(6, 3)).astype(np.float32)
DATA = {"x": X, "y": np.array([0, 1, 1, 0, 1, 0])}


def softmax(logits: np.ndarray) -> np.ndarray:
    share = np.exp(logits - logits.max(1, keepdims=True))
    return np.asarray(share / share.sum(1, keepdims=True))


def slopes(w1: np.ndarray, b1: np.ndarray, w2: np.ndarray, x: np.ndarray, wrong: np.ndarray) -> list[np.ndarray]:
    """Of a network of one hidden layer, where the loss has the slope ``wrong [n, 2]`` at the logits."""
    hidden = np.maximum(x @ w1.T + b1, 0)
    back = wrong @ w2 * (hidden > 0)
    return [back.T @ x, back.sum(0), wrong.T @ hidden, wrong.sum(0)]


@pytest.mark.parametrize("labels", [0.0, 0.25])
def test_gradients_are_the_sum_over_the_sub_networks(labels: float) -> None:
    """Cross-entropy of the largest, and T^2 KL of the others to it, whose slope at the logits is T (q - p)."""
    t, weight = 2.0, 0.5
    params = trees.map(lambda leaf: leaf.astype(np.float64), NET.init(3))
    w1, b1, w2, b2 = (params["net"][layer][leaf] for layer in ("1", "3") for leaf in ("weight", "bias"))  # type: ignore[index, call-overload]
    x, y = X.astype(np.float64), np.eye(2)[DATA["y"]]
    logits = {k: np.maximum(x @ w1[:k].T + b1[:k], 0) @ w2[:, :k].T + b2 for k in (1, 2, 3, 4)}
    sums = slopes(w1, b1, w2, x, softmax(logits[4]) - y)
    for k in (1, 2, 3):
        taught = weight * (1 - labels) * t * (softmax(logits[k] / t) - softmax(logits[4] / t))
        wrong = taught + weight * labels * (softmax(logits[k]) - y)
        part = slopes(w1[:k], b1[:k], w2[:, :k], x, wrong)
        sums[0][:k] += part[0]
        sums[1][:k] += part[1]
        sums[2][:, :k] += part[2]
        sums[3] += part[3]
    loss = (CrossEntropy(), Sandwich(NET, None, weight, t, labels))
    found = gradient(Client(NET, loss, SGD(1.0), 1, 6), params, {"params": params}, DATA, (0,))
    leaves = [found["net"][layer][leaf] for layer in ("1", "3") for leaf in ("weight", "bias")]  # type: ignore[index, call-overload]
    for one, other in zip(leaves, sums, strict=True):
        np.testing.assert_allclose(one, other / len(X), rtol=1e-5, atol=1e-7)


def test_a_step_has_the_smallest_and_some_between() -> None:
    assert Sandwich(NET, None).step() == Sandwich(NET, 2).step() == (Sub(0.25), Sub(0.5), Sub(0.75))
    assert Sandwich(NET, 0).step() == (Sub(0.25),)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        drawn = {Sandwich(NET, 1).step() for _ in range(30)}
    assert drawn == {(Sub(0.25), Sub(0.5)), (Sub(0.25), Sub(0.75))}
    assert Sandwich(Slimmable(NET.net, (1.0,))).step() == ()


def test_a_training_is_its_key_s() -> None:
    client = Client(NET, (CrossEntropy(), Sandwich(NET, 1)), SGD(0.1, 0.9), 3, 2)
    start = {"params": NET.init(0)}
    before = torch.get_rng_state()
    one, same, other = (sequential.run(client, start, DATA, key) for key in ((1,), (1,), (2,)))
    assert torch.equal(before, torch.get_rng_state())
    assert trees.encode(one.params) == trees.encode(same.params) != trees.encode(other.params)


def test_without_sub_networks_it_is_plain_training() -> None:
    whole = Slimmable(NET.net, (1.0,))
    start = whole.init(0)
    slim = sequential.run(
        Client(whole, (CrossEntropy(), Sandwich(whole)), SGD(0.1), 2, 2), {"params": start}, DATA, (1,)
    )
    plain = sequential.run(Client(NET.net, (CrossEntropy(),), SGD(0.1), 2, 2), {"params": start["net"]}, DATA, (1,))  # type: ignore[index, call-overload]
    assert trees.encode(slim.params["net"]) == trees.encode(plain.params)  # type: ignore[index, call-overload]


def test_all_sizes_learn() -> None:
    x = DRAW.normal(size=(300, 3)).astype(np.float32)
    data = {"x": x, "y": (x[:, 0] > 0).astype(np.int64)}
    client = Client(NET, (CrossEntropy(), Sandwich(NET)), SGD(0.1, 0.9), 10, 32)
    params = sequential.run(client, {"params": NET.init(0)}, data, (0,)).params
    for sub in NET.subs:
        assert (NET.answers(params, x, sub).argmax(1) == data["y"]).mean() > 0.9


def test_faults_are_told() -> None:
    for make in (
        lambda: Sandwich(NET, -1),
        lambda: Sandwich(NET, weight=-1.0),
        lambda: Sandwich(NET, labels=1.5),
        lambda: Sandwich(NET, temperature=0.0),
    ):
        with pytest.raises(ConfigError):
            make()
