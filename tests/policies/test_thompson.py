"""Thompson sampling: the propensity against draws of the whole posterior."""

from typing import Any

import numpy as np
import pytest

from duetto.errors import ConfigError
from duetto.policies import Thompson
from duetto.policies.linear import described
from duetto.types import Action, Move, Seen

DRAW = np.random.default_rng(2)
LOGITS = DRAW.normal(size=(12, 4)) * 2
SEEN = Seen(stage=1, answer=LOGITS, size=12)
TRIALS = 4000
BOUND = 4.5 * np.sqrt(0.25 / TRIALS)  # of 12 items, none is off by that much in 10,000 runs


def learned(policy: Thompson) -> Any:
    """A state in which neither arm is certain."""
    action = np.where(np.arange(12) % 2, Action.ASK, Action.STOP)
    return policy.learn(policy.init(), SEEN, Move.sure(action, ""), DRAW.random(12))


def test_the_propensity_is_the_share_of_draws() -> None:
    policy = Thompson(0.3)
    state = learned(policy)
    asked, chance = np.zeros(12), np.zeros(12)
    for i in range(TRIALS):
        _, move = policy.choose(state, SEEN, (i,))
        ask = move.action == Action.ASK
        asked += ask
        chance = np.where(ask, move.propensity, 1 - move.propensity)
    assert np.abs(asked / TRIALS - chance).max() < BOUND
    assert 0.05 < chance.min() < chance.max()


def test_it_is_as_if_all_weights_were_drawn() -> None:
    policy = Thompson(0.3)
    state = learned(policy)
    x = described(SEEN, 8)
    assert x is not None
    worth = []
    for arm in (0, 1):
        inverse = np.linalg.inv(state["A"][arm])
        weights = DRAW.multivariate_normal(inverse @ state["b"][arm], 0.3**2 * inverse, TRIALS)
        worth.append(weights @ x.T)
    share = (worth[1] >= worth[0]).mean(axis=0)
    _, move = policy.choose(state, SEEN, (0,))
    chance = np.where(move.action == Action.ASK, move.propensity, 1 - move.propensity)
    assert np.abs(share - chance).max() < BOUND


def test_items_of_one_key_are_drawn_apart() -> None:
    policy = Thompson(0.5)
    alike = Seen(stage=1, answer=np.ones((200, 3)), size=200)
    state, move = policy.choose({**policy.init(), "b": np.zeros((2, 8))}, alike, (0,))
    assert 60 < (move.action == Action.ASK).sum() < 140  # fair coins
    _, later = policy.choose(state, alike, (0,))
    assert (later.action != move.action).any()


@pytest.mark.parametrize("spread", [0.0, -1.0, np.nan, np.inf])
def test_numbers_out_of_range(spread: float) -> None:
    with pytest.raises(ConfigError):
        Thompson(spread)
