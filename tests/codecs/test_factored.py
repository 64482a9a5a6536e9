"""Factors instead of matrices: what comes out is what went in, in fewer bytes, and only where that is so."""

from dataclasses import replace

import numpy as np
import pytest

from duetto import tree as trees
from duetto.codecs.factored import Factored
from duetto.errors import ConfigError, WireError
from duetto.models import Mlp
from duetto.training import SGD, Client, Cohort, CrossEntropy
from duetto.training.executor import Task
from duetto.tree import Tree

NET = Mlp((40,), 4, (30,))
CLIENT = Client(NET, (CrossEntropy(),), SGD(0.1), 1, 5)


def deltas(client: Client, *rows: int) -> list[Tree]:
    random, start = np.random.default_rng(0), {"params": NET.init(0)}
    tasks = [
        Task(start, {"x": random.normal(size=(n, 40)).astype(np.float32), "y": random.integers(0, 4, n)}, ("k", n))
        for n in rows
    ]
    return [trained.delta for trained in Cohort(threads=1).train(client, tasks)]


def sent(tree: Tree) -> tuple[Tree, int]:
    _, coded = Factored().encode({}, tree, ("key",))
    data = trees.encode(coded)
    return Factored().decode(trees.decode(data)), len(data)


def close(left: Tree, right: Tree) -> None:
    trees.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-7), left, right)


def test_few_examples_take_few_bytes_and_many_take_no_more_than_before() -> None:
    few, many = deltas(CLIENT, 3, 60)
    for delta in (few, many):
        reply = {"delta": delta, "weight": np.float64(3), "n": np.int64(7)}
        back, _ = sent(reply)
        close(back, reply)
        assert trees.spec(back) == trees.spec(reply)
    whole = trees.size(trees.spec(few))
    assert sent(few)[1] < whole / 3
    assert sent(few)[1] >= 3 * (40 + 30) * 4 + 3 * (30 + 4) * 4, "the rows of both layers"
    assert sent(many)[1] == whole


def test_a_scaled_change_is_scaled() -> None:
    (few,) = deltas(CLIENT, 3)
    close(sent(trees.scale(few, -0.5))[0], trees.map(lambda leaf: -0.5 * leaf, dict(few)))


def test_what_is_no_product_passes_unchanged() -> None:
    decayed = replace(CLIENT, optimiser=SGD(0.1, weight_decay=0.1))
    for tree in (*deltas(decayed, 3), {"a": np.arange(6.0).reshape(2, 3), "b": {}}):
        _, coded = Factored().encode({}, tree, ())
        assert trees.encode(coded) == trees.encode(tree)


def test_the_names_of_factors_are_taken() -> None:
    with pytest.raises(ConfigError, match="factor_left"):
        Factored().encode({}, {"factor_left": np.zeros(1)}, ())


@pytest.mark.parametrize(
    "broken",
    [
        {"factor_left": np.zeros((2, 3))},
        {"factor_left": np.zeros((2, 3)), "factor_right": np.zeros((3, 3))},
        {"factor_left": np.zeros(2), "factor_right": np.zeros(2)},
        {"factor_left": np.zeros((2, 3)), "factor_right": np.zeros((2, 3), np.float32)},
        {"factor_left": np.zeros((1, 1 << 20)), "factor_right": np.zeros((1, 1 << 20))},
        {"factor_left": {}, "factor_right": np.zeros((2, 3))},
    ],
)
def test_damaged_factors_are_refused(broken: Tree) -> None:
    with pytest.raises(WireError):
        Factored().decode({"w": broken})
