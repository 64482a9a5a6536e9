"""Who did what, and when: lines that only grow, each with the hash of the one before it.

A line that is changed, taken out or put in between breaks the chain from there on, as in Haber & Stornetta, "How to
time-stamp a digital document" (1991). Lines cut off at the end break nothing: who wants to notice that keeps the newest
hash elsewhere, and asks whether it is still known. An action is told before it is done; one that was then refused has a
second line that says so, so that none is done untold.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sql

from duetto.cloud.database import alone, metadata, reading, writing
from duetto.errors import DataError, Error

REFUSED = "refused"
_PAGE = 1000
_FIRST = "0" * 64

lines = sql.Table(
    "audit",
    metadata,
    sql.Column("number", sql.BigInteger, primary_key=True, autoincrement=False),
    sql.Column("unix_seconds", sql.Double, nullable=False),
    sql.Column("who", sql.Text, nullable=False),
    sql.Column("action", sql.Text, nullable=False),
    sql.Column("about", sql.Text, nullable=False, comment="JSON, as it was hashed"),
    sql.Column("hash", sql.String(64), nullable=False, comment="SHA-256 of all that and the hash before, in hex"),
)


@dataclass(frozen=True)
class Line:
    """One line.

    Attributes:
        number: from 1, without gaps.
        unix_seconds: when.
        who: a name, and where from.
        action: a word, such as ``revoke``.
        about: of what, and why.
        hash: of this line and all before it, in hex.
    """

    number: int
    unix_seconds: float
    who: str
    action: str
    about: Mapping[str, Any]
    hash: str


@dataclass(frozen=True)
class Checked:
    """What a look over all lines has found.

    Attributes:
        lines: how many there are.
        head: the newest hash.
        broken: the number of the first line that is not what it was, or is missing; None where all is well.
        known: whether the hash that was asked about is that of a line; None where none was asked about.
    """

    lines: int
    head: str
    broken: int | None
    known: bool | None


@dataclass(frozen=True)
class Audit:
    """The lines, in the table ``audit``; processes may share it.

    Attributes:
        engine: of a database that is :func:`~duetto.cloud.database.upgraded`.
        clock: seconds since 1970.
    """

    engine: sql.Engine
    clock: Callable[[], float] = time.time

    def add(self, who: str, action: str, about: Mapping[str, Any]) -> Line:
        """Add a line.

        Raises:
            DataError: nobody, no action, what JSON cannot say, or a database that cannot be reached.
        """
        try:
            text = json.dumps(dict(about), sort_keys=True, allow_nan=False)
        except (TypeError, ValueError) as fault:
            raise DataError(f"a line about {about} cannot be written ({fault})", "use texts and numbers") from fault
        if not who.strip() or not action.strip() or "\0" in who + action:
            raise DataError(f"a line of {who!r}, {action!r}", "say who does what")
        with writing(self.engine) as connection:
            alone(connection, "audit")
            newest = connection.execute(sql.select(lines).order_by(lines.c.number.desc()).limit(1)).first()
            number, before = (1, _FIRST) if newest is None else (newest.number + 1, newest.hash)
            now = self.clock()
            hashed = _hash(number, now, who, action, text, before)
            row = {"number": number, "unix_seconds": now, "who": who, "action": action, "about": text, "hash": hashed}
            connection.execute(lines.insert(), row)
        return Line(number, now, who, action, json.loads(text), hashed)

    @contextmanager
    def doing(self, who: str, action: str, about: Mapping[str, Any]) -> Iterator[None]:
        """Tell of what is done inside, before it is done, and again where it is refused."""
        line = self.add(who, action, about)
        try:
            yield
        except Error as fault:
            self.add(who, REFUSED, {"line": line.number, "action": action, "fault": fault.fault})
            raise

    def newest(self, count: int = 100, before: int | None = None, who: str = "", action: str = "") -> list[Line]:
        """So many lines, the newest first.

        Args:
            count: at most.
            before: only those below this number.
            who: only those with this in the name of who did it.
            action: only those of this action.
        """
        chosen = sql.select(lines).order_by(lines.c.number.desc()).limit(count)
        if before is not None:
            chosen = chosen.where(lines.c.number < before)
        if who:
            chosen = chosen.where(lines.c.who.icontains(who, autoescape=True))
        if action:
            chosen = chosen.where(lines.c.action == action)
        with reading(self.engine) as connection:
            return [_line(row) for row in connection.execute(chosen)]

    def check(self, known: str | None = None) -> Checked:
        """Go over all lines; ``known`` is a hash that was the newest once, and is kept elsewhere."""
        count, before, broken, found = 0, _FIRST, None, known == _FIRST
        while True:
            after = sql.select(lines).where(lines.c.number > count).order_by(lines.c.number).limit(_PAGE)
            with reading(self.engine) as connection:
                rows = connection.execute(after).all()
            for row in rows:
                said = (row.number, row.unix_seconds, row.who, row.action, row.about, before)
                if broken is None and (row.number != count + 1 or _hash(*said) != row.hash):
                    broken = count + 1
                count, before = row.number, row.hash
                found = found or row.hash == known
            if len(rows) < _PAGE:
                return Checked(count, before, broken, None if known is None else found)


def _hash(number: int, unix_seconds: float, who: str, action: str, about: str, before: str) -> str:
    said = json.dumps([number, repr(unix_seconds), who, action, about, before], separators=(",", ":"))
    return hashlib.sha256(said.encode()).hexdigest()


def _line(row: Any) -> Line:
    try:
        about = json.loads(row.about)
    except ValueError:
        about = {"damaged": row.about}  # shown all the same: the check tells of it
    return Line(row.number, row.unix_seconds, row.who, row.action, about, row.hash)
