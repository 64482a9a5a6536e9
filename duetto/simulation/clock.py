"""A virtual clock: an asyncio loop whose time jumps to the next timer.

Nothing here waits. When no callback is ready, the loop's selector is asked to sleep until the next timer;
this one moves the clock there instead. When there is no timer either, nobody can ever go on, and the loop
raises :class:`~duetto.errors.Deadlock` naming who waits for whom.
"""

from __future__ import annotations

import asyncio
import math
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from duetto.errors import Deadlock

T = TypeVar("T")


class _Jump(selectors.DefaultSelector):
    """A selector that never sleeps: it hands the time it was to sleep to the clock."""

    def __init__(self, advance: Callable[[float | None], None]) -> None:
        super().__init__()
        self._advance = advance

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or timeout > 0:
            self._advance(timeout)
        return []


class Clock(asyncio.SelectorEventLoop):
    """An event loop on virtual time, in seconds.

    Args:
        start: the time it begins at.
        waiting: describes, for the message of a deadlock, who waits for whom.
    """

    def __init__(self, start: float = 0.0, waiting: Callable[[], str] = lambda: "somebody") -> None:
        self._now = start
        self._waiting = waiting
        super().__init__(_Jump(self._advance))
        self._clock_resolution = math.ulp(start)  # asyncio fires timers before now + resolution: those at now

    def time(self) -> float:
        """Virtual seconds."""
        return self._now

    def _advance(self, timeout: float | None) -> None:
        if timeout is None:
            raise Deadlock(
                f"deadlock at {self._now:g} s: {self._waiting()}", "no timer is left that could end the wait"
            )
        scheduled: list[asyncio.TimerHandle] = self._scheduled  # type: ignore[attr-defined]
        # The timer's own time, not now + timeout: adding and subtracting floats would drift by an ulp per jump.
        self._now = scheduled[0].when() if scheduled else self._now + timeout
        self._clock_resolution = math.ulp(self._now)

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Run to the end; whatever still runs then is cancelled."""
        asyncio.set_event_loop(None)
        task = self.create_task(main)
        try:
            return self.run_until_complete(task)
        finally:
            left = asyncio.all_tasks(self)
            for other in left:
                other.cancel()
            if left:
                self.run_until_complete(asyncio.gather(*left, return_exceptions=True))
            self.run_until_complete(self.shutdown_asyncgens())
            self.close()
