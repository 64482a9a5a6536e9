"""What the user of a device has decided."""

import json
import tempfile
import tomllib
from dataclasses import replace
from datetime import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from duetto.device.settings import PURPOSES, Leaves, Settings, Situation, allowed
from duetto.errors import ConfigError
from duetto.policies import LeastSure
from duetto.types import Seen

OPEN = Settings("raw", metered=PURPOSES, battery_floor=0.0, only_charging=())
HOME = Situation(metered=False, battery=0.9, charging=True, time=time(12))

CLOCK = st.times().map(lambda at: f"{at.hour:02}:{at.minute:02}")
SOME = st.lists(st.sampled_from(PURPOSES), unique=True).map(tuple)
SETTINGS = st.builds(
    Settings,
    leaves=st.sampled_from(["nothing", "features", "redacted", "raw"]),
    metered=SOME,
    battery_floor=st.floats(0, 1),
    only_charging=SOME,
    quiet=st.one_of(st.just(()), st.lists(CLOCK, min_size=2, max_size=2, unique=True).map(tuple)),
    samples_a_day=st.integers(0, 10**6),
    bytes_a_day=st.integers(0, 10**12),
)
SITUATIONS = st.builds(
    Situation,
    metered=st.booleans(),
    battery=st.none() | st.floats(0, 1),
    charging=st.none() | st.booleans(),
    time=st.times(),
)


def test_the_levels_are_in_order() -> None:
    assert Leaves.NOTHING < Leaves.FEATURES < Leaves.REDACTED < Leaves.RAW
    assert [Settings(each).most for each in ("nothing", "features", "redacted", "raw")] == list(Leaves)


def test_nobody_has_consented_by_default() -> None:
    with pytest.raises(TypeError, match="leaves"):
        Settings()  # type: ignore[call-arg]


@given(SETTINGS)
def test_a_file_says_what_was_saved(settings: Settings) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "settings.toml"
        settings.save(path)
        assert Settings.load(path) == settings
        assert [each.name for each in Path(folder).iterdir()] == ["settings.toml"]
        assert json.loads(json.dumps(tomllib.loads(path.read_text())))["leaves"] == settings.leaves


def test_a_file_needs_to_say_only_what_may_leave(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text('leaves = "features"\nbattery_floor = 0\n')
    assert Settings.load(path) == Settings("features", battery_floor=0)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "does not say what may leave"),
        ('leaves = "all"', "leaves = 'all': use nothing, features, redacted, raw"),
        ('leaves = "RAW"', "leaves = 'RAW'"),
        ("leaves = 3", "leaves = 3"),
        ('leaves = "raw"\ncamera = true', "sets camera: known are leaves, metered"),
        ('leaves = "raw"\nmetered = ["sing"]', r'metered = \["sing"\]: list some of ask, deliver, learn, update'),
        ('leaves = "raw"\nmetered = "ask"', 'metered = "ask"'),
        ('leaves = "raw"\nonly_charging = true', "only_charging = true"),
        ('leaves = "raw"\nbattery_floor = 20', "battery_floor = 20: use a number from 0 to 1"),
        ('leaves = "raw"\nbattery_floor = nan', "battery_floor"),
        ('leaves = "raw"\nbattery_floor = true', "battery_floor"),
        ('leaves = "raw"\nquiet = ["22:00"]', "use two times"),
        ('leaves = "raw"\nquiet = "22:00"', "use two times"),
        ('leaves = "raw"\nquiet = ["22:00", "25:00"]', "'25:00' among the quiet hours"),
        ('leaves = "raw"\nquiet = ["22:00", "22.00"]', "'22.00' among the quiet hours"),
        ('leaves = "raw"\nquiet = [22, 7]', "22 among the quiet hours"),
        ('leaves = "raw"\nquiet = [22:00:00, 07:00:00]', "among the quiet hours"),
        ('leaves = "raw"\nquiet = ["22:00", "22:00"]', "two times that differ"),
        ('leaves = "raw"\nsamples_a_day = -1', "samples_a_day = -1"),
        ('leaves = "raw"\nbytes_a_day = 1.5', "bytes_a_day = 1.5"),
        ("leaves = ", "is no TOML"),
    ],
)
def test_a_file_that_is_wrong_is_refused(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "settings.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=says) as refused:
        Settings.load(path)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no settings in"):
        Settings.load(tmp_path / "none.toml")
    (tmp_path / "latin.toml").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="is no TOML"):
        Settings.load(tmp_path / "latin.toml")


def test_with_everything_open_everything_is_allowed() -> None:
    away = Situation(metered=True, battery=0.01, charging=False, time=time(3))
    assert [allowed(OPEN, away, purpose) for purpose in PURPOSES] == [None] * 4


def test_nothing_may_leave() -> None:
    closed = replace(OPEN, leaves="nothing")
    assert [allowed(closed, HOME, purpose) is None for purpose in ("ask", "deliver", "learn", "update")] == [
        False,
        False,
        True,
        True,
    ]


def test_a_metered_network_is_for_what_the_user_says() -> None:
    settings = replace(OPEN, metered=("ask",))
    away = replace(HOME, metered=True)
    assert allowed(settings, away, "ask") is None
    assert allowed(settings, away, "learn") is None, "it needs no network"
    assert allowed(settings, away, "update") == "the network is metered, and may not be used to update"
    assert allowed(settings, HOME, "update") is None


def test_some_wait_for_the_charger() -> None:
    settings = replace(OPEN, only_charging=("learn", "deliver"))
    for charging in (False, None):
        situation = replace(HOME, charging=charging)
        assert allowed(settings, situation, "learn") == "it does not charge, and waits for that to learn"
        assert allowed(settings, situation, "ask") is None
    assert allowed(settings, HOME, "learn") is None


def test_below_the_floor_a_device_only_answers_by_itself() -> None:
    settings = replace(OPEN, battery_floor=0.3)
    low = replace(HOME, battery=0.29, charging=False)
    assert {allowed(settings, low, purpose) for purpose in PURPOSES} == {"the battery is at 29%, below 30%"}
    for fine in (replace(low, charging=True), replace(low, battery=0.3), replace(low, battery=None)):
        assert allowed(settings, fine, "ask") is None


@pytest.mark.parametrize(
    ("quiet", "at", "is_quiet"),
    [
        (("22:00", "07:00"), time(21, 59, 59), False),
        (("22:00", "07:00"), time(22), True),
        (("22:00", "07:00"), time(0), True),
        (("22:00", "07:00"), time(6, 59), True),
        (("22:00", "07:00"), time(7), False),
        (("09:00", "17:00"), time(9), True),
        (("09:00", "17:00"), time(17), False),
        (("09:00", "17:00"), time(3), False),
        ((), time(3), False),
    ],
)
def test_quiet_hours_may_wrap_midnight(quiet: tuple[str, ...], at: time, is_quiet: bool) -> None:
    settings, situation = replace(OPEN, quiet=quiet), replace(HOME, time=at)
    assert allowed(settings, situation, "ask") is None, "who uses the device is not asleep"
    for purpose in ("deliver", "learn", "update"):
        why = allowed(settings, situation, purpose)
        assert why == (f"it is quiet from {quiet[0]} to {quiet[1]}" if is_quiet else None)


@given(SETTINGS, SITUATIONS, st.sampled_from(PURPOSES))
def test_reasons_are_one_line_and_what_is_better_never_forbids(
    settings: Settings, situation: Situation, purpose: Any
) -> None:
    why = allowed(settings, situation, purpose)
    assert why is None or (why and "\n" not in why)
    if why is None:
        better = replace(situation, metered=False, charging=True, battery=1.0)
        assert allowed(settings, better, purpose) is None
        assert allowed(replace(settings, leaves="raw", quiet=()), situation, purpose) is None


def test_uploads_for_learning_are_limited_as_the_user_says() -> None:
    seen = Seen(answer=np.zeros((5, 2)), size=5, traits={"bytes": np.full(5, 10)})
    counts = []
    for settings in (
        Settings("raw", samples_a_day=3),
        Settings("raw", bytes_a_day=25),
        Settings("features", samples_a_day=3),
    ):
        policy = settings.consented(LeastSure(5))
        counts.append(int((policy.choose(policy.init(), seen, (0,))[1].action == 2).sum()))
    assert counts == [3, 2, 0]
