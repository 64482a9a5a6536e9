"""The administration of a cloud over HTTP: who is here, what there is, what was done; and, for operators, doing it.

``/api/v1/openapi.json`` describes all of it. Beside it stand ``/metrics`` for Prometheus, ``/healthz`` (this process is
alive) and ``/readyz`` (it can do its work). But for these two and the description everything wants a bearer token of
``duetto cloud admin-token``; what changes something wants one of an operator, says why, and is told to the audit log.
An error is one line of JSON: ``{"fault": ..., "remedy": ...}``.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Literal

import sqlalchemy as sql
from fastapi import APIRouter, Depends, FastAPI, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from duetto.cloud.audit import Checked, Line
from duetto.cloud.beside import address_of, served
from duetto.cloud.database import reading
from duetto.cloud.metrics import VERSION, Metrics
from duetto.cloud.operators import OPERATOR, Operator
from duetto.cloud.presence import Presence, Present
from duetto.cloud.registry import CHANNELS, Move, Pause, Version
from duetto.cloud.service import Service
from duetto.cloud.site import Site
from duetto.errors import ConfigError, DataError, Error

_LOG = logging.getLogger(__name__)
BODY_BYTES = 64 << 10  # of a request
FAILURES, FAILURE_SECONDS = 10, 60.0  # so many wrong tokens from one address, and it has to wait
_HEADERS = (
    ("cache-control", "no-store"),
    ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
    ("referrer-policy", "no-referrer"),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
)
_OVER_TLS = ("strict-transport-security", "max-age=31536000")


class Refusal(Error):
    """A request that is not carried out.

    Attributes:
        status: of HTTP.
        headers: more to tell.
    """

    def __init__(self, status: int, fault: str, remedy: str = "", **headers: str) -> None:
        super().__init__(fault, remedy)
        self.status, self.headers = status, {name.replace("_", "-"): value for name, value in headers.items()}


class Throttle:
    """Addresses that come with wrong tokens again and again wait, whatever they come with next.

    Args:
        failures: so many within the time are one too many.
        seconds: that time.
        clock: seconds.
    """

    def __init__(
        self,
        failures: int = FAILURES,
        seconds: float = FAILURE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._failures, self._seconds, self._clock = failures, seconds, clock
        self._known: OrderedDict[str, list[float]] = OrderedDict()
        self._lock = threading.Lock()

    def wait(self, address: str) -> float:
        """Seconds until an address may try again; 0 is now."""
        with self._lock:
            times = self._known.get(address, [])
            if len(times) < self._failures:
                return 0.0
            return max(0.0, times[0] + self._seconds - self._clock())

    def failed(self, address: str) -> int:
        """Note a wrong token; how many there were lately."""
        with self._lock:
            now = self._clock()
            times = [at for at in self._known.get(address, []) if now - at < self._seconds]
            self._known[address] = [*times, now][-self._failures :]
            self._known.move_to_end(address)
            if len(self._known) > 10_000:
                self._known.popitem(last=False)
            return len(self._known[address])


@dataclass(frozen=True, eq=False)
class Administered:
    """What requests are about.

    Attributes:
        site: the cloud's.
        service: that runs in this process, if one does.
        metrics: of both.
        throttle: who has to wait.
        presence: who is connected, to any process.
    """

    site: Site
    service: Service | None
    metrics: Metrics
    throttle: Throttle = field(default_factory=Throttle)

    @property
    def presence(self) -> Presence:
        """As all processes tell."""
        return Presence(self.site.engine)


# --------------------------------------------------------------------------------------------------- what is said


class Fault(BaseModel):
    """What went wrong, in one line."""

    fault: str
    remedy: str = ""


class Alive(BaseModel):
    """This process answers."""

    alive: bool = True
    version: str


class Ready(BaseModel):
    """This process can do its work."""

    ready: bool = True


class FleetDevice(BaseModel):
    """A device; times in seconds since 1970."""

    name: str
    fingerprint: str | None = Field(description="SHA-256 of its public key; none where the cloud runs --insecure")
    enrolled: float | None
    seen: float | None = Field(description="when it last connected, to the minute")
    revoked: float | None
    reason: str | None = Field(description="why it was revoked")
    online: bool = Field(description="connected to any process of this cloud")
    since: float | None = Field(description="when it came, while it is online")
    process: str | None = Field(description="to which process it is connected")
    software: str | None = Field(description="what it speaks with, as it says")
    version: int | None = Field(description="of the model that it had when it connected, if it said so")


class Fleet(BaseModel):
    """A page of the fleet, by name."""

    devices: list[FleetDevice]
    online: int = Field(description="devices that are connected, in the whole fleet")
    admitted: int
    revoked: int
    next: int | None = Field(description="the offset of the next page, if there is one")


class Asked(BaseModel):
    """For whom a token is."""

    device: str = Field(
        description="the name that may enrol, or a pattern such as phone-*",
        pattern=r"^[A-Za-z0-9*?][A-Za-z0-9._*?-]{0,62}$",
    )
    hours: float = Field(24.0, gt=0, le=24 * 365, description="for which it holds")


class Issued(BaseModel):
    """A token, which is told here and nowhere else."""

    token: str
    device: str
    hours: float
    authority: str = Field(description="PEM; the device needs it to know this cloud")


class Why(BaseModel):
    """A reason, for the record."""

    model_config = ConfigDict(str_strip_whitespace=True)

    why: str = Field(min_length=1, max_length=500, pattern=r"^[^\x00]*$")


class Promotion(Why):
    """What a channel is to point to."""

    version: int = Field(ge=1)
    expected: int | None = Field(
        None, ge=0, description="what it points to as far as you know, 0 for nothing; refused (409) where it does not"
    )


class RollBack(Why):
    """Where a channel is to go back from."""

    expected: int | None = Field(
        None, ge=0, description="what it points to as far as you know; refused (409) where it does not"
    )


class Counts(BaseModel):
    """Entries that were kept, by device and kind."""

    devices: dict[str, dict[str, int]]


class MissingEntries(BaseModel):
    """Numbers of a session that have not come, though a later one has."""

    device: str
    session: str = Field(description="in hex")
    first: int
    last: int
    told: bool = Field(description="the device has said that it dropped them; else they are on their way, or lost")


class Forgotten(BaseModel):
    """What was deleted."""

    entries: int


class Channel(BaseModel):
    """Where a channel of a model points."""

    channel: str
    version: int | None
    paused: bool
    why: str | None = Field(description="of the pause")
    since: float | None = Field(description="when it last moved, seconds since 1970")


class Model(BaseModel):
    """A model."""

    name: str
    newest: int = Field(description="its newest version")
    channels: list[Channel]


class Measured(BaseModel):
    """A version, where it comes from, and how good it is."""

    version: Version
    metrics: dict[str, Any] = Field(description="the newest of each name; by user where it was measured so")
    children: list[tuple[str, int]] = Field(description="versions of this model that were made from it")


class Offered(BaseModel):
    """What devices of a channel are offered, signed."""

    model: str
    channel: str
    version: int
    sha256: str
    length: int = Field(description="bytes")
    told: dict[str, Any]


class Releases(BaseModel):
    """The signed releases, and until when what each role has signed holds (seconds since 1970)."""

    releases: list[Offered]
    expires: dict[str, float]


class Said(BaseModel):
    """Lines of the audit log, the newest first."""

    lines: list[Line]
    next: int | None = Field(description="`before` of the next page, if there is one")


# ----------------------------------------------------------------------------------------------------- who may ask

_BEARER = HTTPBearer(auto_error=False, description="a token of `duetto cloud admin-token`")


def _cloud(request: Request) -> Administered:
    found: Administered = request.app.state.administered
    return found


Cloud = Annotated[Administered, Depends(_cloud)]


def viewer(
    request: Request, cloud: Cloud, given: Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)]
) -> Operator:
    """Whoever has a token.

    Raises:
        Refusal: nobody, or one who has tried too often.
    """
    address = request.client.host if request.client else ""
    if (wait := cloud.throttle.wait(address)) > 0:
        seconds = str(int(wait) + 1)
        raise Refusal(429, "too many wrong tokens from this address", f"wait {seconds} s", retry_after=seconds)
    if given is None:
        raise Refusal(401, "no token", "send Authorization: Bearer TOKEN", www_authenticate="Bearer")
    found = cloud.site.operators.known(given.credentials)
    if found is None:
        if cloud.throttle.failed(address) == FAILURES:
            _LOG.warning("%d wrong tokens from %s: it waits", FAILURES, address)
        remedy = "ask for another: duetto cloud admin-token"
        raise Refusal(401, "a token that is unknown, or holds no longer", remedy, www_authenticate="Bearer")
    return found


def operator(who: Annotated[Operator, Depends(viewer)]) -> Operator:
    """Whoever may act.

    Raises:
        Refusal: one who may only look.
    """
    if not who.may(OPERATOR):
        raise Refusal(403, f"{who.name} is a {who.role}", "ask an operator, or for a token of that role")
    return who


Viewing = Annotated[Operator, Depends(viewer)]
Acting = Annotated[Operator, Depends(operator)]
ModelName = Annotated[str, Path(pattern=r"^[a-z0-9][a-z0-9_.-]{0,99}$")]
DeviceName = Annotated[str, Path(pattern=r"^[^\x00]{1,200}$")]
ChannelName = Literal["canary", "stable"]
assert ChannelName.__args__ == CHANNELS  # type: ignore[attr-defined]
_REFUSED: dict[int | str, dict[str, Any]] = {
    status: {"model": Fault, "description": says}
    for status, says in {
        401: "no token, or none that holds",
        403: "a viewer cannot do that",
        422: "a request that cannot be read",
        429: "too many wrong tokens",
        503: "the database cannot be reached",
    }.items()
}
_NOT_THERE: dict[int | str, dict[str, Any]] = {404: {"model": Fault, "description": "there is none"}}
_NOT_NOW: dict[int | str, dict[str, Any]] = {409: {"model": Fault, "description": "not as things stand"}}
api = APIRouter(prefix="/api/v1", responses=_REFUSED)


def _doing(cloud: Administered, who: Operator, action: str, **about: Any) -> AbstractContextManager[None]:
    return cloud.site.audit.doing(f"{who.name} (token {who.id})", action, about)


# ------------------------------------------------------------------------------------------------------- the fleet


@api.get("/fleet", tags=["fleet"])
def fleet(
    cloud: Cloud,
    who: Viewing,
    state: Literal["all", "online", "offline", "admitted", "revoked"] = "all",
    prefix: Annotated[str, Query(pattern=r"^[^\x00]{0,63}$", description="with which names begin")] = "",
    offset: Annotated[int, Query(ge=0)] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 200,
) -> Fleet:
    """The devices: who is online, with what, when last seen, and who is revoked."""
    enrolment, present = cloud.site.enrolment, cloud.presence.all()
    admitted, revoked = enrolment.counts()
    if state in {"online", "offline"}:  # who is here is another table's, and the keys of many names are few
        known = enrolment.devices(prefix, revoked=False)
    else:
        known = enrolment.devices(
            prefix, revoked=None if state == "all" else state == "revoked", offset=offset, limit=limit + 1
        )
    rows = [_row(asdict(each), present.get(each.name) if each.revoked is None else None) for each in known]
    if state in {"online", "offline"}:
        named = {row.name for row in rows}
        strangers = [each for name, each in sorted(present.items()) if name not in named and name.startswith(prefix)]
        rows += [_row({"name": each.device}, each) for each in strangers]
        rows = [row for row in rows if row.online == (state == "online")][offset : offset + limit + 1]
    more = offset + limit if len(rows) > limit else None
    return Fleet(devices=rows[:limit], online=len(present), admitted=admitted, revoked=revoked, next=more)


@api.get("/fleet/{name}", tags=["fleet"], responses=_NOT_THERE)
def device(cloud: Cloud, who: Viewing, name: DeviceName) -> list[FleetDevice]:
    """A device: the key that it has now, and those that it had."""
    present = cloud.presence.all().get(name)
    known = [each for each in cloud.site.enrolment.devices(name) if each.name == name]
    if not known and present is None:
        raise Refusal(404, f"no device {name}", "see the list of devices")
    rows = [_row(asdict(each), present if each.revoked is None else None) for each in known]
    return rows or [_row({"name": name}, present)]


@api.post("/fleet/{name}/revoke", tags=["fleet"], responses=_NOT_THERE)
async def revoke(cloud: Cloud, who: Acting, name: DeviceName, body: Why) -> FleetDevice:
    """Shut a device out; its key stays out, and its stream ends in every process within seconds."""

    def done() -> Any:
        with _doing(cloud, who, "revoke", device=name, why=body.why):
            return cloud.site.enrolment.revoke(name, body.why)

    gone = await asyncio.to_thread(done)
    if cloud.service is not None:
        await cloud.service.revoke(name, f"{name} is revoked ({body.why}): enrol it anew")
    return _row(asdict(gone), None)


@api.post("/tokens", tags=["fleet"], status_code=201)
def token(cloud: Cloud, who: Acting, body: Asked) -> Issued:
    """A token, by which one device can enrol, once."""
    with _doing(cloud, who, "enroll", device=body.device, hours=body.hours):
        made = cloud.site.enrolment.token(body.device, issuer=who.name, hours=body.hours)
    authority = cloud.site.authority.certificate.decode()
    return Issued(token=made, device=body.device, hours=body.hours, authority=authority)


def _row(known: dict[str, Any], here: Present | None) -> FleetDevice:
    enrolled = {name: known.get(name) for name in ("name", "fingerprint", "enrolled", "seen", "revoked", "reason")}
    session = {name: getattr(here, name, None) for name in ("since", "process", "software", "version")}
    return FleetDevice.model_validate({**enrolled, **session, "online": here is not None})


# -------------------------------------------------------------------------------------------------------- feedback


@api.get("/feedback", tags=["feedback"])
def feedback(cloud: Cloud, who: Viewing) -> Counts:
    """How many entries there are, by device and kind."""
    return Counts(devices=cloud.site.feedback.counts())


@api.get("/feedback/gaps", tags=["feedback"])
def gaps(
    cloud: Cloud, who: Viewing, device: Annotated[str | None, Query(pattern=r"^[^\x00]{1,200}$")] = None
) -> list[MissingEntries]:
    """Entries that have not come though later ones have; those that a device dropped, apart."""
    return [
        MissingEntries(device=gap.device, session=gap.session.hex(), first=gap.first, last=gap.last, told=gap.told)
        for gap in cloud.site.feedback.gaps(device)
    ]


@api.post("/feedback/{name}/forget", tags=["feedback"])
def forget(cloud: Cloud, who: Acting, name: DeviceName, body: Why) -> Forgotten:
    """Delete all that a device has sent; what it sends again of it stays forgotten."""
    with _doing(cloud, who, "forget", device=name, why=body.why):
        return Forgotten(entries=cloud.site.feedback.forget(name))


# ---------------------------------------------------------------------------------------------------------- models


@api.get("/models", tags=["models"])
def models(cloud: Cloud, who: Viewing) -> list[Model]:
    """The models, and where their channels point."""
    registry = cloud.site.registry
    return [
        Model(name=name, newest=registry.versions(name)[-1].number, channels=_channels(cloud, name))
        for name in registry.models()
    ]


@api.get("/models/{model}", tags=["models"], responses=_NOT_THERE)
def model(cloud: Cloud, who: Viewing, model: ModelName) -> list[Version]:
    """All versions of a model, with artefacts, parents and what they were trained from; the first one first."""
    found = cloud.site.registry.versions(model)
    if not found:
        raise Refusal(404, f"no model {model}", "see the list of models")
    return found


@api.get("/models/{model}/versions/{version}", tags=["models"], responses=_NOT_THERE)
def version(cloud: Cloud, who: Viewing, model: ModelName, version: Annotated[int, Path(ge=1)]) -> Measured:
    """A version, with what was measured of it, by user too, and what was made from it."""
    registry = cloud.site.registry
    found = registry.version(model, version)
    children = [(each.model, each.number) for each in registry.versions(model) if (model, version) in each.parents]
    return Measured(version=found, metrics=registry.metrics(model, version), children=children)


@api.get("/models/{model}/channels/{channel}", tags=["models"])
def history(cloud: Cloud, who: Viewing, model: ModelName, channel: ChannelName) -> list[Move]:
    """All moves of a channel, the first one first."""
    return cloud.site.registry.history(model, channel)


@api.post("/models/{model}/channels/{channel}/promote", tags=["models"], responses=_NOT_THERE | _NOT_NOW)
def promote(cloud: Cloud, who: Acting, model: ModelName, channel: ChannelName, body: Promotion) -> Move:
    """Point a channel to a version."""
    about = {"model": model, "channel": channel, **body.model_dump()}
    with _doing(cloud, who, "promote", **about):
        return cloud.site.registry.promote(
            model, body.version, channel, by=who.name, why=body.why, expected=body.expected
        )


@api.post("/models/{model}/channels/{channel}/roll-back", tags=["models"], responses=_NOT_NOW)
def roll_back(cloud: Cloud, who: Acting, model: ModelName, channel: ChannelName, body: RollBack) -> Move:
    """Point a channel to where it pointed before its last promotion; again, to before the one before that."""
    with _doing(cloud, who, "roll back", model=model, channel=channel, **body.model_dump()):
        return cloud.site.registry.roll_back(model, channel, by=who.name, why=body.why, expected=body.expected)


@api.post("/models/{model}/channels/{channel}/pause", tags=["models"], responses=_NOT_THERE | _NOT_NOW)
def pause(cloud: Cloud, who: Acting, model: ModelName, channel: ChannelName, body: Why) -> Pause:
    """Let nobody promote to a channel, no rule either; it can still be rolled back."""
    with _doing(cloud, who, "pause", model=model, channel=channel, why=body.why):
        return cloud.site.registry.pause(model, channel, by=who.name, why=body.why)


@api.post("/models/{model}/channels/{channel}/go-on", tags=["models"], responses=_NOT_THERE | _NOT_NOW)
def go_on(cloud: Cloud, who: Acting, model: ModelName, channel: ChannelName, body: Why) -> Pause:
    """End a pause."""
    with _doing(cloud, who, "go on", model=model, channel=channel, why=body.why):
        return cloud.site.registry.go_on(model, channel, by=who.name, why=body.why)


@api.get("/releases", tags=["models"], responses=_NOT_THERE)
def releases(cloud: Cloud, who: Viewing) -> Releases:
    """What is offered to devices, signed."""
    found = cloud.site.releases
    expires = {role: when.timestamp() for role, when in found.expiries().items()}
    return Releases(releases=[Offered(**asdict(each)) for each in found.releases()], expires=expires)


def _channels(cloud: Administered, name: str) -> list[Channel]:
    registry, found = cloud.site.registry, []
    for channel in CHANNELS:
        moves, held = registry.history(name, channel), registry.paused(name, channel)
        found.append(
            Channel(
                channel=channel,
                version=moves[-1].version if moves else None,
                paused=held is not None,
                why=None if held is None else held.why,
                since=moves[-1].unix_seconds if moves else None,
            )
        )
    return found


# --------------------------------------------------------------------------------------------- this process, and who


@api.get("/batcher", tags=["process"])
async def batcher(cloud: Cloud, who: Viewing) -> dict[str, float]:
    """What the batcher of this process has done; empty where there is none."""
    counters = getattr(None if cloud.service is None else cloud.service.uses, "counters", None)
    return {} if counters is None else dict(counters())


@api.get("/operators", tags=["audit"])
def operators(cloud: Cloud, who: Acting) -> list[Operator]:
    """Who has, or had, a token. They are given out and taken back on the command line only."""
    return list(cloud.site.operators.all())


@api.get("/audit", tags=["audit"])
def audit(
    cloud: Cloud,
    who: Viewing,
    before: Annotated[int | None, Query(ge=1, description="only lines below this number")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Said:
    """Who did what, and when; the newest first."""
    found = cloud.site.audit.newest(limit + 1, before)
    return Said(lines=found[:limit], next=found[limit - 1].number if len(found) > limit else None)


@api.get("/audit/check", tags=["audit"])
def check(
    cloud: Cloud,
    who: Viewing,
    known: Annotated[
        str | None, Query(pattern="^[0-9a-f]{64}$", description="a hash that was the newest once, kept elsewhere")
    ] = None,
) -> Checked:
    """Whether the audit log is what it was."""
    return cloud.site.audit.check(known)


# ------------------------------------------------------------------------------------------------- the application


def application(site: Site, service: Service | None = None, *, tls: bool = False) -> FastAPI:
    """The administration of a site, and of the service that runs in this process.

    Args:
        site: the cloud's.
        service: the running one, to which devices are connected; None administers what is stored.
        tls: whether it is served over TLS, and is to be from now on.
    """
    app = FastAPI(
        title="Duetto cloud",
        description=__doc__,
        version=VERSION,
        openapi_url="/api/v1/openapi.json",
        docs_url=None,  # both pages would be fetched from elsewhere
        redoc_url=None,
    )
    app.state.administered = Administered(site, service, Metrics(site, service))
    app.include_router(api)
    app.add_api_route("/healthz", _healthz, tags=["process"], response_model=Alive)
    app.add_api_route("/readyz", _readyz, tags=["process"], response_model=Ready, responses={503: {"model": Fault}})
    app.add_api_route("/metrics", _metrics, tags=["process"], response_class=PlainTextResponse, responses=_REFUSED)
    app.add_exception_handler(Error, refused)
    app.add_exception_handler(RequestValidationError, unread)
    app.add_exception_handler(HTTPException, _unknown)
    app.add_exception_handler(sql.exc.SQLAlchemyError, _no_database)
    app.add_exception_handler(Exception, _broken)
    app.add_middleware(Guard, headers=(*_HEADERS, _OVER_TLS) if tls else _HEADERS)
    return app


def _healthz() -> Alive:
    """Whether this process answers."""
    return Alive(version=VERSION)


async def _readyz(cloud: Cloud) -> Ready:
    """Whether this process can do its work: its database can be read, and its service goes on."""
    if cloud.service is not None and cloud.service.over:
        raise Refusal(503, "the service is ending", "ask another process")

    def read() -> None:
        with reading(cloud.site.engine) as connection:
            connection.execute(sql.select(1))

    await asyncio.to_thread(read)
    return Ready()


async def _metrics(cloud: Cloud, who: Viewing) -> Response:
    """All metrics, as Prometheus reads them."""
    return Response(await cloud.metrics.page(), media_type="text/plain; version=0.0.4; charset=utf-8")


async def refused(request: Request, fault: Any) -> Response:
    if isinstance(fault, Refusal):
        return _told(fault.status, fault.fault, fault.remedy, fault.headers)
    if isinstance(fault.__cause__, sql.exc.OperationalError):
        return await _no_database(request, fault)
    status = {ConfigError: 409, DataError: 404}.get(type(fault), 500)
    return _told(status, fault.fault, fault.remedy)


async def unread(request: Request, fault: Any) -> Response:
    first = fault.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return _told(422, f"{where}: {first['msg']}", "see /api/v1/openapi.json")


async def _unknown(request: Request, fault: Any) -> Response:
    return _told(fault.status_code, str(fault.detail).lower(), "see /api/v1/openapi.json", dict(fault.headers or {}))


async def _no_database(request: Request, fault: Exception) -> Response:
    _LOG.error("the database: %s", " ".join(str(fault).split())[:500])
    return _told(503, "the database cannot be used", "check that it is there; the server's log says more")


async def _broken(request: Request, fault: Exception) -> Response:
    return _told(500, f"this failed ({type(fault).__name__})", "the server's log says why")


def _told(status: int, fault: str, remedy: str, headers: dict[str, str] | None = None) -> Response:
    said = {"fault": " ".join(fault.split()), "remedy": " ".join(remedy.split())}
    return JSONResponse(said, status, headers)


class Guard:
    """Headers for the browser's sake, and no body that is larger than any request needs."""

    def __init__(self, app: ASGIApp, headers: Sequence[tuple[str, str]]) -> None:
        self._app = app
        self._headers = [(name.encode(), value.encode()) for name, value in headers]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *self._headers]
            await send(message)

        told = dict(scope["headers"])
        length = told.get(b"content-length", b"0")
        if b"transfer-encoding" in told or not length.isdigit() or int(length) > BODY_BYTES:
            refusal = _told(
                413, "a body that is too long, or does not say how long it is", f"send {BODY_BYTES:,} bytes"
            )
            await refusal(scope, receive, sending)
            return
        await self._app(scope, receive, sending)


# ---------------------------------------------------------------------------------------------------- serving it


def serving(
    site: Site, address: str, on_listening: Callable[[str], None] = lambda url: None
) -> Callable[[Service], AbstractAsyncContextManager[None]]:
    """What serves the administration beside a service (``App.more``), in the same event loop.

    On another address than the loopback it speaks TLS, with the server's own certificate.

    Args:
        site: the cloud's.
        address: such as ``127.0.0.1:8080``; port 0 is any that is free.
        on_listening: called with the URL.

    Raises:
        ConfigError: no such address; or, once it starts, one that cannot be had.
    """
    host, port = address_of(address)

    @asynccontextmanager
    async def beside(service: Service) -> AsyncIterator[None]:
        def make(tls: bool) -> FastAPI:
            return application(site, service, tls=tls)

        async with served(site, host, port, make, on_listening, ws="none", limit_concurrency=256):
            if not any(each.revoked is None for each in await asyncio.to_thread(site.operators.all)):
                _LOG.warning("nobody may administer this cloud yet: duetto cloud admin-token NAME --role operator")
            yield

    return beside
