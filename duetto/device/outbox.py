"""The device's durable outbox: what the cloud should have, kept in one SQLite file until the cloud has it.

**Acknowledged is committed.** :meth:`Outbox.put` returns at once; a thread of its own writes what has come together,
at the latest after 50 ms or 64 entries, in one transaction (group commit; Gray & Reuter 1992). A ticket is done when
its entry is on the disk. Killing the process (kill -9) then loses nothing; what was not yet committed is lost, and
nobody was told otherwise.

**A power cut** costs at most what was not yet committed either, as long as the disk keeps what it says that it has
written: the journal is a WAL with ``synchronous=FULL``, one flush for each group. ``NORMAL`` would be cheaper, but not
only lose the last groups: numbers that the cloud has seen would be given out again, and the cloud would take the new
entries under them for repetitions. For the same reason never put a copy of this file back: delete it, and a new
session begins.

**Numbers.** An entry's sequence grows by one from 1 and is never given out again, not after a restart nor when all is
acknowledged (``AUTOINCREMENT``). A session, 16 random bytes made with the file, names a run of numbers.

**When it is full**, the oldest entries of the least valuable kind go first, and only then those of the next: records
before feedback, unless told otherwise. It never happens silently: drops are counted in the file by kind
(:meth:`Outbox.drops`) and told to the cloud by an entry of the kind ``dropped``
(:class:`duetto.protocols.deliver.Drop`), one at a time, which is never dropped itself. So every number that does not
come is accounted for. The file keeps the size that it once had; what was freed in it is used again. Beside it lies a
journal of about 4 MB, or as large as one group.

**When the disk is full** or fails, one line is logged, entries wait in memory up to a bound, and the same rule drops
and counts beyond it; writing is tried again each second. Who is killed then loses what waited, and no ticket was done.

**A damaged file** is set aside under another name, with one line in the log, and a new one begins with a new session.
What was in it is not sent again by itself: nobody can say which of it the cloud has under the old numbers.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeAlias, TypeVar

from duetto.errors import ConfigError, DataError
from duetto.protocols.deliver import DROPPED, FEEDBACK, RECORD, SESSION_BYTES, Batch, Drop, Entry, checked, told

T = TypeVar("T")
Ticket: TypeAlias = "asyncio.Future[int | None]"
"""Done when its entry is durable; holds the entry's sequence, or None where it was dropped, which is counted."""

FILE = "file"
"""Drops of this kind count damaged files that were set aside, and their bytes."""

OVERHEAD = 64  # bytes that an entry is reckoned to take beside its body
_FORMAT = 1
_MARK = 0x64756574  # "duet": SQLite's application_id, so that no other program's file is taken for an outbox
_LOG = logging.getLogger(__name__)
_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_FAILING = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)  # what may pass by itself
_SCHEMA = f"""
CREATE TABLE about (format INTEGER NOT NULL, session BLOB NOT NULL);
CREATE TABLE entry (sequence INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, body BLOB NOT NULL);
CREATE INDEX entry_by_kind ON entry (kind, sequence);
CREATE TABLE dropped (
    kind TEXT NOT NULL, told INTEGER NOT NULL, entries INTEGER NOT NULL, bytes INTEGER NOT NULL,
    first INTEGER NOT NULL, last INTEGER NOT NULL, PRIMARY KEY (kind, told)
);
PRAGMA application_id = {_MARK};
"""


@dataclass(eq=False)
class _Waiting:
    """An entry on its way to the disk."""

    order: int
    kind: str
    body: bytes
    ticket: Ticket

    @property
    def size(self) -> int:
        return len(self.body) + OVERHEAD


class Outbox:
    """Entries of a device, kept until the cloud has them; an asynchronous context, in which its thread runs.

    Args:
        path: of the file; its folder must be there. One process uses it at a time.
        session: of a new file; random where None.
        kinds: what may be put, the least valuable first.
        limit_bytes: of all entries in the file, each with :data:`OVERHEAD`.
        memory_bytes: of entries that wait for the disk; as many again may be on their way to it.
        group_seconds, group_entries: a group is committed when either is reached.
        retry_seconds: between attempts while the disk is full or fails.

    Raises:
        ConfigError: settings without sense; on entering, a file that cannot be opened, is another program's, or in use.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        session: bytes | None = None,
        kinds: Sequence[str] = (RECORD, FEEDBACK),
        limit_bytes: int = 64 << 20,
        memory_bytes: int = 16 << 20,
        group_seconds: float = 0.05,
        group_entries: int = 64,
        retry_seconds: float = 1.0,
    ) -> None:
        if session is not None and len(session) != SESSION_BYTES:
            raise ConfigError(f"a session of {len(session)} bytes", f"give {SESSION_BYTES}, or none")
        if not kinds or len(set(kinds)) != len(kinds) or {DROPPED, FILE} & set(kinds):
            raise ConfigError(f"the kinds {list(kinds)}", f"name each once, and neither {DROPPED} nor {FILE}")
        for kind in kinds:
            checked(kind, b"")
        if min(limit_bytes, memory_bytes) <= OVERHEAD or group_entries < 1 or min(group_seconds, retry_seconds) < 0:
            raise ConfigError(
                f"an outbox of {limit_bytes} bytes, {memory_bytes} in memory, {group_entries} entries a group",
                f"give more than {OVERHEAD} bytes, at least one entry, no negative times",
            )
        self.path, self.kinds = Path(path), tuple(kinds)
        self.limit_bytes, self.memory_bytes = limit_bytes, memory_bytes
        self._first_session = session
        self._group_seconds, self._group_entries, self._retry_seconds = group_seconds, group_entries, retry_seconds
        # Shared with the thread, under the condition.
        self._wake = threading.Condition()
        self._waiting: dict[str, deque[_Waiting]] = {kind: deque() for kind in kinds}
        self._bytes = self._count = self._puts = 0
        self._since = 0.0  # when the oldest that waits was put
        self._unsaved: dict[str, Drop] = {}  # dropped, and not yet counted in the file
        self._jobs: deque[tuple[Callable[[_File | None], Any], asyncio.Future[Any]]] = deque()
        self._stopping = False
        # Of the thread alone.
        self._file: _File | None = None
        self._started = self._failing = False
        self._retry_at = 0.0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended: asyncio.Future[None] | None = None

    async def __aenter__(self) -> Self:
        """Open the file and start the thread."""
        if self._loop is not None:
            raise ConfigError(f"the outbox {self.path} was opened before", "make another object")
        self._loop = asyncio.get_running_loop()
        opened: asyncio.Future[None] = self._loop.create_future()
        self._ended = self._loop.create_future()
        threading.Thread(target=self._run, args=(opened,), name="duetto-outbox", daemon=True).start()
        try:
            await asyncio.shield(opened)
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Commit what waits, and close the file."""
        await self._stop()

    async def _stop(self) -> None:
        assert self._ended is not None
        with self._wake:
            self._stopping = True
            self._wake.notify()
        await asyncio.shield(self._ended)

    def put(self, kind: str, body: bytes) -> Ticket:
        """Keep an entry; waits for nothing. :meth:`committed` tells when it is durable.

        Raises:
            ConfigError: a kind that this outbox does not keep, or an outbox that is not open.
            DataError: a body that the outbox can never hold, or that cannot be sent.
        """
        if self._loop is None or self._stopping:
            raise ConfigError(f"the outbox {self.path} is not open", "put entries inside `async with outbox`")
        if kind not in self._waiting:
            raise ConfigError(f"an entry of kind {kind!r}", f"this outbox keeps {', '.join(self.kinds)}")
        checked(kind, body)
        new = _Waiting(self._puts, kind, bytes(body), self._loop.create_future())
        if new.size > min(self.limit_bytes, self.memory_bytes):
            raise DataError(
                f"a {kind} of {len(body)} bytes in an outbox of {self.limit_bytes}", "send large things as blobs"
            )
        with self._wake:
            self._puts += 1
            self._waiting[kind].append(new)
            self._bytes += new.size
            self._count += 1
            if self._count == 1:
                self._since = time.monotonic()
            lost = self._bounded()
            if self._count == 1 or self._count >= self._group_entries:
                self._wake.notify()
        _settle([(each.ticket, None) for each in lost])
        return new.ticket

    async def committed(self, ticket: Ticket) -> int | None:
        """Wait until the entry is durable; its sequence, or None where it was dropped by the rule, and counted."""
        return await asyncio.shield(ticket)

    async def batch(self, max_entries: int = 256, max_bytes: int = 1 << 18) -> Batch:
        """The oldest entries that nobody has acknowledged; what waits is committed before.

        At least one, where there is one, whatever its size. The same again, until they are acknowledged.
        """
        return await self._ask(lambda file: Batch(b"") if file is None else file.batch(max_entries, max_bytes))

    async def acknowledge(self, session: bytes, sequences: Iterable[int]) -> int:
        """Delete what the cloud has; returns how many there were.

        Numbers of a session that has ended mean nothing here.

        Raises:
            DataError: the disk does not take it; the cloud will recognise what is sent again.
        """
        numbers = [int(number) for number in sequences]
        return await self._ask(lambda file: 0 if file is None else file.acknowledge(session, numbers))

    async def drops(self) -> dict[str, Drop]:
        """What was dropped in this session so far, by kind; :data:`FILE` counts damaged files set aside."""

        def both(file: _File | None) -> dict[str, Drop]:
            with self._wake:
                return _summed({} if file is None else file.drops(), self._unsaved)

        return await self._ask(both)

    async def counts(self) -> dict[str, int]:
        """How many entries the file holds, by kind."""
        return await self._ask(lambda file: {} if file is None else file.counts())

    async def _ask(self, job: Callable[[_File | None], T]) -> T:
        """Have the thread do it, after what waits is committed."""
        if self._loop is None:
            raise ConfigError(f"the outbox {self.path} is not open", "use it inside `async with outbox`")
        done: asyncio.Future[T] = self._loop.create_future()
        with self._wake:
            if self._stopping:
                raise ConfigError(f"the outbox {self.path} is closed", "use it inside `async with outbox`")
            self._jobs.append((job, done))
            self._wake.notify()
        return await done

    def _bounded(self) -> list[_Waiting]:
        """Drop what is too much for the memory, by the rule; under the condition."""
        lost = []
        for kind in self.kinds:
            waiting = self._waiting[kind]
            while waiting and self._bytes > self.memory_bytes:
                gone = waiting.popleft()
                self._bytes -= gone.size
                self._count -= 1
                self._unsaved[kind] = self._unsaved.get(kind, Drop()) + Drop(1, len(gone.body))
                lost.append(gone)
        return lost

    # ----------------------------------------------------------------------------------------------- in the thread

    def _run(self, opened: asyncio.Future[None]) -> None:
        assert self._loop is not None
        assert self._ended is not None
        try:
            self._opened()
            self._started = True
            self._say(opened, None)
            while self._turn():
                pass
        except Exception as fault:  # goes to whoever waits; nothing must wait for a thread that is gone
            if self._started:
                _LOG.error("the outbox %s has stopped (%s: %s)", self.path, type(fault).__name__, fault)
            self._say(opened, fault)
            self._close(fault)
        else:
            self._close(None)
        finally:
            self._say(self._ended, None)

    def _turn(self) -> bool:
        """Wait until something is due, and do it; False at the end."""
        with self._wake:
            while not (self._stopping or self._jobs or self._is_due()):
                self._wake.wait(self._patience())
            job = self._jobs.popleft() if self._jobs else None
            last = self._stopping and job is None
        self._commit()
        if job is not None:
            function, done = job
            try:
                with _spoken(self.path):
                    self._say(done, self._guarded(function))
            except Exception as fault:
                self._say(done, fault)
        return not last

    def _is_due(self) -> bool:
        patience = self._patience()
        if patience is None:
            return False
        return patience <= 0 or (not self._failing and self._count >= self._group_entries)

    def _patience(self) -> float | None:
        """Seconds until something is due; None where nothing waits."""
        if not self._count:
            return None
        at = self._retry_at if self._failing else self._since + self._group_seconds
        return at - time.monotonic()

    def _opened(self) -> _File | None:
        """The file, opened where it is not; None while the disk is full or fails."""
        if self._file is None:
            with self._trying():
                self._file = self._new()
        return self._file

    def _new(self) -> _File:
        limits = (self.kinds, self.limit_bytes)
        try:
            return _File(self.path, self._first_session, *limits)
        except sqlite3.DatabaseError as fault:
            if not _is_damage(fault):
                raise
            self._set_aside(fault)
        return _File(self.path, None, *limits)

    def _set_aside(self, fault: sqlite3.DatabaseError) -> None:
        size = _set_aside(self.path, fault)
        self._first_session = None
        with self._wake:
            self._unsaved[FILE] = self._unsaved.get(FILE, Drop()) + Drop(1, size)

    def _guarded(self, function: Callable[[_File | None], T]) -> T:
        """Use the file; one that turns out to be damaged is replaced by a new one, with which it is done again."""
        try:
            return function(self._file)
        except sqlite3.DatabaseError as fault:
            if not _is_damage(fault) or self._file is None:
                raise
            self._file.close()
            self._file = None
            self._set_aside(fault)
            return function(self._opened())

    def _commit(self) -> None:
        """Write all that waits in one transaction; where the disk does not take it, it waits on."""
        with self._wake:
            group = sorted(
                (each for waiting in self._waiting.values() for each in waiting), key=lambda each: each.order
            )
            unsaved = self._unsaved
            if not group and not unsaved and self._file is not None:
                return
            for waiting in self._waiting.values():
                waiting.clear()
            self._bytes = self._count = 0
            self._unsaved = {}
        sequences: list[int | None] | None = None
        try:
            with self._trying():
                if self._opened() is not None:
                    sequences = self._guarded(lambda file: _written(file, group, unsaved))
        finally:
            if sequences is None:
                self._back(group, unsaved)
        if sequences is not None:
            if self._failing:
                self._failing = False
                _LOG.warning("%s: entries are written again", self.path)
            self._tell([(each.ticket, sequence) for each, sequence in zip(group, sequences, strict=True)])

    def _back(self, group: Sequence[_Waiting], unsaved: Mapping[str, Drop]) -> None:
        with self._wake:
            for each in reversed(group):
                self._waiting[each.kind].appendleft(each)
            self._bytes += sum(each.size for each in group)
            self._count += len(group)
            self._unsaved = _summed(unsaved, self._unsaved)
            lost = self._bounded()
        self._tell([(each.ticket, None) for each in lost])

    @contextmanager
    def _trying(self) -> Iterator[None]:
        """A disk that is full or fails is told once, and tried again later."""
        try:
            yield
        except (sqlite3.Error, OSError) as fault:
            if not self._started and _code(fault) not in _FAILING:
                raise ConfigError(f"the outbox {self.path} cannot be opened ({fault})", _remedy(fault)) from fault
            if not self._failing:
                wait = f"entries wait in memory, at most {self.memory_bytes} bytes"
                line = DataError(f"the outbox {self.path} cannot be written ({fault}), {wait}", _remedy(fault))
                _LOG.error("%s", line)
            self._failing, self._retry_at = True, time.monotonic() + self._retry_seconds

    def _close(self, fault: Exception | None) -> None:
        """Whatever still waits is lost; it is told, and nobody waits for it."""
        with self._wake:
            self._stopping = True
            lost = [each for waiting in self._waiting.values() for each in waiting]
            jobs = list(self._jobs)
            self._jobs.clear()
        if self._file is not None:
            self._file.close()
        if lost or self._unsaved:
            uncounted = sum(drop.entries for drop in self._unsaved.values())
            said = f"{len(lost)} entries that waited are lost, and {uncounted} dropped ones stay uncounted"
            _LOG.error("%s", DataError(f"the outbox {self.path} could not be written, {said}", "check the disk"))
        self._tell([(each.ticket, None) for each in lost])
        for _, done in jobs:
            self._say(done, fault or ConfigError(f"the outbox {self.path} is closed", "open it again"))

    def _tell(self, results: Sequence[tuple[Ticket, int | None]]) -> None:
        if results:
            self._call(_settle, results)

    def _say(self, done: asyncio.Future[Any], result: Any) -> None:
        self._call(_settle, [(done, result)])

    def _call(self, function: Callable[..., None], *args: Any) -> None:
        assert self._loop is not None
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(function, *args)


@dataclass(eq=False)
class _File:
    """The SQLite file, used by one thread.

    Raises:
        ConfigError: another program's file, or of a newer Duetto.
        sqlite3.DatabaseError: damaged, in use, out of reach.
    """

    path: Path
    first_session: bytes | None
    kinds: tuple[str, ...]
    limit_bytes: int
    session: bytes = field(init=False)
    held_bytes: int = field(init=False)

    def __post_init__(self) -> None:
        self._disk = sqlite3.connect(self.path, timeout=1.0, isolation_level=None, check_same_thread=False)
        try:
            self._set_up()
        except BaseException:
            self._disk.close()
            raise

    def _set_up(self) -> None:
        for pragma in (
            "locking_mode = EXCLUSIVE",  # a second process is refused; needs no shared memory
            "journal_mode = WAL",
            "synchronous = FULL",
            "fullfsync = ON",  # on Apple's systems fsync alone leaves data in the disk's cache
            "checkpoint_fullfsync = ON",
            "journal_size_limit = 4194304",
        ):
            self._disk.execute(f"PRAGMA {pragma}")
        with self._transaction():
            made = self._one("SELECT count(*) FROM sqlite_master")
            if not made:
                for statement in filter(str.strip, _SCHEMA.split(";")):
                    self._disk.execute(statement)
                session = self.first_session or os.urandom(SESSION_BYTES)
                self._disk.execute("INSERT INTO about VALUES (?, ?)", (_FORMAT, session))
        if self._one("PRAGMA application_id") != _MARK:
            raise ConfigError(f"{self.path} is no outbox but another program's file", "name another file")
        if (found := self._one("PRAGMA quick_check(1)")) != "ok":
            raise _damage(str(found))
        found = self._disk.execute("SELECT format, session FROM about").fetchone()
        if found is None or len(found[1]) != SESSION_BYTES:
            raise _damage("it has no session")
        if found[0] != _FORMAT:
            raise ConfigError(f"{self.path} is an outbox of format {found[0]}", f"this Duetto writes {_FORMAT}")
        self.session = found[1]
        self.held_bytes = self._one(f"SELECT coalesce(sum(length(body) + {OVERHEAD}), 0) FROM entry")
        there = [row[0] for row in self._disk.execute("SELECT DISTINCT kind FROM entry ORDER BY kind")]
        # What is kept no more since the settings changed goes first.
        self._droppable = [kind for kind in there if kind not in (*self.kinds, DROPPED)] + list(self.kinds)

    def close(self) -> None:
        with suppress(sqlite3.Error):
            self._disk.close()

    def write(self, group: Sequence[_Waiting], unsaved: Mapping[str, Drop]) -> list[int | None]:
        """Commit entries, and what was dropped before they came here; their sequences, None where there was no room."""
        with self._transaction():
            held = self.held_bytes
            sequences: list[int | None] = []
            for each in group:
                added = self._disk.execute("INSERT INTO entry (kind, body) VALUES (?, ?)", (each.kind, each.body))
                sequences.append(added.lastrowid)
                held += each.size
            gone, freed, drops = self._make_room(held - self.limit_bytes)
            self._count_drops(_summed(drops, unsaved))
        self.held_bytes = held - freed
        return [None if sequence in gone else sequence for sequence in sequences]

    def batch(self, max_entries: int, max_bytes: int) -> Batch:
        """The oldest entries, after an entry about drops was added where it is time."""
        with suppress(sqlite3.OperationalError):  # a disk that is full: the drops are told later
            self._tell_drops()
        entries: list[Entry] = []
        rows = self._disk.execute("SELECT sequence, kind, body FROM entry ORDER BY sequence LIMIT ?", (max_entries,))
        size = 0
        for sequence, kind, body in rows:
            size += len(body)
            if entries and size > max_bytes:
                break
            entries.append(Entry(sequence, kind, body))
        rows.close()
        return Batch(self.session, tuple(entries))

    def acknowledge(self, session: bytes, sequences: Sequence[int]) -> int:
        """Delete them."""
        if session != self.session:
            return 0
        count = freed = 0
        with self._transaction():
            for sequence in sequences:
                found = self._disk.execute("SELECT length(body) FROM entry WHERE sequence = ?", (sequence,)).fetchone()
                if found is not None:
                    self._disk.execute("DELETE FROM entry WHERE sequence = ?", (sequence,))
                    count, freed = count + 1, freed + found[0] + OVERHEAD
        self.held_bytes -= freed
        return count

    def drops(self) -> dict[str, Drop]:
        """All of this session."""
        return self._drops("")

    def counts(self) -> dict[str, int]:
        """Entries by kind."""
        return dict(self._disk.execute("SELECT kind, count(*) FROM entry GROUP BY kind ORDER BY kind"))

    def _make_room(self, excess: int) -> tuple[set[int], int, dict[str, Drop]]:
        """Delete until so many bytes are free: which, how many bytes, and by kind."""
        gone: set[int] = set()
        freed, drops = 0, dict[str, Drop]()
        for kind in self._droppable:
            while freed < excess:
                oldest = "SELECT sequence, length(body) FROM entry WHERE kind = ? ORDER BY sequence LIMIT 64"
                rows = self._disk.execute(oldest, (kind,)).fetchall()
                if not rows:
                    break
                for sequence, size in rows:
                    if freed >= excess:
                        break
                    self._disk.execute("DELETE FROM entry WHERE sequence = ?", (sequence,))
                    gone.add(sequence)
                    freed += size + OVERHEAD
                    drops[kind] = drops.get(kind, Drop()) + Drop(1, size, sequence, sequence)
        return gone, freed, drops

    def _count_drops(self, drops: Mapping[str, Drop]) -> None:
        before = self._drops("WHERE told = 0")
        for kind, drop in _summed(before, drops).items():
            self._disk.execute("INSERT OR REPLACE INTO dropped VALUES (?, 0, ?, ?, ?, ?)", (kind, *vars(drop).values()))

    def _tell_drops(self) -> None:
        """An entry about what was dropped since the last one; never two, or an outage would fill the outbox."""
        untold = self._drops("WHERE told = 0")
        if not untold or self._one("SELECT count(*) FROM entry WHERE kind = ?", DROPPED):
            return
        body = told(untold)
        with self._transaction():
            self._disk.execute("INSERT INTO entry (kind, body) VALUES (?, ?)", (DROPPED, body))
            for kind, drop in _summed(self._drops("WHERE told = 1"), untold).items():
                row = (kind, *vars(drop).values())
                self._disk.execute("INSERT OR REPLACE INTO dropped VALUES (?, 1, ?, ?, ?, ?)", row)
            self._disk.execute("DELETE FROM dropped WHERE told = 0")
        self.held_bytes += len(body) + OVERHEAD

    def _drops(self, where: str) -> dict[str, Drop]:
        rows = self._disk.execute(f"SELECT kind, entries, bytes, first, last FROM dropped {where}").fetchall()
        found: dict[str, Drop] = {}
        for kind, *numbers in rows:
            found[kind] = found.get(kind, Drop()) + Drop(*numbers)
        return found

    def _one(self, statement: str, *values: Any) -> Any:
        return self._disk.execute(statement, values).fetchone()[0]

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._disk.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._disk.execute("COMMIT")
        except BaseException:
            if self._disk.in_transaction:  # a full disk may have ended it
                with suppress(sqlite3.Error):
                    self._disk.execute("ROLLBACK")
            raise


def _written(file: _File | None, group: Sequence[_Waiting], unsaved: Mapping[str, Drop]) -> list[int | None] | None:
    return None if file is None else file.write(group, unsaved)


def _settle(results: Iterable[tuple[asyncio.Future[Any], Any]]) -> None:
    for future, result in results:
        if not future.done():
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)


def _summed(left: Mapping[str, Drop], right: Mapping[str, Drop]) -> dict[str, Drop]:
    return {kind: left.get(kind, Drop()) + right.get(kind, Drop()) for kind in {**left, **right}}


@contextmanager
def _spoken(path: Path) -> Iterator[None]:
    """What SQLite raises, as an error with a remedy."""
    try:
        yield
    except sqlite3.Error as fault:
        raise DataError(f"the outbox {path} cannot be used ({fault})", _remedy(fault)) from fault


def _code(fault: Exception) -> int:
    return int(getattr(fault, "sqlite_errorcode", 0)) & 0xFF


def _remedy(fault: Exception) -> str:
    remedies = {
        sqlite3.SQLITE_FULL: "free space on the disk",
        sqlite3.SQLITE_BUSY: "another process uses it: end that, or name another file",
        sqlite3.SQLITE_CANTOPEN: "make its folder, and let this user write there",
        sqlite3.SQLITE_READONLY: "let this user write to it",
    }
    return remedies.get(_code(fault), "check the disk")


def _damage(why: str) -> sqlite3.DatabaseError:
    fault = sqlite3.DatabaseError(why)
    fault.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    return fault


def _is_damage(fault: sqlite3.DatabaseError) -> bool:
    return _code(fault) in _DAMAGE


def _set_aside(path: Path, fault: sqlite3.DatabaseError) -> int:
    """Rename a damaged file and what belongs to it; its bytes."""
    number = 1
    while (aside := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    size = path.stat().st_size
    for suffix in ("", "-wal", "-shm"):  # a WAL without its file is discarded; a file without its WAL would be older
        part = path.with_name(path.name + suffix)
        if part.exists():
            part.replace(aside.with_name(aside.name + suffix))
    remedy = "a new one begins with a new session"
    _LOG.error("%s", DataError(f"the outbox {path} is damaged ({fault}) and was set aside as {aside.name}", remedy))
    return size
