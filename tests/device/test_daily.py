"""A user's limits of a day."""

from datetime import date
from pathlib import Path

import pytest

from duetto.device.daily import Daily
from duetto.device.settings import Settings

MONDAY, TUESDAY = date(2026, 3, 2), date(2026, 3, 3)


def test_samples_and_bytes_are_limited_and_every_day_begins_anew(tmp_path: Path) -> None:
    settings = Settings("raw", samples_a_day=3, bytes_a_day=100)
    assert [Daily(tmp_path / "daily.json").take(settings, 40, MONDAY) for _ in range(3)] == [True, True, False]
    assert Daily(tmp_path / "daily.json").take(settings, 20, MONDAY), "the bytes allow a smaller one"
    assert not Daily(tmp_path / "daily.json").take(settings, 0, MONDAY), "three are three"
    assert Daily(tmp_path / "daily.json").take(settings, 100, TUESDAY)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"day": "2026-03-02", "samples": "x", "bytes": 0}'])
def test_a_damaged_count_begins_anew(text: str, tmp_path: Path) -> None:
    (tmp_path / "daily.json").write_text(text)
    assert Daily(tmp_path / "daily.json").take(Settings("raw", samples_a_day=1), 1, MONDAY)
    assert not Daily(tmp_path / "daily.json").take(Settings("raw", samples_a_day=1), 1, MONDAY)


def test_a_full_disk_fails_nothing_and_is_no_way_around_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    daily = Daily(tmp_path / "daily.json")
    settings = Settings("raw", samples_a_day=3)
    assert daily.take(settings, 1, MONDAY)
    with monkeypatch.context() as patched:
        patched.setattr("duetto.device.daily.put", full)
        assert daily.take(settings, 1, MONDAY)
    assert daily.take(settings, 1, MONDAY)
    assert not Daily(tmp_path / "daily.json").take(settings, 1, MONDAY), "all three are in the file now"
