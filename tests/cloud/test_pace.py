"""The speed of a skill, learned from its batches."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from duetto.cloud.pace import MISS, Pace


def after(*batches: tuple[int, float], keep: float = 0.8) -> Pace:
    """What is known after these."""
    pace = Pace(keep)
    for rows, seconds in batches:
        pace = pace.measured(rows, seconds)
    return pace


def test_nothing_is_expected_before_anything_was_measured() -> None:
    assert Pace().expected(100) == 0


def test_a_fixed_part_and_a_part_of_each_row_are_found() -> None:
    pace = after(*[(rows, 0.01 + 0.002 * rows) for rows in (1, 8, 3, 30) * 20])
    np.testing.assert_allclose([pace.expected(n) for n in (1, 10, 64)], [0.012, 0.03, 0.138])
    assert pace.error < 1e-6, "the first predictions were wrong, and are forgotten"


def test_it_is_the_weighted_least_squares_line() -> None:
    draw = np.random.default_rng(0)
    rows = draw.integers(1, 50, 12)
    seconds = 0.01 + 0.001 * rows + draw.normal(size=12) * 1e-4
    weights = 0.9 ** np.arange(12)[::-1]
    slope, fixed = np.polyfit(rows, seconds, 1, w=np.sqrt(weights))
    pace = after(*zip(rows.tolist(), seconds.tolist(), strict=True), keep=0.9)
    assert pace.expected(20) == pytest.approx(fixed + 20 * slope)


def test_the_error_is_the_mean_of_the_errors_made() -> None:
    assert after(*[(4, 0.02)] * 50).error < 1e-15
    # From one to the other the prediction goes to and fro: 0.03 - 0.8 * 0.02 ... is soon off by the same each time.
    pace, errors = Pace(), []
    for seconds in [0.01, 0.03] * 50:
        errors.append(abs(seconds - pace.expected(4)) if pace.weight else 0.0)
        pace = pace.measured(4, seconds)
    weights = 0.8 ** np.arange(100)[::-1]
    assert pace.error == pytest.approx(np.average(errors, weights=weights), rel=1e-6)


def test_batches_of_one_size_promise_no_less_for_fewer_rows() -> None:
    pace = after((10, 1.0), (10, 1.0))
    assert [pace.expected(n) for n in (1, 10, 20)] == pytest.approx([1.0, 1.0, 2.0])


@given(st.lists(st.tuples(st.integers(1, 1000), st.floats(1e-6, 100)), min_size=1, max_size=20), st.integers(1, 2000))
def test_expectations_are_positive_and_grow_with_the_rows(batches: list[tuple[int, float]], rows: int) -> None:
    pace = after(*batches)
    assert 0 <= pace.expected(rows) <= pace.expected(rows + 1) * (1 + 1e-9) < np.inf


def test_promises_are_stretched_until_few_enough_are_broken() -> None:
    """Times that are one to three times what was predicted, seldom: the 99.5 % quantile of that is found."""
    draw, pace, broken = np.random.default_rng(0), Pace(), []
    for longer in 1 + 2 * draw.random(20_000) ** 8:
        broken.append(longer > pace.stretch)
        pace = pace.kept(int(broken[-1]), 1)
    assert np.mean(broken[2_000:]) == pytest.approx(MISS, rel=0.2)
    assert pace.stretch == pytest.approx(1 + 2 * (1 - MISS) ** 8, rel=0.1)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(9, 9))))
def test_no_stretch_shortens_and_none_grows_for_ever(promises: list[tuple[int, int]]) -> None:
    pace = Pace()
    for broken, of in promises:
        pace = pace.kept(broken, of)
        assert 1 <= pace.stretch <= 10
    for _ in range(10_000):
        pace = pace.kept(0, 1)
    assert pace.stretch == 1, "kept promises are forgotten in the end"
