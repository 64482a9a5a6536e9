"""What the console stands on: a login by cookie, figures, alarms, trials, rounds, live events and exports."""

import asyncio
import csv
import io
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import numpy as np
import pytest
from asking import Asking, asked

from duetto import tree as trees
from duetto.cloud.admin import live
from duetto.cloud.admin.access import COOKIE, Administered
from duetto.cloud.admin.alarms import Watch
from duetto.cloud.admin.app import application
from duetto.cloud.presence import Presence, Present
from duetto.cloud.promotion import Promotion
from duetto.cloud.site import Site
from duetto.protocols.deliver import FEEDBACK, RECORD, Entry
from duetto.transport.identity import made_key, requested

HERE = {"origin": "http://cloud"}


def record(number: int, *, asked: bool = True, agreed: bool = True, model: int = 1, **changed: Any) -> Entry:
    told = {"by": "cloud" if asked else "a", "asked": asked, "label": 1, "own": 1, "base": 1 if agreed else 0}
    told |= {"model": model, "time": time.time(), "cost": {"seconds": 0.5, "up_bytes": 100, "dollars": 0.25}}
    return Entry(number, RECORD, json.dumps({**told, **changed}).encode())


def keep(site: Site, device: str, *entries: Entry) -> None:
    site.feedback.keep(device, device.encode().ljust(16, b"-"), entries)


def enrolled(site: Site, name: str) -> None:
    site.enrolment.enrol(site.enrolment.token(name, issuer="test"), requested(made_key(), name))


def here(site: Site, name: str, software: str = "duetto 1 (pixel-7)", version: int | None = 1) -> None:
    Presence(site.engine, name).tell({name: Present(name, name, time.time(), software, version)})


# ------------------------------------------------------------------------------------------------------------ login


def browser(app: Any, *steps: tuple[str, str, dict[str, Any]]) -> list[httpx.Response]:
    """A browser's requests, one after the other: it keeps cookies, and says where its page is from."""

    async def go() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://cloud") as client:
            return [await client.request(method, path, **given) for method, path, given in steps]

    return asyncio.run(go())


def test_a_token_logs_in_once_and_the_cookie_is_for_this_page_alone(app: Any, site: Site) -> None:
    token = site.operators.add("anna", "operator")
    enrolled(site, "phone-1")
    act = {"json": {"why": "lost"}}
    before, login, me, foreign, nowhere, own, out, after = browser(
        app,
        ("GET", "/api/v1/fleet", {}),
        ("POST", "/login", {"json": {"token": token}, "headers": HERE}),
        ("GET", "/me", {}),
        ("POST", "/api/v1/fleet/phone-1/revoke", {**act, "headers": {"origin": "http://evil"}}),
        ("POST", "/api/v1/fleet/phone-1/revoke", act),
        ("POST", "/api/v1/fleet/phone-1/revoke", {**act, "headers": HERE}),
        ("POST", "/logout", {"headers": HERE}),
        ("GET", "/me", {}),
    )
    assert before.status_code == 401
    assert (login.status_code, login.json()["name"], me.json()["role"]) == (200, "anna", "operator")
    cookie = login.headers["set-cookie"]
    assert cookie.startswith(f"{COOKIE}={token};")
    assert {"HttpOnly", "SameSite=strict", "Path=/"} <= {word.strip() for word in cookie.split(";")}
    assert foreign.status_code == nowhere.status_code == 403
    assert foreign.json()["fault"] == "a request of another page"
    assert (own.status_code, out.status_code, after.status_code) == (200, 204, 401)
    assert [line.action for line in site.audit.newest()] == ["revoke"]


def test_over_tls_the_cookie_stays_there(site: Site) -> None:
    app = application(site, tls=True)
    token = site.operators.add("anna", "viewer")
    (login,) = browser(app, ("POST", "/login", {"json": {"token": token}, "headers": HERE}))
    assert "Secure" in login.headers["set-cookie"]


def test_a_wrong_token_lets_nobody_in_and_guessing_waits(app: Any) -> None:
    step = ("POST", "/login", {"json": {"token": "duetto_guess"}, "headers": HERE})
    found = browser(app, *[step] * 11)
    assert [each.status_code for each in found] == [401] * 10 + [429]
    assert not any("set-cookie" in each.headers for each in found)
    (elsewhere,) = browser(app, ("POST", "/login", {"json": {"token": "x"}, "headers": {"origin": "http://evil"}}))
    assert elsewhere.status_code == 403


def test_a_token_that_is_taken_back_is_out_with_its_cookie(app: Any, site: Site) -> None:
    token = site.operators.add("anna", "operator")

    async def go() -> list[int]:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://cloud", cookies={COOKIE: token}) as client:
            first = await client.get("/me")
            site.operators.revoke("anna")
            return [first.status_code, (await client.get("/me")).status_code]

    assert asyncio.run(go()) == [200, 401]


def test_without_a_build_it_says_how_to_make_one(app: Any) -> None:
    page = asked(app, "GET", "/")
    assert page.status_code == 200
    assert "make page" in page.text or "/app.js" in page.text


# ---------------------------------------------------------------------------------------------------------- figures


def test_quality_over_time_by_device_and_by_release(vera: Asking, site: Site) -> None:
    keep(site, "a", *(record(i, asked=i % 2 == 0, agreed=i % 4 == 0, model=1) for i in range(1, 9)))
    keep(site, "b", *(record(i, model=2) for i in range(1, 3)))
    told = {"label": np.int64(1), "logits": np.array([0.0, 1.0])}
    keep(site, "c", Entry(1, FEEDBACK, trees.encode(told)))

    found = vera.get("/api/v1/quality?window=600&spans=10")
    assert found["whole"]["answers"] == [10]
    assert sum(found["spans"]["answers"]) == 10
    assert found["whole"]["asked"]["all"] == [pytest.approx(6 / 10)]
    assert found["whole"]["agreed"]["all"] == [pytest.approx(4 / 6)]
    assert found["whole"]["asked"]["middle"] == [pytest.approx(0.5)], "b has told of too few answers"
    assert found["whole"]["right"]["n"] == [1]
    assert found["whole"]["dollars"] == [pytest.approx(0.25)]
    assert [(each["release"], each["answers"]) for each in found["releases"]] == [(2, 2), (1, 8)]
    assert vera.get("/api/v1/quality?prefix=b")["whole"]["answers"] == [2]
    assert vera.get("/api/v1/quality?release=1")["whole"]["answers"] == [8]
    assert vera.get("/api/v1/quality?device=a")["whole"]["answers"] == [8]

    rows = vera.get("/api/v1/quality/devices?by=agreed")
    assert [(each["device"], each["agreed"]) for each in rows["devices"]] == [("a", 0.5), ("b", 1.0)]
    assert vera.get("/api/v1/quality/devices?by=answers&falling=true&limit=1")["devices"][0]["device"] == "a"
    assert rows["all"] == 2
    for wrong in ("window=0", "spans=0", "release=x", "prefix=%00"):
        vera.get(f"/api/v1/quality?{wrong}", 422)
    vera.get("/api/v1/quality/devices?by=name", 422)


def test_the_fleet_by_release_and_by_profile(vera: Asking, site: Site) -> None:
    for name in ("a", "b", "c"):
        enrolled(site, name)
    here(site, "a")
    here(site, "b", software="duetto 1", version=None)
    keep(site, "a", record(1, model=7))
    found = vera.get("/api/v1/fleet")
    assert (found["versions"], found["profiles"]) == ({"7": 1, "none": 1}, {"not told": 1, "pixel-7": 1})
    assert {row["name"]: (row["version"], row["profile"]) for row in found["devices"]} == {
        "a": (7, "pixel-7"),  # its newest answer is of release 7, whatever it had as it connected
        "b": (None, None),
        "c": (None, None),
    }
    assert [row["name"] for row in vera.get("/api/v1/fleet?version=7")["devices"]] == ["a"]
    assert [row["name"] for row in vera.get("/api/v1/fleet?profile=pixel-7&state=offline")["devices"]] == []
    assert [row["name"] for row in vera.get("/api/v1/fleet?state=offline")["devices"]] == ["c"]


def test_alarms_are_told(app: Any, vera: Asking, site: Site) -> None:
    assert vera.get("/api/v1/alarms") == []
    keep(site, "a", record(3))
    assert vera.get("/api/v1/alarms") == [], "the look before is new enough"
    app.state.watch = Watch(app.state.administered, 0.0)
    (alarm,) = vera.get("/api/v1/alarms")
    assert set(alarm) == {"level", "about", "fault", "remedy"}
    assert alarm["about"] == "missing"


# ----------------------------------------------------------------------------------------------------------- models


@pytest.fixture
def tried(site: Site) -> Site:
    """Version 2 is tried beside version 1; both run on devices."""
    from duetto.cloud.channels import offered

    for count in (1, 2):
        digest = site.registry.blobs.put(bytes([count]) * 9)
        site.registry.add("small", {"device": digest}, by="test")
    for version, channel in ((1, "stable"), (2, "canary")):
        site.registry.promote("small", version, channel, by="test", why="first")
    offered(site, "small", 0.5)
    return site


def test_a_trial_is_told_as_the_rule_sees_it(tried: Site) -> None:
    rule = Promotion(window=40, looks=1, devices=2, margin=0.2)
    app = application(tried, rule=rule)
    vera = Asking(app, tried.operators.add("vera", "viewer"))
    found = vera.get("/api/v1/models/small/trial")
    assert (found["canary"], found["stable"], found["releases"]) == (2, 1, [2, 1])
    assert (found["heard"], found["verdict"]["move"]) == (0, "wait")
    assert [each["after"] for each in found["shares"]] == [None] * 3
    for device, release in (("a", 2), ("b", 2), ("c", 1), ("d", 1)):
        keep(tried, device, *(record(i, model=release, agreed=release == 1) for i in range(1, 21)))
    found = vera.get("/api/v1/models/small/trial")
    assert (found["heard"], found["devices"], found["verdict"]["move"]) == (40, 2, "back")
    agreement = found["shares"][0]
    assert agreement["name"] == "agreement"
    assert agreement["after"][0] == pytest.approx(1 / 42)  # Agresti and Caffo: one more of each
    assert agreement["before"][0] == pytest.approx(41 / 42)
    tried.registry.promote("small", 1, "canary", by="test", why="back")
    assert vera.get("/api/v1/models/small/trial") is None


def test_what_is_promoted_is_offered_to_devices_at_once(anna: Asking, tried: Site) -> None:
    moved = anna.post("/models/small/channels/stable/promote", version=2, expected=1, why="better")
    assert (moved["version"], moved["pending"]) == (2, None)
    assert moved["releases"] == [2], "what the canary has tried goes to all under its number"
    offered = {each.channel: each.version for each in tried.releases.releases()}
    assert offered == {"stable": 2, "canary": 2}
    back = anna.post("/models/small/channels/stable/roll-back", expected=2, why="complaints")
    assert (back["version"], back["releases"]) == (1, [3]), "an old artefact, under a higher number"


def test_what_cannot_be_signed_here_stands_and_is_said(anna: Asking, tried: Site) -> None:
    for key in (tried.folder / "keys").iterdir():
        key.unlink()
    moved = anna.post("/models/small/channels/stable/promote", version=2, expected=1, why="better")
    assert (moved["version"], moved["releases"]) == (2, [])
    assert moved["pending"]
    stable = tried.registry.channel("small", "stable")
    assert stable is not None
    assert stable.number == 2


def test_rounds_are_told(vera: Asking, site: Site) -> None:
    digest = site.registry.blobs.put(b"x")
    log = [{"cohort": 3.0, "failed": 1.0, "seconds": 2.0, "up_bytes": 10.0, "down_bytes": 20.0, "loss": 0.5}]
    told = {"rounds": 1, "replies": 2, "log": log, "metrics": {"gain": {"user_mean": 0.1, "low": 0.0, "high": 0.2}}}
    site.registry.add("small", {"device": digest}, by="teacher")
    site.registry.add("small", {"device": digest}, by="teacher", trained_from=told)
    (found,) = vera.get("/api/v1/rounds")
    assert (found["version"], found["of"], found["replies"], found["rounds"]) == (2, 1, 2, log)
    assert found["gain"]["high"] == 0.2

    # others begin from stable: they go on until a version has come
    site.registry.promote("small", 1, "stable", by="test", why="first")
    going = {"of": 5, "log": log, "newest": 2, "unix_seconds": 1.0}
    site.registry.measure("small", 1, {"rounds": going}, by="teacher")
    under_way, made = vera.get("/api/v1/rounds")
    assert made == found
    assert (under_way["version"], under_way["of"], under_way["replies"]) == (None, 5, 2)
    site.registry.add("small", {"device": digest}, by="teacher")
    assert [each["version"] for each in vera.get("/api/v1/rounds")] == [2]


# ------------------------------------------------------------------------------------------------------------- live


def events(cloud: Administered, count: int, who: Any) -> list[str]:
    async def hear() -> list[str]:
        found: list[str] = []
        told: AsyncIterator[str] = live.events(cloud, live.Beating(cloud), who)
        async for each in told:
            found.append(each)
            if len(found) == count:
                break
        return found

    return asyncio.run(hear())


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SECONDS", "KNOWN_SECONDS"):
        monkeypatch.setattr(live, name, 0.01)


@pytest.mark.usefixtures("quick")
def test_live_is_what_has_changed(app: Any, site: Site) -> None:
    site.operators.add("vera", "viewer")
    (vera,) = site.operators.all()
    cloud = app.state.administered
    (first,) = events(cloud, 1, vera)
    assert first.startswith("data: ")
    assert first.endswith("\n\n")
    before = json.loads(first.removeprefix("data: "))
    assert (before["online"], before["answers"], before["asked"]) == (0, 0, None)
    here(site, "a")
    keep(site, "a", record(1), record(2, asked=False))
    site.audit.add("anna", "look", {})
    after = json.loads(events(cloud, 1, vera)[0].removeprefix("data: "))
    assert (after["online"], after["answers"], after["asked"], after["audit"]) == (1, 2, 0.5, 1)
    assert after["arrival"] > before["arrival"]


@pytest.mark.usefixtures("quick")
def test_live_ends_with_the_token(app: Any, site: Site) -> None:
    site.operators.add("vera", "viewer")
    (vera,) = site.operators.all()
    site.operators.revoke("vera")
    told = events(app.state.administered, 1000, vera)
    assert told[-1] == "event: over\ndata: {}\n\n"


@pytest.mark.usefixtures("quick")
def test_a_database_that_is_gone_is_told_and_live_goes_on(
    app: Any, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    from duetto.errors import DataError

    site.operators.add("vera", "viewer")
    (vera,) = site.operators.all()

    def gone(cloud: Administered) -> None:
        raise DataError("no database", "start it")

    monkeypatch.setattr(live, "pulse", gone)
    (told,) = events(app.state.administered, 1, vera)
    assert told == 'event: fault\ndata: {"fault": "no database", "remedy": "start it"}\n\n'


# ---------------------------------------------------------------------------------------------------------- exports


def rows(vera: Asking, path: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(vera.get(f"/api/v1/exports/{path}"), newline="")))


def test_exports_are_whole_and_filtered(vera: Asking, site: Site) -> None:
    for name in ("a-1", "a-2", "b"):
        enrolled(site, name)
    keep(site, "a-1", record(1), record(2, asked=False))
    for count in range(3):
        site.audit.add("anna", "promote" if count else "pause", {"count": count})
    assert [row["name"] for row in rows(vera, "fleet.csv?prefix=a")] == ["a-1", "a-2"]
    over_time = rows(vera, "quality.csv?window=600")
    assert len(over_time) == 60
    assert sum(int(row["answers"]) for row in over_time) == 2
    assert {"asked_all", "asked_middle", "seconds_p95", "dollars"} <= set(over_time[0])
    (device,) = rows(vera, "devices.csv")
    assert (device["device"], float(device["asked"]), float(device["seconds_p50"])) == ("a-1", 0.5, 0.5)
    assert [row["number"] for row in rows(vera, "audit.csv?action=promote")] == ["3", "2"]
    assert len(rows(vera, "audit.csv?by=ANN")) == 3
    site.registry.add("small", {"device": site.registry.blobs.put(b"x")}, by="test")
    assert [(row["model"], row["version"]) for row in rows(vera, "models.csv")] == [("small", "1")]


def test_a_name_is_no_formula(vera: Asking, site: Site) -> None:
    site.audit.add("=cmd()", "@sum", {"x": -1})
    (row,) = rows(vera, "audit.csv")
    assert (row["who"], row["action"], row["number"]) == ("'=cmd()", "'@sum", "1")


def test_nothing_is_an_empty_file(vera: Asking) -> None:
    answer = vera.get("/api/v1/exports/fleet.csv")
    assert answer == ""
