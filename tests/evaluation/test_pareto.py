import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from duetto.errors import DataError
from duetto.evaluation import pareto, users

bits = st.integers(0, 1)
inputs = st.lists(st.tuples(st.integers(-3, 3), bits, bits, st.integers(0, 3)), min_size=1, max_size=30)


def brute(score, small, large, weight):
    """Every threshold tried one by one."""
    points = []
    for threshold in [math.inf, *sorted(set(score), reverse=True)]:
        asked = [s >= threshold for s in score]
        right = sum(w * (b if a else c) for a, b, c, w in zip(asked, large, small, weight, strict=True))
        points.append((sum(w * a for a, w in zip(asked, weight, strict=True)) / sum(weight), right / sum(weight)))
    return points


@given(inputs)
def test_the_sweep_is_every_threshold(rows):
    score, small, large, _ = zip(*rows, strict=True)
    share, accuracy = pareto.curve(score, small, large)
    assert list(zip(share.tolist(), accuracy.tolist(), strict=True)) == brute(score, small, large, [1] * len(rows))


@given(inputs.filter(lambda rows: any(row[3] for row in rows)), st.floats(0, 1))
def test_weights_count_inputs_and_the_share_is_the_smallest_that_reaches(rows, target):
    score, small, large, weight = (np.array(column) for column in zip(*rows, strict=True))
    points = brute(score.tolist(), small.tolist(), large.tolist(), weight.tolist())
    np.testing.assert_allclose(np.stack(pareto.curve(score, small, large, weight), 1), points)
    copies = np.repeat(np.arange(len(rows)), weight)  # a weight is as many copies
    reached = [share for share, accuracy in points if accuracy >= target - 1e-12]
    expected = min(reached) if reached else math.nan
    for found in (
        pareto.ask_share_at(score, small, large, target, weight),
        pareto.ask_share_at(score[copies], small[copies], large[copies], target),
    ):
        assert found == pytest.approx(expected, nan_ok=True)


@given(inputs)
def test_limits_and_bounds(rows):
    """Asking nobody is the small model, asking all the large; no score beats the oracle anywhere."""
    score, small, large, _ = (np.array(column) for column in zip(*rows, strict=True))
    share, accuracy = pareto.curve(score, small, large)
    assert (share[0], accuracy[0]) == (0, small.mean())
    assert (share[-1], accuracy[-1]) == (1, pytest.approx(large.mean()))
    assert (np.diff(share) > 0).all()
    roof = np.interp(share, *pareto.oracle_gain(small, large))
    assert (accuracy <= roof + 1e-12).all()
    found = pareto.area(score, small, large)
    assert math.isnan(found) or found <= 1 + 1e-12


def test_chance_and_the_oracle_by_hand():
    small, large = [1, 0, 0, 1], [1, 1, 1, 0]
    share, accuracy = pareto.random(small, large)
    assert (share.tolist(), accuracy.tolist()) == ([0, 1], [0.5, 0.75])
    share, accuracy = pareto.oracle_gain(small, large)
    assert (share.tolist(), accuracy.tolist()) == ([0, 0.5, 0.75, 1], [0.5, 1, 1, 0.75])
    gain = np.array(large) - small
    assert pareto.area(gain, small, large) == pytest.approx(1)
    assert pareto.area(np.zeros(4), small, large) == 0
    assert pareto.area(-gain, small, large) < 0
    # thresholds at 2 and 1: asks the input it mends, then one it breaks
    score = [0, 2, 0, 1]
    under = 0.25 * (0.5 + 0.75) / 2 + 0.25 * (0.75 + 0.5) / 2 + 0.5 * (0.5 + 0.75) / 2
    floor, roof = 0.625, 0.5 * 0.75 + 0.25 * 1 + 0.25 * 0.875
    assert pareto.area(score, small, large) == pytest.approx((under - floor) / (roof - floor))


def test_no_gain_anywhere_has_no_area():
    assert math.isnan(pareto.area([1.0, 2.0], [1, 0], [1, 0]))


def test_a_target_never_reached_is_nan_and_one_reached_at_once_costs_nothing():
    assert math.isnan(pareto.ask_share_at([1, 2], [0, 0], [1, 0], 0.9))
    assert pareto.ask_share_at([1, 2], [1, 0], [1, 1], 0.5) == 0
    # 0.1 + 0.2 is a little more than 0.3: a target computed the other way round is still reached
    assert pareto.reached([0.0, 1.0], [0.0, 0.3], 0.1 + 0.2) == 1


def test_an_interval_of_the_share_over_users():
    g = np.random.default_rng(0)
    user = np.repeat(np.arange(30), 20)
    small, large = (g.random(600) < 0.8).astype(int), np.ones(600, int)
    score = 1.0 - small + g.normal(0, 0.3, 600)
    drawn = [pareto.ask_share_at(score, small, large, 0.95, w) for w in users.redraws(user, key=(0,), n=200)]
    low, high = np.percentile(drawn, [2.5, 97.5])
    assert low < pareto.ask_share_at(score, small, large, 0.95) < high


@pytest.mark.parametrize(
    "columns",
    [
        ([], [], []),
        ([1.0], [1, 0], [1, 0]),
        ([math.nan, 1.0], [1, 0], [1, 0]),
        ([[1.0]], [[1]], [[1]]),
        ([1.0, 2.0], [1, 0], [1, 0], [-1, 2]),
        ([1.0, 2.0], [1, 0], [1, 0], [0, 0]),
    ],
)
def test_what_cannot_be_swept_is_refused(columns):
    with pytest.raises(DataError):
        pareto.curve(*columns)
