"""FedPer, FedRep, FedBN and LG-FedAvg: what travels is averaged, the rest is each device's own."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from duetto import tree as trees
from duetto.algorithms import fedavg, fedbn, fedper, fedrep, lg_fedavg
from duetto.errors import ConfigError
from duetto.models import Mlp
from duetto.training import Body, Head

HOW: Any = {"lr": 0.2, "epochs": 2, "batch_size": 4}
BIAS, WEIGHT = slice(0, 2), slice(2, 8)


def vector(tree: Any) -> np.ndarray:
    return np.concatenate([np.ravel(leaf) for _, leaf in trees.leaves(tree)])


def first(problem: Any) -> np.ndarray:
    """Where a device's own parameters begin."""
    return vector(problem.net.init(0)).astype(float)


@pytest.mark.parametrize(("build", "travels"), [(fedper, WEIGHT), (lg_fedavg, BIAS)])
def test_rounds_are_those_of_the_paper(problem: Any, turns: Any, build: Any, travels: slice) -> None:
    """With the bias for the head: FedPer shares the weights, LG-FedAvg the bias."""
    stays = BIAS if travels == WEIGHT else WEIGHT
    w, own = problem.start.copy(), {user: first(problem)[stays] for user in problem.users}
    for step in range(4):
        ends = []
        for user in problem.asked(step):
            begin = w.copy()
            begin[stays] = own[user]
            ends.append(problem.descend(user, begin, step, **HOW))
            own[user] = ends[-1][stays]
        sizes = [len(problem.data[user]) for user in problem.asked(step)]
        w[travels] = np.average(ends, axis=0, weights=sizes)[travels]
    algorithm = build(problem.net, problem.params, head=("*.bias",), cohort=turns, **HOW)
    log = problem.lived(algorithm, 4)
    np.testing.assert_allclose(vector(log.memory["cloud"]["params"]), w, rtol=1e-9)
    sent = algorithm.server.send({}, log.memory["cloud"]["params"], None)
    assert vector(sent["params"]).size == w[travels].size, "the rest is not sent"
    for user in problem.users:
        np.testing.assert_allclose(vector(log.memory[user]["stays"]), own[user], rtol=1e-9)
        w[stays] = own[user]
        np.testing.assert_allclose(vector(algorithm.client.personal(sent, log.memory[user])), w, rtol=1e-9)
    w[stays] = first(problem)[stays]
    np.testing.assert_allclose(vector(algorithm.client.personal(sent, {})), w, rtol=1e-6)


@pytest.mark.parametrize(
    "algorithm",
    [
        lambda problem: fedper(problem.net, problem.params, head=(), **HOW),
        lambda problem: lg_fedavg(problem.net, problem.params, head=("*",), **HOW),
        lambda problem: fedbn(problem.net, problem.params, **HOW),
        lambda problem: fedrep(problem.net, problem.params, head=(), **HOW),
    ],
    ids=["fedper", "lg_fedavg", "fedbn", "fedrep"],
)
def test_where_nothing_stays_it_is_fedavg(problem: Any, algorithm: Any) -> None:
    """Bit for bit; FedRep's rows come in another order, so there in one batch."""
    plain, split = fedavg(problem.net, problem.params, **HOW), algorithm(problem)
    if split.client.__class__.__name__ == "FedRepClient":
        plain, split = (replace(each, client=replace(each.client, batch_size=9)) for each in (plain, split))
        np.testing.assert_allclose(problem.learned(split, 3), problem.learned(plain, 3), rtol=1e-9)
    else:
        np.testing.assert_array_equal(problem.learned(split, 3), problem.learned(plain, 3))


def test_where_all_stays_there_is_nothing_to_share(problem: Any) -> None:
    server = fedper(problem.net, problem.params, head=("*",), **HOW).server
    with pytest.raises(ConfigError, match="nothing of the network travels"):
        server.send({}, problem.params, None)


def test_fedrep_trains_the_head_and_then_the_body(problem: Any) -> None:
    """In whole batches, so that the order of rows does not matter."""
    how: Any = {"lr": 0.2, "batch_size": 9}
    w, own = problem.start.copy(), {user: first(problem)[BIAS] for user in problem.users}
    for _ in range(3):
        ends = []
        for user, rows in problem.data.items():
            v = np.concatenate([own[user], w[WEIGHT]])
            for part in [BIAS] * 3 + [WEIGHT] * 2:
                v[part] -= 0.2 * problem.slope(v, rows.x.astype(float), rows.y)[part]
            own[user] = v[BIAS]
            ends.append(v)
        w[WEIGHT] = np.average(ends, axis=0, weights=[len(rows) for rows in problem.data.values()])[WEIGHT]
    algorithm = fedrep(problem.net, problem.params, head=("*.bias",), head_epochs=3, epochs=2, **how)
    log = problem.lived(algorithm, 3)
    np.testing.assert_allclose(vector(log.memory["cloud"]["params"]), w, rtol=1e-6)
    np.testing.assert_allclose(vector(log.memory["eve"]["stays"]), own["eve"], rtol=1e-6)
    with pytest.raises(ConfigError, match="head_epochs=-1"):
        fedrep(problem.net, problem.params, head_epochs=-1, epochs=2, **how)


def test_by_default_the_last_layer_is_the_head() -> None:
    net = Mlp((3,), 2, (4,))
    assert fedper(net, net.init(0), **HOW).view == Body(("3.*",)) == fedrep(net, net.init(0), **HOW).view
    assert lg_fedavg(net, net.init(0), **HOW).view == Head(("3.*",))
