"""Single gradients against numpy, and an optimiser of some leaves only."""

from dataclasses import replace

import numpy as np

from duetto import tree as trees
from duetto.models import Mlp
from duetto.training import SGD, Client, CrossEntropy, Partly, Proximal, batches, gradient, moved, sequential

NET = Mlp((3,), 2, ())
PARAMS = trees.map(lambda leaf: leaf.astype(np.float64), NET.init(0))
DRAW = np.random.default_rng(0)
DATA = {"x": DRAW.normal(size=(7, 3)).astype(np.float32), "y": DRAW.integers(0, 2, 7)}
CLIENT = Client(NET, (CrossEntropy(),), SGD(0.3), 2, 3)


def test_a_gradient_is_that_of_the_mean_loss() -> None:
    (layer,) = PARAMS
    logits = DATA["x"] @ PARAMS[layer]["weight"].T + PARAMS[layer]["bias"]
    error = np.exp(logits) / np.exp(logits).sum(1, keepdims=True) - np.eye(2)[DATA["y"]]
    found = gradient(CLIENT, PARAMS, {"params": PARAMS}, DATA, (0,))
    np.testing.assert_allclose(found[layer]["weight"], error.T @ DATA["x"] / 7, rtol=1e-10)
    np.testing.assert_allclose(found[layer]["bias"], error.mean(0), rtol=1e-10)
    far = trees.add(PARAMS, trees.map(np.ones_like, PARAMS))
    pulled = gradient(replace(CLIENT, loss=(CrossEntropy(0.0), Proximal(2.0))), far, {"params": PARAMS}, DATA, (0,))
    trees.map(lambda leaf: np.testing.assert_allclose(leaf, 2.0), pulled)


def test_steps_along_the_batches_are_the_reference_s() -> None:
    w = PARAMS
    for batch in batches(CLIENT, DATA, ("key",)):
        w = moved(w, gradient(CLIENT, w, {"params": PARAMS}, batch, ("key",)), 0.3)
    once = sequential.run(CLIENT, {"params": PARAMS}, DATA, ("key",))
    trees.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), w, once.params)


def test_what_is_not_named_lies_still() -> None:
    (layer,) = PARAMS
    some = Partly.of(SGD(0.3), PARAMS, {layer: {"bias": PARAMS[layer]["bias"]}})
    trained = sequential.run(replace(CLIENT, optimiser=some), {"params": PARAMS}, DATA, ("key",))
    assert not trained.delta[layer]["weight"].any()
    assert trained.delta[layer]["bias"].all()
