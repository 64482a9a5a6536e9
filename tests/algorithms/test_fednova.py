"""FedNova against the paper's normalised averaging, in numpy."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from duetto.algorithms import fedavg, fednova
from duetto.errors import ConfigError
from duetto.training import SGD, Adam, Proximal

HOW: Any = {"lr": 0.2, "epochs": 2, "batch_size": 4}


@pytest.mark.parametrize(("server_lr", "momentum"), [(1.0, 0.0), (0.5, 0.0), (1.0, 0.8)])
def test_rounds_are_those_of_the_paper(
    problem: Any, turns: Any, together: bool, server_lr: float, momentum: float
) -> None:
    how = {**HOW, "momentum": momentum}
    w = problem.start
    for step in range(3):
        users = problem.asked(step)
        sizes = np.array([len(problem.data[user]) for user in users])
        shares, steps = sizes / sizes.sum(), [problem.steps(user, HOW["epochs"], HOW["batch_size"]) for user in users]
        # a = [1 - rho^tau, ..., 1 - rho] / (1 - rho), section 4.1; ones without momentum
        a = np.array([sum((1 - momentum**j) / (1 - momentum) for j in range(1, tau + 1)) for tau in steps])
        d = [(problem.descend(user, w, step, **how) - w) / norm for user, norm in zip(users, a, strict=True)]
        w = w + server_lr * (shares @ a) * (shares @ np.array(d))
    assert len(set(steps)) == 2, "somebody took more steps"
    algorithm = fednova(problem.net, problem.params, server_lr=server_lr, cohort=turns, **how)
    np.testing.assert_allclose(problem.learned(algorithm, 3, together), w, rtol=1e-8)


def test_where_all_take_equally_many_steps_it_is_fedavg(problem: Any) -> None:
    how: Any = {**HOW, "batch_size": 9}
    plain = problem.learned(fedavg(problem.net, problem.params, **how), 3)
    np.testing.assert_allclose(problem.learned(fednova(problem.net, problem.params, **how), 3), plain, rtol=1e-12)
    plain = problem.learned(fedavg(problem.net, problem.params, **HOW), 3)
    assert np.abs(problem.learned(fednova(problem.net, problem.params, **HOW), 3) - plain).max() > 1e-3


def test_what_a_unit_of_work_is(problem: Any) -> None:
    client: Any = fednova(problem.net, problem.params, **HOW).client
    assert client.tau(5) == pytest.approx(5)
    assert client.tau(0) == 0
    pulled = replace(client, loss=(*client.loss, Proximal(0.7)))
    kept = 1 - 0.2 * 0.7
    assert pulled.tau(6) == pytest.approx((1 - kept**6) / (0.2 * 0.7)), "section 4.1, proximal updates"
    decaying = replace(client, optimiser=SGD(0.2, weight_decay=0.7))
    assert decaying.tau(6) == pytest.approx(pulled.tau(6))
    cosine = replace(client, optimiser=SGD(0.2, schedule="cosine"))
    rates = [0.02 + 0.98 * (1 + np.cos(np.pi * t / 6)) / 2 for t in range(6)]
    assert cosine.tau(6) == pytest.approx(sum(rates))
    nesterov = replace(client, optimiser=SGD(0.2, 0.5, nesterov=True))
    assert nesterov.tau(2) == pytest.approx((1 + 0.5) + (1 + 0.5 + 0.5**2))


def test_it_is_for_sgd_only(problem: Any) -> None:
    client: Any = fednova(problem.net, problem.params, **HOW).client
    for optimiser in (Adam(0.1), SGD(0.0)):
        with pytest.raises(ConfigError, match=r"^FedNova with .*: use SGD with a positive learning rate$"):
            replace(client, optimiser=optimiser)


def test_a_rate_that_is_not_positive_is_refused(problem: Any) -> None:
    with pytest.raises(ConfigError, match=r"^server_lr=-1: use a positive number$"):
        fednova(problem.net, problem.params, server_lr=-1, **HOW)
