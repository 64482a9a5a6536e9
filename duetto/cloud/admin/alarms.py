"""What is to be looked at now."""

from __future__ import annotations

import threading
import time

from fastapi import APIRouter, Request

from duetto.cloud.admin.access import Administered, Cloud, Viewing
from duetto.cloud.alarms import Alarm, alarms
from duetto.cloud.metrics import STORED_SECONDS

api = APIRouter(tags=["alarms"])


class Watch:
    """The alarms, looked for every 15 seconds at most, however many people ask: gaps are counted over a long table."""

    def __init__(self, cloud: Administered, seconds: float = STORED_SECONDS) -> None:
        self._cloud, self._seconds, self._lock = cloud, seconds, threading.Lock()
        self._found: list[Alarm] = []
        self._at = -float("inf")

    def found(self) -> list[Alarm]:
        """The newest look's.

        Raises:
            DataError: the database cannot be reached.
        """
        with self._lock:
            if time.monotonic() - self._at >= self._seconds:
                self._found = alarms(self._cloud.site, self._cloud.observed.told(), self._cloud.counters)
                self._at = time.monotonic()
            return self._found


@api.get("/alarms")
def told(request: Request, cloud: Cloud, who: Viewing) -> list[Alarm]:
    """What is to be looked at, the worst first, as it was at most 15 seconds ago; nothing where all is well."""
    watch: Watch = request.app.state.watch
    return watch.found()
