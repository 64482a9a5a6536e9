"""One connection between two parties, over whatever carries envelopes: both sides ask, and both answer.

A session ends with its connection; who asks through it and wants an answer all the same asks again through the next
one (:mod:`duetto.transport.remote`). What is not in order ends the session with one line that says why.
"""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Generator, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from duetto.errors import ConfigError, WireError
from duetto.transport import envelope as envelopes
from duetto.transport import vocabulary
from duetto.transport import wire_pb2 as wire
from duetto.transport.channel import Channel, Lost
from duetto.transport.envelope import Limits
from duetto.types import Key

SOFTWARE = "duetto 1"
HELLO_SECONDS = 20.0  # until the other side must have said who it is
LONGEST = (1 << 32) - 1  # milliseconds; more is without an end
LINE = 500  # characters of what one side tells the other in words
NAME = 255  # characters


@dataclass(frozen=True)
class Question:
    """What one party asks another.

    Attributes:
        number, description: of the skill, see :mod:`duetto.transport.vocabulary`.
        body: the tree, encoded.
        seconds: that are left to answer in; None is without an end.
        traceparent: W3C trace context, or "".
    """

    number: int
    description: str
    key: Key
    body: bytes
    seconds: float | None = None
    traceparent: str = ""


@dataclass(frozen=True)
class Said:
    """What came back: a body, or a failure."""

    body: bytes = b""
    version: int = 0
    failure: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Greeting:
    """Who a party is, as it says itself; a transport with certificates checks the name."""

    name: str
    traits: Mapping[str, float] = field(default_factory=dict)
    software: str = SOFTWARE


Serve = Callable[[str, Question], Awaitable[Said]]
"""From who asks, and what, to what is said."""


@dataclass(eq=False)
class _Leaving:
    """A message on its way out: its envelopes, the bytes of its body, and the ask that it replies to, or 0."""

    frames: Iterator[bytes]
    nbytes: int = 0
    replies: int = 0
    begun: bool = False

    @property
    def long(self) -> bool:
        """Whether it travels in pieces."""
        return self.nbytes > envelopes.PIECE


@dataclass(eq=False)
class _Coming:
    """A message of which pieces are still on their way."""

    envelope: wire.Envelope
    description: str
    pieces: list[bytes]
    missing: int


class Session:
    """One connection.

    Args:
        channel: carries it; the session closes it.
        me: who this side is.
        serve: answers what is asked.
        limits: what is taken from the other side.

    Attributes:
        other: who the other side is.
        on_rest, on_now: hear what the other side says of virtual time, in a rehearsal; None takes it for a fault.
        up_bytes, down_bytes: whole envelopes, sent and heard.
    """

    def __init__(
        self,
        channel: Channel,
        me: Greeting,
        serve: Serve,
        limits: Limits = Limits(),
    ) -> None:
        self._channel, self._me, self._serve, self._limits = channel, me, serve, limits
        self.on_rest: Callable[[float], None] | None = None
        self.on_now: Callable[[float], None] | None = None
        self.other = Greeting("")
        self._count = 0
        self._waiting: dict[int, asyncio.Future[Said]] = {}
        self._serving: dict[int, asyncio.Task[None]] = {}
        self._coming: dict[tuple[bool, int], _Coming] = {}
        self._told: OrderedDict[int, None] = OrderedDict()  # parts that the other side knows
        self._known: OrderedDict[int, str] = OrderedDict()  # parts that this side knows
        self._out: deque[_Leaving] = deque()
        self._later: deque[_Leaving] = deque()  # long ones, until the other side has room
        self._under_way = 0  # bytes of long bodies of which a part has gone
        self._unsent: dict[int, _Leaving] = {}  # replies
        self._held = 0  # bytes of asks that are worked on, and of their replies
        self._more, self._sent = asyncio.Event(), asyncio.Event()
        self._ended: Lost | None = None
        self.up_bytes = self.down_bytes = 0

    async def open(self) -> Greeting:
        """Say who this side is, and hear who the other is.

        Raises:
            Lost: it did not say so in time, or refused.
            ConfigError: a trait that is no number.
        """
        try:
            hello = wire.Hello(name=self._me.name, software=self._me.software, traits=dict(self._me.traits))
        except (TypeError, ValueError) as fault:
            raise ConfigError(
                f"a trait of {self._me.name} that is no number ({fault})", "tell numbers by name"
            ) from fault
        try:
            async with asyncio.timeout(HELLO_SECONDS):
                await self._send(envelopes.said(wire.Envelope(hello=hello)))
                first = envelopes.heard(await self._receive(), self._limits)
        except TimeoutError:
            raise Lost("the other side did not say who it is") from None
        except WireError as fault:
            final = isinstance(fault, envelopes.OtherVersion)
            await self._part(str(fault), final)
            raise Lost(str(fault), final, told=True) from fault
        if first.WhichOneof("what") == "bye":
            raise Lost(_line(first.bye.why), first.bye.final, told=True)
        name = first.hello.name
        if first.WhichOneof("what") != "hello" or not name.isprintable() or not 0 < len(name) <= NAME:
            await self._part("who are you? say hello first", final=True)
            raise Lost("the other side did not say who it is", final=True, told=True)
        self.other = Greeting(name, _finite(first.hello.traits), _line(first.hello.software))
        return self.other

    async def run(self) -> Lost:
        """Talk until one side ends it; tells why."""
        writer = asyncio.ensure_future(self._write())
        reader = asyncio.ensure_future(self._read())
        try:
            await asyncio.wait({writer, reader}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (writer, reader):
                task.cancel()
            ended = self._ended or Lost("the connection was closed")
            self._ended = ended
            for result in await asyncio.gather(writer, reader, return_exceptions=True):
                if isinstance(result, Lost) and self._ended.why == "the connection was closed":
                    self._ended = result
                elif isinstance(result, Exception) and not isinstance(result, Lost):
                    self._ended = Lost(f"{type(result).__name__}: {_line(str(result))}")
                    _report("a session failed", result)
            self._abandon(self._ended)
            await self._channel.close()
        return self._ended

    async def ask(self, question: Question) -> Said:
        """Ask, and wait for what is said; whoever stops waiting has the question withdrawn.

        What the other side would not take is not sent: a failure.

        Raises:
            Lost: the connection ended first.
        """
        if self._ended is not None:
            raise _again(self._ended)
        try:
            asked = self._asked(question)
        except ConfigError as fault:
            return Said(failure=f"not sent: {fault}")
        self._count += 1
        number = self._count
        coming: asyncio.Future[Said] = asyncio.get_running_loop().create_future()
        self._waiting[number] = coming
        frames = self._described(number, asked, question)
        self._queue(frames, len(question.body))
        try:
            return await coming
        except asyncio.CancelledError:
            if self._ended is None:
                self._withdraw(frames, number)
            raise
        finally:
            del self._waiting[number]

    def rest(self, until: float) -> None:
        """Say that nothing is left to do here before a virtual time."""
        self._queue(iter([envelopes.said(wire.Envelope(rest=wire.Rest(until=until)))]))

    def now(self, time: float) -> None:
        """Say what time it is."""
        self._queue(iter([envelopes.said(wire.Envelope(now=wire.Now(time=time)))]))

    async def end(self, why: str, final: bool = False) -> None:
        """Say a last word, and end it."""
        if self._ended is None:
            self._ended = Lost(why, final, told=True)
            await self._part(why, final)
            self._more.set()
            self._sent.set()

    # --------------------------------------------------------------------------------------------- the way out

    async def _send(self, data: bytes) -> None:
        self.up_bytes += len(data)
        await self._channel.send(data)

    def _queue(self, frames: Iterator[bytes], nbytes: int = 0, replies: int = 0) -> _Leaving:
        leaving = _Leaving(frames, nbytes, replies)
        self._out.append(leaving)
        self._more.set()
        return leaving

    async def _write(self) -> None:
        """One piece of each message in turn, so that a long one holds up nobody."""
        while self._ended is None:
            while self._out and self._ended is None:
                leaving = self._out.popleft()
                if leaving.long and not leaving.begun and not self._room(leaving.nbytes):
                    self._later.append(leaving)
                    continue
                frame = next(leaving.frames, None)
                if frame is not None and leaving.long and not leaving.begun:
                    leaving.begun = True
                    self._under_way += leaving.nbytes
                if frame is not None:
                    await self._send(frame)
                if frame is not None and leaving.long:
                    self._out.append(leaving)
                else:
                    self._gone(leaving)
            self._more.clear()
            await self._more.wait()

    def _room(self, nbytes: int) -> bool:
        """Whether the other side, which takes as much as this one, takes another long body now."""
        return not self._under_way or self._under_way + nbytes <= self._limits.held_bytes

    def _gone(self, leaving: _Leaving) -> None:
        """All of it has been sent, or nobody wants the rest."""
        if leaving.begun:
            self._under_way -= leaving.nbytes
            self._out.extend(self._later)
            self._later.clear()
        if self._unsent.get(leaving.replies) is leaving:
            del self._unsent[leaving.replies]
            self._held -= leaving.nbytes
            self._sent.set()

    async def _part(self, why: str, final: bool) -> None:
        """The last envelope; whether it arrives is nobody's concern."""
        bye = envelopes.said(wire.Envelope(bye=wire.Bye(why=_line(why), final=final)))
        with suppress(Lost, TimeoutError):
            async with asyncio.timeout(1.0):
                await self._send(bye)

    def _withdraw(self, frames: Generator[bytes, None, None], number: int) -> None:
        frames.close()
        self._coming.pop((False, number), None)
        cancel = wire.Envelope(id=number, mine=True)
        cancel.cancel.SetInParent()
        self._queue(iter([envelopes.said(cancel)]))

    def _asked(self, question: Question) -> wire.Ask:
        """An ask but for its description.

        Raises:
            ConfigError: the other side, which takes as much as this one, would not take it.
        """
        for what, nbytes, most in (
            ("a body", len(question.body), self._limits.body_bytes),
            ("a description", len(question.description), self._limits.description_bytes),
        ):
            if nbytes > most:
                raise ConfigError(f"{what} of {nbytes:,} bytes", f"at most {most:,} are taken")
        seconds = math.inf if question.seconds is None else question.seconds
        endless = not seconds * 1000 < LONGEST
        return wire.Ask(
            part=question.number,
            key=vocabulary.key_text(question.key),
            milliseconds=0 if endless else max(1, math.ceil(seconds * 1000)),
            traceparent=question.traceparent[: envelopes.TRACE],
        )

    def _described(self, number: int, asked: wire.Ask, question: Question) -> Generator[bytes, None, None]:
        """The envelopes of an ask. Its part is described where the other side does not know it; both forget the part
        that was named longest ago, so this is decided when the first envelope goes out."""
        if question.number not in self._told:
            asked.description = question.description
        _keep(self._told, question.number, None, self._limits.parts)
        yield from envelopes.pieces(wire.Envelope(id=number, mine=True, ask=asked), question.body)

    # ---------------------------------------------------------------------------------------------- the way in

    async def _read(self) -> None:
        while self._ended is None:
            while len(self._unsent) > 2 * self._limits.asks and self._ended is None:  # who does not read is not read
                self._sent.clear()
                await self._sent.wait()
            data = await self._receive()
            try:
                self._hear(envelopes.heard(data, self._limits))
            except WireError as fault:
                await self.end(str(fault))

    async def _receive(self) -> bytes:
        data = await self._channel.receive()
        self.down_bytes += len(data)
        return data

    def _hear(self, envelope: wire.Envelope) -> None:
        kind = envelope.WhichOneof("what")
        if kind in {"ask", "reply"}:
            if kind == "reply" and envelope.id > self._count:
                raise WireError(f"a reply to {envelope.id}, which was not asked", "reply to what is asked")
            if kind == "reply" and envelope.id not in self._waiting:
                return  # nobody waits for it any longer
            if (envelope.mine, envelope.id) in self._coming or (kind == "ask" and self._works(envelope.id)):
                raise WireError(f"{kind} {envelope.id} twice", "number asks from 1, each once")
            description = self._known_as(envelope.ask) if kind == "ask" else ""
            if len(envelope.body) == envelope.body_bytes:
                self._whole(envelope, description, envelope.body)
            else:
                self._begin(envelope, description)
        elif kind == "more":
            self._go_on(envelope)
        elif kind == "cancel":
            self._cancel(envelope.id)
        elif kind == "bye":
            self._ended = Lost(_line(envelope.bye.why), envelope.bye.final, told=True)
        elif kind == "rest" and self.on_rest is not None:
            self.on_rest(envelope.rest.until)
        elif kind == "now" and self.on_now is not None:
            self.on_now(envelope.now.time)
        else:
            raise WireError(f"{kind} at this place", "both sides must speak the same version")

    def _works(self, number: int) -> bool:
        """Whether an ask of this number is not wholly answered yet."""
        return number in self._serving or number in self._unsent

    def _cancel(self, number: int) -> None:
        """Nobody waits for the reply any longer."""
        self._coming.pop((True, number), None)
        if (task := self._serving.get(number)) is not None:
            task.cancel()
        if (leaving := self._unsent.get(number)) is not None:
            leaving.frames = iter(())

    def _begin(self, envelope: wire.Envelope, description: str) -> None:
        mark = envelope.mine, envelope.id
        held = sum(each.envelope.body_bytes for each in self._coming.values())
        if held + envelope.body_bytes > self._limits.held_bytes:
            raise WireError(f"{held + envelope.body_bytes:,} bytes on their way at once", "send one after the other")
        first = envelope.body
        self._coming[mark] = _Coming(envelope, description, [first], envelope.body_bytes - len(first))

    def _go_on(self, envelope: wire.Envelope) -> None:
        coming = self._coming.get((envelope.mine, envelope.id))
        if coming is None:
            if not envelope.mine and envelope.id <= self._count:
                return  # of a reply that nobody waits for any longer
            raise WireError(f"a piece of {envelope.id}, which has not begun", "send pieces in their order")
        if len(envelope.body) != min(coming.missing, envelopes.PIECE):
            raise WireError(
                f"a piece of {len(envelope.body):,} bytes where {coming.missing:,} are missing",
                f"pieces have {envelopes.PIECE:,} bytes, but for the last",
            )
        coming.missing -= len(envelope.body)
        coming.pieces.append(envelope.body)
        if coming.missing == 0:
            del self._coming[envelope.mine, envelope.id]
            self._whole(coming.envelope, coming.description, b"".join(coming.pieces))

    def _whole(self, envelope: wire.Envelope, description: str, body: bytes) -> None:
        if envelope.WhichOneof("what") == "reply":
            coming = self._waiting.get(envelope.id)
            if coming is not None and not coming.done():
                reply = envelope.reply
                coming.set_result(Said(body, reply.version, _line(reply.failure), _finite(reply.metrics)))
            return
        asked, number = envelope.ask, envelope.id
        key = vocabulary.key_of(asked.key)
        seconds = asked.milliseconds / 1000 if asked.milliseconds else None
        question = Question(asked.part, description, key, body, seconds, asked.traceparent)
        working = len(self._serving) + len(self._unsent)
        if working >= self._limits.asks or (working and self._held + len(body) > self._limits.held_bytes):
            self._reply(number, Said(failure=f"busy with {working} asks of yours"))
            return
        self._held += len(body)
        task = self._serving[number] = asyncio.ensure_future(self._answer(number, question))
        task.add_done_callback(lambda done: self._done(number, task, len(body)))

    def _done(self, number: int, task: asyncio.Task[None], nbytes: int) -> None:
        self._held -= nbytes
        if self._serving.get(number) is task:
            del self._serving[number]

    def _known_as(self, asked: wire.Ask) -> str:
        if asked.description:
            if vocabulary.number(asked.description) != asked.part:
                raise WireError("a description that is not the one its number says", "number it by its SHA-256")
            _keep(self._known, asked.part, asked.description, self._limits.parts)
            return str(asked.description)
        if asked.part not in self._known:
            raise WireError("a part that was never described", "describe it with the first ask")
        self._known.move_to_end(asked.part)
        return self._known[asked.part]

    async def _answer(self, number: int, question: Question) -> None:
        try:
            self._reply(number, await self._serve(self.other.name, question))
        except WireError as fault:
            await self.end(str(fault))
        except Exception as fault:
            self._reply(number, Said(failure=f"{self._me.name} could not: {type(fault).__name__}"))
            _report("an ask failed", fault)

    def _reply(self, number: int, said: Said) -> None:
        if len(said.body) > self._limits.body_bytes:
            said = Said(
                failure=f"the answer has {len(said.body):,} bytes: at most {self._limits.body_bytes:,} are taken"
            )
        body = b"" if said.failure else said.body
        reply = wire.Reply(version=said.version, failure=_line(said.failure), metrics=dict(said.metrics))
        frames = envelopes.pieces(wire.Envelope(id=number, reply=reply), body)
        self._serving.pop(number, None)
        self._unsent[number] = self._queue(frames, len(body), number)
        self._held += len(body)

    def _abandon(self, ended: Lost) -> None:
        """Nobody will be heard or answered any longer."""
        for task in self._serving.values():
            task.cancel()
        for coming in self._waiting.values():
            if not coming.done():
                coming.set_exception(_again(ended))
                coming.exception()  # whoever waits is told; who does not, need not be
        self._out.clear()
        self._later.clear()
        self._unsent.clear()
        self._coming.clear()


def _line(text: str) -> str:
    """What somebody says, as one line that can be printed."""
    line = " ".join("".join(each if each.isprintable() else " " for each in text[:LINE]).split())
    return line or ("?" if text else "")


def _finite(told: Mapping[str, float]) -> dict[str, float]:
    return {_line(name): value for name, value in told.items() if math.isfinite(value)}


def _again(lost: Lost) -> Lost:
    """The same to somebody else: an exception that is raised twice keeps what was on both stacks."""
    return Lost(lost.why, lost.final, lost.told)


def _report(message: str, fault: BaseException) -> None:
    asyncio.get_running_loop().call_exception_handler({"message": message, "exception": fault})


def _keep(table: OrderedDict[int, Any], number: int, value: Any, most: int) -> None:
    table[number] = value
    table.move_to_end(number)
    if len(table) > most:
        table.popitem(last=False)
