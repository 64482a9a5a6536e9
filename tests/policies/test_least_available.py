"""The least available: who may not be there later comes first."""

import numpy as np
import pytest

from duetto.errors import ConfigError
from duetto.policies import LeastAvailable
from duetto.types import Action, Seen

SHARE = np.array([0.9, 0.1, 0.4, 0.4, np.nan, 0.4, 0.05])
ONLINE = np.array([1, 1, 1, 1, 1, 1, 0], bool)
SEEN = Seen(traits={"online_share": SHARE, "online": ONLINE}, size=7)


def test_the_least_available_who_are_online() -> None:
    _, move = LeastAvailable(4).choose({}, SEEN, (0,))
    assert (move.action == Action.ASK).tolist() == [0, 1, 1, 1, 0, 1, 0]
    assert (move.propensity == 1).all()


def test_ties_are_broken_at_random_and_their_chances_are_stated() -> None:
    rounds = 3000
    moves = [LeastAvailable(2).choose({}, SEEN, (i,))[1] for i in range(rounds)]
    drawn = np.array([move.action == Action.ASK for move in moves])
    chances = np.array([0, 1, 1 / 3, 1 / 3, 0, 1 / 3, 0])
    assert (np.abs(drawn.mean(axis=0) - chances) <= 5 * np.sqrt(chances * (1 - chances) / rounds)).all()
    for move, chosen in zip(moves[:20], drawn, strict=False):
        assert move.propensity == pytest.approx(np.where(chosen, chances, 1 - chances))


def test_a_share_that_is_not_known_comes_last() -> None:
    _, move = LeastAvailable(5).choose({}, SEEN, (0,))
    assert (move.action == Action.ASK).tolist() == [1, 1, 1, 1, 0, 1, 0]


def test_without_shares_all_are_equally_likely() -> None:
    rounds = 3000
    drawn = [LeastAvailable(2).choose({}, Seen(size=5), (i,))[1].action == Action.ASK for i in range(rounds)]
    assert np.abs(np.mean(drawn, axis=0) - 0.4).max() < 5 * np.sqrt(0.24 / rounds)


def test_nobody_is_no_cohort() -> None:
    with pytest.raises(ConfigError):
        LeastAvailable(0)
