"""A device in the browser: the page itself, its way in, the releases that it checks, and the protocol over a WebSocket.

The page is a device like any other. It enrols with a one-time token and a key that never leaves the browser, and is
known by the certificate of that key; who is revoked is let go of within seconds. A browser shows no such certificate
by itself, so the page signs a challenge with its key (ECDSA on P-256, over the origin as well) and gets a cookie that
stands for the certificate (docs/protocol.md, docs/decisions/0013-browser.md).
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from base64 import b64decode
from binascii import Error as NotBase64
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from fastapi import FastAPI, Request, Response, WebSocket
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, ConfigDict, Field
from starlette.websockets import WebSocketDisconnect

from duetto.cloud.beside import address_of, served
from duetto.cloud.service import Service
from duetto.cloud.site import Site
from duetto.cloud.web import Guard, Refusal, Throttle, faults, own
from duetto.errors import ConfigError, DataError, Error
from duetto.transport.channel import Lost
from duetto.transport.envelope import Limits
from duetto.transport.identity import fingerprint, name_of

FILES = Path(__file__).with_name("page")
"""What `make page` builds."""
COOKIE = "duetto"
CHALLENGE_SECONDS = 60.0
LOGIN_SECONDS = 12 * 3600.0
_MOST = 10_000  # challenges, and logins, at once
_HEADERS = (
    ("cache-control", "no-cache"),
    (
        "content-security-policy",
        "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    ("cross-origin-opener-policy", "same-origin"),
    ("referrer-policy", "no-referrer"),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
)
_OVER_TLS = ("strict-transport-security", "max-age=31536000")


@dataclass(frozen=True, eq=False)
class Logins:
    """Who has shown that a certified key is theirs, in this process.

    Attributes:
        site: whose authority signs, and whose enrolment admits.
        clock: seconds since 1970.
    """

    site: Site
    clock: Callable[[], float] = time.time
    _challenges: OrderedDict[str, float] = field(default_factory=OrderedDict, init=False, repr=False)
    _open: OrderedDict[str, tuple[bytes, float]] = field(default_factory=OrderedDict, init=False, repr=False)

    def challenge(self) -> str:
        """A text to sign, once, within a minute."""
        made = secrets.token_urlsafe(32)
        _keep(self._challenges, made, self.clock() + CHALLENGE_SECONDS)
        return made

    def login(self, origin: str, challenge: str, certificate: bytes, signature: bytes) -> str:
        """A cookie, for whoever has the certificate's key.

        Args:
            origin: of the page, as the browser tells it.
            challenge: of :meth:`challenge`.
            certificate: PEM.
            signature: of :func:`statement`; 64 bytes, as WebCrypto makes it.

        Raises:
            Refusal: an old challenge; a certificate that another authority has signed, or that has expired; another
                key's signature; a device that is not admitted.
        """
        until = self._challenges.pop(challenge, 0.0)
        if self.clock() >= until:
            raise Refusal(403, "a challenge that is unknown, used or too old", "ask for another")
        try:
            self._believe(certificate, signature, statement(origin, challenge))
            self._admit(certificate)
        except (ValueError, TypeError, InvalidSignature, Error) as fault:
            why = fault.fault if isinstance(fault, Error) else "a certificate or signature that does not hold"
            raise Refusal(403, why, "enrol the page anew") from fault
        cookie = secrets.token_urlsafe(32)
        _keep(self._open, _hash(cookie), (certificate, self.clock() + LOGIN_SECONDS))
        return cookie

    def who(self, cookie: str | None) -> bytes:
        """The certificate (PEM) behind a cookie, as long as its device is admitted.

        Raises:
            Refusal: nobody's.
        """
        certificate, until = self._open.get(_hash(cookie or ""), (b"", 0.0))
        if self.clock() >= until:
            raise Refusal(401, "not logged in", "sign a challenge first")
        try:
            self._admit(certificate)
        except Error as fault:
            raise Refusal(403, fault.fault, fault.remedy) from fault
        return certificate

    def _believe(self, certificate: bytes, signature: bytes, said: bytes) -> None:
        shown, now = x509.load_pem_x509_certificate(certificate), datetime.fromtimestamp(self.clock(), UTC)
        _signed_by(shown, x509.load_pem_x509_certificates(self.site.authority.certificate))
        if not shown.not_valid_before_utc <= now <= shown.not_valid_after_utc:
            raise DataError("a certificate that has expired", "enrol the page anew")
        key = shown.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey) or len(signature) != 64:
            raise DataError("a signature of another kind", "sign with ECDSA on P-256")
        r, s = (int.from_bytes(half, "big") for half in (signature[:32], signature[32:]))
        key.verify(encode_dss_signature(r, s), said, ec.ECDSA(hashes.SHA256()))

    def _admit(self, certificate: bytes) -> None:
        name = name_of(certificate)
        if not self.site.enrolment.admitted(name, fingerprint(certificate)):
            raise ConfigError(f"{name} is not admitted", "its key is unknown or revoked; enrol it anew")


def statement(origin: str, challenge: str) -> bytes:
    """What a page signs to log in."""
    return f"duetto page login\n{origin}\n{challenge}".encode()


class Enrolling(BaseModel):
    """A one-time token, and a request for a certificate."""

    model_config = ConfigDict(extra="forbid")
    token: Annotated[str, Field(max_length=200)]
    request: Annotated[str, Field(max_length=8192)]


class Enrolled(BaseModel):
    """What an enrolled page keeps: its certificate (PEM) and the first root of the releases."""

    certificate: str
    root: str


class Login(BaseModel):
    """A signed challenge; the signature in base64."""

    model_config = ConfigDict(extra="forbid")
    challenge: Annotated[str, Field(max_length=200)]
    certificate: Annotated[str, Field(max_length=8192)]
    signature: Annotated[str, Field(max_length=200)]


def application(site: Site, service: Service, *, tls: bool = False, files: Path = FILES) -> FastAPI:
    """The page of a site, for devices of the service that runs in this process.

    Args:
        site: the cloud's.
        service: the running one.
        tls: whether it is served over TLS.
        files: what was built.

    Raises:
        ConfigError: nothing was.
    """
    if not (files / "index.html").is_file():
        raise ConfigError("the page is not built", "make page (it needs npm)")
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    logins, throttle = Logins(site), Throttle()

    @app.get("/challenge")
    async def challenge() -> JSONResponse:
        return JSONResponse({"challenge": logins.challenge()}, headers={"cache-control": "no-store"})

    @app.post("/login", status_code=204)
    async def login(request: Request, body: Login) -> Response:
        origin = own(request.headers.get("origin"), request.headers.get("host"))
        try:
            signature = b64decode(body.signature, validate=True)
        except NotBase64 as fault:
            raise Refusal(422, "a signature that is no base64", "see docs/protocol.md") from fault
        cookie = await asyncio.to_thread(logins.login, origin, body.challenge, body.certificate.encode(), signature)
        done = Response(status_code=204)
        done.set_cookie(COOKIE, cookie, httponly=True, samesite="strict", secure=tls, max_age=int(LOGIN_SECONDS))
        return done

    @app.post("/enrol")
    async def enrol(request: Request, body: Enrolling) -> Enrolled:
        own(request.headers.get("origin"), request.headers.get("host"))
        address = request.client.host if request.client else ""
        if (wait := throttle.wait(address)) > 0:
            raise Refusal(429, "too many wrong tokens from this address", f"wait {int(wait) + 1} s")
        try:
            signed = await asyncio.to_thread(site.enrolment.enrol, body.token, body.request.encode())
        except Error as fault:
            throttle.failed(address)
            raise Refusal(403, fault.fault, fault.remedy) from fault
        return Enrolled(certificate=signed.decode(), root=site.releases.root().decode())

    @app.get("/releases/{path:path}")
    async def release(request: Request, path: str) -> FileResponse:
        await asyncio.to_thread(logins.who, request.cookies.get(COOKIE))
        try:
            return FileResponse(site.file(path), media_type="application/octet-stream")
        except ConfigError as fault:
            raise Refusal(404, fault.fault, fault.remedy) from fault

    @app.websocket("/talk")
    async def talk(socket: WebSocket) -> None:
        try:
            own(socket.headers.get("origin"), socket.headers.get("host"))
            certificate = await asyncio.to_thread(logins.who, socket.cookies.get(COOKIE))
        except Refusal:
            await socket.close(1008)
            return
        await socket.accept()
        await service.accept(Socket(socket), certificate)

    faults(app)
    app.mount("/", StaticFiles(directory=files, html=True))
    app.add_middleware(Guard, headers=(*_HEADERS, _OVER_TLS) if tls else _HEADERS)
    return app


class Socket:
    """A WebSocket as a channel: each binary message is one envelope."""

    def __init__(self, socket: WebSocket) -> None:
        self._socket, self._sending = socket, asyncio.Lock()

    async def send(self, data: bytes) -> None:
        """Give one envelope on its way."""
        async with self._sending:
            try:
                await self._socket.send_bytes(data)
            except (WebSocketDisconnect, RuntimeError, OSError) as fault:
                raise Lost("the device has gone") from fault

    async def receive(self) -> bytes:
        """The next envelope."""
        try:
            message = await self._socket.receive()
        except (RuntimeError, OSError) as fault:
            raise Lost("the device has gone") from fault
        data = message.get("bytes")
        if not isinstance(data, bytes):
            raise Lost("the device has gone" if message["type"] != "websocket.receive" else "a message of text")
        return data

    async def close(self) -> None:
        """End it."""
        with suppress(RuntimeError, OSError):
            await self._socket.close()


def serving(
    site: Site, address: str, on_listening: Callable[[str], None] = lambda url: None, *, files: Path = FILES
) -> Callable[[Service], AbstractAsyncContextManager[None]]:
    """What serves the page beside a service (``App.more``), in the same event loop.

    On another address than the loopback it speaks TLS, with the server's own certificate.

    Args:
        site: the cloud's.
        address: such as ``127.0.0.1:8090``; port 0 is any that is free.
        on_listening: called with the URL.
        files: what was built.

    Raises:
        ConfigError: no such address, or no page was built; or, once it starts, an address that cannot be had.
    """
    host, port = address_of(address)
    if not (files / "index.html").is_file():
        raise ConfigError("the page is not built", "make page (it needs npm)")

    @asynccontextmanager
    async def beside(service: Service) -> AsyncIterator[None]:
        def make(tls: bool) -> FastAPI:
            return application(site, service, tls=tls, files=files)

        ways = {"ws": "websockets-sansio", "ws_max_size": Limits().envelope_bytes, "ws_per_message_deflate": False}
        async with served(site, host, port, make, on_listening, **ways):
            yield

    return beside


def _signed_by(shown: x509.Certificate, authorities: list[x509.Certificate]) -> None:
    for each in authorities:
        with suppress(ValueError, TypeError, InvalidSignature):
            shown.verify_directly_issued_by(each)
            return
    raise DataError("a certificate of another authority", "enrol the page here")


def _keep(kept: OrderedDict[str, Any], key: str, value: Any) -> None:
    kept[key] = value
    if len(kept) > _MOST:
        kept.popitem(last=False)


def _hash(cookie: str) -> str:
    return hashlib.sha256(cookie.encode(errors="surrogatepass")).hexdigest()
