"""What the web servers of a cloud share: refusals as one line of JSON, a guard, and who has to wait."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

import sqlalchemy as sql
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from duetto.errors import ConfigError, DataError, Error

_LOG = logging.getLogger(__name__)
BODY_BYTES = 64 << 10  # of a request
FAILURES, FAILURE_SECONDS = 10, 60.0  # so many wrong tokens from one address, and it has to wait


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


def faults(app: FastAPI) -> None:
    """Have an application tell every fault as one line: ``{"fault": ..., "remedy": ...}``."""
    app.add_exception_handler(Error, _refused)
    app.add_exception_handler(RequestValidationError, _unread)
    app.add_exception_handler(HTTPException, _unknown)
    app.add_exception_handler(sql.exc.SQLAlchemyError, _no_database)
    app.add_exception_handler(Exception, _broken)


def own(origin: str | None, host: str | None) -> str:
    """The origin of a request that a page of this server makes.

    Raises:
        Refusal: another page does, or none.
    """
    if not origin or not host or urlsplit(origin).netloc != host:
        raise Refusal(403, "a request of another page", "open the page that this server serves")
    return origin


async def _refused(request: Request, fault: Any) -> Response:
    if isinstance(fault, Refusal):
        return _told(fault.status, fault.fault, fault.remedy, fault.headers)
    if isinstance(fault.__cause__, sql.exc.OperationalError):
        return await _no_database(request, fault)
    status = {ConfigError: 409, DataError: 404}.get(type(fault), 500)
    return _told(status, fault.fault, fault.remedy)


async def _unread(request: Request, fault: Any) -> Response:
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
