"""What somebody should look at: each thing is told while it is so, and not a moment longer."""

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from duetto.cloud import alarms as told_of
from duetto.cloud.alarms import DAY, alarms, drift
from duetto.cloud.observed import ANSWER, CORRECTION, Observed, Told
from duetto.cloud.site import Site
from duetto.protocols.deliver import RECORD, Entry
from duetto.types import rng

NOTHING = Told(np.zeros(0, ANSWER), np.zeros(0, CORRECTION), (), 0)


def about(site: Site, **given: object) -> set[str]:
    return {each.about for each in alarms(site, NOTHING, **given)}  # type: ignore[arg-type]


def test_a_new_cloud_has_no_alarm(site: Site) -> None:
    assert about(site) == set()


def test_what_is_signed_is_told_before_it_ends_to_hold(site: Site) -> None:
    now = time.time()
    held = site.releases.expiries()
    assert about(site, now=held["timestamp"].timestamp() - DAY) == set(), "a service signs anew at a third"
    assert about(site, now=held["timestamp"].timestamp() - 0.49 * DAY) == {"expires releases timestamp"}
    late = about(site, now=now + 80 * DAY)
    assert {"expires server certificate", "expired releases timestamp", "expired releases snapshot"} <= late
    remedies = {each.about: each.remedy for each in alarms(site, NOTHING, now=now + 80 * DAY)}
    assert remedies["expires server certificate"].startswith("duetto cloud certify")
    site.releases.refresh(datetime.now(UTC) + timedelta(days=3))
    assert "expired releases timestamp" not in about(site, now=now + 3 * DAY)


def test_gaps_pauses_and_what_is_shed(site: Site, tmp_path: Path) -> None:
    site.feedback.keep("a", b"a" * 16, [Entry(3, RECORD, b"{}")])
    (missing,) = alarms(site, NOTHING)
    assert (missing.level, missing.about) == ("soon", "missing")
    assert missing.fault.startswith("2 entries of 1 devices are missing")

    digest = site.registry.blobs.put(b"x")
    site.registry.add("small", {"device": digest}, by="test")
    site.registry.pause("small", "canary", by="anna", why="exams")
    assert about(site) == {"missing", "paused small canary"}
    site.registry.go_on("small", "canary", by="anna", why="over")
    assert about(site, counters={"shed": 3, "waiting": 2}) == {"missing", "shed"}
    assert about(site, counters={"shed": 3, "waiting": 0}) == {"missing"}, "it was, and is no longer"


def answers(now: float, share: float, ago: tuple[float, float], devices: int = 20) -> np.ndarray:
    draw = rng(("alarms", share, ago))
    rows = np.zeros(3000, ANSWER)
    rows["time"] = now - draw.uniform(*ago, 3000)
    rows["device"] = draw.integers(0, devices, 3000)
    rows["asked"] = draw.random(3000) < share
    rows["agreed"] = -1
    return rows


@pytest.mark.parametrize(("share", "found"), [(0.4, {"drift asking"}), (0.2, set()), (0.05, set())])
def test_drift_is_told_where_a_share_got_worse(share: float, found: set[str]) -> None:
    now = 1e9
    both = np.concatenate([answers(now, 0.2, (2 * 3600, 5 * DAY)), answers(now, share, (0, 3000))])
    told = Told(both, NOTHING.corrections, tuple(map(str, range(20))), 1)
    seen = list(drift(told, now))
    assert {each.about for each in seen} == found
    for each in seen:
        old, new = (both["asked"][part].mean() for part in (slice(3000), slice(3000, None)))
        assert each.fault == f"more is asked of the cloud: {new:.1%} in the last hour, {old:.1%} in the week before"


def test_few_devices_are_no_drift() -> None:
    now = 1e9
    both = np.concatenate([answers(now, 0.1, (2 * 3600, 5 * DAY), 2), answers(now, 0.9, (0, 3000), 2)])
    assert list(drift(Told(both, NOTHING.corrections, ("a", "b"), 1), now)) == []


def test_an_alarm_reads_what_devices_told(site: Site) -> None:
    assert alarms(site, Observed(site.feedback).told()) == []
    assert told_of.NEWEST < told_of.BEFORE
