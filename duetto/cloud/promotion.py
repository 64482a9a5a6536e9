"""Whether a model that a few devices try goes to all, by what their records say beside those of the others.

Three shares must not fall by more than their margins: of the cloud's answers, those that the small model had agreed
with; of all answers, those that the cloud was not asked for; and those at which the small model did not fail. Where one
is shown to have fallen further, the model goes back; where all are shown not to have, it goes to everybody; else more
is waited for. The tests are those of :mod:`duetto.evaluation.shares`, between devices. They are made at fixed numbers
of answers, and each look has its share of the error (Bonferroni), so that looking early costs power and not honesty. A
verdict depends on the records alone, in the order in which they came: whoever computes it again finds the same.

The cloud is asked what the policy chooses to ask. A model whose policy asks for harder inputs agrees less often on
them; it then goes back although it is no worse, rather than the other way round.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from duetto.errors import ConfigError
from duetto.evaluation.shares import fallen, held, shared

DAY = 86400.0


@dataclass(frozen=True)
class Said:
    """What a device's record tells of one answer.

    Attributes:
        device: who answered.
        model: the release of its small model.
        asked: whether the cloud was asked.
        agreed: whether the small model had said the same; None where the cloud was not heard.
        failed: the small model had no answer.
    """

    device: str
    model: int
    asked: bool
    agreed: bool | None
    failed: bool


Counted = Callable[[Iterable[Said]], tuple[list[float], list[float]]]
"""From records to how often something was so, and of how many, of each device."""


@dataclass(frozen=True)
class Verdict:
    """What is to be done, and why: one line a person can read."""

    move: Literal["promote", "back", "wait"]
    why: str


@dataclass(frozen=True)
class Compared:
    """One of the shares that decide, of the devices that try a model and of the others.

    Attributes:
        name: agreement, answered alone or working.
        margin: by which it may fall.
        before, after: the others' share and the tried model's, each with its standard error; None where nothing is
            known.
    """

    name: str
    margin: float
    before: tuple[float, float] | None
    after: tuple[float, float] | None


@dataclass(frozen=True)
class Promotion:
    """The rule.

    Attributes:
        window: answers of the cloud to devices that try a model, after which it is decided at the latest.
        margin: by which agreement may fall, between 0 and 1.
        asking: by which the share may fall that needs no cloud.
        failing: by which the share may fall at which the small model answers at all.
        confidence: that a model which is worse by its margin is not promoted, and one that is no worse does not go
        back. looks: how often it is tested, at equal distances.
        devices: that must have been heard on either side; one counts for its share of the window at most.
        patience: seconds after which a model goes back that too few have tried.

    Raises:
        ConfigError: a number that cannot be.
    """

    window: int = 400
    margin: float = 0.05
    asking: float = 0.05
    failing: float = 0.02
    confidence: float = 0.95
    looks: int = 4
    devices: int = 3
    patience: float = 7 * DAY

    def __post_init__(self) -> None:
        margins = (self.margin, self.asking, self.failing)
        good = all(0 < each < 1 for each in (*margins, self.confidence)) and self.patience > 0
        if not good or not 1 <= self.looks <= self.window or not 1 <= self.devices <= self.window:
            wants = "margins and confidence between 0 and 1, 1 <= looks and devices <= window, patience > 0"
            raise ConfigError(f"{self}", wants)

    def judged(self, said: Sequence[Said], canary: int, stable: int, seconds: float) -> Verdict:
        """What to do with a model that is tried.

        Args:
            said: records since it was made, in the order in which they came.
            canary, stable: the releases that are compared.
            seconds: since it was offered.
        """
        tried = self.counted(said, canary)
        heard = sum(each.agreed is not None for each in tried)
        for look in range(1, self.looks + 1):
            needed = math.ceil(look * self.window / self.looks)
            if heard < needed:
                break
            verdict = self._looked(_until(tried, needed), self._others(said, stable, tried, needed), look)
            if verdict.move != "wait":
                return verdict
        if seconds > self.patience:
            return Verdict("back", f"only {heard} of {self.window} answers of the cloud in {seconds / DAY:.1f} days")
        return Verdict("wait", f"{heard} of {self.window} answers of the cloud, by {_devices(tried)} devices")

    def compared(self, said: Sequence[Said], canary: int, stable: int) -> list[Compared]:
        """The shares as they stand, of all records that count: for people; a verdict looks at fixed numbers."""
        sides = [self.counted(said, release) for release in (stable, canary)]
        found = []
        for name, margin, count in self._shares:
            counts = [count(side) for side in sides]
            before, after = (
                (share, math.sqrt(variance)) if sum(n) else None
                for (share, variance), (_, n) in zip((shared(*each) for each in counts), counts, strict=True)
            )
            found.append(Compared(name, margin, before, after))
        return found

    @property
    def _shares(self) -> tuple[tuple[str, float, Counted], ...]:
        return (
            ("agreement", self.margin, _agreed),
            ("answered alone", self.asking, _alone),
            ("working", self.failing, _working),
        )

    def _looked(self, tried: Sequence[Said], others: Sequence[Said], look: int) -> Verdict:
        last, error = look == self.looks, (1 - self.confidence) / self.looks
        few = min(_devices(tried), _devices(others))
        if few < self.devices:
            why = f"{few} of {self.devices} devices were heard"
            return Verdict("back", f"{why} at the last look") if last else Verdict("wait", why)
        shown = []
        for name, margin, count in self._shares:
            before, after = (shared(*count(each)) for each in (others, tried))
            told = f"{name} {after[0]:.1%} against {before[0]:.1%}"
            if fallen(before, after, margin, error / 3):
                return Verdict("back", f"{told}, more than {margin:g} below, at look {look} of {self.looks}")
            shown.append((held(before, after, margin, error), told))
        told = "; ".join(each for _, each in shown)
        if all(good for good, _ in shown):
            return Verdict("promote", f"{told}; none lower by its margin, at look {look} of {self.looks}")
        if last:
            return Verdict("back", f"{told}; not shown to be as good in {self.window} answers")
        return Verdict("wait", f"{told}; nothing shown at look {look} of {self.looks}")

    def counted(self, said: Iterable[Said], model: int) -> list[Said]:
        """The records of a release; of each device the first ones, to its share of the window."""
        most, heard, found = math.ceil(self.window / self.devices), Counter[str](), []
        for each in said:
            if each.model == model and heard[each.device] < most:
                heard[each.device] += each.agreed is not None
                found.append(each)
        return found

    def _others(self, said: Sequence[Said], stable: int, tried: Sequence[Said], needed: int) -> list[Said]:
        """What devices with the other release had said by the time of a look."""
        end = _until(tried, needed)[-1]
        before = said[: 1 + max(i for i, each in enumerate(said) if each is end)]
        return self.counted(before, stable)


def _until(tried: Sequence[Said], heard: int) -> Sequence[Said]:
    """Up to so many answers of the cloud."""
    count = 0
    for i, each in enumerate(tried):
        count += each.agreed is not None
        if count == heard:
            return tried[: i + 1]
    return tried


def _devices(said: Iterable[Said]) -> int:
    """How many devices heard the cloud."""
    return len({each.device for each in said if each.agreed is not None})


def _agreed(said: Iterable[Said]) -> tuple[list[float], list[float]]:
    return _by_device((each.device, each.agreed) for each in said if each.agreed is not None)


def _alone(said: Iterable[Said]) -> tuple[list[float], list[float]]:
    return _by_device((each.device, not each.asked) for each in said)


def _working(said: Iterable[Said]) -> tuple[list[float], list[float]]:
    return _by_device((each.device, not each.failed) for each in said)


def _by_device(marks: Iterable[tuple[str, bool]]) -> tuple[list[float], list[float]]:
    """How often it was so, and of how many, of each device."""
    hits, n = Counter[str](), Counter[str]()
    for device, so in marks:
        hits[device] += so
        n[device] += 1
    return [float(hits[device]) for device in sorted(n)], [float(n[device]) for device in sorted(n)]


def record(device: str, body: bytes) -> Said | None:
    """What the body of an entry of kind "record" tells; None of one that tells too little, or nothing sensible."""
    try:
        told = json.loads(body)
        own, model = told["base"], told["model"]
        if type(model) is not int or type(told["asked"]) is not bool or not (own is None or type(own) is int):
            return None
        heard = told["asked"] and own is not None and told["by"] != device
        return Said(device, model, told["asked"], own == told["label"] if heard else None, own is None)
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
