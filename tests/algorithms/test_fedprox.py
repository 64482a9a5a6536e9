"""FedProx against algorithm 2 of the paper, in numpy."""

import math
from typing import Any

import numpy as np
import pytest

from duetto.algorithms import fedavg, fedprox
from duetto.errors import ConfigError

HOW: Any = {"lr": 0.2, "epochs": 2, "batch_size": 4}


def test_three_rounds_are_those_of_the_paper(problem: Any, turns: Any, together: bool) -> None:
    mu, w = 0.7, problem.start
    for step in range(3):
        users = problem.asked(step)
        ends = [problem.descend(user, w, step, added=lambda v, w=w: mu * (v - w), **HOW) for user in users]
        w = w + 0.8 * (np.average(ends, axis=0, weights=[len(problem.data[user]) for user in users]) - w)
    algorithm = fedprox(problem.net, problem.params, mu=mu, server_lr=0.8, cohort=turns, **HOW)
    np.testing.assert_allclose(problem.learned(algorithm, 3, together), w, rtol=1e-9)


def test_without_a_pull_it_is_fedavg_bit_for_bit(problem: Any) -> None:
    plain = problem.learned(fedavg(problem.net, problem.params, **HOW), 2)
    np.testing.assert_array_equal(problem.learned(fedprox(problem.net, problem.params, mu=0.0, **HOW), 2), plain)
    assert np.abs(problem.learned(fedprox(problem.net, problem.params, mu=0.1, **HOW), 2) - plain).max() > 1e-4


@pytest.mark.parametrize("mu", [-0.1, math.nan, math.inf])
def test_a_pull_that_is_none_is_refused(problem: Any, mu: float) -> None:
    with pytest.raises(ConfigError, match=r"^mu=.*: use a number from 0$"):
        fedprox(problem.net, problem.params, mu=mu, **HOW)
