"""Cohorts: how many, who, and with what probability."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from duetto.errors import ConfigError
from duetto.policies import (
    BySize,
    Deadline,
    Everyone,
    LeastAvailable,
    Oort,
    OverSelected,
    Poisson,
    PowerOfChoice,
    Uniform,
)
from duetto.types import Action, Move, Policy, Seen

FLEET = 50
ONLINE = np.arange(FLEET) % 5 != 0  # 40 of 50


def sized(size: int) -> list[Policy]:
    """Every policy that chooses so many."""
    return [
        Uniform(size),
        BySize(size),
        PowerOfChoice(size, 2 * size),
        Oort(size),
        Oort(size, most=1),
        Deadline(size, 10.0),
        LeastAvailable(size),
        OverSelected(Uniform(size), 1.0),
    ]


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
@pytest.mark.parametrize("policy", [Everyone(), Uniform(share=0.5), Poisson(0.9), *sized(3)])
def test_nobody_online_is_nobody_chosen(policy: Policy, online: np.ndarray) -> None:
    move = choose(policy, online)
    assert move.action.tolist() == [Action.STOP] * len(online)


def test_sampling_is_named() -> None:
    assert (Everyone.sampling, Uniform.sampling, Poisson.sampling) == ("all", "fixed-size", "poisson")
    for part in (BySize, PowerOfChoice, Oort, Deadline, LeastAvailable):
        assert part.sampling == "data-dependent"


@pytest.mark.parametrize("policy", sized(7), ids=lambda policy: type(policy).__name__)
@pytest.mark.parametrize(("there", "count"), [(40, 7), (7, 7), (6, 6), (1, 1)])
def test_a_cohort_is_full_or_all_who_are_online(
    one_round: Callable[..., tuple[Any, np.ndarray]], policy: Policy, there: int, count: int
) -> None:
    traits = {"examples": np.arange(FLEET), "flops": np.ones(FLEET), "online_share": np.arange(FLEET) % 3 / 4}
    state = policy.init()
    for i in range(5):  # the third is played with what was learnt in two, and so on
        online = np.zeros(FLEET, bool)
        online[np.random.default_rng(i).permutation(FLEET)[:there]] = True
        seen = Seen(traits=traits | {"online": online}, size=FLEET)
        state, chosen = one_round(policy, state, seen, (i,), loss=np.arange(FLEET) % 4, seconds=1.0)
        assert chosen.sum() == count
        assert not chosen[~online].any()


@pytest.mark.parametrize("policy", [*sized(100), Poisson(0.001)], ids=lambda policy: type(policy).__name__)
def test_a_large_fleet(one_round: Callable[..., tuple[Any, np.ndarray]], policy: Policy) -> None:
    many, state = 100_000, policy.init()
    draw = np.random.default_rng(0)
    traits = {"examples": draw.geometric(0.01, many), "flops": draw.random(many), "online": draw.random(many) < 0.5}
    for i in range(3):
        state, chosen = one_round(policy, state, Seen(traits=traits, size=many), (i,), loss=1.0, seconds=draw.random())
        # a binomial number of mean 50 lies within five standard deviations of it
        assert abs(chosen.sum() - 50) <= 5 * 50**0.5 if isinstance(policy, Poisson) else chosen.sum() == 100


def test_poisson_chooses_each_independently() -> None:
    rate, rounds, n = 0.2, 4000, 10
    online = np.arange(n) != 3
    moves = [choose(Poisson(rate), online, (i,)) for i in range(rounds)]
    drawn = np.array([move.action == Action.ASK for move in moves]).astype(float)
    chances = rate * online
    assert (np.abs(drawn.mean(axis=0) - chances) <= 5 * np.sqrt(chances * (1 - chances) / rounds)).all()
    both = (drawn.T @ drawn)[np.triu_indices(n, 1)] / rounds
    expected = np.outer(chances, chances)[np.triu_indices(n, 1)]
    assert (np.abs(both - expected) <= 5 * np.sqrt(expected * (1 - expected) / rounds)).all()
    sizes = drawn.sum(axis=1)  # binomial: the variance of its variance is below 3 * variance**2 / rounds
    variance = 9 * rate * (1 - rate)
    assert abs(sizes.var() - variance) < 5 * variance * (3 / rounds) ** 0.5
    for move, chosen in zip(moves[:20], drawn, strict=False):
        assert move.propensity == pytest.approx(np.where(chosen == 1, rate, 1 - chances))


def test_poisson_at_one_is_everyone() -> None:
    assert ((choose(Poisson(1)).action == Action.ASK) == ONLINE).all()


def test_by_size_is_proportional_to_examples() -> None:
    examples, rounds = np.array([0, 1, 2, 3, 4, 10, 500]), 4000
    seen = Seen(traits={"examples": examples}, link={"online": np.arange(7) != 4}, size=7)
    moves = [BySize(3).choose({}, seen, (i,))[1] for i in range(rounds)]
    drawn = np.array([move.action == Action.ASK for move in moves])
    # The last is certain; of the two places left the sixth is worth 2 * 10 / 16 and so certain, too.
    chances = np.array([0, 1 / 6, 2 / 6, 3 / 6, 0, 1, 1])
    assert (np.abs(drawn.mean(axis=0) - chances) <= 5 * np.sqrt(chances * (1 - chances) / rounds)).all()
    for move, chosen in zip(moves[:20], drawn, strict=False):
        assert move.propensity == pytest.approx(np.where(chosen, chances, 1 - chances))


def test_by_size_asks_who_has_nothing_only_to_fill_up() -> None:
    seen = Seen(traits={"examples": np.array([0, 0, 5, 1])}, size=4)
    drawn = [BySize(3).choose({}, seen, (i,))[1].action == Action.ASK for i in range(1000)]
    assert np.all(drawn, axis=0).tolist() == [False, False, True, True]
    assert np.abs(np.mean(drawn, axis=0)[:2] - 0.5).max() < 5 * np.sqrt(0.25 / 1000)


@pytest.mark.parametrize("rate", [0, -0.1, 1.1, np.nan])
def test_a_rate_that_is_none(rate: float) -> None:
    with pytest.raises(ConfigError):
        Poisson(rate)


def test_by_size_of_nobody() -> None:
    with pytest.raises(ConfigError):
        BySize(0)


@pytest.mark.parametrize(
    "settings", [{}, {"size": 3, "share": 0.5}, {"size": 0}, {"share": 0.0}, {"share": 1.1}, {"share": np.nan}]
)
def test_settings_that_cannot_be_met(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        Uniform(**settings)
