"""Waiting before another try."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from duetto.errors import ConfigError
from duetto.transport.backoff import back_off


@given(st.integers(0, 10_000), st.floats(1e-3, 10), st.floats(1, 1e6))
def test_it_is_within_its_bound_however_often_it_is_tried(attempt: int, base: float, factor: float) -> None:
    most = base * factor
    bound = min(most, base * 2.0 ** min(attempt, 60))
    assert 0 <= back_off(attempt, ("ann",), base, most) <= bound


def test_it_is_even_up_to_its_bound() -> None:
    draws = np.array([back_off(3, (name,), 1.0, 60.0) for name in range(4000)])
    # Kolmogorov-Smirnov against the uniform distribution on [0, 8]; 1.95 is its critical value at 0.1 %.
    gap = np.abs(np.sort(draws) / 8 - np.arange(1, 4001) / 4000).max()
    assert gap * np.sqrt(4000) < 1.95


def test_the_key_decides() -> None:
    assert back_off(2, ("ann",)) == back_off(2, ("ann",))
    assert len({back_off(attempt, (name,)) for attempt in range(9) for name in ("ann", "ben")}) == 18


@pytest.mark.parametrize("wrong", [(-1, 1, 2), (0, 0, 2), (0, 2, 1), (0, 1, np.inf), (0, np.nan, 1)])
def test_bounds_that_are_none_are_refused(wrong: tuple[int, float, float]) -> None:
    with pytest.raises(ConfigError):
        back_off(wrong[0], (), *wrong[1:])
