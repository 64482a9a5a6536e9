"""IFCA against algorithm 1 of the paper, in numpy, and with one cluster."""

from typing import Any

import numpy as np
import pytest

from duetto import tree as trees
from duetto.algorithms import fedavg, ifca
from duetto.errors import ConfigError
from duetto.types import Chain

HOW: Any = {"lr": 0.2, "epochs": 2, "batch_size": 4}


def vector(tree: Any) -> np.ndarray:
    return np.concatenate([np.ravel(leaf) for _, leaf in trees.leaves(tree)])


def test_one_cluster_is_fedavg_bit_for_bit(problem: Any, turns: Any) -> None:
    plain = problem.learned(fedavg(problem.net, problem.params, cohort=turns, **HOW), 3)
    np.testing.assert_array_equal(
        problem.learned(ifca(problem.net, problem.params, k=1, cohort=turns, **HOW), 3), plain
    )


def test_rounds_are_those_of_the_paper(problem: Any, turns: Any) -> None:
    made = ifca(problem.net, problem.params, k=3, spread=2.0, cohort=turns, **HOW)
    sent = made.server.send(made.server.init(problem.params), problem.params, None)
    models = [vector(sent["models"][str(i)]) for i in range(3)]
    chosen: dict[str, int] = {}

    def loss(w: np.ndarray, user: str) -> float:
        rows = problem.data[user]
        logits = rows.x @ w[2:].reshape(2, 3).T + w[:2]
        return float(np.mean(np.logaddexp.reduce(logits, axis=1) - logits[np.arange(len(rows)), rows.y]))

    for step in range(4):
        ends: dict[int, list[tuple[np.ndarray, int]]] = {}
        for user in problem.asked(step):
            chosen[user] = int(np.argmin([loss(w, user) for w in models]))
            end = problem.descend(user, models[chosen[user]], step, **HOW)
            ends.setdefault(chosen[user], []).append((end, len(problem.data[user])))
        for i, found in ends.items():
            models[i] = np.average([end for end, _ in found], axis=0, weights=[n for _, n in found])
    assert len(set(chosen.values())) > 1, "a test of clusters"
    log = problem.lived(made, 4)
    cloud = log.memory["cloud"]
    sent = made.server.send(cloud["rounds"]["server"], cloud["params"], None)
    for i in range(3):
        np.testing.assert_allclose(vector(sent["models"][str(i)]), models[i], rtol=1e-8)
    for user in problem.users:
        assert int(log.memory[user]["cluster"]) == chosen[user]
        assert made.client.personal(sent, log.memory[user]) is sent["models"][str(chosen[user])]


def test_only_one_model_goes_up() -> None:
    """The zeros of the others take next to nothing of the way up."""
    from duetto.models import Mlp

    net = Mlp((40,), 10, (40,))
    params = net.init(0)
    one, many = (ifca(net, params, k=k, **HOW) for k in (1, 6))
    draw = np.random.default_rng(0)
    delta = trees.map(lambda leaf: draw.normal(size=leaf.shape).astype(np.float32), params)
    sizes = []
    for made, k in ((one, 1), (many, 6)):
        changes = {str(i): delta if i == k - 1 else trees.zeros(delta) for i in range(k)}
        assert isinstance(made.up, Chain)
        sizes.append(len(trees.encode(made.up.encode(made.up.init(), changes, (0,))[1])))
    assert sizes[1] < 1.2 * sizes[0]


def test_senseless_numbers_are_refused(problem: Any) -> None:
    with pytest.raises(ConfigError, match="k=0"):
        ifca(problem.net, problem.params, k=0, **HOW)
