"""Who is connected, over all processes of a cloud."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import sqlalchemy as sql

from duetto.cloud.database import metadata, reading, writing
from duetto.cloud.service import Service
from duetto.errors import Error
from duetto.transport.session import Session

_LOG = logging.getLogger(__name__)
LOOK_SECONDS = 1.0  # between two looks at who has come and gone
BEAT_SECONDS = 15.0  # between two signs of life of a process
STALE_SECONDS = 60.0  # after which a process that gives none has gone, and who was connected to it
SKEW_SECONDS = 3600.0  # by which the clocks of processes may differ

presence = sql.Table(
    "presence",
    metadata,
    sql.Column("device", sql.String, primary_key=True),
    sql.Column("process", sql.String(32), primary_key=True),
    sql.Column("since", sql.Double, nullable=False, comment="seconds since 1970, as all times"),
    sql.Column("beat", sql.Double, nullable=False, comment="the process's last sign of life"),
    sql.Column("software", sql.String, nullable=False),
    sql.Column("version", sql.BigInteger, comment="of the model that it had when it connected, if it said so"),
)


@dataclass(frozen=True)
class Present:
    """A device that is connected.

    Attributes:
        device: its name.
        process: which process of the cloud it is connected to.
        since: when it came, seconds since 1970.
        software: what it speaks with, as it says.
        version: of the model that it had when it came; None where it did not say.
    """

    device: str
    process: str
    since: float
    software: str
    version: int | None


@dataclass(frozen=True)
class Presence:
    """One process's view, in the table ``presence``, which processes share.

    Attributes:
        engine: of a database that is :func:`~duetto.cloud.database.upgraded`.
        process: what this one is called.
        clock: seconds since 1970.
    """

    engine: sql.Engine
    process: str = field(default_factory=lambda: secrets.token_hex(8))
    clock: Callable[[], float] = time.time

    def tell(self, here: Mapping[str, Present]) -> None:
        """Exactly these are connected to this process, which is alive."""
        now, mine = self.clock(), presence.c.process == self.process
        with writing(self.engine) as connection:
            told = {row.device: row.since for row in connection.execute(presence.select().where(mine))}
            changed = [name for name, since in told.items() if name not in here or here[name].since != since]
            for name in changed:
                connection.execute(presence.delete().where(mine, presence.c.device == name))
            rows = [{**vars(each), "beat": now} for name, each in here.items() if name not in told or name in changed]
            if rows:
                connection.execute(presence.insert(), rows)
            connection.execute(presence.update().where(mine).values(beat=now))
            connection.execute(presence.delete().where(presence.c.beat < now - SKEW_SECONDS - STALE_SECONDS))

    def leave(self) -> None:
        """This process has ended."""
        with writing(self.engine) as connection:
            connection.execute(presence.delete().where(presence.c.process == self.process))

    def all(self) -> dict[str, Present]:
        """Who is connected to any process, by name; the one that came last, where it is to two."""
        alive = presence.select().where(presence.c.beat > self.clock() - STALE_SECONDS).order_by(presence.c.since)
        with reading(self.engine) as connection:
            rows = connection.execute(alive).all()
        return {row.device: Present(row.device, row.process, row.since, row.software, row.version) for row in rows}


@asynccontextmanager
async def watching(service: Service, told: Presence, seconds: float = LOOK_SECONDS) -> AsyncIterator[None]:
    """Tell who is connected, as long as this lasts.

    Args:
        service: whose devices.
        told: where to tell it.
        seconds: between two looks.
    """
    task = asyncio.ensure_future(_watch(service, told, seconds))
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        with suppress(Error):
            await asyncio.to_thread(told.leave)


async def _watch(service: Service, told: Presence, seconds: float) -> None:
    here: dict[str, Present] = {}
    sessions: dict[str, Session] = {}
    due, well = 0.0, True
    while True:
        try:
            if service.sessions != sessions or told.clock() >= due:
                before, sessions = sessions, dict(service.sessions)
                here = {
                    name: here[name] if name in here and before[name] is session else _present(name, session, told)
                    for name, session in sessions.items()
                }
                await asyncio.to_thread(told.tell, here)
                due = told.clock() + BEAT_SECONDS
            well = True
        except Error as fault:
            due = 0.0
            if well:
                _LOG.error("who is connected cannot be told: %s", fault)
            well = False
        await asyncio.sleep(seconds)


def _present(name: str, session: Session, told: Presence) -> Present:
    version = session.other.traits.get("version")
    return Present(name, told.process, told.clock(), session.other.software, None if version is None else int(version))
