"""What Linux tells of a device's power, from folders such as the kernel shows."""

from datetime import datetime, time
from pathlib import Path

import pytest

from duetto.device.settings import Situation
from duetto.device.situation import POWER, power, situation

BATTERY = {"type": "Battery", "status": "Discharging", "capacity": "57"}
AC = {"type": "Mains", "online": "0"}


def folder(root: Path, **supplies: dict[str, str]) -> Path:
    """A folder of power supplies."""
    for name, files in supplies.items():
        (root / name).mkdir()
        for file, content in files.items():
            (root / name / file).write_text(content + "\n")
    return root


@pytest.mark.parametrize(
    ("supplies", "battery", "charging"),
    [
        ({"BAT0": BATTERY, "AC": AC}, 0.57, False),
        ({"BAT0": {**BATTERY, "status": "Charging"}, "AC": {**AC, "online": "1"}}, 0.57, True),
        ({"BAT0": {**BATTERY, "status": "Full", "capacity": "100"}}, 1.0, True),
        ({"BAT0": {**BATTERY, "status": "Not charging"}, "usb": {"type": "USB", "online": "1"}}, 0.57, True),
        ({"BAT0": {**BATTERY, "status": "Unknown"}}, 0.57, None),
        ({"BAT0": {**BATTERY, "status": "Unknown"}, "AC": AC}, 0.57, False),
        ({"BAT0": BATTERY, "BAT1": {**BATTERY, "capacity": "43"}}, 0.5, False),
        ({"BAT0": {**BATTERY, "energy_now": "30", "energy_full": "40"}}, 0.75, False),
        ({"BAT0": {**BATTERY, "charge_now": "50", "charge_full": "40"}}, 1.0, False),
        ({"BAT0": {"type": "Battery", "status": "Discharging"}}, None, False),
        ({"BAT0": {**BATTERY, "capacity": "much"}}, None, False),
        ({"BAT0": {**BATTERY, "present": "0"}, "AC": {**AC, "online": "1"}}, None, True),
        ({"mouse": {**BATTERY, "scope": "Device", "capacity": "3"}, "AC": {**AC, "online": "1"}}, None, True),
        ({"AC": AC}, None, True),
        ({}, None, True),
    ],
)
def test_what_the_kernel_shows_is_read(
    tmp_path: Path, supplies: dict[str, dict[str, str]], battery: float | None, charging: bool | None
) -> None:
    assert power(folder(tmp_path, **supplies)) == (battery, charging)


def test_without_the_kernel_s_folder_nothing_is_known(tmp_path: Path) -> None:
    assert power(tmp_path / "none") == (None, None)


def test_files_that_cannot_be_read_are_passed_over(tmp_path: Path) -> None:
    root = folder(tmp_path, BAT0=BATTERY)
    (root / "BAT0" / "capacity").unlink()
    (root / "BAT0" / "capacity").mkdir()
    (root / "BAT0" / "scope").write_bytes(b"\xff")
    assert power(root) == (None, False)


def test_a_situation_is_of_now(tmp_path: Path) -> None:
    root = folder(tmp_path, BAT0=BATTERY, AC=AC)
    found = situation(metered=True, root=root, now=datetime(2026, 3, 4, 5, 6))
    assert found == Situation(True, 0.57, False, time(5, 6))
    assert isinstance(situation(metered=False, root=root).time, time)


@pytest.mark.skipif(not POWER.is_dir(), reason="this machine shows no power supplies")
def test_this_machine_can_be_read() -> None:
    battery, _ = power()
    assert battery is None or 0 <= battery <= 1
