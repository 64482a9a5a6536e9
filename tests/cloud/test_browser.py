"""The way in for a page: enrolled by a token, known by its key, and by nothing that another page could send."""

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import websockets
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from duetto import tree as trees
from duetto.cloud.app import App
from duetto.cloud.browser import CHALLENGE_SECONDS, LOGIN_SECONDS, Logins, application, serving, statement
from duetto.cloud.service import Service
from duetto.cloud.site import Site
from duetto.cloud.web import Refusal
from duetto.errors import ConfigError
from duetto.protocols.probe import Echo
from duetto.transport import envelope as envelopes
from duetto.transport import vocabulary
from duetto.transport import wire_pb2 as wire
from duetto.transport.identity import Authority, made_key, requested
from duetto.types import Local

ORIGIN = "http://cloud"


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """What a build would leave."""
    folder = tmp_path / "page"
    folder.mkdir()
    (folder / "index.html").write_text("<!doctype html><title>the page</title>")
    return folder


@pytest.fixture
def service(site: Site) -> Service:
    app = App(site)
    return Service(app.party, admit=app._admitted)


def signed(key: bytes, said: bytes) -> bytes:
    """As WebCrypto signs: r and s, 32 bytes each."""
    private = serialization.load_pem_private_key(key, None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    r, s = decode_dss_signature(private.sign(said, ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def device(site: Site, name: str = "page-1") -> tuple[bytes, bytes]:
    """A key and its certificate."""
    key = made_key()
    return key, site.enrolment.enrol(site.enrolment.token(name, issuer="test"), requested(key, name))


class Clock:
    def __init__(self) -> None:
        self.now = 1.8e9

    def __call__(self) -> float:
        return self.now


def test_a_signed_challenge_opens_once_and_only_its_own_key_signs_it(site: Site) -> None:
    key, certificate = device(site)
    logins = Logins(site)

    def login(**given: Any) -> str:
        challenge = logins.challenge()
        with_key, shown = given.get("key", key), given.get("certificate", certificate)
        signature = signed(with_key, statement(given.get("said", ORIGIN), challenge))
        return logins.login(ORIGIN, given.get("challenge", challenge), shown, given.get("signature", signature))

    cookie = login()
    assert logins.who(cookie) == certificate
    other = device(site, "page-2")
    for given, why in (
        ({"key": other[0]}, "does not hold"),
        ({"certificate": other[1]}, "does not hold"),
        ({"said": "http://elsewhere"}, "does not hold"),  # what a page of another origin has signed
        ({"signature": b"\0" * 64}, "does not hold"),
        ({"signature": b"\0" * 63}, "another kind"),
        ({"certificate": b"no certificate"}, "does not hold"),
        ({"challenge": "made up"}, "unknown, used or too old"),
    ):
        with pytest.raises(Refusal, match=why):
            login(**given)
    challenge = logins.challenge()
    signature = signed(key, statement(ORIGIN, challenge))
    logins.login(ORIGIN, challenge, certificate, signature)
    with pytest.raises(Refusal, match="used"):
        logins.login(ORIGIN, challenge, certificate, signature)
    for nobody in (None, "", "made up", certificate.decode()):
        with pytest.raises(Refusal, match="not logged in"):
            logins.who(nobody)


def test_another_authoritys_certificate_is_not_believed(site: Site, tmp_path: Path) -> None:
    key, logins = made_key(), Logins(site)
    forged = Authority.make(tmp_path / "forger").sign(requested(key, "page-1"), "page-1")
    challenge = logins.challenge()
    with pytest.raises(Refusal, match="another authority"):
        logins.login(ORIGIN, challenge, forged, signed(key, statement(ORIGIN, challenge)))


def test_time_ends_challenges_logins_and_certificates_and_revocation_ends_them_at_once(site: Site) -> None:
    key, certificate = device(site)
    clock = Clock()
    clock.now = site.enrolment.clock()
    logins = Logins(site, clock)

    def login(after: float = 0.0) -> str:
        challenge = logins.challenge()
        clock.now += after
        return logins.login(ORIGIN, challenge, certificate, signed(key, statement(ORIGIN, challenge)))

    with pytest.raises(Refusal, match="too old"):
        login(CHALLENGE_SECONDS)
    cookie = login(CHALLENGE_SECONDS / 2)
    clock.now += LOGIN_SECONDS
    with pytest.raises(Refusal, match="not logged in"):
        logins.who(cookie)
    cookie = login()
    site.enrolment.revoke("page-1", "lost")
    with pytest.raises(Refusal, match="not admitted"):
        logins.who(cookie)
    with pytest.raises(Refusal, match="not admitted"):
        login()
    key, certificate = device(site, "page-2")
    clock.now += site.enrolment.days * 86400
    with pytest.raises(Refusal, match="expired"):
        login()


def asked(app: Any, method: str, path: str, **given: Any) -> httpx.Response:
    """What the application answers, without a server."""

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url=ORIGIN) as client:
            return await client.request(method, path, **given)

    return asyncio.run(ask())


def test_requests_of_other_pages_and_of_nobody_are_refused(site: Site, service: Service, files: Path) -> None:
    app = application(site, service, files=files)
    page = asked(app, "GET", "/")
    assert page.status_code == 200
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "http" not in policy  # nothing is let in from elsewhere
    request = {
        "token": site.enrolment.token("page-*", issuer="test"),
        "request": requested(made_key(), "page-1").decode(),
    }
    for origin in (None, "http://elsewhere", "null"):
        headers = {} if origin is None else {"origin": origin}
        for path, body in (("/enrol", request), ("/login", {"challenge": "", "certificate": "", "signature": ""})):
            found = asked(app, "POST", path, json=body, headers=headers)
            assert (found.status_code, found.json()["fault"]) == (403, "a request of another page")
    for path in ("metadata/timestamp.json", "metadata/1.root.json"):
        assert asked(app, "GET", f"/releases/{path}").status_code == 401
    enrolled = asked(app, "POST", "/enrol", json=request, headers={"origin": ORIGIN})
    assert enrolled.status_code == 200
    assert enrolled.json()["root"].encode() == site.releases.root()
    again = asked(app, "POST", "/enrol", json={**request, "token": "made up"}, headers={"origin": ORIGIN})
    assert (again.status_code, again.json()["fault"]) == (403, "an unknown token")
    for _ in range(20):
        again = asked(app, "POST", "/enrol", json={**request, "token": "made up"}, headers={"origin": ORIGIN})
    assert again.status_code == 429  # whoever guesses waits
    bad = asked(app, "POST", "/login", json={"challenge": ""}, headers={"origin": ORIGIN})
    assert bad.status_code == 422


def test_a_page_that_is_not_built_is_told_in_one_line(site: Site, service: Service, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"the page is not built: make page \(it needs npm\)"):
        serving(site, "127.0.0.1:0", files=tmp_path / "nothing")
    with pytest.raises(ConfigError, match="not built"):
        application(site, service, files=tmp_path / "nothing")


def test_the_protocol_goes_over_a_web_socket_to_who_has_logged_in(site: Site, service: Service, files: Path) -> None:
    key, certificate = device(site)
    number, description = vocabulary.written(Echo())
    body = trees.encode({"x": np.array([1.0, 2.0], np.float32)})
    answer = trees.encode(Echo()(Local(None, {}), trees.decode(body), (), "page-1")[1])
    asks = wire.Ask(part=number, description=description, key='[0,"page-1",7]', milliseconds=2000)
    [ask] = envelopes.pieces(wire.Envelope(id=1, mine=True, ask=asks), body)

    async def talk() -> None:
        urls: list[str] = []
        async with serving(site, "127.0.0.1:0", urls.append, files=files)(service):
            url = urls[0]
            there = url.replace("http", "ws") + "/talk"
            async with httpx.AsyncClient(base_url=url, headers={"origin": url}) as client:
                challenge = (await client.get("/challenge")).json()["challenge"]
                signature = signed(key, statement(url, challenge))
                told = {"challenge": challenge, "certificate": certificate.decode()}
                assert (await client.post("/login", json={**told, "signature": "no base64"})).status_code == 422
                done = await client.post("/login", json={**told, "signature": _base64(signature)})
                assert done.status_code == 204
                for word in ("HttpOnly", "SameSite=strict"):
                    assert word in done.headers["set-cookie"]
                cookie = {"cookie": done.headers["set-cookie"].split(";")[0]}
                root = await client.get("/releases/metadata/1.root.json", headers=cookie)
                assert root.content == site.releases.root()
                for path in ("metadata/9.root.json", "../keys", "..%2Fkeys"):
                    assert (await client.get(f"/releases/{path}", headers=cookie)).status_code in {401, 404}
            for origin, headers in ((url, {}), ("http://elsewhere", cookie)):
                with pytest.raises(websockets.exceptions.InvalidStatus):
                    await websockets.connect(there, origin=origin, additional_headers=headers)  # type: ignore[arg-type]
            async with websockets.connect(there, origin=url, additional_headers=cookie) as socket:  # type: ignore[arg-type]
                await socket.send(envelopes.said(wire.Envelope(hello=wire.Hello(name="page-1", software="test"))))
                assert envelopes.heard(await socket.recv()).hello.name == "cloud"  # type: ignore[arg-type]
                await socket.send(ask)
                reply = envelopes.heard(await socket.recv())  # type: ignore[arg-type]
                assert (reply.id, reply.body) == (1, answer)
                assert set(service.sessions) == {"page-1"}
                site.enrolment.revoke("page-1", "lost")
                watching = asyncio.ensure_future(service.watch(0.01))
                bye = envelopes.heard(await socket.recv())  # type: ignore[arg-type]
                assert bye.bye.final
                watching.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await watching
            other = {"cookie": cookie["cookie"]}
            with pytest.raises(websockets.exceptions.InvalidStatus):  # the login has ended with it
                await websockets.connect(there, origin=url, additional_headers=other)  # type: ignore[arg-type]

    asyncio.run(talk())


def _base64(data: bytes) -> str:
    from base64 import b64encode

    return b64encode(data).decode()
