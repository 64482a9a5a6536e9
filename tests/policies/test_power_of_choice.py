"""Power of choice: all are tried, then the worst of the candidates; neither silence nor nonsense wins."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from duetto.errors import ConfigError
from duetto.policies import BySize, PowerOfChoice
from duetto.types import Action, Seen

N = 20
FLEET = Seen(traits={"examples": np.arange(1, N + 1)}, size=N)
EVEN = Seen(traits={"examples": np.full(N, 8)}, size=N)
LOSS = np.random.default_rng(3).permutation(N) + 1.0
Play = Callable[..., tuple[Any, np.ndarray]]


def test_all_are_tried_before_anyone_again(one_round: Play) -> None:
    policy, state, times = PowerOfChoice(5, N), {}, np.zeros(N)
    for i in range(4):
        state, chosen = one_round(policy, state, FLEET, (i,), loss=LOSS)
        times += chosen
    assert (times == 1).all()
    assert (state["loss"] == LOSS).all()


def test_the_highest_last_losses_of_the_candidates(one_round: Play) -> None:
    policy, state = PowerOfChoice(3, N), {"loss": LOSS}
    state, chosen = one_round(policy, state, FLEET, (0,), loss=0.5)
    assert chosen.tolist() == (LOSS > N - 3).tolist()
    _, chosen = one_round(policy, state, FLEET, (1,))
    assert chosen.tolist() == ((LOSS > N - 6) & (LOSS <= N - 3)).tolist()  # the first three have learnt


def test_candidates_are_drawn_by_data_share() -> None:
    rounds, policy, loss = 2000, PowerOfChoice(1, 4), np.zeros(N)
    loss[9] = 1.0  # chosen whenever it is a candidate
    moves = [policy.choose({"loss": loss}, FLEET, (i,))[1] for i in range(rounds)]
    share = 4 * 10 / (N * (N + 1) / 2)
    hits = np.mean([move.action[9] == Action.ASK for move in moves])
    assert abs(hits - share) < 5 * np.sqrt(share * (1 - share) / rounds)
    assert {round(float(move.propensity[9]), 12) for move in moves} == {1.0, round(share, 12)}


def test_as_many_candidates_as_chosen_is_by_size() -> None:
    one = PowerOfChoice(6, 6).choose({"loss": LOSS}, FLEET, (5,))[1]
    other = BySize(6).choose({}, FLEET, (5, "candidates"))[1]
    assert (one.action == other.action).all()


def test_ties_are_broken_at_random() -> None:
    policy, rounds = PowerOfChoice(5, N), 2000
    drawn = [policy.choose({}, EVEN, (i,))[1].action == Action.ASK for i in range(rounds)]
    assert np.abs(np.mean(drawn, axis=0) - 5 / N).max() < 5 * np.sqrt(0.25 * 0.75 / rounds)


@pytest.mark.parametrize("lie", [np.nan, np.inf, -np.inf, 1e300])
def test_nonsense_and_silence_do_not_win(one_round: Play, lie: float) -> None:
    policy, state = PowerOfChoice(5, N), {}
    loss, answers = LOSS.copy(), np.ones(N, bool)
    liars = [0, 1]
    loss[liars], answers[2] = lie, False
    for i in range(4):
        state, _ = one_round(policy, state, EVEN, (i,), loss=loss, answers=answers)
    assert np.isnan(state["loss"][:3]).all()
    median = np.median(LOSS[3:])
    assert (LOSS[3:] > median).sum() >= 5  # so five others rank above who told nothing
    _, chosen = one_round(policy, state, EVEN, (9,), loss=loss, answers=answers)
    assert not chosen[:3].any()
    assert chosen.sum() == 5


def test_who_told_nothing_ranks_in_the_middle(one_round: Play) -> None:
    loss = np.array([1.0, 2, 3, np.nan, 4, 5])
    seen = Seen(size=6)
    assert one_round(PowerOfChoice(2, 6), {"loss": loss}, seen, (0,))[1].tolist() == [0, 0, 0, 0, 1, 1]
    _, move = PowerOfChoice(4, 6).choose({"loss": loss}, seen, (0,))
    assert (move.action == Action.ASK).tolist() == [0, 0, 1, 1, 1, 1]  # tied with the median itself
    assert one_round(PowerOfChoice(1, 1), {"loss": np.array([np.nan])}, Seen(size=1), (0,))[1].tolist() == [True]


def test_a_silent_round_keeps_the_last_loss(one_round: Play) -> None:
    state, chosen = one_round(PowerOfChoice(3, N), {"loss": LOSS}, FLEET, (0,), loss=np.nan)
    assert chosen.any()
    assert (state["loss"] == LOSS).all()


def test_an_answer_that_did_not_count_tells_nothing() -> None:
    policy = PowerOfChoice(1, 1)
    seen = Seen(traits={"loss": np.array([7.0])}, size=1)
    _, move = policy.choose({}, seen, (0,))
    assert np.isnan(policy.learn({}, seen, move, np.zeros(1))["loss"]).all()


@pytest.mark.parametrize(("size", "candidates"), [(0, 3), (4, 3)])
def test_settings_that_cannot_be_met(size: int, candidates: int) -> None:
    with pytest.raises(ConfigError):
        PowerOfChoice(size, candidates)
