"""What policies that spend share: what a call costs, and in which period an item falls."""

from __future__ import annotations

import numpy as np

from duetto.errors import ConfigError, DataError
from duetto.types import Seen


def costs(seen: Seen) -> np.ndarray:
    """What asking for each item costs, ``[n]`` float64: the trait ``price`` (dollars), else 1 (a call).

    Raises:
        DataError: a price that is negative or not finite, or a column of another length.
    """
    column = (seen.traits or {}).get("price")
    if column is None:
        return np.ones(seen.size)
    array = np.asarray(column, np.float64)
    if array.shape != (seen.size,) or not ((array >= 0) & (array < np.inf)).all():
        raise DataError("prices that are not one finite number from 0 an item", "give the trait price [items]")
    return array


def times(seen: Seen, decided: int) -> np.ndarray:
    """When each item came, ``[n]`` float64: the trait ``time``, or the number of items decided before it.

    Raises:
        DataError: a time that is not finite, or a column of another length.
    """
    column = (seen.traits or {}).get("time")
    if column is None:
        return decided + np.arange(seen.size, dtype=np.float64)
    array = np.asarray(column, np.float64)
    if array.shape != (seen.size,) or not np.isfinite(array).all():
        raise DataError("times that are not one finite number an item", "give the trait time [items]")
    return array


def positive(name: str, value: float) -> None:
    """Raises ConfigError where a number is not above 0 and finite."""
    if not 0 < value < np.inf:
        raise ConfigError(f"a {name} of {value}", "use a number above 0")


def from_zero(name: str, value: float) -> None:
    """Raises ConfigError where a number is not from 0 and finite."""
    if not 0 <= value < np.inf:
        raise ConfigError(f"a {name} of {value}", "use a number from 0")
