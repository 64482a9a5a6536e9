"""A party on a device, connected to its cloud: the roles that ran in simulation, on a real machine."""

from __future__ import annotations

import asyncio
import math
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from duetto.errors import Error
from duetto.transport import tracing
from duetto.transport.backoff import back_off
from duetto.transport.channel import CLOUD, OVER, Channel, Lost
from duetto.transport.envelope import Limits
from duetto.transport.identity import Credentials
from duetto.transport.loops import Paced, Rehearsal, really
from duetto.transport.party import Keep, Running
from duetto.transport.remote import Remote
from duetto.transport.session import Greeting, Question, Said, Serve, Session
from duetto.types import Key, Local, Party, Record, Role

BASE_SECONDS, MOST_SECONDS = 0.5, 60.0  # of waiting before a connection is tried again
STEADY_SECONDS = 10.0  # after so long a connection was a good one: the next pause is short again


class Refused(Error):
    """The cloud does not want this device, and says why."""


@dataclass(frozen=True, eq=False)
class Left:
    """What a run on a device leaves: its records, what it remembers, and why it ended."""

    records: list[Record]
    memory: Mapping[str, Any]
    why: str


@dataclass(eq=False)
class Connection:
    """Keeps a device connected: one session after the other, after ever longer pauses.

    Args:
        greeting: who the device is.
        running: what answers the cloud.
        limits: what is taken from the cloud.
        base, most: seconds of the shortest and the longest pause.
        steady: whether every ask waits until there is a connection (a rehearsal).

    Attributes:
        dial: opens a channel; set before :meth:`keep`.
        on_now, on_asked: hear of virtual time, and of whatever was asked, in a rehearsal.
        cloud: the peer.
    """

    greeting: Greeting
    running: Running
    limits: Limits = Limits()
    base: float = BASE_SECONDS
    most: float = MOST_SECONDS
    steady: bool = False
    on_now: Callable[[float], None] | None = None
    on_asked: Callable[[], None] = lambda: None
    dial: Callable[[], Awaitable[Channel]] = field(init=False)
    cloud: Remote = field(init=False)
    session: Session | None = field(default=None, init=False)
    key: Key = field(default_factory=lambda: (secrets.token_hex(8),))

    def __post_init__(self) -> None:
        self.cloud = Remote(
            CLOUD,
            device=True,
            patient=True,
            steady=self.steady,
            limit=self.limits.body_bytes,
            traceparent=tracing.traceparent,
        )
        self._answering: Serve = tracing.answering(self.running.answer)

    async def keep(self) -> Lost:
        """Stay connected until the cloud says that coming back would not help; tells why."""
        attempt = 0
        while True:
            begin = math.inf
            try:
                channel = await self.dial()
                session = Session(channel, self.greeting, self._answer, self.limits)
                session.on_now = self.on_now
                try:
                    await session.open()
                except BaseException:
                    await channel.close()
                    raise
                self.session = session
                self.cloud.attach(session)
                begin = time.monotonic()
                try:
                    ended = await session.run()
                finally:
                    self.session = None
                self.cloud.detach(session, ended)
            except Lost as lost:
                ended = lost
            if ended.final:
                self.cloud.refuse(ended.why)
                return ended
            if time.monotonic() - begin >= STEADY_SECONDS:
                attempt = 0
            await really(back_off(attempt, self.key, self.base, self.most))
            attempt += 1

    async def _answer(self, sender: str, question: Question) -> Said:
        try:
            return await self._answering(sender, question)
        finally:
            self.on_asked()


def connect(
    device: Party | Role,
    *,
    cloud: str,
    name: str,
    local: Local | None = None,
    credentials: Credentials | None,
    keep: Keep | None = None,
    traits: Mapping[str, float] | None = None,
    limits: Limits = Limits(),
    began: float | None = None,
    stay: bool = False,
    rehearsal: bool = False,
    on_record: Callable[[Record], None] = lambda record: None,
) -> Left:
    """Run a device's roles against a cloud, and answer what the cloud asks meanwhile.

    Args:
        device: a party, or one role of a party without skills: the very ones that :func:`duetto.simulate` takes.
        cloud: its address, such as ``cloud.example:8443``.
        name: this device's; over TLS the one in its certificate.
        local: its data and first memory.
        credentials: its certificate; None speaks plain text, which is for one machine only.
        keep: where its memory outlives the process (:class:`duetto.transport.kept.Kept`).
        traits: what the cloud's policies may know of it beforehand.
        limits: what is taken from the cloud.
        began: when the program began, seconds since 1970; None is now. The loop's clock counts from there.
        stay: go on answering the cloud when all roles have ended, until the cloud says that it is over.
        rehearsal: on virtual time, together with a cloud that rehearses.
        on_record: called with each record.

    Raises:
        Refused: the cloud does not want this device.
    """
    from duetto.transport.grpc import Client

    party = device if isinstance(device, Party) else Party(roles=(device,))
    running = Running(party, name, local=local, keep=keep)
    records: list[Record] = []

    def log(record: Record) -> None:
        records.append(record)
        on_record(record)

    connection = Connection(Greeting(name, traits or {}), running, limits, steady=rehearsal)
    reported: list[Any] = [None, math.nan]  # in which session this device has said that it rests, and until when

    def idle(until: float) -> bool:
        session = connection.session
        if session is None or running.busy or connection.cloud.pending or [session, until] == reported:
            return False
        reported[:] = session, until
        session.rest(until)
        return True

    loop = Rehearsal(idle) if rehearsal else Paced(time.time() if began is None else began)

    def now(time: float) -> None:
        assert isinstance(loop, Rehearsal)
        asked()
        loop.move(time)

    def asked() -> None:
        """What was said of rest holds no longer."""
        reported[0] = None

    if rehearsal:
        connection.on_now, connection.on_asked = now, asked

    async def play() -> str:
        client = Client(cloud, credentials=credentials, limits=limits)
        connection.dial = client.talk
        connected = asyncio.ensure_future(connection.keep())
        roles = asyncio.ensure_future(running.play({CLOUD: connection.cloud}, log))
        try:
            await asyncio.wait({connected, roles}, return_when=asyncio.FIRST_COMPLETED)
            if roles.done():
                roles.result()
                if not (stay or rehearsal):
                    return "all roles have ended"
                return (await connected).why
            ended = connected.result()
            if ended.why != OVER:
                raise Refused(f"the cloud at {cloud} ended it: {ended.why}", "see its log, or enrol this device anew")
            return ended.why
        finally:
            for task in (connected, roles):
                task.cancel()
            for task in (connected, roles):
                with suppress(asyncio.CancelledError, Exception):
                    await task
            await client.close()
            running.close()

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        why = runner.run(play())
    return Left(records, running.local.memory, why)
