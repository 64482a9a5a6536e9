"""What somebody should look at now, each in one line with its remedy; ``docs/operate.md`` says the same for Prometheus.

Drift is a fall of a share that matters, shown by the test that promotes models (:mod:`duetto.evaluation.shares`), with
devices as units: the newest part of what devices tell against the part before it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from duetto.cloud.metrics import expiries
from duetto.cloud.observed import Told
from duetto.cloud.promotion import Promotion
from duetto.cloud.quality import chosen
from duetto.cloud.registry import CHANNELS
from duetto.cloud.site import Site
from duetto.evaluation.shares import fallen, shared

DAY = 86400.0
SOON = {"server certificate": 21 * DAY, "authority": 180 * DAY}
"""How long before it ends to hold it is worth an alarm; for a role of the releases that is a quarter of its time, since
a running service signs anew at a third."""
NEWEST, BEFORE = 3600.0, 7 * DAY  # what has drifted: the last hour, against the week before it
FALL, ERROR = 0.02, 0.01  # points of a share, and how often drift may be told of where there is none


@dataclass(frozen=True)
class Alarm:
    """One thing to look at.

    Attributes:
        level: ``wrong`` is about now, ``soon`` can wait a day, ``told`` is for information.
        about: a word for it, by which it is known from look to look.
        fault, remedy: what it is, and what to do.
    """

    level: Literal["wrong", "soon", "told"]
    about: str
    fault: str
    remedy: str


def alarms(
    site: Site, told: Told, counters: Mapping[str, float] | None = None, now: float | None = None
) -> list[Alarm]:
    """What is to be looked at, the worst first.

    Args:
        site: the cloud's.
        told: by devices.
        counters: of this process's batcher, if there is one.
        now: seconds since 1970; None is the clock's.

    Raises:
        DataError: the database cannot be reached.
    """
    now = time.time() if now is None else now
    found = [*_signed(site, now), *_missing(site), *_paused(site), *drift(told, now), *_shed(counters or {})]
    order = ("wrong", "soon", "told")
    return sorted(found, key=lambda each: (order.index(each.level), each.about))


def drift(told: Told, now: float) -> Iterator[Alarm]:
    """Shares that have fallen in the last hour, against the week before it."""
    after, before = chosen(told, now - NEWEST, now + 1), chosen(told, now - NEWEST - BEFORE, now - NEWEST)
    heard = {name: each.answers[each.answers["agreed"] >= 0] for name, each in (("before", before), ("after", after))}
    pairs = (
        (
            "agreement",
            "the small model agrees less with the cloud",
            _by(heard["before"], "agreed"),
            _by(heard["after"], "agreed"),
        ),
        ("asking", "more is asked of the cloud", _by(before.answers, "asked", 0), _by(after.answers, "asked", 0)),
        ("failing", "small models fail more often", _by(before.answers, "failed", 0), _by(after.answers, "failed", 0)),
        ("users", "users call fewer answers right", _by(before.corrections, "right"), _by(after.corrections, "right")),
    )
    for about, says, old, new in pairs:
        if len(old[0]) < Promotion.devices or len(new[0]) < Promotion.devices:
            continue
        if fallen(shared(*old), shared(*new), FALL, ERROR):
            was, is_now = (sum(hits) / sum(n) for hits, n in (old, new))
            if about in ("asking", "failing"):
                was, is_now = 1 - was, 1 - is_now
            figures = f"{is_now:.1%} in the last hour, {was:.1%} in the week before"
            yield Alarm("wrong", f"drift {about}", f"{says}: {figures}", "look at which devices and releases changed")


def _by(rows: np.ndarray, name: str, counts: int = 1) -> tuple[list[float], list[float]]:
    """How often a column was so, and of how many, of each device."""
    n = np.bincount(rows["device"])
    hits = np.bincount(rows["device"], rows[name] == counts, len(n))
    return hits[n > 0].tolist(), n[n > 0].astype(float).tolist()


def _signed(site: Site, now: float) -> Iterator[Alarm]:
    for until, labels in expiries(site):
        of = labels["of"]
        left = until - now
        remedy = {
            "server certificate": "duetto cloud certify, then start the processes again",
            "authority": "duetto cloud rotate authority --phase announce",
            "releases root": "duetto cloud resign, with its key here",
            "releases targets": "duetto cloud resign, with its key here",
        }.get(of, "duetto cloud refresh")
        if left < 0:
            yield Alarm("wrong", f"expired {of}", f"what {of} signs holds no longer", remedy)
        elif left < (SOON[of] if of in SOON else site.releases.expiry.of(of.removeprefix("releases ")) * DAY / 4):
            yield Alarm("soon", f"expires {of}", f"{of} holds for {left / DAY:.1f} days more", remedy)


def _missing(site: Site) -> Iterator[Alarm]:
    gaps = site.feedback.gaps()
    for dropped, level, says, remedy in (
        (
            False,
            "soon",
            "are missing, and no device has said that it dropped them",
            "wait for devices that are offline",
        ),
        (True, "told", "were dropped by devices whose outbox was full", "let them deliver more often"),
    ):
        count = sum(gap.last - gap.first + 1 for gap in gaps if gap.told == dropped)
        devices = len({gap.device for gap in gaps if gap.told == dropped})
        if count:
            fault = f"{count:,} entries of {devices:,} devices {says}"
            yield Alarm(level, "dropped" if dropped else "missing", fault, remedy)  # type: ignore[arg-type]  # one of them


def _paused(site: Site) -> Iterator[Alarm]:
    for model in site.registry.models():
        for channel in CHANNELS:
            held = site.registry.paused(model, channel)
            if held is not None:
                fault = f"{channel} of {model} is paused by {held.by}: {held.why}"
                yield Alarm("told", f"paused {model} {channel}", fault, "let it go on when that is over")


def _shed(counters: Mapping[str, Any]) -> Iterator[Alarm]:
    shed = counters.get("shed", 0)
    if counters.get("waiting", 0) and shed:
        fault = f"{shed:,.0f} asks were shed by this process, and {counters['waiting']:,.0f} wait"
        yield Alarm("wrong", "shed", fault, "more is asked than can be done: add a process")
