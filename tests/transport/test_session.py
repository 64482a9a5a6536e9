"""A session: both sides ask, nobody is held up, and what is not in order ends this session with one line."""

import asyncio
import json
import math
import re
import zlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from duetto.errors import ConfigError
from duetto.transport import envelope as envelopes
from duetto.transport import session as sessions
from duetto.transport import vocabulary
from duetto.transport import wire_pb2 as wire
from duetto.transport.channel import Channel, Lost, Memory, pair
from duetto.transport.envelope import PIECE, VERSION, Limits
from duetto.transport.session import Greeting, Question, Said, Serve, Session

SOON = 10.0
LONG = bytes(range(256)) * (PIECE // 256)


def run(main: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(main, 60))


def question(body: bytes = b"body", part: str = "part", **about: Any) -> Question:
    return Question(vocabulary.number(part), part, ("key", 1), body, **about)


async def echo(sender: str, asked: Question) -> Said:
    return Said(asked.body, metrics={"nbytes": float(len(asked.body))})


class Recorded:
    """A channel that remembers what it has sent."""

    def __init__(self, channel: Channel) -> None:
        self.channel, self.sent = channel, list[bytes]()

    async def send(self, data: bytes) -> None:
        self.sent.append(data)
        await self.channel.send(data)

    async def receive(self) -> bytes:
        return await self.channel.receive()

    async def close(self) -> None:
        await self.channel.close()

    def kinds(self) -> list[tuple[str, int]]:
        found = [wire.Envelope.FromString(data) for data in self.sent]
        return [(each.WhichOneof("what"), each.id) for each in found]


class Both:
    """Two sessions that talk."""

    def __init__(self, ann: Serve = echo, ben: Serve = echo, limits: Limits = Limits(), room: int = 4) -> None:
        one, other = pair(room)
        self.sent = Recorded(one), Recorded(other)
        self.ann = Session(self.sent[0], Greeting("ann", {"examples": 3, "odd": math.nan}), ann, limits)
        self.ben = Session(self.sent[1], Greeting("ben"), ben, limits)
        self.running: list[asyncio.Task[Lost]] = []

    async def __aenter__(self) -> "Both":
        await asyncio.gather(self.ann.open(), self.ben.open())
        self.running = [asyncio.ensure_future(each.run()) for each in (self.ann, self.ben)]
        return self

    async def __aexit__(self, *fault: object) -> None:
        for each in self.running:
            each.cancel()
        await asyncio.gather(*self.running, return_exceptions=True)


class Raw:
    """A session, and the other side of it envelope by envelope."""

    def __init__(self, serve: Serve = echo, limits: Limits = Limits(), room: int = 64) -> None:
        one, self.channel = pair(room)
        self.session = Session(one, Greeting("ann"), serve, limits)
        self.running: asyncio.Task[Lost] | None = None

    async def __aenter__(self) -> "Raw":
        opening = asyncio.ensure_future(self.session.open())
        await self.hear()
        await self.say(wire.Envelope(hello=wire.Hello(name="raw")))
        await opening
        self.running = asyncio.ensure_future(self.session.run())
        return self

    async def __aexit__(self, *fault: object) -> None:
        assert self.running is not None
        self.running.cancel()
        await asyncio.gather(self.running, return_exceptions=True)

    async def say(self, envelope: wire.Envelope) -> None:
        await self.channel.send(envelopes.said(envelope))

    async def ask(self, number: int = 1, body: bytes = b"body", part: str = "part", **about: Any) -> None:
        for data in asked(number, body, part, **about):
            await self.channel.send(data)

    async def hear(self) -> wire.Envelope:
        return wire.Envelope.FromString(await asyncio.wait_for(self.channel.receive(), SOON))

    async def ended(self) -> Lost:
        assert self.running is not None
        return await asyncio.wait_for(asyncio.shield(self.running), SOON)


def asked(number: int, body: bytes = b"body", part: str = "part", **about: Any) -> list[bytes]:
    said = {"part": vocabulary.number(part), "description": part, "key": '["key",1]', **about}
    return list(envelopes.pieces(wire.Envelope(id=number, mine=True, ask=wire.Ask(**said)), body))


# ------------------------------------------------------------------------------------------------------- hello


def test_each_side_says_who_it_is() -> None:
    async def main() -> None:
        async with Both() as both:
            assert (both.ann.other.name, both.ben.other.name) == ("ben", "ann")
            assert both.ben.other.traits == {"examples": 3.0}  # what is no number says nothing
            assert both.ann.other.software == sessions.SOFTWARE

    run(main())


@pytest.mark.parametrize(
    ("first", "why", "final"),
    [
        (envelopes.said(wire.Envelope(hello=wire.Hello(name=""))), "say who it is", True),
        (envelopes.said(wire.Envelope(hello=wire.Hello(name="a\nb"))), "say who it is", True),
        (envelopes.said(wire.Envelope(hello=wire.Hello(name="n" * 256))), "say who it is", True),
        (asked(1)[0], "say who it is", True),
        (envelopes.said(wire.Envelope(bye=wire.Bye(why="no\nroom", final=True))), "no room", True),
        (envelopes.said(wire.Envelope(bye=wire.Bye(why="later"))), "later", False),
        (wire.Envelope(version=9, hello=wire.Hello(name="a")).SerializeToString(), "version 9", True),
        (b"\xff" * 10, "no envelope", False),  # damaged on the way: it may come back
    ],
)
def test_who_does_not_say_hello_is_not_talked_to(first: bytes, why: str, final: bool) -> None:
    async def main() -> None:
        one, other = pair()
        await other.send(first)
        with pytest.raises(Lost, match=why) as lost:
            await Session(one, Greeting("ann"), echo).open()
        assert lost.value.final == final
        assert wire.Envelope.FromString(await other.receive()).hello.name == "ann"

    run(main())


def test_a_hello_is_waited_for_only_so_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "HELLO_SECONDS", 0.01)
    with pytest.raises(Lost, match="did not say who it is"):
        asyncio.run(Session(pair()[0], Greeting("ann"), echo).open())


def test_a_trait_that_is_no_number_is_the_users_fault() -> None:
    with pytest.raises(ConfigError, match="no number"):
        asyncio.run(Session(pair()[0], Greeting("ann", {"os": "ios"}), echo).open())  # type: ignore[dict-item]


# ------------------------------------------------------------------------------------------------------ asking


def test_both_sides_ask_at_once() -> None:
    async def ann(sender: str, asked: Question) -> Said:
        assert (sender, asked.key, asked.description) == ("ben", ("key", 1), "part")
        return Said(b"ann:" + asked.body, version=3)

    async def ben(sender: str, asked: Question) -> Said:
        return Said(failure=f"{sender} asks in vain\n", metrics={"retry_after": 2.0, "odd": math.nan})

    async def main() -> None:
        async with Both(ann, ben) as both:
            asks = [both.ann.ask(question()) for _ in range(20)] + [both.ben.ask(question()) for _ in range(20)]
            said = await asyncio.gather(*asks)
            assert said[:20] == [Said(failure="ann asks in vain", metrics={"retry_after": 2.0})] * 20
            assert said[20:] == [Said(b"ann:body", version=3)] * 20
            for recorded, session, other in zip(both.sent, (both.ann, both.ben), (both.ben, both.ann), strict=True):
                assert session.up_bytes == sum(map(len, recorded.sent)) == other.down_bytes

    run(main())


@pytest.mark.parametrize("seconds", [None, math.inf, 1e9, 1e-9, -1.0, 4.2])
def test_a_deadline_is_told_in_milliseconds(seconds: float | None) -> None:
    heard: list[float | None] = []

    async def ben(sender: str, asked: Question) -> Said:
        heard.append(asked.seconds)
        return Said(b"x")

    async def main() -> None:
        async with Both(ben=ben) as both:
            await both.ann.ask(question(seconds=seconds))

    run(main())
    endless = seconds is None or seconds * 1000 > 2**32
    assert heard == [None if endless else max(0.001, math.ceil(seconds * 1000) / 1000)]


def test_a_long_body_holds_up_nobody() -> None:
    async def main() -> None:
        async with Both(room=1) as both:
            long = asyncio.ensure_future(both.ann.ask(question(LONG * 30)))
            await asyncio.sleep(0)
            while len(both.sent[0].sent) < 5:
                await asyncio.sleep(0)
            short = await both.ann.ask(question(b"short"))
            assert short.body == b"short"
            assert not long.done()
            kinds = both.sent[0].kinds()
            before = kinds.index(("ask", 2))
            assert before <= 8  # at most a piece or two were sent before it
            assert (await long).body == LONG * 30
            assert both.sent[1].kinds().index(("reply", 2)) < both.sent[1].kinds().index(("reply", 1))

    run(main())


def test_long_bodies_wait_until_the_other_side_has_room_for_them() -> None:
    limits = Limits(body_bytes=4 * PIECE, held_bytes=5 * PIECE)

    async def ben(sender: str, asked: Question) -> Said:
        return Said(f"{asked.body[:1]!r} {len(asked.body)}".encode())

    async def main() -> None:
        async with Both(ben=ben, limits=limits) as both:
            bodies = [bytes([i]) * (n * PIECE + 1) for i, n in enumerate((3, 3, 2, 3, 1, 3))]
            said = await asyncio.gather(*(both.ann.ask(question(body)) for body in bodies))
            for each, body in zip(said, bodies, strict=True):  # those before may still be worked on
                assert each.failure.startswith("busy") or each.body == f"{body[:1]!r} {len(body)}".encode()
            assert said[0].body
            assert not both.running[0].done()

    run(main())


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        (question(b"x" * 101), "a body of 101 bytes"),
        (question(part="d" * 201), "a description of 201"),
        (replace(question(), key=("k" * 20_000,)), "a key of"),
        (replace(question(), key=(np.int64(1),)), r"a key with .* \(int64\)"),
    ],
)
def test_what_the_other_side_would_not_take_is_not_sent(asked: Question, why: str) -> None:
    async def main() -> None:
        async with Both(limits=Limits(body_bytes=100, description_bytes=200)) as both:
            said = await both.ann.ask(asked)
            assert said.failure.startswith("not sent: ")
            assert re.search(why, said.failure)
            assert (await both.ann.ask(question())).body == b"body"

    run(main())


def test_an_answer_that_is_too_long_is_a_failure() -> None:
    async def ben(sender: str, asked: Question) -> Said:
        return Said(b"x" * 101)

    async def main() -> None:
        async with Both(ben=ben, limits=Limits(body_bytes=100)) as both:
            assert "the answer has 101 bytes" in (await both.ann.ask(question())).failure

    run(main())


@pytest.mark.parametrize("wrong", ["raises", "metrics", "version", "surrogate"])
def test_a_skill_that_goes_wrong_ends_nothing(wrong: str) -> None:
    async def ben(sender: str, asked: Question) -> Said:
        if wrong == "raises":
            raise KeyError("secret")
        if wrong == "surrogate":
            return Said(failure="not \ud800\n text")
        return Said(b"x", version=2**80) if wrong == "version" else Said(b"x", metrics={"a": "b"})  # type: ignore

    async def main() -> None:
        told: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context["exception"]))
        async with Both(ben=ben) as both:
            said = await both.ann.ask(question())
            assert said.failure.startswith("ben could not: " if wrong != "surrogate" else "not text")
            assert "secret" not in said.failure
            assert len(told) == (wrong != "surrogate")
            assert (await both.ben.ask(question())).body == b"body"

    run(main())


# --------------------------------------------------------------------------------------------------- withdrawing


def test_who_stops_waiting_withdraws_the_question() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def ben(sender: str, asked: Question) -> Said:
        begun.set()
        try:
            await asyncio.sleep(SOON * 6)
        finally:
            ended.set()
        return Said(b"")

    async def main() -> None:
        async with Both(ben=ben) as both:
            asking = asyncio.ensure_future(both.ann.ask(question()))
            await asyncio.wait_for(begun.wait(), SOON)
            asking.cancel("words")
            with pytest.raises(asyncio.CancelledError) as cancelled:
                await asking
            assert cancelled.value.args == ("words",)
            await asyncio.wait_for(ended.wait(), SOON)
            assert both.sent[0].kinds()[-1] == ("cancel", 1)
            assert all(kind != "reply" for kind, _ in both.sent[1].kinds())
            assert (await both.ben.ask(question())).body == b"body"

    run(main())


def test_a_question_that_is_withdrawn_on_its_way_is_not_sent_to_its_end() -> None:
    async def main() -> None:
        async with Both(room=1) as both:
            asking = asyncio.ensure_future(both.ann.ask(question(LONG * 100)))
            while len(both.sent[0].sent) < 5:
                await asyncio.sleep(0)
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            assert (await both.ann.ask(question(LONG * 3))).body == LONG * 3
            assert both.sent[0].kinds().count(("more", 1)) < 10
            assert both.ben._coming == {}

    run(main())


def test_an_answer_that_nobody_waits_for_is_not_sent_to_its_end() -> None:
    async def ben(sender: str, asked: Question) -> Said:
        return Said(LONG * 100)

    async def main() -> None:
        async with Both(ben=ben, room=1) as both:
            asking = asyncio.ensure_future(both.ann.ask(question()))
            while len(both.sent[1].sent) < 5:
                await asyncio.sleep(0)
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            assert both.ann._coming == {}
            assert (await both.ben.ask(question())).body == b"body"
            assert both.sent[1].kinds().count(("more", 1)) < 15
            assert not both.ben._unsent

    run(main())


def test_a_question_that_is_withdrawn_before_it_leaves_describes_nothing() -> None:
    """The table of parts changes when an envelope goes out, not when it is queued."""

    async def main() -> None:
        async with Both() as both:
            asking = asyncio.ensure_future(both.ann.ask(question(part="other")))
            await asyncio.sleep(0)
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            assert (await both.ann.ask(question(part="other"))).body == b"body"

    run(main())


# -------------------------------------------------------------------------------------------------------- parts


@given(st.lists(st.integers(0, 5), max_size=30), st.integers(1, 4))
@settings(max_examples=30)
def test_both_sides_forget_the_same_parts(asks: list[int], most: int) -> None:
    known: OrderedDict[int, None] = OrderedDict()
    told = 0
    for part in asks:  # the one that was named longest ago is forgotten
        told += part not in known
        known[part] = None
        known.move_to_end(part)
        if len(known) > most:
            known.popitem(last=False)
    heard: list[str] = []

    async def ben(sender: str, asked: Question) -> Said:
        heard.append(asked.description)
        return Said(b"x")

    async def main() -> None:
        async with Both(ben=ben, limits=Limits(parts=most)) as both:
            tasks = [asyncio.ensure_future(both.ann.ask(question(part=str(part)))) for part in asks]
            for each in tasks:
                assert (await each).body == b"x"
            sent = [wire.Envelope.FromString(data) for data in both.sent[0].sent]
            assert sum(bool(each.ask.description) for each in sent) == told

    run(main())
    assert heard == [str(part) for part in asks]


# ------------------------------------------------------------------------------------------------------- limits


def test_who_asks_too_much_at_once_is_told_that_we_are_busy() -> None:
    free = asyncio.Event()

    async def ben(sender: str, asked: Question) -> Said:
        await free.wait()
        return Said(b"x")

    async def main() -> None:
        async with Both(ben=ben, limits=Limits(asks=3)) as both:
            waiting = [asyncio.ensure_future(both.ann.ask(question())) for _ in range(5)]
            said = await asyncio.gather(*waiting[3:])
            assert said[0].failure == "busy with 3 asks of yours"
            assert said[1].failure.startswith("busy with ")
            free.set()
            assert [each.body for each in await asyncio.gather(*waiting[:3])] == [b"x"] * 3
            assert (await both.ann.ask(question())).body == b"x"

    run(main())


def test_as_many_asks_as_are_allowed_are_never_too_many() -> None:
    async def main() -> None:
        async with Both(limits=Limits(asks=4)) as both:

            async def one() -> None:
                for _ in range(50):
                    assert (await both.ann.ask(question())).failure == ""

            await asyncio.gather(*(one() for _ in range(3)))

    run(main())


def test_bodies_that_are_worked_on_are_bounded_too() -> None:
    free = asyncio.Event()

    async def ben(sender: str, asked: Question) -> Said:
        await free.wait()
        return Said(b"x")

    async def main() -> None:
        async with Both(ben=ben, limits=Limits(body_bytes=100, held_bytes=150)) as both:
            first, second = (asyncio.ensure_future(both.ann.ask(question(b"x" * 100))) for _ in range(2))
            assert (await second).failure == "busy with 1 asks of yours"
            free.set()
            assert (await first).body == b"x"

    run(main())


def test_who_does_not_read_answers_is_not_read() -> None:
    async def main() -> None:
        async with Raw(limits=Limits(asks=4), room=2) as raw:
            sent = 0

            async def flood() -> None:
                nonlocal sent
                for number in range(1, 1000):
                    await raw.ask(number)
                    sent = number

            flooding = asyncio.ensure_future(flood())
            for _ in range(200):
                await asyncio.sleep(0)
            stuck = sent
            await asyncio.sleep(0.05)
            assert sent == stuck < 30
            assert len(raw.session._unsent) < 15
            for _ in range(999):
                assert (await raw.hear()).WhichOneof("what") == "reply"
            await flooding

    run(main())


# ---------------------------------------------------------------------------------------------- not in order


def more(number: int, body: bytes, mine: bool = True) -> bytes:
    made = wire.Envelope(version=VERSION, id=number, mine=mine, body=body, checksum=zlib.crc32(body))
    made.more.SetInParent()
    return made.SerializeToString()


def reply(number: int, body: bytes = b"x") -> bytes:
    return next(envelopes.pieces(wire.Envelope(id=number, reply=wire.Reply()), body))


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


LONG_ASK = asked(1, LONG * 2 + b"end")
BAD: dict[str, tuple[list[bytes], str]] = {
    "garbage": ([b"\xff\xff"], "no envelope"),
    "empty": ([b""], "version 0"),
    "cut": ([asked(1)[0][:-1]], "no envelope"),
    "changed": ([flipped(asked(1)[0], asked(1)[0].index(b"body"))], "checksum"),
    "other version": ([wire.Envelope(version=2, bye=wire.Bye()).SerializeToString()], "version 2"),
    "too long": ([b"x" * 600_000], "an envelope of"),
    "a second hello": ([envelopes.said(wire.Envelope(hello=wire.Hello(name="a")))], "hello at this place"),
    "rest": ([envelopes.said(wire.Envelope(rest=wire.Rest(until=1)))], "rest at this place"),
    "now": ([envelopes.said(wire.Envelope(now=wire.Now(time=1)))], "now at this place"),
    "more without begin": ([more(1, LONG)], "which has not begun"),
    "more of a reply without ask": ([more(1, LONG, mine=False)], "which has not begun"),
    "a piece too short": ([LONG_ASK[0], more(1, LONG[:-1])], "a piece of"),
    "an empty piece": ([LONG_ASK[0], more(1, b"")], "a piece of 0"),
    "a piece too long": ([LONG_ASK[0], LONG_ASK[1], more(1, b"endless")], "a piece of 7"),
    "reply never asked": ([reply(1)], "which was not asked"),
    "begin of a reply never asked": ([next(envelopes.pieces(wire.Envelope(id=7, reply=wire.Reply()), LONG * 2))], "7"),
    "twice the same number": ([*asked(1, b"wait"), *asked(1)], "ask 1 twice"),
    "twice the same number, in pieces": ([LONG_ASK[0], *asked(1)], "ask 1 twice"),
    "twice begun": ([LONG_ASK[0], LONG_ASK[0]], "ask 1 twice"),
    "a key that is none": (asked(1, key="{}"), "a key '{}'"),
    "a deep key": (asked(1, key="[" * 16_000), "a key"),
    "a part never described": (asked(1, description=""), "never described"),
    "another part's description": (asked(1, description="another"), "not the one its number says"),
    "a long description": (asked(1, part="d" * 300_000), "a description of"),
    "too much at once": ([asked(i, b"x" * (9 * PIECE))[0] for i in (1, 2)], "on their way at once"),
    "too long a body": (asked(1, b"x" * (11 * PIECE))[:1], "a body of"),
}


@pytest.mark.parametrize("what", BAD)
def test_what_is_not_in_order_ends_the_session_with_one_line(what: str) -> None:
    said, why = BAD[what]

    async def serve(sender: str, asked: Question) -> Said:
        if asked.body == b"wait":
            await asyncio.sleep(SOON * 6)
        return Said(b"x")

    async def main() -> None:
        told: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context))
        async with Raw(serve, Limits(body_bytes=10 * PIECE, held_bytes=16 * PIECE)) as raw:
            waiting = asyncio.ensure_future(raw.session.ask(question(b"in vain"))) if "reply" not in what else None
            for data in said:
                await raw.channel.send(data)
            ended = await raw.ended()
            assert why in ended.why
            assert not ended.final
            last = wire.Envelope()
            while last.WhichOneof("what") != "bye":
                last = await raw.hear()
            assert last.bye.why == ended.why
            assert len(ended.why.splitlines()) == 1
            with pytest.raises(Lost):
                await raw.channel.receive()
            if waiting is not None:
                with pytest.raises(Lost):
                    await waiting
            with pytest.raises(Lost):
                await raw.session.ask(question())
            assert raw.session._coming == {}
        assert told == []

    run(main())


def test_pieces_of_a_reply_that_nobody_waits_for_are_no_fault() -> None:
    async def main() -> None:
        async with Raw() as raw:
            asking = asyncio.ensure_future(raw.session.ask(question()))
            assert (await raw.hear()).WhichOneof("what") == "ask"
            first, *others = envelopes.pieces(wire.Envelope(id=1, reply=wire.Reply()), LONG * 3)
            await raw.channel.send(first)
            await asyncio.sleep(0.01)
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            assert (await raw.hear()).WhichOneof("what") == "cancel"
            for data in [*others, first, *others]:  # and again, after it has ended
                await raw.channel.send(data)
            await raw.ask()
            assert (await raw.hear()).body == b"body"
            assert raw.session._coming == {}

    run(main())


def test_withdrawing_what_was_never_asked_is_no_fault() -> None:
    async def main() -> None:
        async with Raw() as raw:
            cancel = wire.Envelope(id=77, mine=True)
            cancel.cancel.SetInParent()
            await raw.say(cancel)
            await raw.ask()
            assert (await raw.hear()).body == b"body"

    run(main())


def test_a_bye_is_told_to_whoever_waits() -> None:
    async def main() -> None:
        async with Raw() as raw:
            asking = asyncio.ensure_future(raw.session.ask(question()))
            await raw.hear()
            await raw.say(wire.Envelope(bye=wire.Bye(why="re\x1b[31mvoked\n" + "x" * 10_000, final=True)))
            ended = await raw.ended()
            assert ended.final
            assert ended.why.startswith("re [31mvoked x")
            assert len(ended.why) <= sessions.LINE
            with pytest.raises(Lost) as lost:
                await asking
            assert (lost.value.why, lost.value.final, lost.value.told) == (ended.why, True, True)

    run(main())


def test_a_last_word_ends_it() -> None:
    async def slow(sender: str, asked: Question) -> Said:
        await asyncio.sleep(SOON * 6)
        return Said(b"")

    async def main() -> None:
        async with Both(slow, slow) as both:
            asking = asyncio.ensure_future(both.ben.ask(question()))
            await asyncio.sleep(0.01)
            await both.ann.end("enough", final=True)
            ended = await asyncio.wait_for(asyncio.gather(*both.running), SOON)
            assert [(each.why, each.final) for each in ended] == [("enough", True)] * 2
            with pytest.raises(Lost, match="enough"):
                await asking
            await both.ann.end("again")
            assert both.sent[0].kinds()[-1][0] == "bye"

    run(main())


def test_a_channel_that_breaks_is_no_word() -> None:
    async def main() -> None:
        async with Both() as both:
            await both.sent[0].channel.close()
            for each in await asyncio.wait_for(asyncio.gather(*both.running), SOON):
                assert not each.final
                assert not each.told

    run(main())


def test_virtual_time_is_heard_where_somebody_listens() -> None:
    async def main() -> None:
        async with Both() as both:
            times: list[tuple[str, float]] = []
            both.ann.on_rest = lambda until: times.append(("rest", until))
            both.ben.on_now = lambda time: times.append(("now", time))
            both.ben.rest(math.inf)
            both.ann.now(4.5)
            await both.ann.ask(question())
            await both.ben.ask(question())
            assert sorted(times) == [("now", 4.5), ("rest", math.inf)]

    run(main())


def test_other_sessions_go_on() -> None:
    """One peer's nonsense reaches nobody else who is served by the same party."""

    async def main() -> None:
        async with Both() as both, Raw() as bad:
            asks = asyncio.gather(*(both.ann.ask(question(LONG * 2)) for _ in range(5)))
            await bad.channel.send(b"\xff\xff")
            await bad.ended()
            assert all(each.body == LONG * 2 for each in await asks)

    run(main())


Step = Callable[[Both], Awaitable[None]]


@given(
    st.lists(
        st.tuples(st.booleans(), st.sampled_from([1, 100, PIECE, PIECE + 1, 3 * PIECE]), st.booleans(), st.text("ab")),
        max_size=12,
    ),
    st.integers(1, 3),
)
@settings(max_examples=25)
def test_whatever_is_asked_is_answered(asks: Iterable[tuple[bool, int, bool, str]], room: int) -> None:
    async def main() -> None:
        async with Both(limits=Limits(body_bytes=3 * PIECE, held_bytes=4 * PIECE, parts=2), room=room) as both:

            async def one(own: bool, nbytes: int, stays: bool, part: str) -> None:
                body = json.dumps([nbytes, part]).encode().ljust(nbytes)[:nbytes]
                asking = asyncio.ensure_future((both.ann if own else both.ben).ask(question(body, part or "c")))
                if stays:
                    said = await asking
                    assert said.body == body or said.failure.startswith("busy")
                else:
                    await asyncio.sleep(0)
                    await asyncio.sleep(0)
                    asking.cancel()
                    await asyncio.gather(asking, return_exceptions=True)

            await asyncio.gather(*(one(*each) for each in asks))
            assert (await both.ann.ask(question())).body == b"body"
            assert not any(each.done() for each in both.running)
            assert not both.ann._waiting
            assert not both.ben._waiting

    run(main())


def test_a_memory_channel_is_a_channel() -> None:
    channel: Channel = pair()[0]
    assert isinstance(channel, Memory)
