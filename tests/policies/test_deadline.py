"""The deadline: who is expected late is not asked, and expectations are learned from what was heard."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from duetto.errors import ConfigError, DataError
from duetto.policies import Deadline, Uniform
from duetto.policies.deadline import expected
from duetto.types import Action, Seen

N = 30
EXAMPLES = np.arange(1, N + 1)
FLEET = Seen(traits={"examples": EXAMPLES, "flops": np.full(N, 2.0)}, size=N)
Play = Callable[..., tuple[Any, np.ndarray]]


@pytest.mark.parametrize("seconds", [1e-9, 1.0, np.inf])
def test_until_somebody_is_heard_it_is_uniform(seconds: float) -> None:
    one = Deadline(7, seconds).choose({}, FLEET, (1,))[1]
    other = Uniform(7).choose({}, FLEET, (1,))[1]
    assert (one.action == other.action).all()
    assert (one.propensity == other.propensity).all()


def test_without_a_deadline_it_stays_uniform(one_round: Play) -> None:
    state: Any = {}
    for i in range(1400):  # enough failures to leave the range of a float
        answers = np.arange(N) > 3
        state, chosen = one_round(Deadline(25, np.inf), state, FLEET, (i,), seconds=EXAMPLES, answers=answers)
    assert (chosen == (Uniform(25).choose({}, FLEET, (1399,))[1].action == Action.ASK)).all()


def test_what_was_heard_of_some_is_expected_of_all(one_round: Play) -> None:
    policy = Deadline(5, 20.0)
    state, first = one_round(policy, {}, FLEET, (0,), seconds=1.5 * EXAMPLES)
    assert expected(state, FLEET) == pytest.approx(1.5 * EXAMPLES)
    drawn = [policy.choose(state, FLEET, (i,))[1].action == Action.ASK for i in range(400)]
    assert first.sum() == 5
    assert np.any(drawn, axis=0).tolist() == (1.5 * EXAMPLES <= 20).tolist()  # 13 of them
    _, move = policy.choose(state, FLEET, (0,))
    chosen, late = move.action == Action.ASK, 1.5 * EXAMPLES > 20
    assert move.propensity == pytest.approx(np.where(late, 1, np.where(chosen, 5 / 13, 8 / 13)))


def test_a_party_s_own_time_counts_more_than_the_guess(one_round: Play) -> None:
    seconds = 1.0 * EXAMPLES
    seconds[0], seconds[-1] = 500, 0.1  # slow with little, fast with much
    state, _ = one_round(Deadline(N, 20.0), {}, FLEET, (0,), seconds=seconds)
    _, chosen = one_round(Deadline(N, 20.0), state, FLEET, (1,), seconds=seconds)
    assert chosen.tolist() == (seconds <= 20).tolist()


def test_faster_devices_are_expected_sooner(one_round: Play) -> None:
    flops = np.where(np.arange(N) < N // 2, 1.0, 10.0)
    seen = Seen(traits={"examples": np.full(N, 40), "flops": flops}, size=N)
    state, _ = one_round(Deadline(3, 30.0), {}, replace(seen, link={"online": np.arange(N) >= N - 3}), (0,), seconds=8)
    assert expected(state, seen) == pytest.approx(80 / flops)
    assert one_round(Deadline(N, 30.0), state, seen, (1,))[1].tolist() == (flops > 1).tolist()


def test_one_that_lies_about_its_time_does_not_move_the_guess(one_round: Play) -> None:
    seconds = 1.0 * EXAMPLES
    seconds[4] = 1e25
    state, chosen = one_round(Deadline(25, 12.0), {}, FLEET, (0,), seconds=seconds)
    assert chosen[4]
    assert expected(state, FLEET)[~chosen] == pytest.approx(EXAMPLES[~chosen])


def test_asked_in_vain_is_expected_to_take_twice_as_long(one_round: Play) -> None:
    answers = np.arange(N) != 7
    state: Any = {}
    for i in range(2):
        state, chosen = one_round(Deadline(N, 31.0), state, FLEET, (i,), seconds=EXAMPLES, answers=answers)
        assert chosen.all()
        assert expected(state, FLEET)[7] == 8 * 2 ** (i + 1)
    _, chosen = one_round(Deadline(N, 31.0), state, FLEET, (2,), seconds=EXAMPLES)
    assert chosen.tolist() == answers.tolist()  # 32 seconds are too long


def test_an_answer_makes_up_for_failures(one_round: Play) -> None:
    state, _ = one_round(Deadline(N, 100.0), {}, FLEET, (0,), seconds=EXAMPLES, answers=np.arange(N) != 7)
    state, _ = one_round(Deadline(N, 100.0), state, FLEET, (1,), seconds=EXAMPLES)
    assert expected(state, FLEET) == pytest.approx(EXAMPLES)


def test_who_was_slow_gets_another_chance(one_round: Play) -> None:
    slow = np.arange(N) == 7
    policy = Deadline(N, 40.0, memory=4)
    state, _ = one_round(policy, {}, FLEET, (0,), seconds=np.where(slow, 1000, EXAMPLES))
    asked = []
    for i in range(1, 7):
        state, chosen = one_round(policy, state, FLEET, (i,), seconds=EXAMPLES)
        asked.append(bool(chosen[7]))
        assert chosen[~slow].all()
    assert asked == [False, False, False, False, True, True]


def test_who_failed_gets_another_chance(one_round: Play) -> None:
    policy, state, asked = Deadline(N, 40.0, memory=4), {}, []
    for i in range(9):
        state, chosen = one_round(policy, state, FLEET, (i,), seconds=EXAMPLES, answers=np.arange(N) != 7)
        asked.append(bool(chosen[7]))
    assert asked == [True] * 3 + [False] * 4 + [True] * 2  # expected after 8, 16, 32, then 64 seconds, and anew


def test_nobody_in_time_is_nobody_until_all_is_forgotten(one_round: Play) -> None:
    policy = Deadline(3, 0.5, memory=2)
    state, _ = one_round(policy, {}, FLEET, (0,), seconds=EXAMPLES)
    sizes = []
    for i in range(1, 4):
        state, chosen = one_round(policy, state, FLEET, (i,), seconds=EXAMPLES)
        sizes.append(int(chosen.sum()))
    assert sizes == [0, 0, 3]


@pytest.mark.parametrize("told", [np.nan, np.inf, -np.inf])
def test_a_time_that_is_none_is_not_heard(one_round: Play, told: float) -> None:
    state, _ = one_round(Deadline(N, 20.0), {}, FLEET, (0,), seconds=told)
    assert np.isnan(expected(state, FLEET)).all()
    assert one_round(Deadline(N, 20.0), state, FLEET, (1,))[1].all()


def test_loads_that_are_not_known_are_tried(one_round: Play) -> None:
    flops = np.array([1.0, np.nan, 0.0, 1.0])
    seen = Seen(traits={"examples": np.array([5, 5, 5, 50]), "flops": flops}, size=4)
    state, _ = one_round(Deadline(4, 9.0), {}, replace(seen, link={"online": np.arange(4) == 0}), (0,), seconds=5)
    assert one_round(Deadline(4, 9.0), state, seen, (1,))[1].tolist() == [True, True, False, False]


def test_a_load_that_is_none_teaches_nothing(one_round: Play) -> None:
    flops = np.array([0.0, 0, 0, 1, 1])
    seen = Seen(traits={"examples": np.array([5, 5, 5, 0, 10]), "flops": flops}, size=5)
    state, _ = one_round(Deadline(5, 9.0), {}, seen, (0,), seconds=np.array([1, 1, 1, 1, 30]), answers=np.arange(5) < 4)
    assert np.isnan(expected(state, seen)[4])  # no time for one of these tells the time for another


def test_a_state_of_another_fleet_is_refused(one_round: Play) -> None:
    state, _ = one_round(Deadline(3, 9.0), {}, FLEET, (0,))
    with pytest.raises(DataError, match="a state of 30 parties"):
        Deadline(3, 9.0).choose(state, Seen(size=4), (0,))


@pytest.mark.parametrize(
    "settings", [{"size": 0}, {"seconds": 0.0}, {"seconds": -1.0}, {"seconds": np.nan}, {"memory": 0}]
)
def test_settings_that_cannot_be_met(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Deadline(**{"size": 3, "seconds": 5.0, **settings})
