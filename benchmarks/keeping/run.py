"""What keeping costs: the device's outbox, and the cloud's feedback store.

``python benchmarks/keeping/run.py FOLDER [URL ...]`` works in FOLDER, whose disk is what is measured, and keeps in each
database: ``sqlite:///FILE``, ``postgresql://...``. Bodies are 200 random bytes (seed 0); the median of five turns, with
the least and the most.

- **put**: microseconds of the caller for one ``put``, 10,000 at once; what answering is slowed down by.
- **one**: milliseconds from ``put`` to durable for a lone entry with ``group_seconds=0``: a group of one, one flush.
- **together**: entries a second from the first ``put`` of 10,000 to the last durable, 64 put whenever the 64 before are
  durable; beside it the same with ``synchronous=NORMAL``, and one transaction an entry with plain sqlite3, ``FULL``.
- **keep**: milliseconds a batch of 64 of ``Feedback.keep``, 200 batches one after the other.
"""

from __future__ import annotations

import asyncio
import sqlite3
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import numpy as np

import duetto.device.outbox as boxes
from duetto.cloud.database import opened, upgraded
from duetto.cloud.feedback import Feedback
from duetto.device.outbox import Outbox
from duetto.protocols.deliver import Entry

TURNS, ENTRIES, BATCHES = 5, 10_000, 200
BODIES = [body.tobytes() for body in np.random.default_rng(0).integers(0, 256, (64, 200), dtype=np.uint8)]


def put(folder: Path) -> float:
    """Microseconds of a put."""

    async def main() -> float:
        async with Outbox(folder / uuid4().hex) as outbox:
            start = time.perf_counter()
            tickets = [outbox.put("record", BODIES[i % 64]) for i in range(ENTRIES)]
            spent = time.perf_counter() - start
            await outbox.committed(tickets[-1])
        return spent / ENTRIES * 1e6

    return asyncio.run(main())


def one(folder: Path) -> float:
    """Milliseconds until a lone entry is durable."""

    async def main() -> float:
        async with Outbox(folder / uuid4().hex, group_seconds=0) as outbox:
            spent = []
            for i in range(100):
                start = time.perf_counter()
                await outbox.committed(outbox.put("record", BODIES[i % 64]))
                spent.append(time.perf_counter() - start)
        return statistics.median(spent) * 1e3

    return asyncio.run(main())


def together(folder: Path) -> float:
    """Entries a second, in groups of 64."""

    async def main() -> float:
        async with Outbox(folder / uuid4().hex) as outbox:
            start = time.perf_counter()
            for first in range(0, ENTRIES, 64):
                tickets = [outbox.put("record", BODIES[i % 64]) for i in range(first, min(first + 64, ENTRIES))]
                await outbox.committed(tickets[-1])
            return ENTRIES / (time.perf_counter() - start)

    return asyncio.run(main())


def normal(folder: Path) -> float:
    """The same without a flush for each group."""
    set_up = boxes._File._set_up
    try:
        boxes._File._set_up = lambda file: (set_up(file), file._disk.execute("PRAGMA synchronous = NORMAL"))[0]
        return together(folder)
    finally:
        boxes._File._set_up = set_up


def alone(folder: Path) -> float:
    """Entries a second, a transaction each."""
    disk = sqlite3.connect(folder / uuid4().hex, isolation_level=None)
    disk.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; CREATE TABLE entry (x, y, body)")
    start = time.perf_counter()
    for i in range(1000):
        disk.execute("INSERT INTO entry VALUES (?, 'record', ?)", (i, BODIES[i % 64]))
    spent = time.perf_counter() - start
    disk.close()
    return 1000 / spent


def keep(url: str) -> float:
    """Milliseconds of a batch of 64."""
    engine = upgraded(opened(url))
    store, session = Feedback(engine), uuid4().bytes
    start = time.perf_counter()
    for batch in range(BATCHES):
        store.keep("device", session, [Entry(64 * batch + i + 1, "record", BODIES[i]) for i in range(64)])
    spent = time.perf_counter() - start
    engine.dispose()
    return spent / BATCHES * 1e3


def told(what: str, unit: str, measure: Callable[[], float]) -> None:
    """A line of the table."""
    turns = sorted(measure() for _ in range(TURNS))
    print(f"| {what} | {statistics.median(turns):,.3g} {unit} | {turns[0]:,.3g} to {turns[-1]:,.3g} |", flush=True)


def main(folder: Path, *urls: str) -> None:
    """Measure all."""
    folder.mkdir(parents=True, exist_ok=True)
    print("| what | median | of five |\n|---|---|---|")
    told("put", "us", lambda: put(folder))
    told("one, until durable", "ms", lambda: one(folder))
    told("together, FULL", "entries/s", lambda: together(folder))
    told("together, NORMAL (not used)", "entries/s", lambda: normal(folder))
    told("a transaction each, plain sqlite3, FULL", "entries/s", lambda: alone(folder))
    for url in urls:
        told(f"keep, a batch of 64, {url.partition(':')[0]}", "ms", lambda url=url: keep(url))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
