"""How a battery empties, by the figures of ``duetto/profiles.toml``.

Peukert (1897), in the form of power: above the rated power ``R`` of the cells, a second at ``P`` watts takes
``P * (P / R)^(exponent - 1)`` joules off what they hold, else ``P``. Below the rated power nothing is gained, which is
on the safe side. ``profiles.toml`` says how far that goes for lithium-ion; powers should be means over a minute or
more, over which a cell recovers from bursts of milliseconds.
"""

from __future__ import annotations

import math

import numpy as np

from duetto.errors import DataError
from duetto.simulation.energy import Battery
from duetto.tree import Array

_HOUR, _MONTH = 3600.0, 30 * 86400.0


def drained(battery: Battery, watts: Array, seconds: Array) -> np.ndarray:
    """The share of a full battery that each interval takes, ``[n]``: all that the device draws, idle included.

    Args:
        battery: which one.
        watts: ``[n]`` mean power that reaches the device in each interval.
        seconds: ``[n]``, or a number, that each lasts.

    Raises:
        DataError: a power or a time that is negative or not finite.
    """
    power, time = np.asarray(watts, np.float64), np.asarray(seconds, np.float64)
    if not (np.isfinite(power).all() and np.isfinite(time).all() and (power >= 0).all() and (time >= 0).all()):
        raise DataError("powers or times that are negative or not finite", "give watts and seconds from 0")
    cells, rated = power / battery.efficiency, battery.watt_hours / battery.rated_hours
    effective = cells * np.maximum(1.0, cells / rated) ** (battery.exponent - 1)
    lost = battery.monthly_loss * time / _MONTH / battery.usable
    return np.asarray(effective * time / (_HOUR * battery.watt_hours * battery.usable) + lost)


def left(battery: Battery, watts: Array, seconds: Array, start: float = 1.0) -> np.ndarray:
    """The share left after each interval, ``[n]``, never below 0: what :class:`~duetto.types.Seen` calls battery.

    Args:
        battery, watts, seconds: as of :func:`drained`.
        start: share before the first, 0..1.

    Raises:
        DataError: as :func:`drained`; or a start outside 0..1.
    """
    if not 0 <= start <= 1:
        raise DataError(f"a battery at {start}", "give a share from 0 to 1")
    return np.maximum(0.0, start - np.cumsum(drained(battery, watts, seconds)))


def lasting(battery: Battery, watts: float) -> float:
    """Hours from full until the device switches itself off at this power; infinite where nothing ever drains it.

    Raises:
        DataError: as :func:`drained`.
    """
    hourly = float(drained(battery, watts, _HOUR))
    return 1 / hourly if hourly else math.inf
