"""The time of a program that really runs: seconds since it began, which go on over restarts.

A rehearsal runs the same program in the same processes on virtual time: it stands still while anybody has something to
do, and jumps to the next timer of all when nobody has. A day of a fleet then takes as long as its work.
"""

from __future__ import annotations

import asyncio
import math
import selectors
import threading
import time
from collections.abc import Callable
from typing import Any


class Paced(asyncio.SelectorEventLoop):
    """An event loop whose time began at ``began``, in seconds since 1970."""

    def __init__(self, began: float) -> None:
        self._zero = time.monotonic() - (time.time() - began)
        super().__init__()

    def time(self) -> float:
        """Seconds since the program began."""
        return time.monotonic() - self._zero


class Rehearsal(asyncio.SelectorEventLoop):
    """An event loop on virtual time, which somebody else moves.

    Args:
        idle: called with the time of the next timer (or infinity) whenever nothing is left to do; whether it has
            changed anything, and the loop has to look again.
    """

    def __init__(self, idle: Callable[[float], bool]) -> None:
        self._now, self._idle = 0.0, idle
        super().__init__(_Asking(self._next))

    def time(self) -> float:
        """Virtual seconds."""
        return self._now

    def move(self, now: float) -> None:
        """It is so late now."""
        self._now = max(now, self._now)
        self._clock_resolution = math.ulp(self._now)  # asyncio fires timers before now + resolution: those at now

    def _next(self) -> bool:
        scheduled: Any = self._scheduled  # type: ignore[attr-defined]
        timers = [timer.when() for timer in scheduled if not timer.cancelled()]
        return self._idle(min(timers, default=math.inf))


class _Asking(selectors.DefaultSelector):
    """A selector that sleeps only for what comes from outside."""

    def __init__(self, idle: Callable[[], bool]) -> None:
        super().__init__()
        self._changes = idle

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or timeout > 0:
            timeout = 0 if self._changes() else None
        return super().select(timeout)


async def really(seconds: float) -> None:
    """Sleep, whatever time the loop is on."""
    loop = asyncio.get_running_loop()
    if not isinstance(loop, Rehearsal):
        await asyncio.sleep(seconds)
        return
    over = asyncio.Event()
    timer = threading.Timer(seconds, loop.call_soon_threadsafe, (over.set,))
    timer.daemon = True
    timer.start()
    try:
        await over.wait()
    finally:
        timer.cancel()
