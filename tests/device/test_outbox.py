"""The outbox keeps what it acknowledged through kill -9, drops by its rule and says so, and never numbers twice."""

import asyncio
import json
import logging
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from duetto.device.outbox import FILE, OVERHEAD, Outbox
from duetto.errors import ConfigError, DataError
from duetto.protocols.deliver import BODY_BYTES, DROPPED, Drop, heard

SESSION = bytes(range(16))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "outbox.sqlite"


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(work)


async def kept(outbox: Outbox, *puts: tuple[str, bytes]) -> list[int | None]:
    tickets = [outbox.put(kind, body) for kind, body in puts]
    return [await outbox.committed(ticket) for ticket in tickets]


async def everything(outbox: Outbox) -> list[tuple[int, str, bytes]]:
    batch = await outbox.batch(10**6, 1 << 40)
    return [(entry.sequence, entry.kind, entry.body) for entry in batch.entries]


# ------------------------------------------------------------------------------------------------ keeping, letting go


def test_entries_come_back_in_order_after_reopening(path: Path) -> None:
    async def first() -> bytes:
        async with Outbox(path) as outbox:
            assert await kept(outbox, ("record", b"a"), ("feedback", b""), ("record", b"c")) == [1, 2, 3]
            return (await outbox.batch()).session

    async def second(session: bytes) -> None:
        async with Outbox(path, session=SESSION) as outbox:
            assert await everything(outbox) == [(1, "record", b"a"), (2, "feedback", b""), (3, "record", b"c")]
            assert (await outbox.batch()).session == session, "the session is the file's"
            assert await outbox.counts() == {"feedback": 1, "record": 2}
            assert await kept(outbox, ("record", b"d")) == [4]

    session = run(first())
    assert len(session) == 16
    assert session != SESSION
    run(second(session))


def test_putting_does_not_wait_and_what_waits_at_the_end_is_committed(path: Path) -> None:
    async def first() -> None:
        async with Outbox(path, group_seconds=3600, group_entries=10**6) as outbox:
            tickets = [outbox.put("record", bytes([i])) for i in range(9)]
            assert not any(ticket.done() for ticket in tickets)
        assert [await outbox.committed(ticket) for ticket in tickets] == list(range(1, 10))

    async def second() -> None:
        async with Outbox(path) as outbox:
            assert [body for _, _, body in await everything(outbox)] == [bytes([i]) for i in range(9)]

    run(first())
    run(second())


def test_a_full_group_is_committed_at_once(path: Path) -> None:
    async def main() -> None:
        async with Outbox(path, group_seconds=3600, group_entries=4) as outbox:
            assert await kept(outbox, *[("record", b"x")] * 4) == [1, 2, 3, 4]

    run(main())


def test_a_batch_is_the_oldest_and_what_is_acknowledged_is_gone_for_good(path: Path) -> None:
    async def main() -> None:
        async with Outbox(path, session=SESSION) as outbox:
            for i in range(6):
                outbox.put("record", bytes(10 * (i + 1)))
            assert [e.sequence for e in (await outbox.batch(max_entries=2)).entries] == [1, 2]
            assert [e.sequence for e in (await outbox.batch(max_bytes=60)).entries] == [1, 2, 3], "10 + 20 + 30 bytes"
            assert [e.sequence for e in (await outbox.batch(max_bytes=0)).entries] == [1], "one always fits"
            assert await outbox.acknowledge(SESSION, [2, 1, 77]) == 2
            assert await outbox.acknowledge(bytes(16), [3]) == 0, "of another session"
            assert await outbox.acknowledge(SESSION, [3, 4, 5, 6]) == 4
            assert await everything(outbox) == []
        async with Outbox(path) as outbox:
            assert await kept(outbox, ("record", b"later")) == [7]

    run(main())


def test_a_waiter_that_gives_up_harms_nobody(path: Path) -> None:
    async def main() -> None:
        async with Outbox(path, group_seconds=3600) as outbox:
            ticket = outbox.put("record", b"x")
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(outbox.committed(ticket), 0.01)
            assert len((await outbox.batch()).entries) == 1
            assert await outbox.committed(ticket) == 1

    run(main())


# ------------------------------------------------------------------------------------------------ dropping


def test_records_go_before_feedback_the_oldest_first_and_the_cloud_is_told(path: Path) -> None:
    room = 3 * (100 + OVERHEAD)

    async def main() -> None:
        async with Outbox(path, session=SESSION, limit_bytes=room) as outbox:
            assert await kept(outbox, *[("feedback" if i % 2 else "record", bytes(100)) for i in range(3)]) == [1, 2, 3]
            assert await kept(outbox, ("record", bytes(100))) == [4]
            assert [sequence for sequence, *_ in await everything(outbox)] == [2, 3, 4, 5]
            assert await outbox.drops() == {"record": Drop(1, 100, 1, 1)}
            last = (await everything(outbox))[-1]
            assert (last[1], heard(last[2])) == (DROPPED, {"record": Drop(1, 100, 1, 1)})
            # What tells of drops takes room too: both records go, and then the oldest feedback.
            assert await kept(outbox, ("feedback", bytes(100)), ("feedback", bytes(100))) == [6, 7]
            assert [(n, kind) for n, kind, _ in await everything(outbox)] == [
                (5, DROPPED),
                (6, "feedback"),
                (7, "feedback"),
            ]
            total = {"record": Drop(3, 300, 1, 4), "feedback": Drop(1, 100, 2, 2)}
            assert await outbox.drops() == total
            assert await outbox.acknowledge(SESSION, [5]) == 1
            told = [body for _, kind, body in await everything(outbox) if kind == DROPPED]
            assert [heard(body) for body in told] == [{"record": Drop(2, 200, 3, 4), "feedback": Drop(1, 100, 2, 2)}]
        async with Outbox(path) as outbox:
            assert await outbox.drops() == total

    run(main())


def test_a_record_that_finds_only_feedback_is_dropped_itself(path: Path) -> None:
    async def main() -> None:
        async with Outbox(path, limit_bytes=100 + OVERHEAD) as outbox:
            assert await kept(outbox, ("feedback", bytes(100)), ("record", b"x")) == [1, None]
            assert await outbox.drops() == {"record": Drop(1, 1, 2, 2)}

    run(main())


def test_a_kind_that_is_kept_no_more_goes_first(path: Path) -> None:
    async def main() -> None:
        async with Outbox(path, kinds=("old", "feedback")) as outbox:
            await kept(outbox, ("feedback", bytes(100)), ("old", bytes(100)))
        async with Outbox(path, kinds=("feedback",), limit_bytes=2 * (100 + OVERHEAD)) as outbox:
            await kept(outbox, ("feedback", bytes(100)))
            assert await outbox.drops() == {"old": Drop(1, 100, 2, 2)}

    run(main())


# ------------------------------------------------------------------------------------------------ faults


FULL = """
import asyncio, json, logging, resource, signal, sys
from duetto.device.outbox import Outbox
logging.basicConfig(level=logging.WARNING, format="%(message)s")

async def main():
    async with Outbox(sys.argv[1], memory_bytes=100_000, retry_seconds=0.01, kinds=("record", "feedback")) as outbox:
        first = [outbox.put("feedback", bytes(10)) for _ in range(5)]
        before = [await outbox.committed(ticket) for ticket in first]
        room = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, room[1]))
        waits = [outbox.put("feedback", bytes(1000)) for _ in range(20)]
        lost = [outbox.put("record", bytes(1000)) for _ in range(200)]
        held = len((await outbox.batch()).entries)
        drops = {kind: drop.entries for kind, drop in (await outbox.drops()).items()}
        while_full = [ticket.done() for ticket in waits]
        resource.setrlimit(resource.RLIMIT_FSIZE, room)
        after = [await outbox.committed(ticket) for ticket in waits + lost]
        again = {kind: drop.entries for kind, drop in (await outbox.drops()).items()}
        print(json.dumps([before, held, drops, while_full, after, again, await outbox.counts()]))

asyncio.run(main())
"""


def test_a_full_disk_is_told_once_and_what_waits_is_written_when_there_is_room_again(path: Path) -> None:
    """The disk is a limit on the size of files, which the kernel enforces."""
    pytest.importorskip("resource")
    done = subprocess.run([sys.executable, "-c", FULL, path], capture_output=True, text=True, timeout=60, check=True)
    before, held, drops, while_full, after, again, counts = json.loads(done.stdout)
    fit = 100_000 // (1000 + OVERHEAD) - 20  # records beside the 20 of feedback
    assert (before, held) == ([1, 2, 3, 4, 5], 5)
    assert drops == again == {"record": 200 - fit}
    assert not any(while_full)
    assert after == [*range(6, 26), *[None] * (200 - fit), *range(26, 26 + fit)]
    assert counts == {"feedback": 25, "record": fit}
    lines = done.stderr.splitlines()
    assert len(lines) == 2, lines
    assert "cannot be written" in lines[0]
    assert "check the disk" in lines[0] or "free space" in lines[0]
    assert lines[1].endswith("entries are written again")


@pytest.mark.parametrize("damage", ["header", "middle", "text"])
def test_a_damaged_file_is_set_aside_and_a_new_session_begins(
    path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def first() -> bytes:
        async with Outbox(path) as outbox:
            await kept(outbox, *[("record", os.urandom(3000))] * 50)
            return (await outbox.batch()).session

    async def second() -> bytes:
        async with Outbox(path, session=SESSION) as outbox:
            assert await kept(outbox, ("record", b"new")) == [1]
            entries = await everything(outbox)
            assert [(sequence, kind) for sequence, kind, _ in entries] == [(1, "record"), (2, DROPPED)]
            assert heard(entries[1][2])[FILE] == Drop(1, size)
            return (await outbox.batch()).session

    session = run(first())
    content = bytearray(path.read_bytes())
    if damage == "text":
        content = bytearray(b"this is no database at all\n" * 100)
    else:
        at = 16 if damage == "header" else 4096
        content[at : at + 3 * 4096] = b"\xff" * 3 * 4096
    path.write_bytes(content)
    size = len(content)
    assert run(second()) not in (session, SESSION)
    aside = path.with_name("outbox.sqlite.damaged-1")
    assert aside.read_bytes() == bytes(content)
    (line,) = [record.getMessage() for record in caplog.records]
    assert "is damaged" in line
    assert "set aside as outbox.sqlite.damaged-1: a new one begins with a new session" in line


def test_damage_that_shows_while_it_is_used_begins_a_new_session_too(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with Outbox(path) as outbox:
            for _ in range(10):  # more than SQLite holds in memory
                await kept(outbox, *[("record", os.urandom(40_000))] * 30)
            session = (await outbox.batch()).session
            path.write_bytes(b"\xff" * path.stat().st_size)
            path.with_name(path.name + "-wal").write_bytes(b"")
            await everything(outbox)
            assert await kept(outbox, ("feedback", b"after")) != [None]
            assert (await outbox.batch()).session != session
            there = await everything(outbox)
            assert (there[-1][1], (await outbox.drops())[FILE].entries) == (DROPPED, 1)
            assert b"after" in [body for *_, body in there]
            assert await outbox.acknowledge(session, [n for n, *_ in there]) == 0, "numbers of the session that ended"

    with caplog.at_level(logging.ERROR):
        run(main())
    assert any("is damaged" in record.getMessage() for record in caplog.records)


def test_another_process_or_another_program_s_file_is_refused(path: Path, tmp_path: Path) -> None:
    async def twice() -> None:
        async with Outbox(path):
            with pytest.raises(ConfigError, match="another process uses it"):
                async with Outbox(path):
                    pass

    async def enter(where: Path) -> None:
        async with Outbox(where):
            pass

    run(twice())
    other = tmp_path / "other.sqlite"
    disk = sqlite3.connect(other)
    disk.execute("CREATE TABLE theirs (x)")
    disk.close()
    with pytest.raises(ConfigError, match="is no outbox"):
        run(enter(other))
    with pytest.raises(ConfigError, match=r"cannot be opened.*make its folder"):
        run(enter(tmp_path / "nowhere" / "outbox"))
    disk = sqlite3.connect(path)
    disk.execute("UPDATE about SET format = 99")
    disk.commit()
    disk.close()
    with pytest.raises(ConfigError, match="format 99"):
        run(enter(path))


def test_settings_and_entries_without_sense_are_refused(path: Path) -> None:
    for settings_ in (
        {"session": b"short"},
        {"kinds": ()},
        {"kinds": ("record", "record")},
        {"kinds": (DROPPED,)},
        {"limit_bytes": 0},
        {"group_entries": 0},
        {"retry_seconds": -1},
    ):
        with pytest.raises(ConfigError):
            Outbox(path, **settings_)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="short word"):
        Outbox(path, kinds=("Not a word",))
    outbox = Outbox(path, limit_bytes=1000)
    with pytest.raises(ConfigError, match="is not open"):
        outbox.put("record", b"x")

    async def main() -> None:
        with pytest.raises(ConfigError, match="is not open"):
            await outbox.counts()
        async with outbox:
            with pytest.raises(ConfigError, match="keeps record, feedback"):
                outbox.put("diary", b"x")
            with pytest.raises(DataError, match="a record of 1000 bytes in an outbox of 1000"):
                outbox.put("record", bytes(1000))
            with pytest.raises(DataError, match="at most"):
                outbox.put("record", bytes(BODY_BYTES + 1))
        with pytest.raises(ConfigError, match="is closed"):
            await outbox.batch()
        with pytest.raises(ConfigError, match="opened before"):
            async with outbox:
                pass

    run(main())


# ------------------------------------------------------------------------------------------------ kill -9


CHILD = """
import asyncio, sys
from duetto.device.outbox import Outbox

def say(*words):
    sys.stdout.write(" ".join(map(str, words)) + "\\n")
    sys.stdout.flush()

async def main(path, start):
    async with Outbox(path, group_entries=8, group_seconds=0.002) as outbox:
        async def put(i):
            say("committed", await outbox.committed(outbox.put("record", b"%d" % i)), i)

        async def ship():
            while True:
                await asyncio.sleep(0.01)
                batch = await outbox.batch(max_entries=5)
                for entry in batch.entries:
                    say("sent", entry.sequence, entry.body.decode())
                await outbox.acknowledge(batch.session, [entry.sequence for entry in batch.entries])

        shipping = asyncio.create_task(ship())
        waiting = set()
        for i in range(start, start + 10**6):
            waiting.add(asyncio.create_task(put(i)))
            if len(waiting) >= 30:
                _, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no kill -9 on this system")
def test_kill_9_at_any_point_loses_nothing_acknowledged_and_numbers_nothing_twice(path: Path) -> None:
    draw = random.Random(6)
    named: dict[int, str] = {}  # sequence -> body, in any life
    sent: set[int] = set()
    start = 0
    for life in range(6):
        child = subprocess.Popen([sys.executable, "-c", CHILD, path, str(start)], stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        with child.stdout as told:
            lines = [told.readline() for _ in range(draw.randint(1, 400))]
            child.send_signal(signal.SIGKILL)
            lines += [line for line in told if line.endswith("\n")]
        child.wait(30)
        assert all(lines), "the child has failed"
        committed = set()
        for word, number, body in (line.split() for line in lines):
            sequence = int(number)
            assert named.setdefault(sequence, body) == body, "one number, two entries"
            (sent if word == "sent" else committed).add(sequence)
            start = max(start, int(body) + 1)

        async def look() -> list[tuple[int, str, bytes]]:
            async with Outbox(path) as outbox:
                return await everything(outbox)

        left = run(look())
        for sequence, _, body in left:
            assert named.setdefault(sequence, body.decode()) == body.decode()
            start = max(start, int(body) + 1)
        there = {sequence for sequence, *_ in left} | sent
        assert committed <= there, f"life {life}: acknowledged and lost"
        assert there == set(range(1, max(there) + 1)), "a number is missing"
        bodies = list(named.values())
        assert len(bodies) == len(set(bodies)), "an entry under two numbers"


# ------------------------------------------------------------------------------------------------ any order of events


class Life(RuleBasedStateMachine):
    """Against a plain list: put, commit, batch, acknowledge, reopen and crash, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = tempfile.TemporaryDirectory(prefix="duetto-outbox-")
        self.path = Path(self.folder.name) / "outbox"
        self.model: list[tuple[int, str, bytes]] = []
        self.waiting: list[tuple[Any, str, bytes]] = []
        self.last = 0
        self.dropped: dict[str, list[int]] = {}
        self.untold: dict[str, list[int]] = {}
        self.limit = 0

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(work)

    @initialize(limit=st.sampled_from([300, 600, 10**6]))
    def start(self, limit: int) -> None:
        self.limit = limit
        self.open()

    def open(self) -> None:
        self.outbox = Outbox(self.path, limit_bytes=self.limit, group_seconds=3600, group_entries=10**6)
        self.do(self.outbox.__aenter__())

    def settled(self) -> None:
        """What the file does when a group is committed."""
        gone = set()
        for _, kind, body in self.waiting:
            self.last += 1
            self.model.append((self.last, kind, body))
        tickets = [ticket for ticket, *_ in self.waiting]
        first = self.last - len(tickets) + 1
        size = sum(len(body) + OVERHEAD for *_, body in self.model) - (self.limit if self.waiting else 10**9)
        for kind in ("record", "feedback"):
            for entry in [entry for entry in self.model if entry[1] == kind]:
                if size > 0:
                    size -= len(entry[2]) + OVERHEAD
                    self.model.remove(entry)
                    gone.add(entry[0])
                    for tally in (self.dropped, self.untold):
                        tally.setdefault(kind, []).append(entry[0])
        expected = [None if first + i in gone else first + i for i in range(len(tickets))]
        assert [self.do(self.outbox.committed(ticket)) for ticket in tickets] == expected
        self.waiting = []

    @rule(kind=st.sampled_from(["record", "feedback"]), size=st.integers(0, 120))
    def put(self, kind: str, size: int) -> None:
        body = os.urandom(size)
        self.waiting.append((self.do(self.putting(kind, body)), kind, body))

    async def putting(self, kind: str, body: bytes) -> Any:
        return self.outbox.put(kind, body)

    @rule()
    def commit(self) -> None:
        assert set(self.do(self.outbox.drops())) >= set(self.dropped)
        self.settled()

    @rule(most=st.integers(1, 5), size=st.integers(0, 300), let_go=st.booleans())
    def batch(self, most: int, size: int, let_go: bool) -> None:
        batch = self.do(self.outbox.batch(most, size))
        self.settled()
        if self.untold and not any(kind == DROPPED for _, kind, _ in self.model):
            self.last += 1
            told = json.dumps(
                {
                    kind: {"entries": len(numbers), "first": min(numbers), "last": max(numbers)}
                    for kind, numbers in self.untold.items()
                }
            )
            self.model.append((self.last, DROPPED, told.encode()))
            self.untold = {}
            tail = self.do(everything(self.outbox))[-1]
            found = {k: {"entries": d.entries, "first": d.first, "last": d.last} for k, d in heard(tail[2]).items()}
            assert (tail[0], tail[1], found) == (self.last, DROPPED, json.loads(told))
            self.model[-1] = tail
        expected: list[tuple[int, str, bytes]] = []
        for entry in self.model[:most]:
            if expected and sum(len(body) for *_, body in [*expected, entry]) > size:
                break
            expected.append(entry)
        assert [(e.sequence, e.kind, e.body) for e in batch.entries] == expected
        if let_go:
            assert self.do(self.outbox.acknowledge(batch.session, [e.sequence for e in batch.entries])) == len(expected)
            self.model = self.model[len(expected) :]

    @rule()
    def reopen(self) -> None:
        self.do(self.outbox.__aexit__(None, None, None))
        self.settled()
        self.open()

    @precondition(lambda self: not self.waiting)
    @rule()
    def nothing_else_happens(self) -> None:
        drops = self.do(self.outbox.drops())
        assert {kind: (drop.entries, drop.first, drop.last) for kind, drop in drops.items()} == {
            kind: (len(numbers), min(numbers), max(numbers)) for kind, numbers in self.dropped.items()
        }

    @invariant()
    def every_number_is_accounted_for(self) -> None:
        numbers = [sequence for sequence, *_ in self.model]
        assert numbers == sorted(set(numbers))

    def teardown(self) -> None:
        if hasattr(self, "outbox"):
            self.do(self.outbox.__aexit__(None, None, None))
        self.loop.close()
        self.folder.cleanup()


Life.TestCase.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)
test_any_order_of_events: Callable[..., None] = Life.TestCase
