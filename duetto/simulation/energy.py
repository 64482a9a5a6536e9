"""What computing and sending cost, by the figures of ``duetto/profiles.toml``.

Every power is *above* the device's ``idle_watts``, so that costs add: a world that wants the whole battery adds
``idle_watts`` times the time that has passed, as :mod:`duetto.simulation.battery` does.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cache
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from duetto.errors import ConfigError
from duetto.types import Work


@dataclass(frozen=True)
class _Amounts:
    """Fields that are numbers, finite and not negative."""

    def __post_init__(self) -> None:
        _check("", asdict(self))


A = TypeVar("A", bound=_Amounts)


@dataclass(frozen=True)
class Profile(_Amounts):
    """A device: sustained FLOP/s and B/s (both > 0), W above idle while computing, W at rest, s that a call costs.

    Raises:
        ConfigError: not such numbers.
    """

    flops: float
    memory_bandwidth: float
    compute_watts: float
    idle_watts: float
    overhead_seconds: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.flops and self.memory_bandwidth):
            raise ConfigError("flops and memory_bandwidth of 0", "a device needs some of both")


@dataclass(frozen=True)
class Radio(_Amounts):
    """A radio: W above idle while sending, while receiving, and for ``tail_seconds`` after the last bit."""

    up_watts: float
    down_watts: float
    tail_watts: float
    tail_seconds: float


@dataclass(frozen=True)
class Prices(_Amounts):
    """Dollars for a call, for 1e9 bytes into and out of the cloud, and for a second of cloud computing."""

    per_call: float
    per_gigabyte_up: float
    per_gigabyte_down: float
    per_cloud_second: float


@dataclass(frozen=True)
class Battery(_Amounts):
    """A battery, which :mod:`duetto.simulation.battery` discharges.

    Attributes:
        watt_hours: that the cells hold when they are emptied within ``rated_hours``; above 0.
        usable: share of it between full and where the device switches itself off; above 0, at most 1.
        efficiency: share of what leaves the cells that reaches the device, behind the converter; above 0, at most 1.
        rated_hours: above 0.
        exponent: Peukert's, 1 or more: emptied faster than rated, the cells hold less.
        monthly_loss: share of ``watt_hours`` lost in thirty days by itself; at most 1.

    Raises:
        ConfigError: not such numbers.
    """

    watt_hours: float
    usable: float
    efficiency: float
    rated_hours: float
    exponent: float
    monthly_loss: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.watt_hours and self.usable and self.efficiency and self.rated_hours and self.exponent >= 1):
            raise ConfigError(f"a battery that holds nothing: {self}", "give numbers above 0 and an exponent from 1")
        if max(self.usable, self.efficiency, self.monthly_loss) > 1:
            raise ConfigError(f"shares above 1: {self}", "usable, efficiency and monthly_loss are at most 1")


@dataclass(frozen=True)
class Catalogue:
    """All that a profiles file holds, by name; ``fleets``: device to share, the shares of a fleet sum to 1."""

    devices: Mapping[str, Profile]
    radios: Mapping[str, Radio]
    batteries: Mapping[str, Battery]
    prices: Mapping[str, Prices]
    fleets: Mapping[str, Mapping[str, float]]


def compute(profile: Profile, work: Work) -> tuple[float, float]:
    """Seconds and joules of one call, by the roofline model (Williams et al., CACM 2009).

    ``overhead + max(flops / F, bytes / B)`` seconds at ``compute_watts``.
    """
    seconds = profile.overhead_seconds + max(work.flops / profile.flops, work.bytes / profile.memory_bandwidth)
    return seconds, seconds * profile.compute_watts


def transfer_joules(radio: Radio, up_seconds: float, down_seconds: float, idle_before: float) -> float:
    """Joules of one transfer, and of the tail that the transfer before it left.

    A tail is charged once, when one knows how long it was: ``idle_before`` is the gap since the last transfer ended
    (0 before the first), of which at most ``tail_seconds`` cost ``tail_watts``. After the last transfer, charge
    ``transfer_joules(radio, 0, 0, rest)`` with the time that is left. The wait for an answer between sending and
    receiving is such a gap too: charge the two separately, the second with the wait as its ``idle_before``.
    """
    tail = min(idle_before, radio.tail_seconds) * radio.tail_watts
    return up_seconds * radio.up_watts + down_seconds * radio.down_watts + tail


def profiles() -> Mapping[str, Profile]:
    """The built-in devices by name."""
    return _builtin().devices


def radios() -> Mapping[str, Radio]:
    """The built-in radios by name."""
    return _builtin().radios


def batteries() -> Mapping[str, Battery]:
    """The built-in batteries by name."""
    return _builtin().batteries


def prices() -> Mapping[str, Prices]:
    """The built-in price lists by name; "default" is there."""
    return _builtin().prices


def fleets() -> Mapping[str, Mapping[str, float]]:
    """The built-in fleets: name to device to share."""
    return _builtin().fleets


def mix(name: str) -> Mapping[str, float]:
    """Device to share, of a built-in fleet or of one device alone.

    Raises:
        ConfigError: neither a fleet nor a device is called so.
    """
    if name in fleets():
        return fleets()[name]
    if name not in profiles():
        raise ConfigError(f"no fleet or device is called {name!r}", f"use one of {', '.join((*fleets(), *profiles()))}")
    return MappingProxyType({name: 1.0})


def load(path: Path) -> Catalogue:
    """The built-in figures with those of a file of the same layout over them.

    What a file says of a known device, radio or price list replaces the fields it names; a new one must be whole; a
    fleet is replaced as a whole.

    Raises:
        ConfigError: no such file, not TOML, or a section, field or value that is unknown, missing or negative.
    """
    try:
        mine = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{path} cannot be read ({error})", "give a TOML file laid out as duetto/profiles.toml"
        ) from error
    merged = _raw()
    for section, entries in mine.items():
        for name, entry in _table(entries, section).items():
            known = {} if section == "fleets" else merged.get(section, {}).get(name, {})
            merged.setdefault(section, {})[name] = {**known, **_table(entry, f"{section}.{name}")}
    return _catalogue(merged)


def _raw() -> dict[str, Any]:
    return tomllib.loads((files("duetto") / "profiles.toml").read_text(encoding="utf-8"))


@cache
def _builtin() -> Catalogue:
    return _catalogue(_raw())


def _table(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError(f"{name} is no table", "lay the file out as duetto/profiles.toml")
    return value


def _catalogue(raw: dict[str, Any]) -> Catalogue:
    if unknown := sorted(set(raw) - {field.name for field in fields(Catalogue)}):
        raise ConfigError(
            f"unknown section {unknown[0]!r}", "sections are devices, radios, batteries, prices and fleets"
        )
    devices, mixes = _all(Profile, "devices", raw), {}
    for name, shares in raw["fleets"].items():
        if strange := sorted(set(shares) - set(devices)):
            raise ConfigError(f"fleets.{name}: unknown device {strange[0]!r}", f"use {', '.join(devices)}")
        _check(f"fleets.{name}: ", shares)
        if abs(math.fsum(shares.values()) - 1) > 1e-9:
            raise ConfigError(f"fleets.{name} sums to {math.fsum(shares.values()):g}", "shares of a fleet sum to 1")
        mixes[name] = MappingProxyType(dict(shares))
    amounts = (_all(Radio, "radios", raw), _all(Battery, "batteries", raw), _all(Prices, "prices", raw))
    return Catalogue(devices, *amounts, MappingProxyType(mixes))


def _all(kind: type[A], section: str, raw: dict[str, Any]) -> Mapping[str, A]:
    expected, made = {field.name for field in fields(kind)}, {}
    for name, entry in raw[section].items():
        if wrong := sorted(expected ^ entry.keys()):
            fault = "missing" if wrong[0] in expected else "unknown"
            raise ConfigError(f"{section}.{name}: {wrong[0]} is {fault}", f"give {', '.join(sorted(expected))}")
        try:
            made[name] = kind(**entry)
        except ConfigError as error:
            raise ConfigError(f"{section}.{name}: {error.fault}", error.remedy) from None
    return MappingProxyType(made)


def _check(place: str, values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
            raise ConfigError(f"{place}{name} = {value!r}", "give a finite number, 0 or more")
