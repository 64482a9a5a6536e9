"""CentredClip: its steps in numpy, its limits (median, mean), and how far attackers can lead it."""

from functools import reduce

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from duetto.aggregation import CentredClip
from duetto.errors import ConfigError
from duetto.types import Reply


def clipped(rows: np.ndarray, aggregator: CentredClip) -> np.ndarray:
    """Of one reply a row."""
    replies = [Reply(f"u{i:02d}", {"w": row[:2], "v": row[2:]}) for i, row in enumerate(rows)]
    tree = aggregator.finish(reduce(aggregator.add, replies, aggregator.init()))[1]
    return np.concatenate([tree["w"], tree["v"]])


@pytest.mark.parametrize("radius", [0.3, 2.0, 50.0])
@pytest.mark.parametrize("iterations", [1, 2, 6])
def test_it_is_the_paper_s_step_from_the_median(radius: float, iterations: int) -> None:
    rows = np.random.default_rng(iterations).normal(size=(8, 5))
    rows[3] *= 20
    centre = np.median(rows, axis=0)
    for _ in range(iterations):
        ways = rows - centre
        factors = np.minimum(1, radius / np.linalg.norm(ways, axis=1))
        centre = centre + (ways * factors[:, None]).mean(axis=0)
    np.testing.assert_allclose(clipped(rows, CentredClip(radius, iterations)), centre, rtol=1e-10)


def test_a_large_radius_is_the_mean_and_a_small_one_the_median() -> None:
    rows = np.random.default_rng(0).normal(size=(7, 4))
    np.testing.assert_allclose(clipped(rows, CentredClip(1e9, 1)), rows.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(clipped(rows, CentredClip(1e-13)), np.median(rows, axis=0), atol=1e-12)


@given(st.integers(1, 12), st.integers(0, 2**32), st.floats(-3, 150), st.floats(0.01, 10), st.integers(1, 5))
def test_attackers_are_bounded(n: int, seed: int, power: float, radius: float, iterations: int) -> None:
    """Each step moves by at most a radius. Of a step from the same centre, f attackers account for f / n of a radius,
    and what honest replies do to two centres brings them no further apart; two attacks that leave the median where
    it is (all above it, here) can so differ by twice that a step."""
    draw, f = np.random.default_rng(seed), (n - 1) // 2
    rows = draw.normal(size=(n, 5))
    results = []
    for scale in (10.0, 10 * 10.0**power):
        rows[:f] = 10 + draw.uniform(0, 1, size=(f, 5)) * scale
        results.append(clipped(rows, CentredClip(radius, iterations)))
        assert np.linalg.norm(results[-1] - np.median(rows, axis=0)) <= iterations * radius + 1e-9
    assert np.linalg.norm(results[0] - results[1]) <= 2 * iterations * radius * f / n + 1e-7


@pytest.mark.parametrize("numbers", [(0.0, 1), (-1.0, 1), (np.nan, 1), (np.inf, 1), (1.0, 0)])
def test_bad_numbers_are_errors(numbers: tuple[float, int]) -> None:
    with pytest.raises(ConfigError, match="to a positive radius"):
        CentredClip(*numbers)


def test_the_radius_has_no_default() -> None:
    with pytest.raises(TypeError):
        CentredClip()
