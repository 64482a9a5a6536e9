"""The fleet as it is now, again and again: server-sent events, one a second, of what a look at it would show as new."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse

from duetto.cloud.admin.access import Administered, Cloud, Viewing
from duetto.cloud.operators import Operator
from duetto.cloud.quality import over_time
from duetto.errors import Error

api = APIRouter(tags=["live"])
SECONDS = 1.0  # between two looks
KNOWN_SECONDS = 5.0  # after which it is looked up whether a token still holds
_RECENT = 60.0


@dataclass(frozen=True)
class Pulse:
    """What has changed, in few numbers.

    Attributes:
        unix_seconds: when this was so.
        online, admitted, revoked: devices.
        arrival: of the newest entry that devices have told.
        answers, asked, agreed: of the last minute: how many, and the shares of all of them.
        audit: the number of the newest line.
        moves: grows when a channel moves, is paused or goes on.
    """

    unix_seconds: float
    online: int
    admitted: int
    revoked: int
    arrival: int
    answers: int
    asked: float | None
    agreed: float | None
    audit: int
    moves: int


def pulse(cloud: Administered) -> Pulse:
    """A look at the fleet.

    Raises:
        DataError: the database cannot be reached.
    """
    now, site = time.time(), cloud.site
    admitted, revoked = site.enrolment.counts()
    told = cloud.observed.told()
    recent = over_time(told, now - _RECENT, _RECENT, 1)
    newest = site.audit.newest(1)
    return Pulse(
        unix_seconds=now,
        online=len(cloud.presence.all()),
        admitted=admitted,
        revoked=revoked,
        arrival=told.arrival,
        answers=recent.answers[0],
        asked=recent.asked.all[0],
        agreed=recent.agreed.all[0],
        audit=newest[0].number if newest else 0,
        moves=site.registry.moves(),
    )


class Beating:
    """One look a second, however many people watch."""

    def __init__(self, cloud: Administered) -> None:
        self._cloud, self._lock = cloud, asyncio.Lock()
        self._newest, self._at = "", -float("inf")

    async def look(self) -> str:
        """The newest look, as an event."""
        async with self._lock:
            if time.monotonic() - self._at >= SECONDS / 2:
                try:
                    self._newest = f"data: {json.dumps(asdict(await asyncio.to_thread(pulse, self._cloud)))}\n\n"
                except Error as fault:
                    self._newest = (
                        f"event: fault\ndata: {json.dumps({'fault': fault.fault, 'remedy': fault.remedy})}\n\n"
                    )
                self._at = time.monotonic()
            return self._newest


@api.get("/live", response_class=StreamingResponse)
async def live(request: Request, cloud: Cloud, who: Viewing) -> StreamingResponse:
    """Server-sent events: a look a second, until the token holds no longer or the service ends."""
    beating = request.app.state.beating
    return StreamingResponse(events(cloud, beating, who), media_type="text/event-stream")


async def events(cloud: Administered, beating: Beating, who: Operator) -> AsyncIterator[str]:
    """Looks, as server-sent events, for as long as there is somebody to hear them."""
    looked = time.monotonic()
    while cloud.service is None or not cloud.service.over:
        if time.monotonic() - looked >= KNOWN_SECONDS:
            looked = time.monotonic()
            if not await asyncio.to_thread(cloud.site.operators.holds, who.id):
                yield "event: over\ndata: {}\n\n"
                return
        yield await beating.look()
        await asyncio.sleep(SECONDS)
