"""What devices have sent, kept once: the feedback store that the teacher reads.

An entry is named by (device, session, sequence), see :mod:`duetto.protocols.deliver`; what comes again is left out.
Its ``arrival`` is a cursor: given out in the order of commits, so that a reader who has seen one has seen all below.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import sqlalchemy as sql

from duetto.cloud.database import Number, alone, ignoring, metadata, reading, writing
from duetto.errors import DataError
from duetto.protocols.deliver import DROPPED, SESSION_BYTES, Drop, Entry, heard

feedback = sql.Table(
    "feedback",
    metadata,
    sql.Column("arrival", Number, primary_key=True),
    sql.Column("device", sql.String, nullable=False),
    sql.Column("session", sql.LargeBinary, nullable=False),
    sql.Column("sequence", sql.BigInteger, nullable=False),
    sql.Column("kind", sql.String, nullable=False),
    sql.Column("body", sql.LargeBinary, nullable=False),
    sql.Column("unix_seconds", sql.Double, nullable=False),
    sql.UniqueConstraint("device", "session", "sequence"),
    sqlite_autoincrement=True,  # a cursor must not meet the number of a row that was deleted
)
# Names no device: only that in a session everything up to a number was there, and is not wanted again.
forgotten = sql.Table(
    "feedback_forgotten",
    metadata,
    sql.Column("session", sql.LargeBinary, primary_key=True),
    sql.Column("upto", sql.BigInteger, nullable=False),
)


@dataclass(frozen=True)
class Kept:
    """One entry as it is kept.

    Attributes:
        arrival: the cursor; grows from entry to entry, not always by one.
        device: who sent it.
        session, sequence: its name there.
        kind, body: what it is.
        unix_seconds: when it came.
    """

    arrival: int
    device: str
    session: bytes
    sequence: int
    kind: str
    body: bytes
    unix_seconds: float


@dataclass(frozen=True)
class Gap:
    """Numbers of a session that have not come, though a later one has.

    Attributes:
        device, session: whose.
        first, last: from, to; both are missing.
        told: the device has said that it dropped them, so they never will; else they are on their way, or lost.
    """

    device: str
    session: bytes
    first: int
    last: int
    told: bool


@dataclass(frozen=True)
class Feedback:
    """The store, in the tables ``feedback`` and ``feedback_forgotten``; processes may share them.

    Attributes:
        engine: of a database that is :func:`~duetto.cloud.database.upgraded`.
    """

    engine: sql.Engine

    def keep(self, device: str, session: bytes, entries: Sequence[Entry]) -> list[int]:
        """Keep what is new of these; the numbers that are durable now, which is all of them.

        What belongs to a part of the session that was forgotten counts as kept: it is not wanted again.

        Raises:
            DataError: no device, a session that is none, or a database that cannot be reached; nothing is kept then.
        """
        if not device or "\0" in device or len(session) != SESSION_BYTES:
            raise DataError(f"entries of device {device!r}, session {session.hex()}", "say whose they are")
        with writing(self.engine) as connection:
            alone(connection, "feedback")  # else a lower arrival could show after a higher one
            gone = connection.scalar(sql.select(forgotten.c.upto).where(forgotten.c.session == session)) or 0
            rows = [
                {
                    "device": device,
                    "session": session,
                    "sequence": entry.sequence,
                    "kind": entry.kind,
                    "body": entry.body,
                    "unix_seconds": time.time(),
                }
                for entry in entries
                if entry.sequence > gone
            ]
            if rows:
                connection.execute(ignoring(connection, feedback), rows)
        return [entry.sequence for entry in entries]

    def arrivals(self, after: int = 0, kinds: Sequence[str] = (), page: int = 1000) -> Iterator[Kept]:
        """Entries in the order of their arrival, of these kinds or of all, to the last that is there.

        Args:
            after: the arrival of the last entry that the caller has seen.
            kinds: none is all.
            page: entries read at once; between pages no transaction is open.
        """
        while True:
            chosen = sql.select(feedback).where(feedback.c.arrival > after).order_by(feedback.c.arrival).limit(page)
            if kinds:
                chosen = chosen.where(feedback.c.kind.in_(kinds))
            with reading(self.engine) as connection:
                rows = connection.execute(chosen).all()
            for row in rows:
                yield Kept(*row)
            if len(rows) < page:
                return
            after = rows[-1].arrival

    def counts(self) -> dict[str, dict[str, int]]:
        """How many entries there are, by device and kind."""
        by = (feedback.c.device, feedback.c.kind)
        found: dict[str, dict[str, int]] = {}
        with reading(self.engine) as connection:
            for device, kind, n in connection.execute(sql.select(*by, sql.func.count()).group_by(*by).order_by(*by)):
                found.setdefault(device, {})[kind] = n
        return found

    def newest(self) -> int:
        """The arrival of the last entry; 0 where there is none."""
        with reading(self.engine) as connection:
            return connection.scalar(sql.select(sql.func.max(feedback.c.arrival))) or 0

    def forgettings(self) -> tuple[int, int]:
        """Changes with whatever is forgotten: who remembers entries has to read them anew then."""
        told = sql.select(sql.func.count(), sql.func.coalesce(sql.func.sum(forgotten.c.upto), 0))
        with reading(self.engine) as connection:
            count, upto = connection.execute(told.select_from(forgotten)).one()
            return int(count), int(upto)

    def gaps(self, device: str | None = None) -> list[Gap]:
        """Numbers that are missing, of one device or of all; those that were dropped apart from those that were not.

        A session's beginning is missing too where its first number has not come. What was forgotten is not missing.
        """
        whose = (feedback.c.device, feedback.c.session)
        last = sql.func.lag(feedback.c.sequence).over(partition_by=whose, order_by=feedback.c.sequence)
        before = sql.func.coalesce(last, forgotten.c.upto, 0).label("before")
        both = feedback.outerjoin(forgotten, forgotten.c.session == feedback.c.session)
        steps = sql.select(*whose, feedback.c.sequence, before).select_from(both)
        tallies = sql.select(*whose, feedback.c.body).where(feedback.c.kind == DROPPED)
        if device is not None:
            steps, tallies = steps.where(feedback.c.device == device), tallies.where(feedback.c.device == device)
        step = steps.subquery()
        holes = sql.select(step).where(step.c.sequence - step.c.before > 1).order_by(*list(step.c)[:3])
        told: dict[tuple[str, bytes], list[Drop]] = {}
        with reading(self.engine) as connection:
            rows = connection.execute(holes).all()
            for name, session, body in connection.execute(tallies) if rows else ():
                try:
                    told.setdefault((name, session), []).extend(heard(body).values())
                except DataError:
                    continue  # a device that says nothing sensible explains nothing
        return [
            gap
            for name, session, sequence, before_it in rows
            for gap in _split(name, session, before_it + 1, sequence - 1, told.get((name, session), ()))
        ]

    def forget(self, device: str) -> int:
        """Delete all that a device has sent; returns how many entries.

        What it sent before and sends again, because it has not heard that it was kept, stays forgotten.
        """
        whose = feedback.c.device == device
        with writing(self.engine) as connection:
            alone(connection, "feedback")
            last = sql.select(feedback.c.session, sql.func.max(feedback.c.sequence)).where(whose)
            for session, upto in connection.execute(last.group_by(feedback.c.session)).all():
                connection.execute(ignoring(connection, forgotten), {"session": session, "upto": upto})
                here = sql.and_(forgotten.c.session == session, forgotten.c.upto < upto)
                connection.execute(forgotten.update().where(here).values(upto=upto))
            return connection.execute(feedback.delete().where(whose)).rowcount


def _split(device: str, session: bytes, first: int, last: int, drops: Sequence[Drop]) -> Iterator[Gap]:
    """A gap's parts: what some drop covers, and what none does."""
    edges = {first, last + 1}
    for drop in drops:
        edges |= {edge for edge in (drop.first, drop.last + 1) if drop.first and first < edge <= last}
    cuts = sorted(edges)
    whole: list[Gap] = []
    for start, end in itertools.pairwise(cuts):
        told = any(drop.first <= start and end - 1 <= drop.last for drop in drops if drop.first)
        if whole and whole[-1].told == told:
            start = whole.pop().first
        whole.append(Gap(device, session, start, end - 1, told))
    yield from whole
