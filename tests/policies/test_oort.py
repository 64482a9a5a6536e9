"""Oort: utility, speed, novelty and patience, each alone."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from duetto import tree as trees
from duetto.errors import ConfigError, DataError
from duetto.policies import Oort
from duetto.types import Action, Move, Seen

N = 40
EXAMPLES = np.arange(1, N + 1)
FLEET = Seen(traits={"examples": EXAMPLES, "flops": np.ones(N)}, size=N)
Play = Callable[..., tuple[Any, np.ndarray]]


def known(policy: Oort, utility: Any, **columns: Any) -> dict[str, Any]:
    """The state after the first round, in which all were asked and are worth ``utility``."""
    n = len(utility)
    return {
        "round": np.array(columns.pop("round", 1)),
        "utility": np.asarray(utility, float),
        "seconds": np.full(n, np.nan),
        "last": np.ones(n, np.int64),
        "times": np.ones(n, np.int64),
        "gained": np.zeros(2 * policy.window),
        "pace": np.array(policy.pace),
        **columns,
    }


def moves(policy: Oort, state: Any, seen: Seen, rounds: int = 2000) -> list[Move]:
    """The same choice with many keys."""
    return [policy.choose(state, seen, (i,))[1] for i in range(rounds)]


def kept(policy: Oort, state: Any, seen: Seen, chances: np.ndarray) -> None:
    """Asserts that all are chosen with these chances, and that the propensities say so."""
    drawn = moves(policy, state, seen)
    often = np.mean([move.action == Action.ASK for move in drawn], axis=0)
    assert (np.abs(often - chances) <= 5 * np.sqrt(chances * (1 - chances) / len(drawn)) + 1e-12).all()
    for move in drawn[:20]:
        assert move.propensity == pytest.approx(np.where(move.action == Action.ASK, chances, 1 - chances))


def bonus(now: int, last: Any = 1) -> Any:
    """What the paper adds for not having been asked since round ``last``."""
    return np.sqrt(0.1 * np.log(now) / last)


def test_at_first_all_are_new_and_the_fast_ones_are_likelier() -> None:
    flops = np.array([1.0, 2, 3, 4, 10, 0, np.nan])
    kept(Oort(2), {}, Seen(traits={"flops": flops}, size=7), np.array([0.1, 0.2, 0.3, 0.4, 1, 0, 0]))


def test_what_a_party_is_worth(one_round: Play) -> None:
    loss = np.linspace(-0.5, 2, N)
    state, chosen = one_round(Oort(N), {}, FLEET, (0,), loss=loss, seconds=EXAMPLES)
    assert chosen.all()
    worth = EXAMPLES * np.sqrt(loss**2)  # |B| * sqrt(mean of loss**2), all examples alike
    assert state["utility"] == pytest.approx(worth)
    assert (state["seconds"] == EXAMPLES).all()
    assert (state["last"] == 1).all()
    cap = np.sort(worth)[int(0.95 * (N - 1))]
    assert state["gained"][-1] == pytest.approx(np.minimum(worth, cap).sum())


def test_utility_decides_among_those_near_the_cutoff() -> None:
    policy, seen = Oort(3, least=0.0, explore=0.0, cutoff=0.5), Seen(size=8)
    utility = np.array([1.0, 2, 3, 4, 5, 6, 7, 8])
    score = np.minimum(utility, 7) / 7 + bonus(2)  # the cap is the 95 % quantile: 7 of these eight
    admitted = score >= 0.5 * np.sort(score)[-3]
    assert 3 < admitted.sum() < 8
    kept(policy, known(policy, utility), seen, 3 * score * admitted / score[admitted].sum())


def test_a_strict_cutoff_is_the_best_by_rank() -> None:
    policy = Oort(3, least=0.0, explore=0.0, cutoff=1.0)
    utility = np.random.default_rng(0).permutation(N) + 1.0
    kept(policy, known(policy, utility), FLEET, (utility > N - 3).astype(float))


def test_slowness_weighs_by_its_power() -> None:
    policy = Oort(2, least=0.0, explore=0.0, cutoff=0.0, pace=0.6)
    seconds = np.array([1.0, 2, 3, 4, 6, np.nan])  # three: 60 % of the way through five, rounded down
    score = (1 + bonus(2)) * np.array([1, 1, 1, (3 / 4) ** 2, (3 / 6) ** 2, 1])
    kept(policy, known(policy, np.full(6, 5.0), seconds=seconds), Seen(size=6), 2 * score / score.sum())


@pytest.mark.parametrize("settings", [{"alpha": 0.0}, {"pace": 1.0}])
def test_slowness_need_not_count(settings: dict[str, float]) -> None:
    policy = Oort(2, least=0.0, explore=0.0, cutoff=0.0, **settings)
    state = known(policy, np.full(5, 5.0), seconds=np.array([1.0, 2, 3, 4, 100]))
    kept(policy, state, Seen(size=5), np.full(5, 0.4))


def test_who_was_not_asked_for_long_gains() -> None:
    policy, last = Oort(1, least=0.0, explore=0.0, cutoff=0.0), np.array([1, 10, 90])
    state = known(policy, np.zeros(3), last=last, round=99)
    score = bonus(100, last)
    kept(policy, state, Seen(size=3), score / score.sum())


def test_the_share_of_new_ones_decays_to_its_least() -> None:
    policy, utility = Oort(100), np.where(np.arange(200) < 100, 1.0, np.nan)
    for played in (0, 5, 20, 60, 80, 300):
        move = policy.choose(known(policy, utility, round=played), Seen(size=200), (0,))[1]
        new = (move.action == Action.ASK)[100:].sum()
        assert new == int(100 * max(0.2, 0.9 * 0.98**played) + 0.5)


@pytest.mark.parametrize(("explored", "new"), [(2, 8), (35, 5), (N, 0), (0, 10)])
def test_new_and_known_ones_fill_up_for_each_other(explored: int, new: int) -> None:
    policy = Oort(10, explore=0.6, least=0.6)  # six new and four known where there are enough
    utility = np.where(np.arange(N) < explored, 1.0, np.nan)
    move = policy.choose(known(policy, utility), FLEET, (0,))[1]
    chosen = move.action == Action.ASK
    assert (chosen[:explored].sum(), chosen[explored:].sum()) == (10 - new, new)


def test_who_took_part_often_makes_room_while_others_suffice(one_round: Play) -> None:
    policy, state, times = Oort(10, most=2), {}, np.zeros(N, int)
    for i in range(8):
        state, chosen = one_round(policy, state, FLEET, (i,), loss=1.0)
        times += chosen
    assert (times == 2).all()
    assert (state["times"] == 2).all()
    assert one_round(policy, state, FLEET, (8,))[1].sum() == 10


def test_without_that_the_best_take_part_again_and_again(one_round: Play) -> None:
    policy, state, times = Oort(10, explore=0.0, least=0.0), {}, np.zeros(N, int)
    for i in range(12):
        state, chosen = one_round(policy, state, FLEET, (i,), loss=1.0)
        times += chosen
    assert times.max() > 3


@pytest.mark.parametrize("lie", [np.nan, np.inf, -np.inf, 1e300])
def test_nonsense_and_silence_are_worth_nothing(one_round: Play, lie: float) -> None:
    policy = Oort(20, explore=0.5, least=0.5)
    loss, answers = np.ones(N), np.ones(N, bool)
    loss[30:33], answers[33] = lie, False
    state: Any = {}
    for i in range(8):
        state, _ = one_round(policy, state, FLEET, (i,), loss=loss, answers=answers)
    assert (state["utility"][30:34] == 0).all()  # tried, and no longer new
    assert np.isfinite(state["gained"]).all()
    # Where the cutoff is strict, nothing but the bonus is left to them; the best of the others come first.
    strict = Oort(5, explore=0.0, least=0.0, cutoff=1.0)
    state = known(strict, state["utility"])
    assert not one_round(strict, state, FLEET, (9,), loss=loss)[1][30:34].any()


def test_silence_halves_what_was_known(one_round: Play) -> None:
    policy = Oort(N)
    state, _ = one_round(policy, {}, FLEET, (0,), loss=1.0, seconds=3.0)
    state, _ = one_round(policy, state, FLEET, (1,), loss=1.0, seconds=4.0, answers=np.arange(N) != 5)
    assert state["utility"].tolist() == [3 if i == 5 else i + 1 for i in range(N)]
    cap = np.sort(state["utility"])[int(0.95 * (N - 1))]
    assert state["gained"][-1] == np.minimum(np.delete(state["utility"], 5), cap).sum()  # and brought nothing
    assert state["seconds"].tolist() == [3.0 if i == 5 else 4.0 for i in range(N)]
    assert (state["times"] == 2).all()


def test_an_enormous_loss_is_worth_no_more_than_the_next_best() -> None:
    policy = Oort(2, explore=0.0, least=0.0, cutoff=0.0)
    utility = np.array([1.0, 1, 1, 1, 1e29])
    kept(policy, known(policy, utility), Seen(size=5), np.full(5, 0.4))


def gaining(policy: Oort, by_round: list[float]) -> Any:
    """The state after rounds that brought so much each."""
    seen, state = Seen(traits={"examples": np.ones(2), "flops": np.ones(2)}, size=2), policy.init()
    for i, loss in enumerate(by_round):
        state, move = policy.choose(state, seen, (i,))
        told = Seen(traits={**(seen.traits or {}), "loss": np.full(2, loss)}, size=2)
        state = policy.learn(state, told, move, np.where(move.action == Action.ASK, 1.0, np.nan))
    return policy.choose(state, seen, ("next",))[0]


def test_the_pacer_relaxes_when_rounds_bring_less() -> None:
    policy = Oort(2, pace=0.3, relax=0.5, window=3)
    falling, rising = [5.0, 5, 5, 4, 4, 4], [4.0, 4, 4, 5, 5, 5]
    assert gaining(policy, falling)["pace"] == 0.8
    assert gaining(policy, falling[:-1])["pace"] == 0.3  # too early to tell
    assert gaining(policy, rising)["pace"] == 0.3
    assert gaining(policy, [4.0] * 6)["pace"] == 0.3
    assert gaining(policy, [*falling, 3])["pace"] == 0.8  # once a window, not every round
    assert gaining(policy, [*falling, 3, 3, 3])["pace"] == 1.0  # and no further
    assert gaining(policy, [*falling, 5, 5, 5])["pace"] == 0.8


def test_utility_that_comes_in_bit_by_bit_adds_up() -> None:
    policy, seen = Oort(2), Seen(size=2)
    state, move = policy.choose({}, seen, (0,))
    for row in range(2):  # as when nobody waits for a round
        reward = np.where(np.arange(2) == row, 1.0, np.nan)
        told = Seen(traits={"loss": np.array([3.0, 3.0])}, size=2)
        state = policy.learn(state, told, move, reward)
    assert state["gained"][-1] == 6
    assert state["utility"].tolist() == [3, 3]
    assert state["times"].tolist() == [1, 1]


def test_nothing_heard_changes_nothing() -> None:
    policy = Oort(2)
    state, move = policy.choose({}, FLEET, (0,))
    after = policy.learn(state, FLEET, move, np.full(N, np.nan))
    assert trees.encode(after) == trees.encode(state)


def test_a_state_of_another_fleet_is_refused() -> None:
    with pytest.raises(DataError, match="a state of 40 parties for a fleet of 3"):
        Oort(2).choose(Oort(2).choose({}, FLEET, (0,))[0], Seen(size=3), (0,))


@pytest.mark.parametrize(
    "settings",
    [{"size": 0}, {"window": 0}, {"most": 0}, {"alpha": -1.0}, {"alpha": np.inf}, {"alpha": np.nan}]
    + [{name: bad} for name in ("explore", "decay", "least", "cutoff", "pace", "relax") for bad in (-0.1, 1.1, np.nan)],
)
def test_settings_that_cannot_be_met(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Oort(**{"size": 3, **settings})
