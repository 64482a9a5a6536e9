"""Cohorts: how many, who, and with what probability."""

import numpy as np
import pytest

from duetto.errors import ConfigError
from duetto.policies import Everyone, Uniform
from duetto.types import Action, Move, Policy, Seen

FLEET = 50
ONLINE = np.arange(FLEET) % 5 != 0  # 40 of 50


def choose(policy: Policy, online: np.ndarray | None = ONLINE, key: tuple[int | str, ...] = (0, "cohort")) -> Move:
    """A cohort of the fleet."""
    link = None if online is None else {"online": online}
    return policy.choose(policy.init(), Seen(link=link, size=FLEET if online is None else len(online)), key)[1]


def test_everyone_who_is_online() -> None:
    move = choose(Everyone())
    assert ((move.action == Action.ASK) == ONLINE).all()
    assert (move.propensity == 1).all()
    assert (choose(Everyone(), None).action == Action.ASK).all()


@pytest.mark.parametrize(
    ("policy", "count"),
    [
        (Uniform(7), 7),
        (Uniform(40), 40),
        (Uniform(999), 40),
        (Uniform(share=0.1), 5),
        (Uniform(share=0.25), 13),
        (Uniform(share=0.001), 1),
        (Uniform(share=1.0), 40),
    ],
)
def test_as_many_as_asked_for_of_those_online(policy: Uniform, count: int) -> None:
    move = choose(policy)
    chosen = move.action == Action.ASK
    assert chosen.sum() == count
    assert not chosen[~ONLINE].any()
    assert move.propensity[chosen] == pytest.approx(count / 40)
    assert move.propensity[~chosen & ONLINE] == pytest.approx(1 - count / 40)
    assert (move.propensity[~ONLINE] == 1).all()


def test_all_are_equally_likely_and_pairs_too() -> None:
    rounds, size = 4000, 10
    drawn = np.array([choose(Uniform(size), None, (0, i)).action == Action.ASK for i in range(rounds)])
    spread = 5 * np.sqrt(0.25 / rounds)  # five standard errors at most
    assert np.abs(drawn.mean(axis=0) - size / FLEET).max() < spread
    both = (drawn.T.astype(float) @ drawn)[np.triu_indices(FLEET, 1)] / rounds
    assert np.abs(both - size * (size - 1) / (FLEET * (FLEET - 1))).max() < spread


def test_another_key_is_another_cohort() -> None:
    assert (choose(Uniform(5), key=(1,)).action != choose(Uniform(5), key=(2,)).action).any()


@pytest.mark.parametrize("online", [np.zeros(0, bool), np.zeros(4, bool)])
@pytest.mark.parametrize("policy", [Everyone(), Uniform(3), Uniform(share=0.5)])
def test_nobody_online_is_nobody_chosen(policy: Policy, online: np.ndarray) -> None:
    move = choose(policy, online)
    assert move.action.tolist() == [Action.STOP] * len(online)


def test_sampling_is_named() -> None:
    assert (Everyone.sampling, Uniform.sampling) == ("all", "fixed-size")


@pytest.mark.parametrize(
    "settings", [{}, {"size": 3, "share": 0.5}, {"size": 0}, {"share": 0.0}, {"share": 1.1}, {"share": np.nan}]
)
def test_settings_that_cannot_be_met(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        Uniform(**settings)
