"""What a Linux device knows of its power, from the kernel's ``/sys/class/power_supply`` (sysfs-class-power).

A battery of another device (a mouse's, ``scope`` "Device") does not count.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from duetto.device.settings import Situation

POWER = Path("/sys/class/power_supply")


def situation(*, metered: bool, root: str | Path = POWER, now: datetime | None = None) -> Situation:
    """What the device finds itself in now.

    Args:
        metered: whether the network costs by volume; the kernel does not know.
        root: the folder of power supplies.
        now: the local time; None asks the clock.
    """
    battery, charging = power(root)
    return Situation(metered, battery, charging, (now or datetime.now()).time())


def power(root: str | Path = POWER) -> tuple[float | None, bool | None]:
    """The charge from 0 to 1, the mean of all batteries, and whether it is plugged in; None is not known.

    A device without a battery is plugged in. One that is plugged in and spares its battery ("Not charging") is too.
    """
    root = Path(root)
    if not root.is_dir():
        return None, None
    supplies = [each for each in sorted(root.iterdir()) if _read(each, "scope") != "Device"]
    batteries = [each for each in supplies if _read(each, "type") == "Battery" and _read(each, "present") != "0"]
    plugs = [_read(each, "online") for each in supplies if _read(each, "type") not in ("Battery", "UPS", None)]
    charges = [charge for charge in map(_charge, batteries) if charge is not None]
    charge = sum(charges) / len(charges) if charges else None
    status = {_read(each, "status") for each in batteries}
    if not batteries or status & {"Charging", "Full"} or any(plug not in (None, "0") for plug in plugs):
        return charge, True
    return charge, False if "Discharging" in status or "0" in plugs else None


def _charge(battery: Path) -> float | None:
    for now, full in (("energy_now", "energy_full"), ("charge_now", "charge_full")):
        have, most = _number(battery, now), _number(battery, full)
        if have is not None and most:
            return min(1.0, max(0.0, have / most))
    percent = _number(battery, "capacity")
    return None if percent is None else min(1.0, max(0.0, percent / 100))


def _number(supply: Path, name: str) -> float | None:
    try:
        return float(_read(supply, name) or "")
    except ValueError:
        return None


def _read(supply: Path, name: str) -> str | None:
    """What a file says; drivers answer with errors while a battery is taken out."""
    try:
        return (supply / name).read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None
