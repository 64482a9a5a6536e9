"""GeometricMedian: Weiszfeld's steps in numpy, a point that is known, weights, and how far attackers can lead it."""

from functools import reduce

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from duetto.aggregation import GeometricMedian
from duetto.errors import ConfigError, DataError
from duetto.types import Reply


def median(rows: np.ndarray, aggregator: GeometricMedian, weights: np.ndarray | None = None) -> np.ndarray:
    """Of one reply a row."""
    weights = np.ones(len(rows)) if weights is None else weights
    replies = [Reply(f"u{i:02d}", {"w": row[:2], "v": row[2:]}, float(weights[i])) for i, row in enumerate(rows)]
    tree = aggregator.finish(reduce(aggregator.add, replies, aggregator.init()))[1]
    return np.concatenate([tree["w"], tree["v"]])


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("iterations", [1, 2, 5])
def test_it_is_weiszfeld_from_the_median(iterations: int, weighted: bool) -> None:
    draw = np.random.default_rng(iterations)
    rows, weights = draw.normal(size=(8, 5)), draw.uniform(0.1, 9, 8)
    rows[3] *= 1e3
    point = np.median(rows, axis=0)
    for _ in range(iterations):
        counts = (weights if weighted else 1) / np.maximum(np.linalg.norm(rows - point, axis=1), 2.0)
        point = counts @ rows / counts.sum()
    result = median(rows, GeometricMedian(iterations, 2.0, weighted), weights)
    np.testing.assert_allclose(result, point, rtol=1e-9)


def test_it_ends_where_the_directions_to_the_replies_cancel() -> None:
    rows = np.random.default_rng(1).normal(size=(9, 4))
    point = median(rows, GeometricMedian(500))
    ways = rows - point
    directions = ways / np.linalg.norm(ways, axis=1)[:, None]
    assert np.linalg.norm(directions.sum(axis=0)) < 1e-6


def test_a_reply_on_the_point_is_not_divided_by_zero() -> None:
    rows = np.array([[0.0, 0, 0]] * 3 + [[5.0, 5, 5]])
    assert np.abs(median(rows, GeometricMedian(3))).max() < 1e-5


@given(st.integers(1, 12), st.integers(0, 2**32), st.floats(-3, 150), st.integers(1, 6), st.booleans())
def test_attackers_are_bounded(n: int, seed: int, power: float, iterations: int, weighted: bool) -> None:
    """No step makes the sum of smoothed distances larger than it is at the median m it starts from. Smoothing adds at
    most nu / 2 to each, an honest reply is at least D - d away and an attacker at least its own distance - D, if m is
    D away: (honest - malicious) D <= 2 sum of d + all * nu / 2, by weight."""
    draw, smooth = np.random.default_rng(seed), 1e-3
    rows, f = draw.normal(size=(n, 5)), (n - 1) // 2
    rows[:f] += draw.normal(size=(f, 5)) * 10**power
    weights = np.where(np.arange(n) < f, 0.9, draw.uniform(1, 3, n)) if weighted else np.ones(n)
    point = median(rows, GeometricMedian(iterations, smooth, weighted), weights)
    start = np.median(rows, axis=0)
    away = np.linalg.norm(rows[f:] - start, axis=1)
    bound = (2 * weights[f:] @ away + weights.sum() * smooth / 2) / (weights[f:].sum() - weights[:f].sum())
    assert np.linalg.norm(point - start) <= bound * (1 + 1e-6)


def test_weights_count_only_where_asked() -> None:
    rows, weights = np.random.default_rng(2).normal(size=(5, 3)), np.array([1.0, 1, 1, 1, 1e9])
    assert median(rows, GeometricMedian(), weights).tolist() == median(rows, GeometricMedian()).tolist()
    boasted = median(rows, GeometricMedian(50, weighted=True), weights)
    assert np.linalg.norm(boasted - rows[4]) < 1e-6, "more than half of the weight wins"


def test_any_unit_of_weight_will_do() -> None:
    rows, weights = np.random.default_rng(2).normal(size=(5, 3)), np.array([1.0, 2, 3, 4, 0])
    few, many = (median(rows, GeometricMedian(weighted=True), weights * unit) for unit in (1.0, 4e307))
    np.testing.assert_allclose(few, many, rtol=1e-12)


def test_bad_weights_are_errors_where_they_count() -> None:
    with pytest.raises(DataError, match="u00 sent the weight nan"):
        median(np.ones((2, 3)), GeometricMedian(weighted=True), np.array([np.nan, 1]))
    with pytest.raises(DataError, match="every weight is 0"):
        median(np.ones((2, 3)), GeometricMedian(weighted=True), np.zeros(2))
    assert median(np.ones((2, 3)), GeometricMedian(), np.array([np.nan, 0])).tolist() == [1, 1, 1]


@pytest.mark.parametrize("numbers", [(0, 1e-6), (1, 0.0), (1, np.nan)])
def test_bad_numbers_are_errors(numbers: tuple[int, float]) -> None:
    with pytest.raises(ConfigError, match="a positive smoothing"):
        GeometricMedian(*numbers)
