"""A virtual clock: an asyncio loop whose time jumps to the next timer.

Nothing here waits. When no callback is ready, the loop's selector is asked to sleep until the next timer;
this one moves the clock there instead. When there is no timer either, nobody can ever go on, and the loop
raises :class:`~duetto.errors.Deadlock` naming who waits for whom.

Timers of one time fire by the rank of who set them, then in the order in which they were set: so a run that was
stopped and goes on fires them as one that was not, although its timers are set anew in another order.
"""

from __future__ import annotations

import asyncio
import heapq
import math
import selectors
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import Context, ContextVar
from itertools import count
from typing import Any, TypeVar, TypeVarTuple

from duetto.errors import Deadlock

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
RANK: ContextVar[int] = ContextVar("rank", default=0)
"""The rank of the running task, and of those that it starts; the lower, the earlier among equal times."""


class _Jump(selectors.DefaultSelector):
    """A selector that never sleeps: it hands the time it was to sleep to the clock."""

    def __init__(self, advance: Callable[[float | None], None]) -> None:
        super().__init__()
        self._advance = advance

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or timeout > 0:
            self._advance(timeout)
        return []


class _Timer(asyncio.TimerHandle):
    """A timer with a place among those of the same time; asyncio's heap leaves their order to chance."""

    __slots__ = ("place",)
    place: tuple[int, int]

    def __lt__(self, other: object) -> bool:
        if not isinstance(other, _Timer):
            return NotImplemented
        mine, its = self.when(), other.when()
        return self.place < other.place if mine == its else mine < its


class Clock(asyncio.SelectorEventLoop):
    """An event loop on virtual time, in seconds.

    Args:
        start: the time it begins at.
        waiting: describes, for the message of a deadlock, who waits for whom.
    """

    def __init__(self, start: float = 0.0, waiting: Callable[[], str] = lambda: "somebody") -> None:
        self._now = start
        self._waiting = waiting
        self._count = count()
        self._broken: BaseException | None = None
        super().__init__(_Jump(self._advance))
        self._clock_resolution = math.ulp(start)  # asyncio fires timers before now + resolution: those at now

    def time(self) -> float:
        """Virtual seconds."""
        return self._now

    @property
    def idle(self) -> bool:
        """Whether nothing but what runs now is left to do before time moves on."""
        return not self._ready  # type: ignore[attr-defined]

    def call_at(
        self, when: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Call ``callback`` at a virtual time."""
        timer = _Timer(when, callback, args, self, context)
        timer.place = (RANK.get(), next(self._count))
        heapq.heappush(self._scheduled, timer)  # type: ignore[attr-defined]
        timer._scheduled = True  # type: ignore[attr-defined]
        return timer

    def _advance(self, timeout: float | None) -> None:
        scheduled: list[asyncio.TimerHandle] = self._scheduled  # type: ignore[attr-defined]
        if not scheduled or scheduled[0].when() == math.inf:
            raise Deadlock(
                f"deadlock at {self._now:g} s: {self._waiting()}", "no timer is left that could end the wait"
            )
        # The timer's own time, not now + timeout: adding and subtracting floats would drift by an ulp per jump.
        self._now = scheduled[0].when()
        self._clock_resolution = math.ulp(self._now)

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Run to the end; whatever still runs then is cancelled. What a callback raises ends the run too."""
        if asyncio._get_running_loop() is not None:  # called inside another loop, as in a notebook
            with ThreadPoolExecutor(1) as thread:
                return thread.submit(self.run, main).result()
        task = self.create_task(main)

        def broken(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
            if "handle" in context and self._broken is None:
                self._broken = context["exception"]
                task.cancel()
            elif "handle" not in context:
                loop.default_exception_handler(context)

        self.set_exception_handler(broken)
        try:
            return self.run_until_complete(task)
        except asyncio.CancelledError:
            if self._broken is not None:
                raise self._broken from None
            raise
        finally:
            try:
                self._end()
            finally:
                self.close()

    def _end(self) -> None:
        seen: set[asyncio.Task[Any]] = set()
        while left := asyncio.all_tasks(self):
            seen |= left
            for other in left:
                other.cancel()
            # ctrl-C comes through every task that waited for the one it struck, each time past all handlers
            with suppress(KeyboardInterrupt):
                self.run_until_complete(asyncio.wait(left))
        for other in seen:
            if not other.cancelled():
                other.exception()  # say that somebody has heard
        self.run_until_complete(self.shutdown_asyncgens())
