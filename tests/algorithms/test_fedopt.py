"""FedAdagrad, FedYogi and FedAdam against algorithm 2 of the paper, in numpy."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from duetto import tree as trees
from duetto.algorithms import fedadagrad, fedadam, fedyogi
from duetto.algorithms.fedopt import Adaptive
from duetto.errors import ConfigError

HOW: Any = {"lr": 0.2, "epochs": 2, "batch_size": 4}
KEPT: dict[Any, tuple[float, Callable[..., Any]]] = {  # beta1, and how squares are kept
    fedadagrad: (0.0, lambda v, d: v + d**2),
    fedyogi: (0.9, lambda v, d: v - 0.01 * d**2 * np.sign(v - d**2)),
    fedadam: (0.9, lambda v, d: 0.99 * v + 0.01 * d**2),
}


@pytest.mark.parametrize("build", KEPT)
@pytest.mark.parametrize("tau", [1e-3, 0.3])
def test_rounds_are_those_of_the_paper(problem: Any, turns: Any, together: bool, build: Any, tau: float) -> None:
    (beta1, kept), w = KEPT[build], problem.start
    m, v = np.zeros(8), np.full(8, tau**2)
    for step in range(4):
        users = problem.asked(step)
        moves = [problem.descend(user, w, step, **HOW) - w for user in users]
        delta = np.average(moves, axis=0, weights=[len(problem.data[user]) for user in users])
        m = beta1 * m + (1 - beta1) * delta
        v = kept(v, delta)
        w = w + 0.1 * m / (np.sqrt(v) + tau)
    algorithm = build(problem.net, problem.params, server_lr=0.1, tau=tau, cohort=turns, **HOW)
    np.testing.assert_allclose(problem.learned(algorithm, 4, together), w, rtol=1e-8)


@pytest.mark.parametrize("build", KEPT)
def test_the_state_has_the_dtype_of_the_parameters(problem: Any, build: Any) -> None:
    params = trees.map(lambda leaf: leaf.astype(np.float32), problem.params)
    server = build(problem.net, params, server_lr=0.1, **HOW).server
    state, moved = server.step(server.init(params), params, params, cohort_size=1, fleet_size=1, key=())
    assert [trees.spec(tree) for tree in (moved, *state.values())] == [trees.spec(params)] * 3


@pytest.mark.parametrize(
    ("numbers", "fault"),
    [
        ({"lr": 0.0}, "server_lr=0.0: use a positive number"),
        ({"lr": 1.0, "tau": 0.0}, "tau=0.0: use a positive number"),
        ({"lr": 1.0, "beta1": 1.0}, "beta1=1.0: use a number from 0, below 1"),
        ({"lr": 1.0, "beta2": -0.5}, "beta2=-0.5: use a number from 0, below 1"),
    ],
)
def test_numbers_out_of_range_are_refused(numbers: dict[str, float], fault: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{fault}$"):
        Adaptive("adam", **numbers)


def test_a_rule_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^no rule is called 'sgd': use "):
        Adaptive("sgd", 0.1)  # type: ignore[arg-type]
