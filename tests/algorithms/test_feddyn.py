"""FedDyn against algorithm 1 of the paper with g and h as it has them, in numpy."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from duetto.aggregation import Mean
from duetto.algorithms import fedavg, feddyn, fedprox
from duetto.errors import ConfigError

HOW: Any = {"lr": 0.2, "epochs": 2, "batch_size": 4}


def test_rounds_are_those_of_the_paper(problem: Any, turns: Any, together: bool) -> None:
    alpha, w, h, g = 0.3, problem.start, np.zeros(8), {user: np.zeros(8) for user in problem.users}
    for step in range(5):
        ends = []
        for user in problem.asked(step):

            def added(v: np.ndarray, w: np.ndarray = w, g: np.ndarray = g[user]) -> np.ndarray:
                return alpha * (v - w) - g

            ends.append(problem.descend(user, w, step, added=added, **HOW))
            g[user] = g[user] - alpha * (ends[-1] - w)
        h = h - alpha / 3 * sum(end - w for end in ends)
        w = np.mean(ends, axis=0) - h / alpha
    algorithm = feddyn(problem.net, problem.params, alpha=alpha, cohort=turns, **HOW)
    np.testing.assert_allclose(problem.learned(algorithm, 5, together), w, rtol=1e-8)


def test_many_local_steps_on_unlike_users_reach_the_common_optimum(problem: Any) -> None:
    """Where the mean of the users' gradients is 0; FedAvg's clients pull it elsewhere."""
    how: Any = {"lr": 0.5, "epochs": 8, "batch_size": 9}
    bent = problem.learned(feddyn(problem.net, problem.params, alpha=0.5, **how), 40)
    assert np.linalg.norm(problem.full(bent)) < 1e-7
    assert np.linalg.norm(problem.full(problem.learned(fedavg(problem.net, problem.params, **how), 10))) > 0.1


@pytest.mark.parametrize("alpha", [2.0, 0.1, 1e-7])
def test_where_all_take_part_the_first_round_goes_twice_as_far_as_fedprox_with_equal_weights(
    problem: Any, alpha: float
) -> None:
    """Nobody remembers anything yet; ``h / alpha`` is the mean change. With hardly a pull it is twice FedAvg."""
    near = fedprox(problem.net, problem.params, mu=alpha, **HOW)
    near = near if alpha > 1e-6 else fedavg(problem.net, problem.params, **HOW)
    moved = problem.learned(replace(near, aggregator=Mean(cap=1.0)), 1) - problem.start
    bent = problem.learned(feddyn(problem.net, problem.params, alpha=alpha, **HOW), 1)
    np.testing.assert_allclose(bent - problem.start, 2 * moved, rtol=1e-5)


@pytest.mark.parametrize("alpha", [0.0, -1.0, float("nan")])
def test_an_alpha_that_is_not_positive_is_refused(problem: Any, alpha: float) -> None:
    with pytest.raises(ConfigError, match=r"^alpha=.*: use a positive number$"):
        feddyn(problem.net, problem.params, alpha=alpha, **HOW)
