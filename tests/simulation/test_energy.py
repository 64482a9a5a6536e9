"""Energy: the roofline, the tail charged once, and a profiles file that says what is wrong with it."""

from dataclasses import FrozenInstanceError, fields, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from duetto.errors import ConfigError
from duetto.simulation import energy
from duetto.simulation.energy import Prices, Profile, Radio
from duetto.types import Work

BOARD = Profile(flops=1e9, memory_bandwidth=1e8, compute_watts=3.0, idle_watts=2.0, overhead_seconds=0.01)
LTE = Radio(up_watts=4.0, down_watts=2.0, tail_watts=1.0, tail_seconds=10.0)


@pytest.mark.parametrize(
    ("work", "seconds"), [(Work(2e9, 1e8), 2.01), (Work(1e8, 3e8), 3.01), (Work(), 0.01), (Work(1e9, 1e8), 1.01)]
)
def test_compute_takes_the_slower_of_arithmetic_and_memory(work: Work, seconds: float):
    assert energy.compute(BOARD, work) == (pytest.approx(seconds), pytest.approx(3 * seconds))


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=6))
def test_each_tail_is_charged_once(plan: list[tuple[int, int, int]]):
    """Second by second: sending, receiving, or waiting for at most the tail since the last bit."""
    total, watts, quiet = 0.0, [], None
    for gap, up, down in plan:
        total += energy.transfer_joules(LTE, up, down, gap if quiet is not None else 0)
        for _ in range(gap if quiet is not None else 0):
            quiet += 1
            watts.append(1.0 if quiet <= 10 else 0.0)
        watts += [4.0] * up + [2.0] * down
        quiet = 0
    total += energy.transfer_joules(LTE, 0, 0, 25)
    assert total == pytest.approx(np.sum(watts) + 10 * 1.0)


def test_the_built_in_figures_are_sane_and_immutable():
    devices, radios = energy.profiles(), energy.radios()
    expected = {
        "microcontroller",
        "low-end-phone",
        "mid-phone",
        "flagship-phone",
        "pixel-7",
        "raspberry-pi-4",
        "jetson-class",
        "cloud-cpu",
        "cloud-gpu",
    }
    assert set(devices) == expected
    assert set(radios) >= {"wifi", "3g", "4g", "5g"}
    assert devices is energy.profiles()
    speed = [devices[name].flops for name in ("low-end-phone", "mid-phone", "flagship-phone", "cloud-gpu")]
    assert speed == sorted(speed)
    assert radios["wifi"].tail_watts * radios["wifi"].tail_seconds < 0.1
    assert 10 < radios["4g"].tail_watts * radios["4g"].tail_seconds < 14  # the 12 J of Huang et al.
    assert energy.prices()["default"].per_gigabyte_down > 0
    with pytest.raises(TypeError):
        devices["mine"] = BOARD  # type: ignore[index]
    with pytest.raises(TypeError):
        energy.fleets()["phones"]["mid-phone"] = 1  # type: ignore[index]
    with pytest.raises(FrozenInstanceError):
        devices["mid-phone"].flops = 1  # type: ignore[misc]


def test_mix_is_a_fleet_or_one_device():
    for name in energy.fleets():
        assert sum(energy.mix(name).values()) == pytest.approx(1)
        assert set(energy.mix(name)) <= set(energy.profiles())
    assert energy.mix("jetson-class") == {"jetson-class": 1.0}
    with pytest.raises(ConfigError, match=r"'fridges'.*phones.*mid-phone"):
        energy.mix("fridges")


@pytest.mark.parametrize("kind", [Profile, Radio, Prices])
@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), "1", True, None])
def test_every_figure_is_checked(kind: type, value: object):
    good = {field.name: 1.0 for field in fields(kind)}
    for name in good:
        with pytest.raises(ConfigError, match=name):
            kind(**{**good, name: value})


@pytest.mark.parametrize("name", ["flops", "memory_bandwidth"])
def test_a_device_that_cannot_compute_is_refused(name: str):
    with pytest.raises(ConfigError, match=name):
        replace(BOARD, **{name: 0})


def written(path: Path, text: str) -> Path:
    """A profiles file of the user."""
    path.write_text(text)
    return path


def test_load_merges_fields_and_adds_whole_entries(tmp_path: Path):
    path = written(
        tmp_path / "mine.toml",
        """
        [devices.mid-phone]
        flops = 9e10
        [devices.watch]
        flops = 1e9
        memory_bandwidth = 1e9
        compute_watts = 0.2
        idle_watts = 0.01
        overhead_seconds = 0
        [radios.4g]
        tail_seconds = 2
        [fleets.phones]
        watch = 0.25
        mid-phone = 0.75
        """,
    )
    mine = energy.load(path)
    assert mine.devices["mid-phone"] == replace(energy.profiles()["mid-phone"], flops=9e10)
    assert mine.devices["watch"].compute_watts == 0.2
    assert mine.radios["4g"] == replace(energy.radios()["4g"], tail_seconds=2)
    assert mine.fleets["phones"] == {"watch": 0.25, "mid-phone": 0.75}
    assert mine.fleets["boards"] == energy.fleets()["boards"]
    assert mine.prices == energy.prices()
    assert "watch" not in energy.profiles()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[devices.mid-phone]\nflopz = 1", r"devices\.mid-phone: flopz is unknown"),
        ("[devices.watch]\nflops = 1", r"devices\.watch: \w+ is missing"),
        ("[devices.mid-phone]\nflops = -1", r"devices\.mid-phone: flops = -1"),
        ("[devices.mid-phone]\nflops = 0", r"devices\.mid-phone: flops"),
        ("[devices.mid-phone]\nflops = true", r"devices\.mid-phone: flops = True"),
        ("[gadgets.watch]\nflops = 1", "unknown section 'gadgets'"),
        ("devices = 3", "devices is no table"),
        ("[devices]\nwatch = 3", r"devices\.watch is no table"),
        ("[fleets.mine]\nwatch = 1", r"fleets\.mine: unknown device 'watch'"),
        ("[fleets.mine]\nmid-phone = 0.5", r"fleets\.mine sums to 0\.5"),
        ("[fleets.mine]\nmid-phone = 2\nlow-end-phone = -1", r"fleets\.mine: low-end-phone = -1"),
        ("[fleets.mine]", r"fleets\.mine sums to 0"),
        ("[devices", "cannot be read"),
    ],
)
def test_load_tells_what_is_wrong(tmp_path: Path, text: str, told: str):
    with pytest.raises(ConfigError, match=told):
        energy.load(written(tmp_path / "mine.toml", text))


def test_load_of_nothing(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"none\.toml"):
        energy.load(tmp_path / "none.toml")
