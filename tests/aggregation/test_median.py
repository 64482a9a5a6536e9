"""Median: numpy's, and within the range of the honest."""

from functools import reduce

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from duetto.aggregation import Median
from duetto.errors import DataError
from duetto.types import Reply


def median(rows: np.ndarray) -> np.ndarray:
    """Of one reply a row."""
    replies = [Reply(f"u{i}", {"w": row}) for i, row in enumerate(rows)]
    return np.asarray(Median().finish(reduce(Median().add, replies, Median().init()))[1]["w"])


@pytest.mark.parametrize("n", [1, 2, 3, 6, 7])
def test_it_is_numpy_s(n: int) -> None:
    rows = np.random.default_rng(n).normal(size=(n, 4, 3))
    assert median(rows).tolist() == np.median(rows, axis=0).tolist()


@given(st.integers(1, 12), st.integers(0, 2**32), st.floats(-300, 300))
def test_less_than_half_cannot_leave_the_range_of_the_honest(n: int, seed: int, power: float) -> None:
    draw = np.random.default_rng(seed)
    rows, malicious = draw.normal(size=(n, 5)), draw.permutation(n)[: (n - 1) // 2]
    honest = np.delete(rows, malicious, axis=0)
    rows[malicious] = draw.choice([-1, 1], size=(len(malicious), 5)) * 10**power
    result = median(rows)
    assert (honest.min(axis=0) <= result).all()
    assert (result <= honest.max(axis=0)).all()


def test_half_can() -> None:
    assert median(np.array([[0.0], [1.0], [1e6], [1e6]])).item() > 1


def test_nothing_added_is_an_error() -> None:
    with pytest.raises(DataError, match="every reply failed or was rejected"):
        Median().finish(Median().init())
