"""What the user of a device has decided: what may leave it, and when it may do more than answer.

A TOML file, so that a person can write it. Consent is meant as in :class:`~duetto.policies.Consented`: nobody has
given it by default, and it can be withdrawn at any time.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import time
from enum import IntEnum
from pathlib import Path
from typing import Any, Literal, Self, TypeAlias, get_args

from duetto.errors import ConfigError
from duetto.policies.consent import Consented
from duetto.transport.files import put
from duetto.types import Policy

Purpose: TypeAlias = Literal["ask", "deliver", "learn", "update"]
"""What a device wants to do beside answering by itself: ask the cloud a question; deliver records, feedback or what a
federated round has learned; learn for itself, while idle; fetch a newer model."""

PURPOSES: tuple[Purpose, ...] = get_args(Purpose)


class Leaves(IntEnum):
    """What may leave a device, each with all before it."""

    NOTHING = 0
    FEATURES = 1  # what a network's first stages made of an input; inputs can be guessed from early ones
    REDACTED = 2  # inputs from which what is personal was taken
    RAW = 3


@dataclass(frozen=True)
class Settings:
    """The user's decisions. All limits are the user's to change; only ``leaves`` has no default.

    Attributes:
        leaves: the most that may leave: "nothing", "features", "redacted" or "raw".
        metered: purposes that may use a network which costs by volume.
        battery_floor: below this charge, from 0 to 1, a device that is not charging does nothing but answer by itself.
        only_charging: purposes that wait until it charges.
        quiet: two local times ``HH:MM`` between which it neither delivers nor learns nor updates; the first may be
            later than the second (over midnight). Empty: never quiet.
        samples_a_day, bytes_a_day: the most samples that are uploaded for learning.

    Raises:
        ConfigError: a setting that is none.
    """

    leaves: Literal["nothing", "features", "redacted", "raw"]
    metered: tuple[Purpose, ...] = ("ask",)
    battery_floor: float = 0.2
    only_charging: tuple[Purpose, ...] = ("learn",)
    quiet: tuple[str, ...] = ()
    samples_a_day: int = 100
    bytes_a_day: int = 50_000_000

    def __post_init__(self) -> None:
        if not isinstance(self.leaves, str) or self.leaves.upper() not in Leaves.__members__ or self.leaves.isupper():
            raise ConfigError(f"leaves = {self.leaves!r}", f"use {_listed([each.name.lower() for each in Leaves])}")
        for name in ("metered", "only_charging"):
            purposes = getattr(self, name)
            if not isinstance(purposes, tuple) or not all(purpose in PURPOSES for purpose in purposes):
                raise ConfigError(f"{name} = {_shown(purposes)}", f"list some of {_listed(PURPOSES)}, or none")
        if not _number(self.battery_floor) or not 0 <= self.battery_floor <= 1:
            raise ConfigError(f"battery_floor = {self.battery_floor!r}", "use a number from 0 to 1")
        for name in ("samples_a_day", "bytes_a_day"):
            count = getattr(self, name)
            if not isinstance(count, int) or isinstance(count, bool) or count < 0:
                raise ConfigError(f"{name} = {count!r}", "use a whole number from 0")
        if not isinstance(self.quiet, tuple) or len(self.quiet) not in (0, 2):
            raise ConfigError(f"quiet = {_shown(self.quiet)}", 'use two times such as ["22:00", "07:00"], or none')
        times = [_time(text) for text in self.quiet]
        if len(set(times)) == 1:
            raise ConfigError(f"quiet hours from {self.quiet[0]} to {self.quiet[1]}", "give two times that differ")

    @property
    def most(self) -> Leaves:
        """``leaves`` as it is compared."""
        return Leaves[self.leaves.upper()]

    def consented(self, inner: Policy[Any]) -> Consented:
        """A selection of samples to upload as inputs, limited as the user has decided; its time is in days."""
        return Consented(inner, self.most is Leaves.RAW, self.samples_a_day, self.bytes_a_day)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a file.

        Raises:
            ConfigError: a file that is missing or no TOML, a setting that is missing, unknown, or none.
        """
        try:
            told = tomllib.loads(Path(path).read_text("utf-8"))
        except OSError as fault:
            raise ConfigError(f"no settings in {path} ({fault.strerror})", "write the file, or name another") from fault
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as fault:
            raise ConfigError(f"{path} is no TOML ({fault})", "mend it, or write it anew") from fault
        known = [field.name for field in fields(cls)]
        if unknown := sorted(set(told) - set(known)):
            raise ConfigError(f"{path} sets {_listed(unknown)}", f"known are {_listed(known)}")
        if "leaves" not in told:
            raise ConfigError(f"{path} does not say what may leave the device", 'set leaves = "nothing" or more')
        values: dict[str, Any] = {name: tuple(it) if isinstance(it, list) else it for name, it in told.items()}
        try:
            return cls(**values)
        except ConfigError as fault:
            raise ConfigError(f"{path}: {fault.fault}", fault.remedy) from fault

    def save(self, path: str | Path) -> None:
        """Write a file, completely or not at all; what it held before is gone, comments too."""
        lines = [f"{name} = {_shown(getattr(self, name))}  # {_COMMENTS[name]}" for name in _COMMENTS]
        put(Path(path), ("\n".join(lines) + "\n").encode())


@dataclass(frozen=True)
class Situation:
    """What a device finds itself in.

    Attributes:
        metered: whether its network costs by volume; where that is not known, say yes.
        battery: its charge from 0 to 1; None where it has no battery, or hides it.
        charging: whether it is plugged in; None where that is not known, which counts as no.
        time: the local time of day.
    """

    metered: bool
    battery: float | None
    charging: bool | None
    time: time


def allowed(settings: Settings, situation: Situation, purpose: Purpose) -> str | None:
    """None where the device may do this now, else one line that says why not.

    What a single message may hold is decided by :class:`~duetto.device.consenting.Consenting`.
    """
    if purpose in ("ask", "deliver") and settings.most is Leaves.NOTHING:
        return "nothing may leave this device"
    if purpose != "learn" and situation.metered and purpose not in settings.metered:
        return f"the network is metered, and may not be used to {purpose}"
    if purpose in settings.only_charging and not situation.charging:
        return f"it does not charge, and waits for that to {purpose}"
    if situation.battery is not None and not situation.charging and situation.battery < settings.battery_floor:
        return f"the battery is at {situation.battery:.0%}, below {settings.battery_floor:.0%}"
    if purpose != "ask" and _quiet(settings, situation.time):
        return f"it is quiet from {settings.quiet[0]} to {settings.quiet[1]}"
    return None


def _quiet(settings: Settings, now: time) -> bool:
    if not settings.quiet:
        return False
    begin, end = (_time(text) for text in settings.quiet)
    now = now.replace(tzinfo=None)
    return begin <= now < end if begin < end else now >= begin or now < end


def _time(text: Any) -> time:
    try:
        if isinstance(text, str) and len(text) == 5:
            return time(int(text[:2]), int(text[3:])) if text[2] == ":" else time.fromisoformat("?")
    except ValueError:
        pass
    raise ConfigError(f"{text!r} among the quiet hours", 'use times such as "22:00"')


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _listed(words: Sequence[str]) -> str:
    return ", ".join(words)


def _shown(value: Any) -> str:
    """As TOML, whose texts, numbers and lists are those of JSON."""
    return json.dumps(value, default=str)


_COMMENTS: Mapping[str, str] = {
    "leaves": 'the most that may leave this device: "nothing", "features", "redacted" or "raw"',
    "metered": "what may use a network that costs by volume: ask, deliver, learn, update",
    "battery_floor": "below it, from 0 to 1, nothing but answers by itself unless it charges",
    "only_charging": "what waits until it charges",
    "quiet": 'neither delivering nor learning nor updating between two times, such as ["22:00", "07:00"]',
    "samples_a_day": "the most samples uploaded for learning",
    "bytes_a_day": "and the most bytes of them",
}
