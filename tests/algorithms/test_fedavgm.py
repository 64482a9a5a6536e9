"""FedAvgM against the paper's equations, in numpy."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from duetto.algorithms import fedavg, fedavgm
from duetto.errors import ConfigError

HOW: Any = {"lr": 0.2, "epochs": 2, "batch_size": 4}


def test_three_rounds_are_those_of_the_paper(problem: Any, turns: Any, together: bool) -> None:
    w, v = problem.start, np.zeros(8)
    for step in range(3):
        users = problem.asked(step)
        moves = [w - problem.descend(user, w, step, **HOW) for user in users]
        v = 0.9 * v + np.average(moves, axis=0, weights=[len(problem.data[user]) for user in users])
        w = w - 0.5 * v
    algorithm = fedavgm(problem.net, problem.params, beta=0.9, server_lr=0.5, cohort=turns, **HOW)
    np.testing.assert_allclose(problem.learned(algorithm, 3, together), w, rtol=1e-9)


@pytest.mark.parametrize("server_lr", [1.0, 0.4])
def test_without_momentum_it_is_fedavg_bit_for_bit(problem: Any, server_lr: float) -> None:
    plain = fedavg(problem.net, problem.params, server_lr=server_lr, **HOW)
    still = fedavgm(problem.net, problem.params, beta=0.0, server_lr=server_lr, **HOW)
    np.testing.assert_array_equal(problem.learned(still, 3), problem.learned(plain, 3))


def test_the_client_s_momentum_is_another_thing(problem: Any) -> None:
    algorithm = fedavgm(problem.net, problem.params, beta=0.3, momentum=0.5, **HOW)
    plain = fedavg(problem.net, problem.params, momentum=0.5, **HOW)
    assert algorithm == replace(plain, server=algorithm.server)


@pytest.mark.parametrize(
    ("numbers", "fault"),
    [
        ({"beta": 1.0}, "beta=1.0: use a number from 0, below 1"),
        ({"beta": -0.1}, "beta=-0.1: use a number from 0, below 1"),
        ({"server_lr": 0.0}, "server_lr=0.0: use a positive number"),
    ],
)
def test_numbers_out_of_range_are_refused(problem: Any, numbers: dict[str, float], fault: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{fault}$"):
        fedavgm(problem.net, problem.params, **numbers, **HOW)
