"""Epsilon-greedy: exact propensities, and an epsilon that falls."""

import numpy as np
import pytest

from duetto.errors import ConfigError
from duetto.policies import EpsilonGreedy
from duetto.types import Action, Seen

N = 4000
SURE = Seen(stage=1, answer=np.tile([9.0, 0.0], (N, 1)), size=N)
UNSURE = Seen(stage=1, answer=np.tile([1.0, 0.9], (N, 1)), size=N)
BOUND = 5 * np.sqrt(0.25 / N)


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("seen", [SURE, UNSURE])
def test_the_propensity_is_the_share_of_draws(seen: Seen, full: bool) -> None:
    policy = EpsilonGreedy(0.4, float("inf"), price=0.2, full_information_on_ask=full)
    _, move = policy.choose(policy.init(), seen, (1,))
    ask = move.action == Action.ASK
    explored = 0.4 if full else 0.2
    chance = (explored if seen is SURE else 1.0) if full else (explored if seen is SURE else 1 - explored)
    np.testing.assert_allclose(move.propensity, np.where(ask, chance, 1 - chance))
    assert abs(ask.mean() - chance) < BOUND


def test_it_explores_less_and_less() -> None:
    policy = EpsilonGreedy(1.0, 100.0, price=0.2)
    _, move = policy.choose(policy.init(), SURE, (1,))
    epsilon = 1 / (1 + np.arange(N) / 100)
    ask = move.action == Action.ASK
    np.testing.assert_allclose(move.propensity, np.where(ask, epsilon / 2, 1 - epsilon / 2))
    assert abs(ask.sum() - (epsilon / 2).sum()) < 5 * np.sqrt((epsilon / 2).sum())


def test_it_goes_on_where_it_left_off() -> None:
    policy = EpsilonGreedy(1.0, 100.0, price=0.2)
    state, first = policy.choose(policy.init(), SURE.rows(np.arange(N) < 10), (1,))
    _, second = policy.choose(state, SURE.rows(np.arange(N) >= 10), (1,))
    _, whole = policy.choose(policy.init(), SURE, (1,))
    assert (np.concatenate([first.action, second.action]) == whole.action).all()


@pytest.mark.parametrize(("epsilon", "steps"), [(-0.1, 10), (1.1, 10), (np.nan, 10), (0.5, 0), (0.5, np.nan)])
def test_numbers_out_of_range(epsilon: float, steps: float) -> None:
    with pytest.raises(ConfigError):
        EpsilonGreedy(epsilon, steps)
