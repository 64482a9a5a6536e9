"""The administration as one application, and the server of it that stands beside a service."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import sqlalchemy as sql
from fastapi import APIRouter, FastAPI, Response
from fastapi.responses import PlainTextResponse
from pydantic import BaseModel

from duetto.cloud import admin
from duetto.cloud.admin import alarms, audit, console, exports, feedback, fleet, live, models, quality, rounds
from duetto.cloud.admin.access import REFUSED, Administered, Cloud, Fault, Viewing
from duetto.cloud.beside import address_of, served
from duetto.cloud.database import reading
from duetto.cloud.metrics import VERSION, Metrics
from duetto.cloud.observed import Observed
from duetto.cloud.promotion import Promotion
from duetto.cloud.service import Service
from duetto.cloud.site import Site
from duetto.cloud.web import Guard, Refusal, faults

_LOG = logging.getLogger(__name__)
_HEADERS = (
    ("cache-control", "no-store"),
    (
        "content-security-policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    ("referrer-policy", "no-referrer"),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
)
_OVER_TLS = ("strict-transport-security", "max-age=31536000")
api = APIRouter(prefix="/api/v1", responses=REFUSED)
for each in (fleet, quality, feedback, models, rounds, alarms, audit, exports, live):
    api.include_router(each.api)


class Alive(BaseModel):
    """This process answers."""

    alive: bool = True
    version: str


class Ready(BaseModel):
    """This process can do its work."""

    ready: bool = True


@api.get("/batcher", tags=["process"])
async def batcher(cloud: Cloud, who: Viewing) -> dict[str, float]:
    """What the batcher of this process has done; empty where there is none."""
    return cloud.counters


def application(
    site: Site, service: Service | None = None, *, tls: bool = False, rule: Promotion = Promotion()
) -> FastAPI:
    """The administration of a site, and of the service that runs in this process.

    Args:
        site: the cloud's.
        service: the running one, to which devices are connected; None administers what is stored.
        tls: whether it is served over TLS, and is to be from now on.
        rule: by which versions that are tried are judged.
    """
    app = FastAPI(
        title="Duetto cloud",
        description=admin.__doc__,
        version=VERSION,
        openapi_url="/api/v1/openapi.json",
        docs_url=None,  # both pages would be fetched from elsewhere
        redoc_url=None,
    )
    app.state.administered = Administered(site, service, Metrics(site, service), rule, Observed(site.feedback))
    app.state.beating = live.Beating(app.state.administered)
    app.state.watch = alarms.Watch(app.state.administered)
    app.include_router(api)
    app.add_api_route("/healthz", _healthz, tags=["process"], response_model=Alive)
    app.add_api_route("/readyz", _readyz, tags=["process"], response_model=Ready, responses={503: {"model": Fault}})
    app.add_api_route("/metrics", _metrics, tags=["process"], response_class=PlainTextResponse, responses=REFUSED)
    faults(app)
    console.mounted(app, tls)
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


def serving(
    site: Site,
    address: str,
    on_listening: Callable[[str], None] = lambda url: None,
    rule: Promotion = Promotion(),
) -> Callable[[Service], AbstractAsyncContextManager[None]]:
    """What serves the administration beside a service (``App.more``), in the same event loop.

    On another address than the loopback it speaks TLS, with the server's own certificate.

    Args:
        site: the cloud's.
        address: such as ``127.0.0.1:8080``; port 0 is any that is free.
        on_listening: called with the URL.
        rule: by which versions that are tried are judged.

    Raises:
        ConfigError: no such address; or, once it starts, one that cannot be had.
    """
    host, port = address_of(address)

    @asynccontextmanager
    async def beside(service: Service) -> AsyncIterator[None]:
        def make(tls: bool) -> FastAPI:
            return application(site, service, tls=tls, rule=rule)

        async with served(site, host, port, make, on_listening, ws="none", limit_concurrency=256):
            if not any(each.revoked is None for each in await asyncio.to_thread(site.operators.all)):
                _LOG.warning("nobody may administer this cloud yet: duetto cloud admin-token NAME --role operator")
            yield

    return beside
