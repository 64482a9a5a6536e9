"""What devices tell, as columns: all of it once, nothing that was forgotten, nothing that is no sense."""

import json
from typing import Any

import numpy as np

from duetto import tree as trees
from duetto.cloud.observed import Observed
from duetto.cloud.site import Site
from duetto.protocols.deliver import FEEDBACK, RECORD, Entry


def said(number: int, **changed: Any) -> Entry:
    """An entry as a device makes it (:meth:`duetto.device.agent.Device._record`)."""
    cost = {"seconds": 0.25, "up_bytes": 300, "down_bytes": 40, "joules": 0.5, "dollars": 0.001}
    told = {"by": "cloud", "asked": True, "label": 1, "own": 1, "base": 1, "model": 3, "time": 1000.0, "cost": cost}
    return Entry(number, RECORD, json.dumps({**told, **changed}).encode())


def corrected(number: int, label: int) -> Entry:
    told = {"label": np.int64(label), "logits": np.array([0.1, 0.9, 0.2]), "number": np.int64(number)}
    return Entry(number, FEEDBACK, trees.encode(told))


def keep(site: Site, device: str, *entries: Entry) -> None:
    site.feedback.keep(device, device.encode().ljust(16, b"-"), entries)


def test_answers_are_read_as_devices_tell_them(site: Site) -> None:
    observed = Observed(site.feedback)
    assert observed.told().arrival == 0
    keep(site, "a", said(1), said(2, base=0, label=1), said(3, by="a", asked=False, cost=None), said(4, base=None))
    keep(site, "b", corrected(1, 1), corrected(2, 2))
    told = observed.told()
    assert told.devices == ("a", "b")
    assert told.releases() == {"a": 3}
    answers = told.answers
    assert answers["asked"].tolist() == [True, True, False, True]
    assert answers["agreed"].tolist() == [1, 0, -1, -1]  # -1: not asked; or no answer of its own
    assert answers["failed"].tolist() == [False, False, False, True]
    assert answers["release"].tolist() == [3] * 4
    assert answers["time"].tolist() == [1000.0] * 4
    np.testing.assert_allclose(answers["bytes"], [340, 340, 0, 340])
    np.testing.assert_allclose(answers["seconds"], [0.25, 0.25, 0, 0.25])
    assert told.corrections["right"].tolist() == [True, False]
    assert told.corrections["device"].tolist() == [1, 1]

    keep(site, "a", said(5))
    assert len(observed.told().answers) == 5
    assert len(answers) == 4, "a look stays what it was"


def test_nonsense_is_left_out_and_what_is_no_number_counts_nothing(site: Site) -> None:
    keep(
        site,
        "a",
        Entry(1, RECORD, b"{"),
        said(2, model="x"),
        said(3, time=1e300, cost={"seconds": -1, "up_bytes": "much", "joules": True, "dollars": float("inf")}),
        Entry(4, FEEDBACK, b"no tree"),
        Entry(5, FEEDBACK, trees.encode({"label": np.int64(1)})),
    )
    told = Observed(site.feedback).told()
    assert len(told.corrections) == 0
    (row,) = told.answers
    assert (row["seconds"], row["bytes"], row["joules"], row["dollars"]) == (0, 0, 0, 0)
    (kept,) = [each for each in site.feedback.arrivals(kinds=(RECORD,)) if b"1e+300" in each.body]
    assert row["time"] == kept.unix_seconds, "nobody answers after they told of it"


def test_what_is_forgotten_is_not_shown_any_longer(site: Site) -> None:
    observed = Observed(site.feedback)
    keep(site, "a", said(1), said(2))
    keep(site, "b", said(1))
    assert len(observed.told().answers) == 3
    site.feedback.forget("a")
    told = observed.told()
    assert [told.devices[row["device"]] for row in told.answers] == ["b"]
    keep(site, "a", said(3))
    assert len(observed.told().answers) == 2


def test_the_newest_are_kept(site: Site) -> None:
    observed = Observed(site.feedback, most=1000)
    keep(site, "a", *(said(i, time=float(i)) for i in range(1, 3001)))
    times = observed.told().answers["time"].tolist()
    assert times == list(range(3001 - len(times), 3001))
    assert 1000 <= len(times) <= 1300
