"""Batteries: what is drained, by numpy; and limits that a discharge keeps."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from duetto.errors import ConfigError, DataError
from duetto.simulation import battery, energy
from duetto.simulation.energy import Battery

CELL = Battery(watt_hours=2.0, usable=0.8, efficiency=0.9, rated_hours=5.0, exponent=1.1, monthly_loss=0.03)
PLAIN = Battery(watt_hours=2.0, usable=1.0, efficiency=1.0, rated_hours=5.0, exponent=1.0, monthly_loss=0.0)


def test_what_is_drained_is_peukert_s_by_hand() -> None:
    watts, seconds = np.array([0.0, 0.1, 0.36, 0.72, 1.44]), 600.0
    cells = watts / 0.9
    factor = np.where(cells > 0.4, (cells / 0.4) ** 0.1, 1.0)  # 2 Wh in 5 h are 0.4 W
    expected = cells * factor * seconds / (3600 * 2.0 * 0.8) + 0.03 * seconds / (30 * 86400) / 0.8
    np.testing.assert_allclose(battery.drained(CELL, watts, seconds), expected, rtol=1e-12)


def test_a_plain_battery_gives_its_watt_hours() -> None:
    assert battery.lasting(PLAIN, 0.5) == pytest.approx(4.0)
    assert battery.lasting(PLAIN, 0.0) == np.inf
    np.testing.assert_allclose(battery.left(PLAIN, [1.0, 1.0, 1.0], [3600, 1800, 3600]), [0.5, 0.25, 0.0])
    np.testing.assert_allclose(battery.left(PLAIN, [1.0], 3600, start=0.6), [0.1], atol=1e-12)


@given(st.floats(0, 5), st.floats(0, 5), st.floats(0, 1e5))
def test_more_power_never_lasts_longer(one: float, other: float, seconds: float) -> None:
    low, high = sorted((one, other))
    assert battery.drained(CELL, low, seconds) <= battery.drained(CELL, high, seconds)
    # Twice the power for half the time takes as much or more.
    assert battery.drained(CELL, 2 * low, seconds / 2) >= battery.drained(CELL, low, seconds) * (1 - 1e-12) - 1e-2


def test_the_built_in_batteries_are_sane() -> None:
    found = energy.batteries()
    assert {"coin-pouch", "phone", "power-bank"} <= set(found)
    days = battery.lasting(found["phone"], energy.profiles()["mid-phone"].idle_watts) / 24
    assert 10 < days < 30  # phones at rest last for weeks
    assert 4 < battery.lasting(found["power-bank"], 4.0) < 9  # a Raspberry Pi at work, an afternoon


def test_faults_are_told() -> None:
    for wrong in ({"watt_hours": 0.0}, {"exponent": 0.9}, {"usable": 1.2}, {"efficiency": 0.0}, {"monthly_loss": -1.0}):
        with pytest.raises(ConfigError):
            Battery(**{**vars(CELL), **wrong})
    for watts, seconds in ((-1.0, 1.0), (1.0, -1.0), (float("nan"), 1.0)):
        with pytest.raises(DataError, match="negative or not finite"):
            battery.drained(CELL, watts, seconds)
    with pytest.raises(DataError, match="a battery at 2"):
        battery.left(CELL, [1.0], [1.0], start=2.0)
