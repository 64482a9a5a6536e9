"""What carries envelopes between two ends, and the one in memory."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Protocol

CLOUD = "cloud"
"""What the cloud calls itself."""
OVER = "the program is over"
"""Why a session ends that nothing went wrong with; both sides know it by these words."""


class Lost(Exception):
    """The other side cannot be heard any longer.

    Attributes:
        why: in one line.
        final: coming back would not help.
        told: one side has ended it and said why; else it just broke.
    """

    def __init__(self, why: str, final: bool = False, told: bool = False) -> None:
        super().__init__(why)
        self.why, self.final, self.told = why, final, told


class Channel(Protocol):
    """Envelopes in order, both ways, until one side ends it."""

    async def send(self, data: bytes) -> None:
        """Give one envelope on its way; returns when there is room for the next.

        Raises:
            Lost: nobody takes it.
        """

    async def receive(self) -> bytes:
        """The next envelope.

        Raises:
            Lost: there will be none.
        """

    async def close(self) -> None:
        """End it; what was sent still arrives."""


class _Way:
    """One direction: what is on its way, and whether either end has ended it."""

    def __init__(self, room: int) -> None:
        self.envelopes: deque[bytes] = deque()
        self.room, self.ended, self.changed = room, False, asyncio.Event()

    async def changes(self) -> None:
        """Wait for whatever comes next."""
        self.changed.clear()
        await self.changed.wait()

    def end(self) -> None:
        """Nothing more is put on its way."""
        self.ended = True
        self.changed.set()


class Memory:
    """One end of a channel in this process: the same envelopes as over a network, and no network.

    At most ``room`` envelopes are on their way.
    """

    def __init__(self, out: _Way, back: _Way) -> None:
        self._out, self._back, self._closed = out, back, False

    async def send(self, data: bytes) -> None:
        """Give one envelope on its way."""
        way = self._out
        while not way.ended and len(way.envelopes) >= way.room:
            await way.changes()
        if way.ended:
            raise Lost("the channel has ended")
        way.envelopes.append(data)
        way.changed.set()

    async def receive(self) -> bytes:
        """The next envelope."""
        way = self._back
        while not self._closed and not way.ended and not way.envelopes:
            await way.changes()
        if self._closed or not way.envelopes:
            raise Lost("the other side has ended")
        way.changed.set()
        return way.envelopes.popleft()

    async def close(self) -> None:
        """End it; nobody is waited for."""
        self._closed = True
        self._out.end()
        self._back.end()


def pair(room: int = 64) -> tuple[Memory, Memory]:
    """Both ends of a channel."""
    there, back = _Way(room), _Way(room)
    return Memory(there, back), Memory(back, there)
