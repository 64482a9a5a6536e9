"""What a call costs and when an item came."""

import numpy as np
import pytest

from duetto.errors import ConfigError, DataError
from duetto.policies.priced import costs, from_zero, positive, times
from duetto.types import Seen


def test_a_call_costs_one_where_no_price_is_known() -> None:
    assert costs(Seen(size=3)).tolist() == [1, 1, 1]
    assert costs(Seen(traits={"price": np.array([0.5, 0])}, size=2)).tolist() == [0.5, 0]


def test_items_are_the_time_where_there_is_no_clock() -> None:
    assert times(Seen(size=3), 7).tolist() == [7, 8, 9]
    assert times(Seen(traits={"time": np.array([0.5, -1])}, size=2), 7).tolist() == [0.5, -1]


@pytest.mark.parametrize("column", [np.array([1.0]), np.array([1.0, np.nan]), np.array([1.0, np.inf])])
def test_columns_that_are_none(column: np.ndarray) -> None:
    with pytest.raises(DataError):
        costs(Seen(traits={"price": column}, size=2))
    with pytest.raises(DataError):
        times(Seen(traits={"time": column}, size=2), 0)


def test_numbers_out_of_range() -> None:
    for value in (-1.0, np.nan, np.inf):
        with pytest.raises(ConfigError):
            from_zero("cap", value)
        with pytest.raises(ConfigError):
            positive("period", value)
    from_zero("cap", 0.0)
    with pytest.raises(ConfigError):
        positive("period", 0.0)
