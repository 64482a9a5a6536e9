"""Mutated messages and conversations: whatever arrives is read or refused, and nothing else happens.

Each test starts from what two parties really said, and changes, cuts, repeats, drops and reorders it. A decoder may
only raise what it promises; a session may only end with one line, and answers others afterwards.
"""

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from duetto import tree as trees
from duetto.codecs import Quantise, TopK, Zstd
from duetto.errors import ConfigError, WireError
from duetto.protocols import Coded
from duetto.protocols.probe import Echo
from duetto.protocols.stages import Advance, Finish
from duetto.transport import vocabulary
from duetto.transport import wire_pb2 as wire
from duetto.transport.channel import Lost, pair
from duetto.transport.envelope import Limits, heard
from duetto.transport.party import Running
from duetto.transport.remote import Remote
from duetto.transport.session import Greeting, Session
from duetto.types import Chain, Party

LIMITS = Limits(body_bytes=1 << 20, held_bytes=2 << 20, asks=8, parts=2)
TREE = {"x": np.arange(6, dtype=np.float32).reshape(2, 3), "deep": {"a/b": np.int64(1), "none": {}}}
SKILLS = [Echo(), Coded(Echo(), Chain((Quantise(8), Zstd(1)))), Coded(Echo(), Chain(), TopK(0.5))]
PARTS = [*SKILLS, Finish("large"), Advance(0, 2)]


class Recording:
    """A channel that remembers what it has sent."""

    def __init__(self, channel: Any) -> None:
        self.sent, self.channel = list[bytes](), channel
        self.receive, self.close = channel.receive, channel.close

    async def send(self, data: bytes) -> None:
        self.sent.append(data)
        await self.channel.send(data)


@cache
def conversation() -> list[bytes]:
    """What a device says: hello, asks with and without description, a reply, a long body, a withdrawal, good-bye."""

    async def main() -> list[bytes]:
        one, other = pair()
        recording = Recording(one)
        ann, ben = Running(Party(skills=(Echo,)), "ann"), Running(Party(skills=(Echo,)), "ben")
        device = Session(recording, Greeting("ann", {"examples": 3}), ann.answer, LIMITS)
        cloud = Session(other, Greeting("ben"), ben.answer, LIMITS)
        await asyncio.gather(device.open(), cloud.open())
        running = [asyncio.ensure_future(each.run()) for each in (device, cloud)]
        up, down = Remote("ben", device=True), Remote("ann", device=False)
        up.attach(device)
        down.attach(cloud)
        for step, skill in enumerate((*SKILLS, *SKILLS)):
            await skill.asked_of(up, TREE, key=(0, "ann", step), deadline=9.0)
        await down.ask(Echo(), TREE, key=(1,))
        await up.ask(Echo(), {"x": np.zeros(100_000)}, key=(2,))
        asking = asyncio.ensure_future(up.ask(Echo(), TREE, key=(3,)))
        await asyncio.sleep(0)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await asyncio.sleep(0)
        await device.end("enough")
        await asyncio.gather(*running)
        return recording.sent

    said = asyncio.run(main())
    kinds = {wire.Envelope.FromString(each).WhichOneof("what") for each in said}
    assert kinds == {"hello", "ask", "reply", "more", "cancel", "bye"}
    return said


def changed(draw: Callable[[Any], Any], data: bytes) -> bytes:
    """The bytes, flipped, cut, lengthened or mixed, in a few places."""
    made = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, min(len(made), 400) - 1)))
        how = draw(st.sampled_from(["flip", "set", "cut", "insert", "double", "tail"]))
        if how == "flip" and made:
            made[at] ^= 1 << draw(st.integers(0, 7))
        elif how == "set" and made:
            made[at] = draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xFF]))
        elif how == "cut":
            del made[at : at + draw(st.integers(1, 40))]
        elif how == "insert":
            made[at:at] = draw(st.binary(max_size=20))
        elif how == "double":
            made[at:at] = made[at : at + draw(st.integers(1, 60))]
        elif how == "tail":
            del made[at:]
    return bytes(made)


@given(st.data())
@settings(max_examples=300)
def test_envelopes(data: st.DataObject) -> None:
    begin = data.draw(st.sampled_from(conversation()))
    with suppress(WireError):
        heard(changed(data.draw, begin), LIMITS)


@given(st.data())
@settings(max_examples=200)
def test_conversations(data: st.DataObject) -> None:
    """Dropped, repeated, reordered and changed: the session ends or goes on, and holds nothing for ever."""
    said = list(conversation())
    for _ in range(data.draw(st.integers(0, 4))):
        at = data.draw(st.integers(0, len(said) - 1))
        how = data.draw(st.sampled_from(["drop", "repeat", "swap", "change", "mix"]))
        if how == "drop" and len(said) > 1:
            del said[at]
        elif how == "repeat":
            said.insert(data.draw(st.integers(0, len(said))), said[at])
        elif how == "swap":
            other = data.draw(st.integers(0, len(said) - 1))
            said[at], said[other] = said[other], said[at]
        elif how == "change":
            said[at] = changed(data.draw, said[at])
        else:  # one envelope's fields on top of another's
            said[at] += said[data.draw(st.integers(0, len(said) - 1))]
    asyncio.run(asyncio.wait_for(told(said), 30))


async def told(said: list[bytes]) -> None:
    faults: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: faults.append(context))
    ben = Running(Party(skills=(Echo,)), "ben")
    here, there = pair(4)
    session = Session(here, Greeting("ben"), ben.answer, LIMITS)
    peer = Remote("ann", device=False, grace=0.0)
    heard_here: list[bytes] = []

    async def read() -> None:
        with suppress(Lost):
            while True:
                heard_here.append(await there.receive())

    async def write() -> None:
        with suppress(Lost):
            for each in said:
                await there.send(each)
        for _ in range(50):  # so many turns take all of it in
            await asyncio.sleep(0)
        await there.close()

    reading, writing = asyncio.ensure_future(read()), asyncio.ensure_future(write())
    opened = True
    try:
        await session.open()
    except Lost:
        opened = False
    if opened:
        running = asyncio.ensure_future(session.run())
        peer.attach(session)
        asking = asyncio.ensure_future(peer.ask(Echo(), TREE, key=(9,), deadline=20.0))
        ended = await running
        assert ended.why.isprintable()
        assert len(ended.why) <= 1000
        assert not ended.why.startswith(("TypeError", "KeyError", "ValueError", "AttributeError", "AssertionError"))
        peer.detach(session, ended)
        await asking
        assert (session._coming, dict(session._unsent), session._waiting) == ({}, {}, {})
    await here.close()
    await asyncio.gather(reading, writing)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert (ben.busy, faults) == (0, [])
    for each in heard_here:
        heard(each)  # nothing that it says is out of order itself


@given(st.data())
@settings(max_examples=300)
def test_descriptions(data: st.DataObject) -> None:
    text = vocabulary.written(data.draw(st.sampled_from(PARTS)))[1]
    made = changed(data.draw, text.encode()).decode("utf-8", "replace")
    with suppress(WireError, ConfigError):
        vocabulary.read(made, {"Echo": Echo})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=5), inner, max_size=3)
        | st.fixed_dictionaries(
            {
                "class": st.sampled_from([json.loads(vocabulary.written(each)[1])["class"] for each in PARTS])
                | st.sampled_from(
                    [f"types:{name}" for name in ("Chain", "Rows", "Reply", "Plan", "Party", "Cost", "Local")]
                )
                | st.sampled_from(["codecs.quantise:Quantise", "codecs.entropy:Zstd", "codecs.sparsify:TopK", "Echo"]),
                "settings": st.dictionaries(
                    st.sampled_from(["skill", "there", "back", "codecs", "bits", "level", "share", "slot", "start"]),
                    inner,
                    max_size=4,
                ),
            }
        )
    ),
    max_leaves=12,
)


@given(json_values)
@settings(max_examples=300)
def test_descriptions_of_any_shape(value: Any) -> None:
    with suppress(WireError, ConfigError):
        vocabulary.read(json.dumps(value), {"Echo": Echo})


@given(st.data())
@settings(max_examples=400)
def test_trees(data: st.DataObject) -> None:
    tree = data.draw(st.sampled_from([TREE, {}, np.float32(1), {"b": np.array([True, False]), "none": {}}]))
    made = changed(data.draw, trees.encode(tree))
    with suppress(WireError):
        again = trees.decode(made, 1 << 20)
        assert trees.encode(trees.decode(trees.encode(again))) == trees.encode(again)


HEADERS = st.dictionaries(
    st.sampled_from(["", "/", "/a", "/a/", "/a/b", "a", "/~", "/~2", "/~0", "//", "/a//", "__metadata__", "/\u0000"])
    | st.text(max_size=6),
    st.fixed_dictionaries(
        {
            "dtype": st.sampled_from(["F32", "U8", "BOOL", "F8_E4M3", "BF16", "I64", "", "F0"]) | st.integers(),
            "shape": st.lists(st.sampled_from([0, 1, 2, 2**31, 2**62, 2**63, 2**64, -1, 10**30]), max_size=70),
            "data_offsets": st.lists(st.sampled_from([0, 1, 4, 8, 2**63, 2**64 - 1, -4]), min_size=1, max_size=3),
        }
    )
    | st.none()
    | st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2),
    max_size=5,
)


@given(HEADERS, st.binary(max_size=16), st.integers(-8, 8))
@settings(max_examples=400)
def test_trees_of_any_header(header: dict[str, Any], tail: bytes, off: int) -> None:
    text = json.dumps(header).encode()
    with suppress(WireError):
        trees.decode(max(0, len(text) + off).to_bytes(8, "little") + text + tail, 1 << 20)


@pytest.mark.parametrize("nbytes", [2**63, 2**64 - 1, 10**8 + 1])
def test_a_header_of_any_length_allocates_nothing(nbytes: int) -> None:
    with pytest.raises(WireError):
        trees.decode(nbytes.to_bytes(8, "little") + b"{}")
