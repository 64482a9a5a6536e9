"""A bad network between a device and its cloud: a TCP proxy that delays, stops, cuts, and harms what passes.

A partition holds bytes back, as TCP would send them again later; loss that TCP cannot mend is a cut. Harm is done to
bytes that have already arrived in order: TCP's own checksum never misses so much, so this is the worst that can come.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field

UP, DOWN = "up", "down"


@dataclass(eq=False)
class Way:
    """One direction.

    Attributes:
        open: unset while nothing passes.
        delay: seconds for each piece, in a line: later pieces do not wait for earlier ones' delays.
        rate: bytes a second; None is as fast as it goes.
        harm: what happens to the next piece: "corrupt" (one bit) or "duplicate" (it comes twice).
        harmed: how many pieces were.
    """

    open: asyncio.Event = field(default_factory=asyncio.Event)
    delay: float = 0.0
    rate: float | None = None
    harm: str | None = None
    harmed: int = 0


class Wire:
    """Listens at ``port`` and passes everything on to ``target``, as badly as it was told.

    Args:
        target: the port of the cloud, on this machine.
        seed: which bit is changed.
    """

    def __init__(self, target: int, seed: int = 0) -> None:
        self.target, self.port = target, 0
        self.ways = {UP: Way(), DOWN: Way()}
        self._drawn = random.Random(seed)
        self._connections: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> int:
        """Listen; the port."""
        self.heal()
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self.port

    async def stop(self) -> None:
        """Cut everything, and listen no longer."""
        assert self._server is not None
        self._server.close()
        self.cut()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def heal(self) -> None:
        """A good network from now on."""
        for way in self.ways.values():
            way.open.set()
            way.delay, way.rate, way.harm = 0.0, None, None

    def cut(self) -> None:
        """Break all connections, at once and without a word."""
        for connection in self._connections:
            connection.cancel()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        ends, pumps = [writer], []
        try:
            there, out = await asyncio.open_connection("127.0.0.1", self.target)
            ends.append(out)
            pumps = [
                asyncio.ensure_future(self._pump(self.ways[UP], reader, out)),
                asyncio.ensure_future(self._pump(self.ways[DOWN], there, writer)),
            ]
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        except (OSError, asyncio.CancelledError):
            pass  # nobody there, or cut
        finally:
            self._connections.discard(task)
            for pump in pumps:
                pump.cancel()
            for end in ends:
                end.transport.abort()

    async def _pump(self, way: Way, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """From one end to the other: a line in which each piece waits until it is due."""
        line: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(64)
        clock = asyncio.get_running_loop().time

        async def taking() -> None:
            while data := await reader.read(1 << 14):
                await line.put((clock() + way.delay, data))
            await line.put((clock(), b""))

        taken = asyncio.ensure_future(taking())
        try:
            with suppress(OSError):
                while True:
                    due, data = await line.get()
                    await asyncio.sleep(max(0.0, due - clock()))
                    await way.open.wait()
                    if not data:
                        return
                    if way.rate is not None:
                        await asyncio.sleep(len(data) / way.rate)
                    for each in self._harmed(way, data):
                        writer.write(each)
                    await writer.drain()
        finally:
            taken.cancel()
            with suppress(asyncio.CancelledError, OSError):
                await taken

    def _harmed(self, way: Way, data: bytes) -> Iterator[bytes]:
        harm, way.harm = way.harm, None
        if harm is not None:
            way.harmed += 1
        if harm == "corrupt":
            at = self._drawn.randrange(8 * len(data))
            data = data[: at // 8] + bytes([data[at // 8] ^ 1 << at % 8]) + data[at // 8 + 1 :]
        yield data
        if harm == "duplicate":
            yield data
