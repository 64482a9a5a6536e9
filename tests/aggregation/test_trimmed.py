"""Trimmed: what is left out, by sorting, and within the range of the honest."""

import math
from functools import reduce

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from duetto.aggregation import Median, Trimmed
from duetto.errors import ConfigError
from duetto.types import Aggregator, Reply


def trimmed(rows: np.ndarray, aggregator: Aggregator) -> np.ndarray:
    """Of one reply a row."""
    replies = [Reply(f"u{i}", {"w": row}) for i, row in enumerate(rows)]
    return np.asarray(aggregator.finish(reduce(aggregator.add, replies, aggregator.init()))[1]["w"])


@pytest.mark.parametrize(
    ("n", "share", "cut"), [(10, 0.2, 2), (10, 0.15, 2), (10, 0.0, 0), (50, 0.14, 7), (5, 0.1, 1), (2, 0.4, 0)]
)
def test_so_many_are_left_out_at_either_end(n: int, share: float, cut: int) -> None:
    rows = np.random.default_rng(n).normal(size=(n, 3, 2))
    expected = np.sort(rows, axis=0)[cut : n - cut].mean(axis=0)
    np.testing.assert_allclose(trimmed(rows, Trimmed(share)), expected, rtol=1e-13)


@pytest.mark.parametrize("n", [1, 2, 7, 8])
def test_the_middle_is_never_left_out(n: int) -> None:
    rows = np.random.default_rng(n).normal(size=(n, 4))
    np.testing.assert_allclose(trimmed(rows, Trimmed(0.499)), trimmed(rows, Median()), rtol=1e-13)


@given(st.integers(3, 12), st.floats(0.01, 0.49), st.integers(0, 2**32), st.floats(-300, 300))
def test_a_share_cannot_leave_the_range_of_the_honest(n: int, share: float, seed: int, power: float) -> None:
    draw = np.random.default_rng(seed)
    rows, malicious = draw.normal(size=(n, 5)), draw.permutation(n)[: math.floor(share * n)]
    honest = np.delete(rows, malicious, axis=0)
    rows[malicious] = draw.choice([-1, 1], size=(len(malicious), 5)) * 10**power
    result = trimmed(rows, Trimmed(share))
    assert (honest.min(axis=0) - 1e-12 <= result).all()
    assert (result <= honest.max(axis=0) + 1e-12).all()


@pytest.mark.parametrize("share", [-0.1, 0.5, 1.0, np.nan])
def test_a_share_is_below_half(share: float) -> None:
    with pytest.raises(ConfigError, match="trimmed at either end"):
        Trimmed(share)


def test_the_share_has_no_default() -> None:
    with pytest.raises(TypeError):
        Trimmed()
