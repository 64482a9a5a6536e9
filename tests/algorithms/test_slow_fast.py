"""Slow-fast learning: a round by hand, what stays fast, and that without its own numbers it is FedAvg."""

from typing import Any

import numpy as np
import pytest

from duetto import tree as trees
from duetto.algorithms import fedavg_ft, slow_fast
from duetto.errors import ConfigError
from duetto.models import Mlp
from duetto.training import SGD, Client, CrossEntropy, Distil, sequential
from duetto.training.distilled import distilled
from duetto.tree import Tree
from duetto.types import Rows

NET, LARGE = Mlp((3,), 2, (4,)), Mlp((3,), 2, (7,))
SLOW = LARGE.init(5)
CLOUD = Rows(np.random.default_rng(8).normal(size=(9, 3)).astype(np.float32), np.arange(9) % 2)
HOW: Any = {"lr": 0.3, "epochs": 2, "batch_size": 4}


@pytest.fixture
def params() -> Tree:
    return trees.map(lambda leaf: leaf.astype(np.float64), NET.init(1))


def single(tree: Tree) -> Tree:
    return trees.map(np.float32, tree)


def close(left: Tree, right: Tree) -> None:
    trees.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), left, right)


def test_a_prior_goes_down_and_what_it_missed_moves_the_slow_model(problem: Any, params: Tree) -> None:
    """Two rounds, of which the slow model learns from the second: both sides by hand."""
    algorithm = slow_fast(NET, params, (LARGE, SLOW), CLOUD, newest=0.5, trust=0.7, every=2, passes=3, **HOW)
    log = problem.lived(algorithm, 2)
    plain = Client(NET, (CrossEntropy(), Distil(0.7, 1.0)), SGD(0.3), 2, 4)
    now, fast = params, {}
    for step in range(2):
        changes, counts = [], []
        for user, rows in problem.data.items():
            x, y = rows.x[len(rows) // 2 :], rows.y[len(rows) // 2 :]
            lessons = {"x": x, "y": y, "teacher": NET.logits(single(now), x)}
            trained = sequential.run(plain, {"params": now}, lessons, (3, "round", step, user))
            fast[user] = trained.params
            changes, counts = [*changes, trained.delta], [*counts, len(x)]
        assert counts == [2, 3, 5]
        now = trees.add(now, trees.total(changes, [n / 10 for n in counts]))
    server: Any = algorithm.server
    missed = NET.logits(single(now), CLOUD.x) - NET.logits(single(params), CLOUD.x)
    lessons = {"x": CLOUD.x, "y": CLOUD.y, "teacher": LARGE.logits(SLOW, CLOUD.x) + missed}
    key = (3, "round", 1, "server")
    slow = sequential.run(server.teacher, {"params": SLOW}, lessons, (*key, "slow")).params
    moved = LARGE.logits(slow, CLOUD.x) - LARGE.logits(SLOW, CLOUD.x)
    said = NET.logits(single(params), CLOUD.x) + moved
    prior = distilled(server.pupil, NET, now, CLOUD.x, said, (*key, "prior"))
    state = log.memory["cloud"]["rounds"]["server"]
    close(state["slow"], slow)
    close(state["prior"], prior)
    close(log.memory["cloud"]["params"], prior)
    assert state["step"] == 2
    for user, rows in problem.data.items():
        memory, sent = log.memory[user], {"params": single(prior)}
        close(memory["own"], fast[user])
        np.testing.assert_array_equal(algorithm.client.logits(sent, {}, rows.x), NET.logits(sent["params"], rows.x))  # type: ignore[attr-defined]
        own = {**memory, "own": single(memory["own"])}
        np.testing.assert_array_equal(algorithm.client.logits(sent, own, rows.x), NET.logits(own["own"], rows.x))  # type: ignore[attr-defined]


def test_the_slow_model_waits_for_its_turn(problem: Any, params: Tree) -> None:
    algorithm = slow_fast(NET, params, (LARGE, SLOW), CLOUD, every=3, **HOW)
    trees.map(
        np.testing.assert_array_equal, problem.lived(algorithm, 2).memory["cloud"]["rounds"]["server"]["slow"], SLOW
    )
    after = problem.lived(algorithm, 3).memory["cloud"]["rounds"]["server"]["slow"]
    assert trees.norm(trees.subtract(after, SLOW)) > 1e-3


def test_without_passes_trust_and_old_rows_it_is_fedavg(problem: Any, params: Tree) -> None:
    """Limit law, bit for bit; and what each number does against it."""
    off: Any = {"newest": 1.0, "trust": 0.0, "passes": 0}
    plain = problem.lived(fedavg_ft(NET, params, **HOW), 2).memory
    same = problem.lived(slow_fast(NET, params, (LARGE, SLOW), CLOUD, **off, **HOW), 2).memory
    assert trees.encode(same["cloud"]["params"]) == trees.encode(plain["cloud"]["params"])
    assert [trees.encode(same[user]) for user in problem.users] == [trees.encode(plain[user]) for user in problem.users]
    for name, value in {"newest": 0.5, "trust": 0.5, "passes": 1}.items():
        other: Any = slow_fast(NET, params, (LARGE, SLOW), CLOUD, **{**off, name: value}, **HOW)
        assert trees.encode(problem.lived(other, 2).memory["cloud"]["params"]) != trees.encode(plain["cloud"]["params"])


@pytest.mark.parametrize("name", ["newest", "every"])
def test_faults_are_told(name: str, params: Tree) -> None:
    with pytest.raises(ConfigError, match=f"^{name}=0: use a positive number$"):
        slow_fast(NET, params, (LARGE, SLOW), CLOUD, **{name: 0}, **HOW)
