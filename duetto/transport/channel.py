"""What carries envelopes between two ends, and the one in memory."""

from __future__ import annotations

import asyncio
from typing import Protocol


class Lost(Exception):
    """The other side cannot be heard any longer; ``final`` says that coming back would not help."""

    def __init__(self, why: str, final: bool = False) -> None:
        super().__init__(why)
        self.why, self.final = why, final


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


class Memory:
    """One end of a channel in this process: the same envelopes as over a network, and no network.

    At most ``room`` envelopes are on their way.
    """

    def __init__(self, out: asyncio.Queue[bytes | None], back: asyncio.Queue[bytes | None]) -> None:
        self._out, self._back, self._ended = out, back, False

    async def send(self, data: bytes) -> None:
        """Give one envelope on its way."""
        if self._ended:
            raise Lost("the channel has ended")
        await self._out.put(data)

    async def receive(self) -> bytes:
        """The next envelope."""
        data = None if self._ended else await self._back.get()
        if data is None:
            self._ended = True
            raise Lost("the other side has ended")
        return data

    async def close(self) -> None:
        """End it."""
        if not self._ended:
            self._ended = True
            await self._out.put(None)


def pair(room: int = 64) -> tuple[Memory, Memory]:
    """Both ends of a channel."""
    there: asyncio.Queue[bytes | None] = asyncio.Queue(room)
    back: asyncio.Queue[bytes | None] = asyncio.Queue(room)
    return Memory(there, back), Memory(back, there)
