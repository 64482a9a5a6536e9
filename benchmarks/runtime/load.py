"""How much one cloud process bears: ``python benchmarks/runtime/load.py``.

Starts a cloud in a process of its own, and in this one ``--devices`` connections over loopback, each a channel of its
own, that ask :class:`~duetto.protocols.probe.Echo` (a model that does nothing) at ``--rate`` asks a second in all, at
random times (a Poisson process, so that a slow answer delays no later question). Latencies count from when a question
was due. Both processes share the machine's cores.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import tempfile
import time
from pathlib import Path

import numpy as np

from duetto.cli import real
from duetto.cloud.batcher import Batcher
from duetto.cloud.service import serve
from duetto.protocols.probe import Echo
from duetto.transport.channel import Lost
from duetto.transport.grpc import Client
from duetto.transport.identity import Authority, Credentials, made_key, requested
from duetto.transport.remote import Remote
from duetto.transport.session import Greeting, Question, Said, Session
from duetto.types import Party


def cloud(listen: str, folder: str | None, ready: multiprocessing.synchronize.Event) -> None:
    """A cloud that echoes."""
    from contextlib import asynccontextmanager

    batcher = Batcher()

    @asynccontextmanager
    async def beside(service: object):
        async with batcher:
            yield

    credentials = None if folder is None else Credentials.load(Path(folder) / "server")
    real.serving()  # as duetto cloud does
    real.loaded()
    serve(
        Party(skills=(Echo,)),
        listen=listen,
        credentials=credentials,
        uses=batcher,
        beside=beside,
        on_listening=lambda port: ready.set(),
    )


TALKING: set[asyncio.Task[None]] = set()


async def nothing(sender: str, question: Question) -> Said:
    """These devices answer nothing."""
    return Said(failure="not offered")


async def connected(address: str, name: str, credentials: Credentials | None) -> tuple[Client, Remote]:
    """A device."""
    client, remote = Client(address, credentials=credentials), Remote("cloud", device=True)
    session = Session(await client.talk(60.0), Greeting(name), nothing)
    await session.open()
    remote.attach(session)

    async def talk() -> None:
        remote.detach(session, await session.run())

    TALKING.add(asyncio.ensure_future(talk()))
    return client, remote


def resident(process: int) -> float:
    """Megabytes of a process in memory."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


async def watched(process: int, seconds: float) -> None:
    """Print the cloud's memory ten times."""
    for step in range(11):
        print(f"cloud after {step * seconds / 10:.0f} s: {resident(process):.1f} MB", flush=True)
        await asyncio.sleep(seconds / 10)


async def measured(
    address: str, folder: str | None, devices: int, rate: float, seconds: float, nbytes: int, process: int
) -> None:
    """Connect, ask, print."""
    own: list[Credentials | None] = [None] * devices
    if folder is not None:
        authority = Authority.load(Path(folder) / "authority")
        key = made_key()  # one key for all of them: only the names differ
        for i in range(devices):
            certificate = authority.sign(requested(key, f"d{i}"), f"d{i}")
            own[i] = Credentials(key, certificate, authority.certificate)
    begin = time.perf_counter()
    peers: list[tuple[Client, Remote]] = []
    for start in range(0, devices, 50):
        some = range(start, min(devices, start + 50))
        peers += await asyncio.gather(*(connected(address, f"d{i}", own[i]) for i in some))
    real.loaded()  # the devices' own garbage collector would count as the cloud's lateness
    print(f"{devices} devices connected in {time.perf_counter() - begin:.1f} s", flush=True)
    draw = np.random.default_rng(0)
    tree = {"x": np.zeros(nbytes, np.uint8)}
    late: list[float] = []
    failures: dict[str, int] = {}
    tasks: set[asyncio.Task[None]] = set()

    async def ask(i: int, due: float) -> None:
        reply = await peers[i % devices][1].ask(Echo(), tree, key=("load", i), deadline=5.0)
        if reply.failure is not None:
            failures[reply.failure] = failures.get(reply.failure, 0) + 1
        late.append(time.perf_counter() - due)

    watch = asyncio.ensure_future(watched(process, seconds))
    begin, i, due = time.perf_counter(), 0, 0.0
    while due < seconds:
        due += draw.exponential(1 / rate)
        if (wait := begin + due - time.perf_counter()) > 0:
            await asyncio.sleep(wait)
        task = asyncio.ensure_future(ask(int(draw.integers(devices)) + devices * i, begin + due))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        i += 1
    await asyncio.gather(*tasks)
    watch.cancel()
    took = time.perf_counter() - begin
    p50, p99, worst = np.quantile(late, [0.5, 0.99, 1.0]) * 1000
    kind = "TLS" if folder else "plain"
    print("| devices | over | asks/s asked | answered/s | failures | p50 ms | p99 ms | worst ms |")
    print("|--:|:--|--:|--:|--:|--:|--:|--:|")
    print(
        f"| {devices} | {kind} | {rate:.0f} | {len(late) / took:.0f} | {sum(failures.values())} "
        f"| {p50:.2f} | {p99:.2f} | {worst:.1f} |"
    )
    for failure, count in failures.items():
        print(f"- {count}: {failure}")
    for client, _ in peers:
        await client.close()


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", type=int, default=1000)
    parser.add_argument("--rate", type=float, default=2000)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--bytes", type=int, default=200)
    parser.add_argument("--port", type=int, default=8477)
    parser.add_argument("--tls", action="store_true")
    asked = parser.parse_args()
    address = f"127.0.0.1:{asked.port}"
    with tempfile.TemporaryDirectory() as made:
        folder = made if asked.tls else None
        if folder:
            Authority.make(Path(folder) / "authority").server(["localhost", "127.0.0.1"]).save(Path(folder) / "server")
        context = multiprocessing.get_context("spawn")
        ready = context.Event()
        process = context.Process(target=cloud, args=(address, folder, ready), daemon=True)
        process.start()
        ready.wait(60)
        try:
            asked_for = (asked.devices, asked.rate, asked.seconds, asked.bytes)
            asyncio.run(measured(address, folder, *asked_for, process.pid or 0))
            print(f"cloud in the end: {resident(process.pid):.1f} MB")
        except Lost as lost:
            print(f"lost: {lost.why}")
        finally:
            process.terminate()
            process.join(10)


if __name__ == "__main__":
    main()
