"""What the wire costs: round trips between two processes on this machine, and where their time goes.

    python benchmarks/runtime/overhead.py [--asks 2000] [--warm 300]

One process serves, the other asks, one ask at a time; each row is timed in three blocks that take turns, so that a slow
minute of the machine meets all of them. "bare gRPC" sends the same bytes over the same stream without any of ours:
what is left is what Duetto adds.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import multiprocessing
import tempfile
import time
import zlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np

from duetto import tree as trees
from duetto.cloud.service import Service, named
from duetto.protocols.probe import Echo
from duetto.transport import envelope as envelopes
from duetto.transport import vocabulary
from duetto.transport import wire_pb2 as wire
from duetto.transport.channel import Channel, Lost, pair
from duetto.transport.grpc import Client, Server
from duetto.transport.identity import Authority, Credentials, made_key, requested
from duetto.transport.party import Running
from duetto.transport.remote import Remote
from duetto.transport.session import Greeting, Session
from duetto.types import Party

SMALL, FEATURE = {"x": np.zeros(16, np.float32)}, {"x": np.arange(25_000, dtype=np.float32)}  # 64 bytes, 100 kB
Ask = Callable[[], Awaitable[Any]]


async def bare(channel: Channel, certificate: bytes | None) -> None:
    """Answers each message with a short one."""
    try:
        while True:
            await channel.receive()
            await channel.send(b"x" * 60)
    except Lost:
        return


def serving(ports: Any, folder: str) -> None:
    """The other process."""

    async def main() -> None:
        service = Service(Party(skills=(Echo,)), admit=None)
        strict = Service(Party(skills=(Echo,)), admit=named)
        authority = Authority.load(folder)
        own = authority.server(["127.0.0.1"])
        servers = [
            Server("127.0.0.1:0", service.accept, credentials=None),
            Server("127.0.0.1:0", strict.accept, credentials=own),
            Server("127.0.0.1:0", bare, credentials=None),
            Server("127.0.0.1:0", bare, credentials=own),
        ]
        ports.send([await each.start() for each in servers])
        await asyncio.get_running_loop().run_in_executor(None, ports.recv)
        for each in servers:
            await each.stop(0)

    asyncio.run(main())


async def timed(ask: Ask, count: int) -> list[float]:
    took = []
    for _ in range(count):
        begin = time.perf_counter()
        await ask()
        took.append(time.perf_counter() - begin)
    return took


async def asking(ports: list[int], own: Credentials, count: int, warm: int) -> dict[str, np.ndarray]:
    """Rows of seconds."""
    tasks, closes = [], []
    rows: dict[str, Ask] = {}

    async def connected(channel: Channel) -> Remote:
        session = Session(channel, Greeting("ann"), Running(Party(), "ann").answer)
        await session.open()
        tasks.append(asyncio.ensure_future(session.run()))
        peer = Remote("cloud", device=True)
        peer.attach(session)
        return peer

    def row(peer: Remote, tree: Any) -> Ask:
        number = iter(range(1 << 60))

        async def one() -> None:
            reply = await peer.ask(Echo(), tree, key=(0, next(number)), deadline=10.0)
            assert reply.failure is None, reply.failure

        return one

    def bare_row(channel: Channel, nbytes: int) -> Ask:
        data = bytes(nbytes)

        async def one() -> None:
            await channel.send(data)
            await channel.receive()

        return one

    here, there = pair()
    ben = Session(there, Greeting("ben"), Running(Party(skills=(Echo,)), "ben").answer)
    peer, _ = await asyncio.gather(connected(here), ben.open())
    tasks.append(asyncio.ensure_future(ben.run()))
    rows |= {"memory, small": row(peer, SMALL), "memory, 100 kB": row(peer, FEATURE)}
    for index, (name, credentials) in enumerate({"plain": None, "TLS": own}.items()):
        client = Client(f"127.0.0.1:{ports[index]}", credentials=credentials)
        closes.append(client)
        peer = await connected(await client.talk())
        rows |= {f"{name}, small": row(peer, SMALL), f"{name}, 100 kB": row(peer, FEATURE)}
        client = Client(f"127.0.0.1:{ports[2 + index]}", credentials=credentials)
        closes.append(client)
        channel = await client.talk()
        rows |= {
            f"bare gRPC, {name}, small": bare_row(channel, 260),
            f"bare gRPC, {name}, 100 kB": bare_row(channel, 100_200),
        }
    for ask in rows.values():
        await timed(ask, warm)
    found: dict[str, list[float]] = {name: [] for name in rows}
    gc.disable()
    for _ in range(3):
        for name, ask in rows.items():
            found[name] += await timed(ask, count // 3)
            gc.collect()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for client in closes:
        await client.close()
    return {name: np.array(each) for name, each in found.items()}


def steps(count: int = 2000) -> dict[str, float]:
    """Median seconds of what is computed for one 100 kB ask, on the two sides together."""
    body = trees.encode(FEATURE)
    part, _ = vocabulary.written(Echo())

    def whole() -> bytes:
        asked = wire.Ask(part=part, key="[0,1]", milliseconds=9)
        return next(envelopes.pieces(wire.Envelope(id=1, mine=True, ask=asked), body))

    data = whole()
    done: dict[str, Callable[[], Any]] = {
        "tree to bytes": lambda: trees.encode(FEATURE),
        "describe the skill (cached)": lambda: vocabulary.written(Echo()),
        "body to envelope": whole,
        "envelope to body": lambda: envelopes.heard(data),
        "CRC-32, both sides (in the two above)": lambda: (zlib.crc32(body), zlib.crc32(body)),
        "bytes to tree": lambda: trees.decode(body),
    }
    found = {}
    for name, function in done.items():
        took = []
        for _ in range(count):
            begin = time.perf_counter()
            function()
            took.append(time.perf_counter() - begin)
        found[name] = float(np.median(took))
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--asks", type=int, default=2001)
    parser.add_argument("--warm", type=int, default=300)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        authority = Authority.make(Path(folder))
        key = made_key()
        own = Credentials(key, authority.sign(requested(key, "ann"), "ann"), authority.certificate)
        mine, theirs = multiprocessing.get_context("spawn").Pipe()
        process = multiprocessing.get_context("spawn").Process(target=serving, args=(theirs, folder))
        process.start()
        rows = asyncio.run(asking(mine.recv(), own, given.asks, given.warm))
        mine.send("over")
        process.join()
    print("| round trip | p50 ms | p95 ms | p99 ms |\n|---|---|---|---|")
    for name, seconds in rows.items():
        print(f"| {name} | " + " | ".join(f"{np.percentile(seconds, q) * 1e3:.3f}" for q in (50, 95, 99)) + " |")
    print("\n| step of a 100 kB ask | median us |\n|---|---|")
    for name, median in steps().items():
        print(f"| {name} | {median * 1e6:.1f} |")


if __name__ == "__main__":
    main()
