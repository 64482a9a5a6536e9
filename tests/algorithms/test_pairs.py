"""Device-cloud pairs: DCCL's patches and what they teach the cloud, DUET's parameters made from a context."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from duetto import tree as trees
from duetto.algorithms import dccl, duet, fedavg
from duetto.algorithms.duet import Generate, context
from duetto.errors import ConfigError, DataError
from duetto.models import Conv, Mlp, Ncf, Text
from duetto.models.generated import Generated
from duetto.models.patched import Patched
from duetto.training import sequential
from duetto.tree import Tree
from duetto.types import Local, Rows

NET = Mlp((3,), 2, (5,))
HOW: Any = {"lr": 0.3, "epochs": 2, "batch_size": 4}
CLOUD = Rows(np.random.default_rng(8).normal(size=(9, 3)).astype(np.float32), np.arange(9) % 2)


def params(net: Any = NET) -> Tree:
    return trees.map(lambda leaf: leaf.astype(np.float64), net.init(1))


@pytest.mark.parametrize("net", [NET, Conv((1, 4, 4), 2, (3,)), Mlp((3,), 2, ())])
def test_a_patch_moves_the_last_layer_and_nothing_else(net: Any) -> None:
    patched, draw = Patched(net, 4), np.random.default_rng(0)
    start = patched.init(2)
    x = draw.normal(size=(5, *net.shape)).astype(np.float32)
    np.testing.assert_array_equal(patched.logits(start, x), net.logits(start["net"], x))
    start["code"] = draw.normal(size=4).astype(np.float32)
    whole = patched.joined(start["net"], start["code"])
    np.testing.assert_allclose(patched.logits(start, x), net.logits(whole, x), atol=1e-6)
    change = np.concatenate([np.ravel(leaf) for _, leaf in trees.leaves(trees.subtract(whole, start["net"]))])
    np.testing.assert_allclose(np.linalg.norm(change), np.linalg.norm(start["code"]), rtol=1e-5)
    last = max(whole, key=int)
    assert {at for at, leaf in trees.leaves(trees.subtract(whole, start["net"])) if np.any(leaf)} == {
        f"/{last}/bias",
        f"/{last}/weight",
    }


@pytest.mark.parametrize("net", [NET, Conv((1, 4, 4), 2, (3,)), Ncf((4,), 2, 9, 3, (5,))])
def test_all_patched_models_say_on_average_what_the_mean_patch_says(net: Any) -> None:
    patched, draw = Patched(net, 4), np.random.default_rng(0)
    start, codes = net.init(2), draw.normal(size=(3, 4))
    x = draw.integers(1, 9, size=(5, *net.shape)).astype(np.float32)
    said = np.mean([net.logits(patched.joined(start, code), x) for code in codes], 0)
    np.testing.assert_allclose(net.logits(patched.joined(start, codes.mean(0)), x), said, rtol=1e-4, atol=1e-4)


def test_dccl_s_cloud_learns_from_labels_and_from_all_patched_models(problem: Any) -> None:
    """A round by hand: each device trains its patch, then the cloud its model."""
    algorithm = dccl(NET, params(), CLOUD, size=3, alpha=0.3, passes=2, **HOW)
    memory = problem.lived(algorithm, 2).memory
    patched, now, patches = Patched(NET, 3), params(), {user: np.zeros(3) for user in problem.users}
    for step in range(2):
        teacher = np.zeros((9, 2))
        for user, rows in problem.data.items():
            train = replace(fedavg(NET, now, **HOW).client, net=patched)
            data = {"x": rows.x, "y": rows.y}
            key = (3, "round", step, user)
            patches[user] = sequential.run(train, {"params": {"net": now, "code": patches[user]}}, data, key).params[
                "code"
            ]
            single = trees.map(np.float32, now)
            teacher += len(rows) / 19 * NET.logits(patched.joined(single, patches[user]), CLOUD.x)
        lessons = {"x": CLOUD.x, "y": CLOUD.y, "teacher": teacher}
        key = (3, "round", step, "server")
        now = sequential.run(algorithm.server.student, {"params": now}, lessons, key).params  # type: ignore[attr-defined]
    trees.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-9), memory["cloud"]["params"], now)
    for user in problem.users:
        np.testing.assert_allclose(memory[user]["patch"], patches[user], rtol=1e-6, atol=1e-9)
    single, x = trees.map(np.float32, now), problem.data["eve"].x
    answered = algorithm.client.logits({"params": single}, memory["eve"], x)  # type: ignore[attr-defined]
    np.testing.assert_allclose(answered, NET.logits(patched.joined(single, patches["eve"]), x), atol=1e-5)
    np.testing.assert_array_equal(
        algorithm.client.logits({"params": single}, {}, x),  # type: ignore[attr-defined]
        NET.logits(single, x),
    )


def test_a_patch_fits_its_user_better_than_the_model_does(problem: Any) -> None:
    algorithm = dccl(NET, params(), CLOUD, size=8, lr=0.3, epochs=20)
    memory = problem.lived(algorithm, 1).memory
    for user, rows in problem.data.items():
        single = trees.map(np.float32, params())
        own, shared = (
            algorithm.client.logits({"params": single}, each, rows.x)  # type: ignore[attr-defined]
            for each in (memory[user], {})
        )
        losses = [
            np.mean(np.logaddexp.reduce(logits, axis=1) - logits[np.arange(len(rows)), rows.y])
            for logits in (own, shared)
        ]
        assert losses[0] < losses[1]


@pytest.mark.parametrize("net", [NET, Conv((1, 4, 4), 2, (3,)), Mlp((3,), 2, ())])
def test_what_is_made_is_a_small_network_that_says_the_same(net: Any) -> None:
    inputs = int(np.prod(net.shape))
    both, draw = Generated(net, inputs, 6), np.random.default_rng(0)
    start = both.init(1)
    x = draw.normal(size=(5, *net.shape)).astype(np.float32)
    told = context(x)
    np.testing.assert_allclose(told, x.reshape(5, -1).mean(0), rtol=1e-5)
    np.testing.assert_allclose(both.logits(start, both.rows(told, x)), net.logits(start["net"], x), atol=1e-6)
    start["maker"] = trees.map(lambda leaf: draw.normal(size=leaf.shape).astype(np.float32), start["maker"])
    small = both.made(start, told)
    np.testing.assert_allclose(both.logits(start, both.rows(told, x)), net.logits(small, x), rtol=1e-4, atol=1e-4)
    _, answer = Generate(both)(Local(memory={"params": start}), {"context": told}, (0,), "ann")
    trees.map(np.testing.assert_array_equal, answer["params"], small)


def test_a_device_answers_with_what_is_made_for_it(problem: Any) -> None:
    algorithm = duet(NET, NET.init(1), lr=0.1, epochs=3, batch_size=4)
    memory = problem.lived(algorithm, 3).memory
    net, after, x = algorithm.client.net, memory["cloud"]["params"], problem.data["ann"].x  # type: ignore[attr-defined]
    small = {user: net.made(after, context(rows.x)) for user, rows in problem.data.items()}
    assert np.abs(small["ann"]["3"]["weight"] - small["eve"]["3"]["weight"]).max() > 1e-4
    client: Any = algorithm.client
    np.testing.assert_array_equal(client.logits({"params": after}, memory["ann"], x), NET.logits(small["ann"], x))
    np.testing.assert_array_equal(client.logits({"params": after}, {}, x), NET.logits(small["ann"], x))


def test_faults_are_told() -> None:
    with pytest.raises(ConfigError, match=r"^a patch of 40 numbers: the last layer has 12$"):
        dccl(NET, params(), CLOUD, size=40, **HOW)
    with pytest.raises(ConfigError, match=r"^alpha=1: use a number from 0, below 1$"):
        dccl(NET, params(), CLOUD, alpha=1, **HOW)
    with pytest.raises(ConfigError, match=r"^Text does not end in a dense layer: use Mlp or Conv$"):
        Generated(Text((4,), 2), 4).init(0)
    with pytest.raises(DataError, match=r"^no recent inputs to make parameters from: ask once there is one$"):
        context(np.zeros((0, 3)))
