"""SCAFFOLD against algorithm 1 of the paper with option II, in numpy."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from duetto import tree as trees
from duetto.aggregation import Mean
from duetto.algorithms import fedavg, scaffold
from duetto.errors import ConfigError
from duetto.tree import Tree

HOW: Any = {"lr": 0.2, "epochs": 2, "batch_size": 4}


def vector(tree: Tree) -> np.ndarray:
    return np.concatenate([np.ravel(leaf) for _, leaf in trees.leaves(tree)])


@pytest.mark.parametrize("server_lr", [1.0, 0.6])
def test_rounds_are_those_of_the_paper(problem: Any, turns: Any, together: bool, server_lr: float) -> None:
    x, c, own = problem.start, np.zeros(8), {user: np.zeros(8) for user in problem.users}
    for step in range(4):
        moves, changes = [], []
        for user in problem.asked(step):
            y = problem.descend(user, x, step, added=lambda w, shift=c - own[user]: shift, **HOW)
            after = own[user] - c + (x - y) / (problem.steps(user, HOW["epochs"], HOW["batch_size"]) * HOW["lr"])
            moves.append(y - x)
            changes.append(after - own[user])
            own[user] = after
        x, c = x + server_lr * np.mean(moves, axis=0), c + 2 / 3 * np.mean(changes, axis=0)
    log = problem.lived(scaffold(problem.net, problem.params, server_lr=server_lr, cohort=turns, **HOW), 4, together)
    cloud = log.memory["cloud"]
    np.testing.assert_allclose(vector(cloud["params"]), x, rtol=1e-8)
    np.testing.assert_allclose(vector(cloud["rounds"]["server"]["control"]), c, rtol=1e-7, atol=1e-12)
    for user in problem.users:
        np.testing.assert_allclose(vector(log.memory[user]["control"]), own[user], rtol=1e-7, atol=1e-12)
    np.testing.assert_allclose(c, np.mean(list(own.values()), axis=0), atol=1e-12)


def test_a_first_round_without_controls_is_that_of_fedavg_with_equal_weights(problem: Any) -> None:
    plain = replace(fedavg(problem.net, problem.params, **HOW), aggregator=Mean(cap=1.0))
    drifting = scaffold(problem.net, problem.params, **HOW)
    np.testing.assert_array_equal(problem.learned(drifting, 1), problem.learned(plain, 1))
    assert np.abs(problem.learned(drifting, 2) - problem.learned(plain, 2)).max() > 1e-3


def test_a_client_s_own_momentum_is_taken_into_account(problem: Any) -> None:
    """The control is the mean gradient, not the change over steps and rate, which momentum would inflate."""
    log = problem.lived(scaffold(problem.net, problem.params, lr=1e-9, epochs=3, batch_size=9, momentum=0.9), 1)
    for user, rows in problem.data.items():
        slope = problem.slope(problem.start, rows.x.astype(float), rows.y)
        np.testing.assert_allclose(vector(log.memory[user]["control"]), slope, rtol=1e-6)


def test_many_local_steps_on_unlike_users_reach_the_common_optimum(problem: Any) -> None:
    """Where the mean of the users' gradients is 0; FedAvg's clients pull it elsewhere."""
    how: Any = {"lr": 0.5, "epochs": 8, "batch_size": 9}
    drifting = problem.learned(scaffold(problem.net, problem.params, **how), 40)
    assert np.linalg.norm(problem.full(drifting)) < 1e-6
    assert np.linalg.norm(problem.full(problem.learned(fedavg(problem.net, problem.params, **how), 10))) > 0.1


def test_a_client_that_takes_no_step_changes_nothing(problem: Any) -> None:
    log = problem.lived(scaffold(problem.net, problem.params, lr=0.1, epochs=0), 2)
    np.testing.assert_array_equal(vector(log.memory["cloud"]["params"]), problem.start)
    np.testing.assert_array_equal(vector(log.memory["ann"]["control"]), 0)


def test_the_fleet_s_control_moves_by_the_share_that_answered(problem: Any) -> None:
    server = scaffold(problem.net, problem.params, server_lr=0.5, **HOW).server
    state = {"control": trees.map(np.ones_like, problem.params)}
    change = {"params": problem.params, "control": trees.map(lambda leaf: np.full_like(leaf, 3.0), problem.params)}
    after, params = server.step(state, problem.params, change, cohort_size=2, fleet_size=8, key=(0,))
    np.testing.assert_allclose(vector(after["control"]), 1 + 3 * 2 / 8)
    np.testing.assert_allclose(vector(params), 1.5 * problem.start)


def test_a_rate_that_is_not_positive_is_refused(problem: Any) -> None:
    with pytest.raises(ConfigError, match=r"^server_lr=0: use a positive number$"):
        scaffold(problem.net, problem.params, server_lr=0, **HOW)
