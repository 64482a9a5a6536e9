"""Metrics say what has happened: each number is derived here from what was done."""

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sql
from prometheus_client.parser import text_string_to_metric_families

from duetto import tree as trees
from duetto.cloud.app import App
from duetto.cloud.batcher import Batcher, Overloaded
from duetto.cloud.metrics import STORED_SECONDS, Metrics
from duetto.cloud.presence import Presence, Present
from duetto.cloud.service import Service
from duetto.cloud.site import Site
from duetto.protocols.deliver import Entry
from duetto.protocols.probe import Echo
from duetto.transport import vocabulary
from duetto.transport.identity import made_key, requested
from duetto.transport.session import Question, Said

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def told(metrics: Metrics) -> Samples:
    page = asyncio.run(metrics.page()).decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def of(samples: Samples, name: str, **labels: str) -> float:
    return samples[name, tuple(sorted(labels.items()))]


def question(rows: int = 1, **given: Any) -> Question:
    number, description = vocabulary.written(Echo())
    body = trees.encode({"x": np.zeros((rows, 2))})
    return Question(given.get("number", number), given.get("description", description), ("k",), body)


def test_asks_are_counted_by_skill_and_outcome(site: Site) -> None:
    service = Service(App(site).party)
    metrics = Metrics(site, service)
    asked = question()

    async def main() -> None:
        assert (await service.answering("phone-1", asked)).failure == ""
        stranger = '{"class":"Mine","settings":{}}'
        refused = await service.answering("phone-1", question(number=7, description=stranger))
        assert refused.failure

    asyncio.run(main())
    found = told(metrics)
    assert of(found, "duetto_asks_total", skill="Echo", outcome="answered") == 1
    assert of(found, "duetto_asks_total", skill="unknown", outcome="refused") == 1
    assert of(found, "duetto_ask_seconds_count", skill="Echo") == 1
    assert 0 < of(found, "duetto_ask_seconds_sum", skill="Echo") < 60
    assert of(found, "duetto_ask_body_bytes_sum", skill="Echo", direction="received") == len(asked.body)


def test_what_is_shed_and_what_is_withdrawn_are_told_apart(site: Site) -> None:
    service = Service(App(site).party)

    async def busy(sender: str, question: Question) -> Said:
        if sender == "late":
            await asyncio.sleep(60)
        if sender == "broken":
            raise RuntimeError("no")
        return Said(failure="busy", metrics={"retry_after": 1.0})

    service.answering = busy
    metrics = Metrics(site, service)

    async def main() -> None:
        await service.answering("early", question())
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(service.answering("late", question()), 0.01)
        with pytest.raises(RuntimeError):
            await service.answering("broken", question())

    asyncio.run(main())
    found = told(metrics)
    outcomes = ("shed", "withdrawn", "refused")
    assert [of(found, "duetto_asks_total", skill="Echo", outcome=each) for each in outcomes] == [1, 1, 1]


def test_the_batcher_is_told(site: Site) -> None:
    batcher = Batcher(max_waiting=3)
    service = Service(App(site).party, uses=batcher)
    metrics = Metrics(site, service)

    async def main() -> Samples:
        async with batcher:
            tree = {"x": np.zeros((1, 2))}
            uses = [batcher.use(Echo(), service.running.local, tree, ("k", n), "me") for n in range(4)]
            outcomes = await asyncio.gather(*uses, return_exceptions=True)
            assert [isinstance(each, Overloaded) for each in outcomes] == [False, False, False, True]
            return told_now(await metrics.page())

    def told_now(page: bytes) -> Samples:
        families = text_string_to_metric_families(page.decode())
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in families
            for sample in family.samples
        }

    found = asyncio.run(main())
    assert of(found, "duetto_batcher_uses_total", outcome="answered") == 3
    assert of(found, "duetto_batcher_uses_total", outcome="shed") == 1
    assert of(found, "duetto_batch_rows_bucket", le="4.0") == 1, "one batch of three rows"
    assert of(found, "duetto_batch_rows_sum") == 3
    assert of(found, "duetto_batcher_queue") == 0


def test_what_is_stored_is_told(site: Site) -> None:
    site.feedback.keep("phone-1", bytes(16), [Entry(1, "record", b"a"), Entry(5, "record", b"b")])
    for name in ("phone-1", "phone-2"):
        site.enrolment.enrol(site.enrolment.token(name, issuer="test"), requested(made_key(), name))
    site.enrolment.revoke("phone-2", "stolen")
    for n in (1, 2):
        site.registry.add("small", {"onnx": site.registry.blobs.put(b"%d" % n)}, by="test")
    site.registry.promote("small", 2, "stable", by="test", why="x")
    site.registry.pause("small", "canary", by="test", why="x")
    Presence(site.engine, "other").tell({"phone-1": Present("phone-1", "other", 1.0, "duetto 1", None)})
    found = told(Metrics(site))
    assert of(found, "duetto_database_up") == 1
    assert of(found, "duetto_feedback_entries", kind="record") == 2
    assert of(found, "duetto_feedback_missing_entries", why="expected") == 3, "2, 3 and 4 have not come"
    assert of(found, "duetto_feedback_missing_entries", why="dropped") == 0
    assert of(found, "duetto_devices_enrolled", state="admitted") == 1
    assert of(found, "duetto_devices_enrolled", state="revoked") == 1
    assert of(found, "duetto_fleet_connected") == 1
    assert of(found, "duetto_model_version", model="small", channel="stable") == 2
    assert ("duetto_model_version", (("channel", "canary"), ("model", "small"))) not in found
    assert of(found, "duetto_channel_paused", model="small", channel="canary") == 1
    assert of(found, "duetto_channel_paused", model="small", channel="stable") == 0
    stamped = of(found, "duetto_expires_timestamp_seconds", of="releases timestamp")
    assert stamped == site.releases.expiries()["timestamp"].timestamp()
    assert of(found, "duetto_expires_timestamp_seconds", of="server certificate") > stamped


def test_the_database_is_read_now_and_then(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("duetto.cloud.metrics.time.monotonic", lambda: now[0])
    metrics = Metrics(site)
    assert ("duetto_feedback_entries", (("kind", "record"),)) not in told(metrics)
    site.feedback.keep("phone-1", bytes(16), [Entry(1, "record", b"a")])
    assert ("duetto_feedback_entries", (("kind", "record"),)) not in told(metrics)
    now[0] += STORED_SECONDS
    assert of(told(metrics), "duetto_feedback_entries", kind="record") == 1


def test_a_database_out_of_reach_is_a_number(site: Site) -> None:
    metrics = Metrics(site)
    with site.engine.begin() as connection:
        connection.execute(sql.text("DROP TABLE feedback"))
    found = told(metrics)
    assert of(found, "duetto_database_up") == 0
    assert of(found, "duetto_expires_timestamp_seconds", of="authority") > 0
    assert not any(name == "duetto_feedback_entries" for name, _ in found)


def test_every_metric_says_what_it_is_and_is_explained(site: Site) -> None:
    """By docs/operate.md, under its name; units are in names."""
    service = Service(App(site).party, uses=Batcher())
    page = asyncio.run(Metrics(site, service).page()).decode()
    operate = (Path(__file__).parents[2] / "docs" / "operate.md").read_text(encoding="utf-8")
    families = [family for family in text_string_to_metric_families(page) if family.name.startswith("duetto_")]
    assert len(families) >= 20
    for family in families:
        assert family.documentation
        assert f"`{family.name}" in operate, family.name
