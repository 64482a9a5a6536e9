"""Federated LoRA: the mean of the products, in numpy; at full rank it is federated averaging."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from duetto import tree as trees
from duetto.algorithms import fedavg, fedlora, ffa_lora
from duetto.errors import ConfigError
from duetto.models import Conv, Lora, Mlp, lora
from duetto.protocols import rounds
from duetto.simulation.engine import simulate
from duetto.simulation.fleet import fleet
from duetto.training import Sequential
from duetto.tree import Tree
from duetto.types import Algorithm, Local, Party

NET = Mlp((3,), 2, (5,))
HOW: Any = {"lr": 0.3, "epochs": 2, "batch_size": 4}


def params(net: Any = NET) -> Tree:
    return trees.map(lambda leaf: leaf.astype(np.float64), net.init(1))


def close(one: Tree, other: Tree) -> None:
    trees.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12), one, other)


def lived(problem: Any, algorithm: Algorithm, steps: int, failed: int = 0, **memory: Any) -> Any:
    client = replace(algorithm.client, executor=Sequential())
    log = simulate(
        fleet=fleet("phones", problem.users, data=problem.data.__getitem__, memory=memory),
        device=Party(skills=(type(client),)),
        cloud=rounds(replace(algorithm, client=client), steps=steps, seed=3),
    )
    assert [record.metrics["failed"] for record in log.records] == [failed] * steps
    return log


def learned(problem: Any, algorithm: Algorithm, steps: int, **memory: Any) -> Tree:
    return lived(problem, algorithm, steps, **memory).memory["cloud"]["params"]


@pytest.mark.parametrize("net", [NET, Conv((1, 4, 4), 2, (3,))])
def test_the_network_computes_with_base_plus_product(net: Any) -> None:
    beside = Lora(net, 2)
    draw, start = np.random.default_rng(0), beside.init(4)
    x = draw.normal(size=(5, *net.shape)).astype(np.float32)
    np.testing.assert_array_equal(beside.logits(start, x), net.logits(net.init(4), x))
    start["left"] = trees.map(lambda leaf: draw.normal(size=leaf.shape).astype(np.float32), start["left"])
    for name, base in trees.leaves(start["base"]):
        layer = name.split("/")[1]
        a, b = start["left"][layer]["weight"], start["right"][layer]["weight"]
        np.testing.assert_allclose(b @ b.T, np.eye(len(b)), atol=1e-6)
        whole = lora.joined(start)[layer]["weight"]
        np.testing.assert_allclose(whole.reshape(len(a), -1), base.reshape(len(a), -1) + a @ b, atol=1e-6)
    np.testing.assert_allclose(beside.logits(start, x), net.logits(lora.joined(start), x), atol=1e-5)
    assert (beside.shape, beside.classes) == (net.shape, net.classes)


def test_full_rank_with_one_factor_is_fedavg(problem: Any) -> None:
    full = learned(problem, ffa_lora(NET, params(), rank=5, **HOW), 4)
    close(full, learned(problem, fedavg(NET, params(), **HOW), 4))
    thin = learned(problem, ffa_lora(NET, params(), rank=1, **HOW), 4)
    assert np.abs(thin["1"]["weight"] - full["1"]["weight"]).max() > 1e-2
    assert np.linalg.matrix_rank(thin["1"]["weight"] - params()["1"]["weight"]) == 1


@pytest.mark.parametrize("svd", [False, True])
def test_full_rank_with_both_factors_begins_as_fedavg(problem: Any, svd: bool) -> None:
    """While ``left`` is zero, ``right`` has no gradient: one full step is one of plain descent."""
    how: Any = {"lr": 0.3, "epochs": 1, "batch_size": 9}
    one = learned(problem, fedlora(NET, params(), rank=5, svd=svd, **how), 1)
    close(one, learned(problem, fedavg(NET, params(), **how), 1))


@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize("svd", [False, True])
def test_the_network_moves_by_the_mean_of_the_products(problem: Any, rank: int, svd: bool) -> None:
    """Not by the product of the mean factors, which is told beside it."""
    algorithm = fedlora(NET, params(), rank=rank, svd=svd, **HOW)
    server, client = algorithm.server, replace(algorithm.client, executor=Sequential())
    now, state = params(), server.init(params())
    for step in range(3):
        sent, total, examples = server.send(state, now, None), trees.zeros(now), 0.0
        naive = {name: trees.zeros(state[name]) for name in state}
        for user, rows in problem.data.items():
            _, told = client(Local(rows), sent, (3, "round", step, user), "cloud")
            ends = {name: trees.add(state[name], told["delta"][name]) for name in state}
            for layer in ("1", "3"):
                a, b = ends["left"][layer]["weight"], ends["right"][layer]["weight"]
                total[layer]["weight"] += len(rows) * (a @ b)
                total[layer]["bias"] += len(rows) * told["delta"]["rest"][layer]["bias"]
            naive = {name: trees.add(naive[name], trees.scale(ends[name], len(rows))) for name in ends}
            examples += len(rows)
        wanted: Any = {}
        for layer in ("1", "3"):
            before = state["left"][layer]["weight"] @ state["right"][layer]["weight"]
            mean = total[layer]["weight"] / examples
            if svd:
                u, s, v = np.linalg.svd(mean, full_matrices=False)
                mean = (u[:, :rank] * s[:rank]) @ v[:rank]
            elif step:
                product = naive["left"][layer]["weight"] @ naive["right"][layer]["weight"] / examples**2
                assert np.abs(mean - product).max() > 1e-6
            bias = now[layer]["bias"] + total[layer]["bias"] / examples
            wanted[layer] = {"weight": now[layer]["weight"] - before + mean, "bias": bias}
        now = learned(problem, algorithm, step + 1)
        close(now, wanted)
        state = lived(problem, algorithm, step + 1).memory["cloud"]["rounds"]["server"]


def test_what_was_published_does_not_travel(problem: Any) -> None:
    algorithm = ffa_lora(NET, params(), rank=2, published=True, **HOW)
    state = algorithm.server.init(params())
    frozen = {name: state[name] for name in ("base", "right")}
    assert set(algorithm.server.send(state, params(), None)) == {"left", "rest"}
    same = learned(problem, algorithm, 2, frozen=frozen)
    whole = lived(problem, replace(algorithm, server=replace(algorithm.server, published=False)), 2)
    close(same, whole.memory["cloud"]["params"])
    down = lived(problem, algorithm, 2, frozen=frozen).records[-1].cost.down_bytes
    assert down < 0.8 * whole.records[-1].cost.down_bytes
    sent = algorithm.server.send(whole.memory["cloud"]["rounds"]["server"], same, None)
    close(algorithm.client.personal(sent, {"frozen": frozen}), same)
    log = lived(problem, algorithm, 1, failed=3)
    assert "ann: a device without the frozen part of its network: publish it" in str(log.records[0].metrics["failures"])


def test_fewer_bytes_go_up_than_with_fedavg() -> None:
    wide = Mlp((64,), 10, (64,))
    start = wide.init(0)
    sizes = [
        trees.size(trees.spec(build(wide, start, lr=0.1, epochs=1).server.expects(start)))
        for build in (fedavg, fedlora, ffa_lora)
    ]
    assert sizes[2] < sizes[1] < sizes[0] / 2


def test_a_rank_is_at_least_1() -> None:
    for build in (fedlora, ffa_lora):
        with pytest.raises(ConfigError, match=r"^rank=0: use a rank from 1$"):
            build(NET, params(), rank=0, **HOW)
