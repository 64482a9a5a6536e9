"""A party in the cloud, and the devices that are connected to it: the roles that ran in simulation, for real."""

from __future__ import annotations

import asyncio
import math
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from typing import Any

from duetto.errors import ConfigError, Deadlock, Error, WireError
from duetto.transport import envelope as envelopes
from duetto.transport import tracing, vocabulary
from duetto.transport import wire_pb2 as wire
from duetto.transport.channel import CLOUD, OVER, Channel, Lost
from duetto.transport.envelope import Limits
from duetto.transport.grpc import Calls, Server
from duetto.transport.identity import Credentials, name_of
from duetto.transport.loops import Paced, Rehearsal
from duetto.transport.party import Keep, Running, Uses
from duetto.transport.remote import Remote, Remotes
from duetto.transport.session import Greeting, Question, Said, Serve, Session
from duetto.types import Party, Record, Role

WATCH_SECONDS = 2.0  # after which a revoked device is let go of

Admit = Callable[[bytes | None], str]
"""From the certificate (PEM) that TLS believes to the device's name; raises an Error where it is not admitted."""

Beside = Callable[["Service"], AbstractAsyncContextManager[Any]]
"""What runs as long as a service does: a batcher, the administration, whatever else."""


@dataclass(frozen=True, eq=False)
class Left:
    """What a run in the cloud leaves: its records, and what it remembers."""

    records: list[Record]
    memory: Mapping[str, Any]


def named(certificate: bytes | None) -> str:
    """The name in a certificate, whoever it is.

    Raises:
        Error: there is none.
    """
    if certificate is None:
        raise ConfigError("a device without a certificate", "enrol it")
    return name_of(certificate)


class Fleet(Remotes):
    """The devices of a cloud: those that were named beforehand, else all that have ever connected, in their order."""

    def __init__(
        self, names: Sequence[str] = (), *, limit: int, told: Callable[[str], None], steady: bool = False
    ) -> None:
        super().__init__()
        self._limit, self._told, self._open, self._steady = limit, told, not names, steady
        self._came = asyncio.Event()
        for name in names:
            self.member(name)

    async def arrived(self, count: int) -> None:
        """Wait until so many are connected."""
        while len(self.online) < count:
            self._came.clear()
            await self._came.wait()

    def knows(self, name: str) -> bool:
        """Whether a device of this name may come."""
        return self._open or name in self._peers

    def member(self, name: str) -> Remote:
        """The device of that name, whom nobody needs to have seen."""
        if name not in self._peers:
            self._peers[name] = _Device(name, self._limit, self._told, self._steady)
        return self._peers[name]

    def came(self) -> None:
        """Somebody has connected."""
        self._came.set()


class _Device(Remote):
    """A device, as its cloud sees it."""

    def __init__(self, name: str, limit: int, told: Callable[[str], None], steady: bool) -> None:
        super().__init__(name, device=False, steady=steady, limit=limit, traceparent=tracing.traceparent)
        self._told = told

    async def ask(self, *args: Any, **kwargs: Any) -> Any:
        """Ask it; what it said of its rest holds no longer."""
        self._told(self.name)
        return await super().ask(*args, **kwargs)


class Service:
    """A cloud's party, and who talks to it.

    Args:
        party: its roles and skills.
        devices: names, where only these may come; in the order in which policies see them.
        admit: who may come; None believes what a device says of itself, which is for one machine only.
        keep: where its memory outlives the process.
        uses: what runs skills that do not write; None runs them one after the other.
        limits: what is taken from a device.
        rehearsal: whether devices tell of their rest.

    Attributes:
        answering: answers what devices ask; whoever measures or traces it wraps it.
        sessions: those that are open, by device.
    """

    def __init__(
        self,
        party: Party,
        *,
        devices: Sequence[str] = (),
        admit: Admit | None = None,
        keep: Keep | None = None,
        uses: Uses | None = None,
        limits: Limits = Limits(),
        rehearsal: bool = False,
    ) -> None:
        self.running = Running(party, CLOUD, keep=keep, uses=uses)
        self.answering: Serve = tracing.answering(self._used)
        self.uses = uses
        self._admit, self._limits, self._rehearsal = admit, limits, rehearsal
        self.rests: dict[str, float] = {}
        self.fleet = Fleet(devices, limit=limits.body_bytes, told=self._stir, steady=rehearsal)
        self.sessions: dict[str, Session] = {}
        self.certificates: dict[str, bytes | None] = {}
        self._talking: set[Session] = set()
        self._past = [0, 0]  # bytes of sessions that have ended
        self.over = False

    async def accept(self, channel: Channel, certificate: bytes | None) -> None:
        """Talk with a device until it goes."""
        session = Session(channel, Greeting(CLOUD), self._answer, self._limits)
        try:
            name = self.admitted(certificate, (await session.open()).name)
        except Lost:
            await channel.close()
            return
        except Error as fault:
            await session.end(str(fault), final=True)
            await channel.close()
            return
        if self.over:
            await session.end(OVER, final=True)
            await channel.close()
            return
        before = self.sessions.get(name)
        self.sessions[name], self.certificates[name] = session, certificate  # before anything is waited for
        device = self.fleet.member(name)
        self._stir(name)
        if self._rehearsal:
            session.on_rest = lambda until: self._rests(name, session, until)
        device.attach(session)
        self.fleet.came()
        ended = Lost("the connection was closed")
        self._talking.add(session)
        try:
            if before is not None:  # it has come back before we knew that it was gone
                await before.end("this device has connected again")
            ended = await session.run()
        finally:  # gRPC cancels this where the device has gone
            self._talking.discard(session)
            self._past[0] += session.down_bytes
            self._past[1] += session.up_bytes
            if self.sessions.get(name) is session:
                del self.sessions[name], self.certificates[name]
                self._stir(name)
            device.detach(session, Lost(ended.why, told=ended.told))  # a device that goes may come back

    async def once(self, data: bytes, certificate: bytes | None) -> bytes:
        """Answer one ask, without a stream.

        Raises:
            WireError: no such envelope.
            Lost: whoever asks may not.
        """
        asked = envelopes.heard(data, self._limits)
        if asked.WhichOneof("what") != "ask" or len(asked.body) != asked.body_bytes or not asked.ask.description:
            raise WireError("no whole ask", "send what is longer over a stream, and describe the skill each time")
        try:
            name = self.admitted(certificate)
        except Error as fault:
            raise Lost(str(fault), final=True) from fault
        if vocabulary.number(asked.ask.description) != asked.ask.part:
            raise WireError("a description that is not the one its number says", "number it by its SHA-256")
        seconds = asked.ask.milliseconds / 1000 if asked.ask.milliseconds else None
        key = vocabulary.key_of(asked.ask.key)
        question = Question(asked.ask.part, asked.ask.description, key, asked.body, seconds, asked.ask.traceparent)
        said = await self._answer(name, question)
        if len(said.body) > envelopes.PIECE:
            said = Said(failure=f"an answer of {len(said.body):,} bytes: ask for it over a stream")
        reply = wire.Reply(version=said.version, failure=said.failure, metrics=dict(said.metrics))
        return b"".join(envelopes.pieces(wire.Envelope(id=asked.id, reply=reply), said.body))

    def admitted(self, certificate: bytes | None, said: str = "") -> str:
        """The device's name; ``said`` is what it calls itself.

        Raises:
            Error: it is not the one that it says, or may not come.
        """
        name = (said or "somebody") if self._admit is None else self._admit(certificate)
        if said and name != said:
            raise ConfigError(f"{name} says that it is {said}", "a device goes by the name in its certificate")
        if not self.fleet.knows(name):
            raise ConfigError(f"no device called {name} is expected", "name it when the cloud is started")
        return name

    async def revoke(self, name: str, why: str) -> None:
        """Let go of a device that may not come any longer, at once."""
        session = self.sessions.get(name)
        if session is not None:
            await session.end(why, final=True)

    async def watch(self, seconds: float = WATCH_SECONDS) -> None:
        """Let go of devices that may not come any longer, whichever process said so."""
        while True:
            await asyncio.sleep(seconds)
            for name, session in list(self.sessions.items()):
                if self.sessions.get(name) is not session:  # gone while another one was let go of
                    continue
                try:
                    self.admitted(self.certificates[name], name)
                except Error as fault:
                    await session.end(str(fault), final=True)

    @property
    def wire_bytes(self) -> tuple[int, int]:
        """Bytes of envelopes so far: heard from devices, and sent to them."""
        heard = self._past[0] + sum(session.down_bytes for session in self._talking)
        return heard, self._past[1] + sum(session.up_bytes for session in self._talking)

    async def end(self, why: str = OVER) -> None:
        """Tell everybody that it is over."""
        self.over = True
        await asyncio.gather(*(session.end(why, final=True) for session in self.sessions.values()))

    def _rests(self, name: str, session: Session, until: float) -> None:
        if self.sessions.get(name) is session:
            self.rests[name] = until

    def _stir(self, name: str) -> None:
        """What a device said of its rest holds no longer."""
        self.rests.pop(name, None)

    async def _answer(self, sender: str, question: Question) -> Said:
        self._stir(sender)
        return await self.answering(sender, question)

    async def _used(self, sender: str, question: Question) -> Said:
        return await self.running.answer(sender, question)

    def now(self, time: float) -> None:
        """Tell everybody what time it is."""
        self.rests.clear()
        for session in self.sessions.values():
            session.now(time)


def serve(
    cloud: Party | Role,
    *,
    listen: str,
    credentials: Credentials | None,
    devices: Sequence[str] = (),
    wait: int = 0,
    admit: Admit | None = None,
    keep: Keep | None = None,
    limits: Limits = Limits(),
    began: float | None = None,
    stay: bool = True,
    rehearsal: bool = False,
    uses: Uses | None = None,
    beside: Beside | None = None,
    calls: Calls | None = None,
    on_listening: Callable[[int], None] = lambda port: None,
    on_record: Callable[[Record], None] = lambda record: None,
) -> Left:
    """Serve a cloud's party to devices until its roles have ended, or until this process is asked to stop.

    Args:
        cloud: a party, or one role of a party without skills: the very ones that :func:`duetto.simulate` takes.
        listen: the address, such as ``0.0.0.0:8443``; port 0 is any that is free.
        credentials: the server's certificate; None speaks plain text, which is for one machine only.
        devices: names, where only these may come; in the order in which policies see them.
        wait: for so many devices, before roles begin.
        admit: who may come; None admits every certificate of the authority, and without credentials everybody.
        keep: where the cloud's memory outlives the process.
        limits: what is taken from a device.
        began: when the program began, seconds since 1970; None is now. The loop's clock counts from there.
        stay: go on serving when all roles have ended.
        rehearsal: on virtual time, with the ``devices``, until nobody has anything left to do.
        uses: what runs skills that do not write; started by whoever gives it, in ``beside``.
        beside: what else runs as long as the service does.
        calls: what is answered beside the stream; ``once`` is by default.
        on_listening: called with the port.
        on_record: called with each record.

    Raises:
        ConfigError: the address cannot be had, or a rehearsal without named devices.
        Deadlock: in a rehearsal, somebody waits for what nobody will do.
    """
    party = cloud if isinstance(cloud, Party) else Party(roles=(cloud,))
    if rehearsal and not devices:
        raise ConfigError("a rehearsal with nobody", "name the devices")
    if admit is None and credentials is not None:
        admit = named
    service = Service(party, devices=devices, admit=admit, keep=keep, uses=uses, limits=limits, rehearsal=rehearsal)
    records: list[Record] = []
    finished, stopped = asyncio.Event(), asyncio.Event()

    def log(record: Record) -> None:
        records.append(record)
        on_record(record)

    def idle(until: float) -> bool:
        """Move time on, where nobody has anything left to do."""
        fleet, rests = service.fleet, service.rests
        if service.running.busy or fleet.pending or len(rests) < len(fleet) or service.over:
            return False
        now = min(until, *rests.values())
        if now == math.inf:
            finished.set()
            return not stopped.is_set()
        assert isinstance(loop, Rehearsal)
        service.now(now)
        loop.move(now)
        return True

    loop = Rehearsal(idle) if rehearsal else Paced(time.time() if began is None else began)

    async def play() -> None:
        async with nullcontext() if beside is None else beside(service):
            await _play()

    async def _play() -> None:
        answered = replace(calls or Calls(), once=service.once)
        server = Server(listen, service.accept, answered, credentials=credentials, limits=limits)
        on_listening(await server.start())
        for name in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(name, stopped.set)
        stop = asyncio.ensure_future(stopped.wait())
        roles = asyncio.ensure_future(_roles(service, max(wait, len(devices) if rehearsal else 0), log))
        end = asyncio.ensure_future(finished.wait())
        watch = None if admit is None or rehearsal else asyncio.ensure_future(service.watch())
        try:
            waiting = {stop, roles} if not rehearsal else {stop, roles, end}
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if roles.done():
                roles.result()
                if rehearsal:
                    await asyncio.wait({stop, end}, return_when=asyncio.FIRST_COMPLETED)
                elif stay:
                    await stop
            elif end.done():
                raise Deadlock("everybody waits, and a role of the cloud has not ended", "no timer is left")
            if not stopped.is_set():
                stopped.set()
                await service.end()
                await asyncio.sleep(0)
        finally:
            tasks = [each for each in (stop, roles, end, watch) if each is not None]
            for task in tasks:
                task.cancel()
            for task in tasks:
                with suppress(asyncio.CancelledError, Exception):
                    await task
            await server.stop()
            service.running.close()

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(play())
    return Left(records, service.running.local.memory)


async def _roles(service: Service, wait: int, log: Callable[[Record], None]) -> None:
    await service.fleet.arrived(wait)
    await service.running.play({"fleet": service.fleet}, log)
