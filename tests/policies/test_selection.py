"""Which samples are sent: each rule by what it promises."""

from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest

from duetto.errors import ConfigError, DataError
from duetto.policies import Balanced, Disagreed, KCentre, LeastSure, RandomSample, confidence
from duetto.policies.selection import covering, division, turns
from duetto.types import Action, Policy, Seen

DRAW = np.random.default_rng(5)
N = 40
LOGITS = DRAW.normal(size=(N, 4)) * 2
POINTS = DRAW.normal(size=(N, 3))
POOL = Seen(stage=1, answer=LOGITS, features=POINTS, scores=DRAW.integers(0, 4, (N, 3)), size=N)
RULES: list[Any] = [RandomSample, LeastSure, Disagreed, KCentre, Balanced]


def sent(policy: Policy[Any], seen: Seen, key: int = 0) -> np.ndarray:
    """Who is sent, ``[n]`` bool."""
    _, move = policy.choose(policy.init(), seen, (key,))
    assert set(move.action.tolist()) <= {Action.ASK, Action.STOP}
    return np.asarray(move.action == Action.ASK)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("size", [1, 7, 39, 40, 100])
def test_no_more_than_wanted_and_nothing_twice(rule: Any, size: int) -> None:
    assert sent(rule(size), POOL).sum() == min(size, N)
    labelled = np.arange(N) % 3 == 0
    online = np.arange(N) % 5 != 0
    some = replace(POOL, traits={"labelled": labelled}, link={"online": online})
    chosen = sent(rule(size), some)
    assert chosen.sum() == min(size, (~labelled & online).sum())
    assert not (chosen & (labelled | ~online)).any()


@pytest.mark.parametrize("rule", RULES)
def test_an_empty_pool(rule: Any) -> None:
    assert sent(rule(3), POOL.rows([])).tolist() == []
    assert not sent(rule(3), replace(POOL, traits={"labelled": np.ones(N, bool)})).any()


def test_random_samples_are_equally_likely() -> None:
    share = np.mean([sent(RandomSample(10), POOL, i) for i in range(4000)], axis=0)
    assert np.abs(share - 0.25).max() < 4.5 * np.sqrt(0.25 * 0.75 / 4000)
    _, move = RandomSample(10).choose({}, POOL, (0,))
    np.testing.assert_allclose(move.propensity, np.where(move.action == Action.ASK, 0.25, 0.75))


@pytest.mark.parametrize("score", ["margin", "entropy", "max_softmax"])
def test_the_least_sure(score: str) -> None:
    chosen = sent(LeastSure(9, score), POOL)
    assert set(np.flatnonzero(chosen)) == set(np.argsort(confidence(LOGITS, score))[:9])


def test_votes_are_divided_by_their_entropy() -> None:
    votes = np.array(
        [[0, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 1], [0, 1, 2, 3], [2, np.nan, np.nan, np.nan], [np.nan] * 4]
    )
    half = np.log(2)
    expected = [0, -(0.75 * np.log(0.75) + 0.25 * np.log(0.25)), half, 2 * half, 0, 0]
    np.testing.assert_allclose(division(votes), expected, atol=1e-12)


def test_the_device_votes_too() -> None:
    answer = np.tile([5.0, 0.0], (4, 1))
    seen = Seen(stage=1, answer=answer, scores=np.array([0, 0, 1, 0]), size=4)
    assert sent(Disagreed(1), seen).tolist() == [False, False, True, False]


def radius(points: np.ndarray, centres: Any) -> float:
    """The largest distance of any point to its centre."""
    return float(np.linalg.norm(points[:, None] - points[list(centres)], axis=2).min(axis=1).max())


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("count", [1, 2, 3])
def test_k_centres_are_within_twice_the_least_possible(seed: int, count: int) -> None:
    points = np.random.default_rng(seed).normal(size=(11, 2))
    everyone, nobody = np.ones(11, bool), np.zeros(11, bool)
    best = min(radius(points, each) for each in combinations(range(11), count))
    assert radius(points, covering(points, everyone, nobody, count)) <= 2 * best + 1e-12


def test_each_next_centre_is_the_farthest() -> None:
    points = np.array([[0.0], [1.0], [10.0], [11.0], [5.0]])
    everyone, nobody = np.ones(5, bool), np.zeros(5, bool)
    assert covering(points, everyone, nobody, 3) == [4, 3, 0]  # the mean is 5.4; 0 is as far from 5 as 10
    there = np.array([True, False, False, False, False])
    assert covering(points, ~there, there, 2) == [3, 4]
    assert sent(KCentre(2), Seen(features=points, traits={"labelled": there}, size=5)).tolist() == [0, 0, 0, 1, 1]


def test_without_features_answers_are_covered() -> None:
    logits = np.array([[9.0, 0, 0], [8.9, 0, 0], [0, 9, 0], [0, 0, 9]])
    chosen = sent(KCentre(3), Seen(stage=1, answer=logits, size=4))
    assert chosen[2:].all()
    assert chosen[:2].sum() == 1


def test_classes_take_turns() -> None:
    assert turns(np.array([10, 1, 0, 3]), 8) == {0: 4, 1: 1, 3: 3}
    assert turns(np.array([10, 1, 0, 3]), 2) == {1: 1, 3: 1}
    assert turns(np.array([2, 1]), 99) == {0: 2, 1: 1}


def test_rare_classes_are_not_crowded_out() -> None:
    answer = np.zeros((100, 3))
    answer[np.arange(100), np.where(np.arange(100) < 94, 0, np.where(np.arange(100) < 97, 1, 2))] = 1 + DRAW.random(100)
    chosen = sent(Balanced(9), Seen(stage=1, answer=answer, size=100))
    label = answer.argmax(axis=1)
    assert [chosen[label == each].sum() for each in range(3)] == [3, 3, 3]
    first = np.flatnonzero(label == 0)
    least = first[np.argsort(confidence(answer[first], "margin"))[:3]]
    assert chosen[least].all()


@pytest.mark.parametrize("rule", RULES)
def test_at_least_one(rule: Any) -> None:
    with pytest.raises(ConfigError):
        rule(0)


@pytest.mark.parametrize("rule", [LeastSure, Balanced])
def test_unknown_scores(rule: Any) -> None:
    with pytest.raises(ConfigError):
        rule(3, "luck")


@pytest.mark.parametrize(
    ("rule", "wrong"),
    [
        (LeastSure, {"answer": np.full((N, 3), np.nan)}),
        (Balanced, {"answer": np.full((N, 3), np.nan)}),
        (Disagreed, {"answer": np.full((N, 3), np.nan)}),
        (KCentre, {"answer": np.full((N, 3), np.nan), "features": None}),
        (Disagreed, {"scores": np.zeros((N - 1, 2))}),
        (KCentre, {"features": np.zeros((N - 1, 2))}),
        (KCentre, {"features": np.full((N, 2), np.inf)}),
        (KCentre, {"features": {"prompt": np.full(N, "text")}}),
        (RandomSample, {"traits": {"labelled": np.zeros(N)}}),
        (RandomSample, {"traits": {"labelled": np.zeros(N - 1, bool)}}),
    ],
)
def test_pools_that_are_none(rule: Any, wrong: dict[str, Any]) -> None:
    with pytest.raises(DataError):
        sent(rule(3), replace(POOL, **wrong))
