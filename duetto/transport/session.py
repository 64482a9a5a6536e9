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

from duetto.errors import WireError
from duetto.transport import envelope as envelopes
from duetto.transport import vocabulary
from duetto.transport import wire_pb2 as wire
from duetto.transport.channel import Channel, Lost
from duetto.transport.envelope import Limits
from duetto.types import Key

SOFTWARE = "duetto 1"
HELLO_SECONDS = 20.0  # until the other side must have said who it is
LONGEST = (1 << 32) - 1  # milliseconds; more is without an end


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
        self._out: deque[Iterator[bytes]] = deque()
        self._more = asyncio.Event()
        self._ended: Lost | None = None
        self.up_bytes = self.down_bytes = 0

    async def open(self) -> Greeting:
        """Say who this side is, and hear who the other is.

        Raises:
            Lost: it did not say so in time, or refused.
        """
        hello = wire.Hello(name=self._me.name, software=self._me.software, traits=dict(self._me.traits))
        self._queue(iter([envelopes.said(wire.Envelope(hello=hello))]))
        await self._channel.send(next(self._out.popleft()))
        try:
            async with asyncio.timeout(HELLO_SECONDS):
                first = envelopes.heard(await self._channel.receive(), self._limits)
        except TimeoutError:
            raise Lost("the other side did not say who it is") from None
        except WireError as fault:
            await self._part(str(fault), final=True)
            raise Lost(str(fault), final=True) from fault
        if first.WhichOneof("what") == "bye":
            raise Lost(first.bye.why, first.bye.final)
        if first.WhichOneof("what") != "hello" or not first.hello.name:
            await self._part("who are you? say hello first", final=True)
            raise Lost("the other side did not say who it is", final=True)
        traits = {name: value for name, value in first.hello.traits.items() if math.isfinite(value)}
        self.other = Greeting(first.hello.name, traits, first.hello.software)
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
                    self._ended = Lost(f"{type(result).__name__}: {result}")
            self._abandon(self._ended)
            await self._channel.close()
        return self._ended

    async def ask(self, question: Question) -> Said:
        """Ask, and wait for what is said; whoever stops waiting has the question withdrawn.

        Raises:
            Lost: the connection ended first.
        """
        if self._ended is not None:
            raise self._ended
        self._count += 1
        number = self._count
        coming: asyncio.Future[Said] = asyncio.get_running_loop().create_future()
        self._waiting[number] = coming
        frames = self._asked(number, question)
        self._queue(frames)
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
            self._ended = Lost(why, final)
            await self._part(why, final)
            self._more.set()

    # --------------------------------------------------------------------------------------------- the way out

    def _queue(self, frames: Iterator[bytes]) -> None:
        self._out.append(frames)
        self._more.set()

    async def _write(self) -> None:
        """One piece of each message in turn, so that a long one holds up nobody."""
        while self._ended is None:
            while self._out:
                frames = self._out.popleft()
                frame = next(frames, None)
                if frame is not None:
                    self.up_bytes += len(frame)
                    await self._channel.send(frame)
                    self._out.append(frames)
            self._more.clear()
            await self._more.wait()

    async def _part(self, why: str, final: bool) -> None:
        """The last envelope; whether it arrives is nobody's concern."""
        bye = envelopes.said(wire.Envelope(bye=wire.Bye(why=why, final=final)))
        with suppress(Lost, TimeoutError):
            async with asyncio.timeout(1.0):
                await self._channel.send(bye)

    def _withdraw(self, frames: Generator[bytes, None, None], number: int) -> None:
        frames.close()
        cancel = wire.Envelope(id=number, mine=True)
        cancel.cancel.SetInParent()
        self._queue(iter([envelopes.said(cancel)]))

    def _asked(self, number: int, question: Question) -> Generator[bytes, None, None]:
        """The envelopes of an ask. Its part is described where the other side does not know it; both forget the part
        that was named longest ago, so this is decided when the first envelope goes out."""
        left = 0 if question.seconds is None else max(1, math.ceil(question.seconds * 1000))
        asked = wire.Ask(
            part=question.number,
            description="" if question.number in self._told else question.description,
            key=vocabulary.key_text(question.key),
            milliseconds=0 if left > LONGEST else left,
            traceparent=question.traceparent,
        )
        _keep(self._told, question.number, None, self._limits.parts)
        yield from envelopes.pieces(wire.Envelope(id=number, mine=True, ask=asked), question.body)

    # ---------------------------------------------------------------------------------------------- the way in

    async def _read(self) -> None:
        while self._ended is None:
            data = await self._channel.receive()
            self.down_bytes += len(data)
            try:
                self._hear(envelopes.heard(data, self._limits))
            except WireError as fault:
                await self.end(str(fault))

    def _hear(self, envelope: wire.Envelope) -> None:
        kind = envelope.WhichOneof("what")
        if kind in {"ask", "reply"}:
            description = self._described(envelope.ask) if kind == "ask" else ""
            if len(envelope.body) == envelope.body_bytes:
                self._whole(envelope, description, envelope.body)
            else:
                self._begin(envelope, description)
        elif kind == "more":
            self._go_on(envelope)
        elif kind == "cancel":
            self._coming.pop((True, envelope.id), None)
            task = self._serving.get(envelope.id)
            if task is not None:
                task.cancel()
        elif kind == "bye":
            self._ended = Lost(envelope.bye.why, envelope.bye.final)
        elif kind == "rest" and self.on_rest is not None:
            self.on_rest(envelope.rest.until)
        elif kind == "now" and self.on_now is not None:
            self.on_now(envelope.now.time)
        else:
            raise WireError(f"{kind} at this place", "both sides must speak the same version")

    def _begin(self, envelope: wire.Envelope, description: str) -> None:
        mark = envelope.mine, envelope.id
        held = sum(each.envelope.body_bytes for each in self._coming.values())
        if held + envelope.body_bytes > self._limits.held_bytes:
            raise WireError(f"{held + envelope.body_bytes:,} bytes on their way at once", "send one after the other")
        if mark in self._coming:
            raise WireError(f"ask {envelope.id} twice", "number asks from 1, each once")
        first = envelope.body
        self._coming[mark] = _Coming(envelope, description, [first], envelope.body_bytes - len(first))

    def _go_on(self, envelope: wire.Envelope) -> None:
        coming = self._coming.get((envelope.mine, envelope.id))
        if coming is None:
            if not envelope.mine and envelope.id <= self._count:
                return  # of a reply that nobody waits for any longer
            raise WireError(f"a piece of {envelope.id}, which has not begun", "send pieces in their order")
        coming.missing -= len(envelope.body)
        coming.pieces.append(envelope.body)
        if not envelope.body or coming.missing < 0:
            raise WireError(f"a body longer than its {coming.envelope.body_bytes:,} bytes", "say how long it is")
        if coming.missing == 0:
            del self._coming[envelope.mine, envelope.id]
            self._whole(coming.envelope, coming.description, b"".join(coming.pieces))

    def _whole(self, envelope: wire.Envelope, description: str, body: bytes) -> None:
        if envelope.WhichOneof("what") == "reply":
            coming = self._waiting.get(envelope.id)
            if coming is not None and not coming.done():
                reply = envelope.reply
                coming.set_result(Said(body, reply.version, reply.failure, dict(reply.metrics)))
            elif envelope.id > self._count:
                raise WireError(f"a reply to {envelope.id}, which was not asked", "reply to what is asked")
            return
        asked, key = envelope.ask, vocabulary.key_of(envelope.ask.key)
        if envelope.id in self._serving:
            raise WireError(f"ask {envelope.id} twice", "number asks from 1, each once")
        seconds = asked.milliseconds / 1000 if asked.milliseconds else None
        question = Question(asked.part, description, key, body, seconds, asked.traceparent)
        if len(self._serving) >= self._limits.asks:
            self._reply(envelope.id, Said(failure=f"busy with {len(self._serving)} asks of yours"))
            return
        task = asyncio.ensure_future(self._answer(envelope.id, question))
        self._serving[envelope.id] = task
        task.add_done_callback(lambda done: self._serving.pop(envelope.id, None))

    def _described(self, asked: wire.Ask) -> str:
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
            said = await self._serve(self.other.name, question)
        except WireError as fault:
            await self.end(str(fault))
            return
        except Exception as fault:
            said = Said(failure=f"{self._me.name} could not: {type(fault).__name__}")
            asyncio.get_running_loop().call_exception_handler({"message": "an ask failed", "exception": fault})
        self._reply(number, said)

    def _reply(self, number: int, said: Said) -> None:
        reply = wire.Reply(version=said.version, failure=said.failure, metrics=dict(said.metrics))
        self._queue(envelopes.pieces(wire.Envelope(id=number, reply=reply), b"" if said.failure else said.body))

    def _abandon(self, ended: Lost) -> None:
        """Nobody will be heard or answered any longer."""
        for task in self._serving.values():
            task.cancel()
        for coming in self._waiting.values():
            if not coming.done():
                coming.set_exception(ended)
                coming.exception()  # whoever waits is told; who does not, need not be
        self._out.clear()


def _keep(table: OrderedDict[int, Any], number: int, value: Any, most: int) -> None:
    table[number] = value
    table.move_to_end(number)
    if len(table) > most:
        table.popitem(last=False)
