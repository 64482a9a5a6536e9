"""Draws with known probabilities: they add up, they are kept, and nothing odd in a column gets through."""

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from duetto.errors import DataError
from duetto.policies.draws import examples, highest, proportional, remembered, systematic, told, trait
from duetto.types import Seen

WEIGHTS = st.integers(1, 30).flatmap(
    lambda n: arrays.arrays(np.float64, n, elements=st.sampled_from([0.0, 1e-9, 0.5, 1.0, 3.0, 1e6, np.nan]))
)


@given(WEIGHTS, st.integers(0, 35), st.integers(0, 2**30))
def test_chances_add_up_and_are_proportional_below_one(weights: np.ndarray, count: int, seed: int) -> None:
    among = np.random.default_rng(seed).random(len(weights)) < 0.7
    chances = proportional(weights, among, count)
    assert chances.sum() == pytest.approx(min(count, among.sum()))
    assert ((chances >= 0) & (chances <= 1)).all()
    assert not chances[~among].any()
    heavy = among & (weights > 0)
    below = heavy & (chances < 1)
    if below.any() and count:
        rates = chances[below] / weights[below]
        assert rates == pytest.approx(rates[0])
        assert (rates[0] * weights[heavy & ~below] >= 1 - 1e-9).all()  # the certain ones are rightly so
        assert not chances[among & ~heavy].any()
    chosen = systematic(chances, (seed,))
    assert chosen.sum() == min(count, among.sum())
    assert chosen[chances == 1].all()
    assert not chosen[chances == 0].any()


def test_everyone_is_drawn_with_its_own_chance() -> None:
    weights, rounds = np.array([1.0, 2, 3, 4, 5, 6, 7, 40]), 4000
    chances = proportional(weights, np.ones(8, bool), 3)
    assert chances == pytest.approx([*(2 * weights[:-1] / 28), 1])
    drawn = np.array([systematic(chances, (i,)) for i in range(rounds)])
    assert (drawn.sum(axis=1) == 3).all()
    assert (np.abs(drawn.mean(axis=0) - chances) <= 5 * np.sqrt(chances * (1 - chances) / rounds)).all()


def test_chances_that_are_a_little_too_small_lose_nobody() -> None:
    assert all(systematic(np.full(3, 0.333), (i,)).sum() == 1 for i in range(4000))  # four teeth beyond, in the mean


def test_equal_chances_make_all_pairs_equally_likely() -> None:
    n, count, rounds = 10, 4, 4000
    drawn = np.array([systematic(np.full(n, count / n), (i,)) for i in range(rounds)]).astype(float)
    both = (drawn.T @ drawn)[np.triu_indices(n, 1)] / rounds
    assert np.abs(both - count * (count - 1) / (n * (n - 1))).max() < 5 * np.sqrt(0.25 / rounds)


def test_the_highest_and_ties_at_random() -> None:
    scores, among = np.array([5.0, np.inf, 3, 3, 3, 1, 9]), np.array([1, 1, 1, 1, 1, 1, 0], bool)
    drawn = []
    for i in range(3000):
        chosen, chances = highest(scores, among, 4, (i,))
        drawn.append(chosen)
    assert chances == pytest.approx([1, 1, 2 / 3, 2 / 3, 2 / 3, 0, 0])
    spread = 5 * np.sqrt(chances * (1 - chances) / 3000)
    assert (np.abs(np.mean(drawn, axis=0) - chances) <= spread).all()


@pytest.mark.parametrize("count", [0, 3, 4])
def test_the_highest_of_few(count: int) -> None:
    among = np.array([1, 0, 1, 1], bool)
    chosen, chances = highest(np.zeros(4), among, count, ())
    assert chosen.tolist() == chances.astype(bool).tolist() == (among & (count > 0)).tolist()


def test_a_trait_is_a_finite_number_or_nothing() -> None:
    seen = Seen(traits={"loss": [1, np.nan, np.inf, -np.inf, 1e30, -2.5]}, size=6)
    nothing = np.nan
    assert np.array_equal(trait(seen, "loss"), [1, nothing, nothing, nothing, nothing, -2.5], equal_nan=True)
    assert np.array_equal(told(seen, "loss", np.array([0, 1, 1, 1, 1, 1])), [*[nothing] * 5, -2.5], equal_nan=True)
    assert np.isnan(trait(seen, "seconds")).all()
    assert examples(Seen(size=2)).tolist() == [1, 1]
    assert examples(Seen(traits={"examples": np.array([3, np.nan])}, size=2)).tolist() == [3, 1]


def test_columns_of_another_fleet() -> None:
    with pytest.raises(DataError, match=r"'examples' of shape \(3,\) for 2 parties"):
        trait(Seen(traits={"examples": np.ones(3)}, size=2), "examples")
    with pytest.raises(DataError, match="a state of 3 parties for a fleet of 2"):
        remembered({"loss": np.ones(3)}, "loss", Seen(size=2), 0)
