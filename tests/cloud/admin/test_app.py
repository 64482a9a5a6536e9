"""The administration over HTTP: who may, what it tells, what it does, and that all of it is told."""

import asyncio
import json
import re
import ssl
import urllib.request
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from asking import Asking, asked

from duetto.cloud.admin.app import application, serving
from duetto.cloud.app import App
from duetto.cloud.presence import Presence, Present
from duetto.cloud.service import Service
from duetto.cloud.site import Site
from duetto.cloud.web import Throttle
from duetto.errors import ConfigError
from duetto.protocols.deliver import Entry
from duetto.transport.identity import made_key, requested


def enrolled(site: Site, name: str) -> None:
    site.enrolment.enrol(site.enrolment.token(name, issuer="test"), requested(made_key(), name))


def routes(app: Any) -> list[tuple[str, str]]:
    found = json.loads(asked(app, "GET", "/api/v1/openapi.json").text)["paths"]
    return [(method.upper(), path) for path, methods in found.items() for method in methods]


# -------------------------------------------------------------------------------------------------------- who may


def test_everything_but_health_wants_a_token(app: Any) -> None:
    filled = [(method, re.sub(r"\{\w+\}", "1", path)) for method, path in routes(app)]
    assert len(filled) > 20
    for method, path in filled:
        answer = asked(app, method, path)
        if path in {"/healthz", "/readyz"}:
            assert answer.status_code == 200
        else:
            assert answer.status_code == 401, path
            assert answer.json()["fault"] == "no token"
            assert answer.headers["www-authenticate"] == "Bearer"


def test_a_viewer_may_do_nothing(vera: Asking, site: Site, app: Any) -> None:
    acts = [path for method, path in routes(app) if method != "GET"]
    assert len(acts) == 7
    for path in acts:
        filled = path.replace("{model}", "small").replace("{channel}", "stable").replace("{name}", "phone-1")
        body = {"why": "x", "version": 1, "device": "phone-1"}
        told = vera.post(filled.removeprefix("/api/v1"), 403, **body)
        assert told == {"fault": "vera is a viewer", "remedy": "ask an operator, or for a token of that role"}
    vera.get("/api/v1/operators", 403)
    assert site.audit.newest() == []


def test_a_token_that_was_taken_back_is_refused_at_once(anna: Asking, site: Site) -> None:
    anna.get("/api/v1/fleet")
    site.operators.revoke("anna")
    assert anna.get("/api/v1/fleet", 401)["fault"] == "a token that is unknown, or holds no longer"


def test_who_guesses_waits(app: Any, anna: Asking) -> None:
    guessing = Asking(app, "duetto_guess")
    for _ in range(10):
        guessing.get("/api/v1/fleet", 401)
    assert guessing.get("/api/v1/fleet", 429)["fault"] == "too many wrong tokens from this address"
    assert anna.get("/api/v1/fleet", 429)["remedy"].startswith("wait "), "a token that holds, from there, waits too"


def test_failures_are_forgotten() -> None:
    now = [0.0]
    throttle = Throttle(2, 10.0, lambda: now[0])
    throttle.failed("a")
    assert throttle.wait("a") == 0
    now[0] = 4.0
    throttle.failed("a")
    assert (throttle.wait("a"), throttle.wait("b")) == (6.0, 0.0)
    now[0] = 10.0
    assert throttle.wait("a") == 0
    throttle.failed("a")
    assert throttle.wait("a") == 4.0, "two within ten seconds: at 4 and at 10"


def test_what_is_said_is_for_nobody_else(app: Any, site: Site) -> None:
    headers = asked(app, "GET", "/api/v1/fleet").headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["cache-control"] == "no-store"
    policy = dict(each.strip().split(" ", 1) for each in headers["content-security-policy"].split(";"))
    assert policy["default-src"] == policy["frame-ancestors"] == policy["form-action"] == "'none'"
    assert {word for words in policy.values() for word in words.split()} == {"'none'", "'self'", "data:"}
    assert "strict-transport-security" not in headers
    assert "strict-transport-security" in asked(application(site, tls=True), "GET", "/healthz").headers


def test_a_long_body_is_not_read(app: Any) -> None:
    async def endless() -> AsyncIterator[bytes]:
        yield b"x"

    for body in (b"x" * 70_000, endless()):
        answer = asked(app, "POST", "/api/v1/tokens", content=body)
        assert answer.status_code == 413
        assert set(answer.json()) == {"fault", "remedy"}


def test_errors_are_one_line(anna: Asking) -> None:
    assert anna.post("/tokens", 422, device="../x")["fault"].startswith("body.device: ")
    assert anna.post("/tokens", 422, device="phone-1", hours=-1)["fault"].startswith("body.hours: ")
    anna.post("/fleet/phone-1/revoke", 422, why="  ")
    assert anna.get("/api/v1/nothing", 404)["fault"] == "not found"
    anna.get("/api/v1/fleet?limit=0", 422)
    anna.get("/api/v1/models/small/channels/beta", 422)


# ------------------------------------------------------------------------------------------------------ the fleet


def test_the_fleet_is_told(site: Site, vera: Asking) -> None:
    for name in ("phone-1", "phone-2", "tablet-1"):
        enrolled(site, name)
    site.enrolment.revoke("phone-2", "stolen")
    other = Presence(site.engine, "another process")
    other.tell({"phone-1": Present("phone-1", other.process, 12.0, "duetto 1", 7)})
    told = vera.get("/api/v1/fleet")
    assert (told["online"], told["admitted"], told["revoked"], told["next"]) == (1, 2, 1, None)
    assert [(each["name"], each["online"]) for each in told["devices"]] == [
        ("phone-1", True),
        ("phone-2", False),
        ("tablet-1", False),
    ]
    assert {name: told["devices"][0][name] for name in ("since", "process", "software", "version")} == {
        "since": 12.0,
        "process": "another process",
        "software": "duetto 1",
        "version": 7,
    }
    assert told["devices"][1]["reason"] == "stolen"

    def names(query: str) -> list[str]:
        return [each["name"] for each in vera.get(f"/api/v1/fleet?{query}")["devices"]]

    assert names("state=online") == ["phone-1"]
    assert names("state=offline") == ["tablet-1"]
    assert names("state=revoked") == ["phone-2"]
    assert names("state=admitted") == ["phone-1", "tablet-1"]
    assert names("prefix=tab") == ["tablet-1"]
    assert names("prefix=p%25") == [], "a prefix is no pattern"
    assert names("limit=2") == ["phone-1", "phone-2"]
    assert vera.get("/api/v1/fleet?limit=2")["next"] == 2
    assert names("limit=2&offset=2") == ["tablet-1"]
    other.leave()
    assert names("state=online") == []
    assert [each["name"] for each in vera.get("/api/v1/fleet/phone-1")] == ["phone-1"]
    assert vera.get("/api/v1/fleet/nobody", 404)["fault"] == "no device nobody"


def test_a_process_that_was_killed_is_forgotten(site: Site) -> None:
    now = [1000.0]
    dead, alive = (Presence(site.engine, name, lambda: now[0]) for name in ("dead", "alive"))
    for each in (dead, alive):
        each.tell({each.process: Present(each.process, each.process, now[0], "duetto 1", None)})
    assert set(alive.all()) == {"dead", "alive"}
    now[0] += 59
    alive.tell({"alive": Present("alive", "alive", 1000.0, "duetto 1", None)})
    now[0] += 2
    assert set(alive.all()) == {"alive"}


def test_a_device_is_enrolled_by_a_token_and_revoked(site: Site, anna: Asking) -> None:
    made = anna.post("/tokens", 201, device="phone-*", hours=1)
    assert made["authority"].encode() == site.authority.certificate
    site.enrolment.enrol(made["token"], requested(made_key(), "phone-7"))
    gone = anna.post("/fleet/phone-7/revoke", why="stolen")
    assert (gone["name"], gone["reason"], gone["online"]) == ("phone-7", "stolen", False)
    assert not site.enrolment.admitted("phone-7", gone["fingerprint"])
    assert anna.post("/fleet/phone-7/revoke", 404, why="again")["fault"] == "no device phone-7 to revoke"
    told = [(line["action"], line["about"].get("device")) for line in anna.get("/api/v1/audit")["lines"]]
    assert told == [("refused", None), ("revoke", "phone-7"), ("revoke", "phone-7"), ("enroll", "phone-*")]
    assert all(made["token"] not in json.dumps(line) for line in anna.get("/api/v1/audit")["lines"])


def test_feedback_is_counted_and_forgotten(site: Site, anna: Asking) -> None:
    session = bytes(range(16))
    site.feedback.keep("phone-1", session, [Entry(1, "record", b"a"), Entry(4, "feedback", b"b")])
    assert anna.get("/api/v1/feedback") == {"devices": {"phone-1": {"feedback": 1, "record": 1}}}
    gap = {"device": "phone-1", "session": session.hex(), "first": 2, "last": 3, "told": False}
    assert anna.get("/api/v1/feedback/gaps") == [gap]
    assert anna.get("/api/v1/feedback/gaps?device=other") == []
    assert anna.post("/feedback/phone-1/forget", why="asked to") == {"entries": 2}
    assert anna.get("/api/v1/feedback") == {"devices": {}}


# ------------------------------------------------------------------------------------------------------ the models


@pytest.fixture
def versions(site: Site) -> Site:
    """Three versions of a model, each made from the one before; stable at the first."""
    for n in range(1, 4):
        digest = site.registry.blobs.put(f"weights {n}".encode())
        parents = [("small", n - 1)] if n > 1 else []
        site.registry.add("small", {"onnx": digest}, by="teacher", parents=parents, trained_from={"entries": n})
    site.registry.measure("small", 2, {"accuracy": {"mean": 0.9, "by_user": {"u1": 0.8}}}, by="teacher")
    site.registry.promote("small", 1, "stable", by="test", why="the first")
    return site


def test_models_are_told_with_where_they_come_from(versions: Site, vera: Asking) -> None:
    (small,) = vera.get("/api/v1/models")
    assert (small["name"], small["newest"]) == ("small", 3)
    assert [(each["channel"], each["version"], each["paused"]) for each in small["channels"]] == [
        ("canary", None, False),
        ("stable", 1, False),
    ]
    assert [each["number"] for each in vera.get("/api/v1/models/small")] == [1, 2, 3]
    second = vera.get("/api/v1/models/small/versions/2")
    assert second["version"]["parents"] == [["small", 1]]
    assert second["version"]["trained_from"] == {"entries": 2}
    assert second["children"] == [["small", 3]]
    assert second["metrics"]["accuracy"]["by_user"] == {"u1": 0.8}
    assert vera.get("/api/v1/models/small/versions/9", 404)["remedy"] == "the newest is 3"
    vera.get("/api/v1/models/other", 404)


def test_channels_move_where_they_are_expected_to(versions: Site, anna: Asking) -> None:
    channel = "/models/small/channels/stable"
    moved = anna.post(f"{channel}/promote", version=2, why="better", expected=1)
    assert (moved["version"], moved["before"], moved["by"]) == (2, 1, "anna")
    late = anna.post(f"{channel}/promote", 409, version=3, why="better", expected=1)
    assert late["fault"] == "stable of small points to 2, not to 1"
    anna.post(f"{channel}/promote", 404, version=9, why="better")
    assert anna.post(f"{channel}/pause", why="a holiday")["paused"]
    assert "paused (a holiday)" in anna.post(f"{channel}/promote", 409, version=3, why="better")["fault"]
    anna.post(f"{channel}/roll-back", 409, why="worse", expected=1)
    assert anna.post(f"{channel}/roll-back", why="worse", expected=2)["version"] == 1
    assert not anna.post(f"{channel}/go-on", why="back")["paused"]
    anna.post("/models/nothing/channels/stable/pause", 404, why="x")
    assert [(each["version"], each["back"]) for each in anna.get(f"/api/v1{channel}")] == [
        (1, False),
        (2, False),
        (1, True),
    ]
    told = [line["action"] for line in reversed(anna.get("/api/v1/audit")["lines"])]
    assert told == [
        *("promote", "promote", "refused", "promote", "refused", "pause", "promote", "refused"),
        *("roll back", "refused", "roll back", "go on", "pause", "refused"),
    ]
    assert anna.get("/api/v1/audit/check")["broken"] is None


def test_releases_are_told(site: Site, vera: Asking) -> None:
    site.releases.publish("small", 4, "stable", b"artefact")
    told = vera.get("/api/v1/releases")
    assert [(each["model"], each["version"], each["length"]) for each in told["releases"]] == [("small", 4, 8)]
    assert set(told["expires"]) == {"root", "targets", "snapshot", "timestamp", "stable", "canary"}


def test_the_audit_log_comes_in_pages(site: Site, vera: Asking) -> None:
    for n in range(5):
        head = site.audit.add("anna", "act", {"n": n}).hash
    first = vera.get("/api/v1/audit?limit=3")
    assert ([line["number"] for line in first["lines"]], first["next"]) == ([5, 4, 3], 3)
    second = vera.get("/api/v1/audit?limit=3&before=3")
    assert ([line["number"] for line in second["lines"]], second["next"]) == ([2, 1], None)
    assert vera.get(f"/api/v1/audit/check?known={head}") == {"lines": 5, "head": head, "broken": None, "known": True}


# --------------------------------------------------------------------------------------------------- this process


def test_health_and_readiness(app: Any, service: Service, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    asking = Asking(app, None)
    assert asking.get("/healthz")["alive"] is True
    assert asking.get("/readyz") == {"ready": True}
    service.over = True
    assert asking.get("/readyz", 503)["fault"] == "the service is ending"
    service.over = False
    site.engine.dispose()
    (site.folder / "duetto.db").rename(site.folder / "away")
    (site.folder / "duetto.db").mkdir()
    assert asking.get("/readyz", 503)["fault"] == "the database cannot be used"
    assert asking.get("/healthz")["alive"] is True


def test_metrics_are_for_who_has_a_token(app: Any, vera: Asking) -> None:
    assert "duetto_build_info" in vera.get("/metrics")
    Asking(app, None).get("/metrics", 401)


def test_all_of_it_is_described(app: Any) -> None:
    told = asked(app, "GET", "/api/v1/openapi.json").json()
    for path, methods in told["paths"].items():
        for method, about in methods.items():
            assert about["description"], path
            answers = about["responses"]
            assert "200" in answers or "201" in answers
            if path.startswith("/api/"):
                assert about["security"] == [{"HTTPBearer": []}]
                for status in ("401", "403", "422", "429", "503"):
                    assert answers[status]["content"]["application/json"]["schema"]["$ref"].endswith("/Fault")
            assert method in {"get", "post"}


def served(site: Site, address: str, ask: Callable[[str], Any]) -> Any:
    """What a client in another thread gets while the administration is really served."""

    async def main() -> Any:
        urls: list[str] = []
        async with serving(site, address, urls.append)(Service(App(site).party)):
            return await asyncio.to_thread(ask, urls[0])

    return asyncio.run(main())


def test_it_is_served_in_the_loop_of_the_service(site: Site) -> None:
    token = site.operators.add("anna", "operator")

    def ask(url: str) -> Any:
        assert url.startswith("http://127.0.0.1:")
        asked = urllib.request.Request(f"{url}/api/v1/fleet", headers={"Authorization": f"Bearer {token}"})
        with urllib.request.urlopen(asked, timeout=20) as answer:
            return json.load(answer)

    assert served(site, "127.0.0.1:0", ask)["devices"] == []


def test_elsewhere_it_speaks_tls_with_the_server_s_certificate(site: Site) -> None:
    def ask(url: str) -> Any:
        assert url.startswith("https://0.0.0.0:")
        known = ssl.create_default_context(cafile=site.folder / "authority" / "authority.pem")
        with urllib.request.urlopen(url.replace("0.0.0.0", "localhost") + "/healthz", context=known) as answer:
            assert "strict-transport-security" in answer.headers
            return json.load(answer)

    assert served(site, "0.0.0.0:0", ask)["alive"] is True


def test_a_port_that_is_taken_is_one_line(site: Site) -> None:
    def ask(url: str) -> Any:
        with pytest.raises(ConfigError, match="cannot listen at"):
            served(site, url.removeprefix("http://"), lambda url: None)

    served(site, "127.0.0.1:0", ask)
