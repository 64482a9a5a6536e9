"""Envelopes: what is written is read; whatever was changed, cut or made up is told, and nothing else happens."""

import math
import zlib
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from duetto.errors import WireError
from duetto.transport import envelope as envelopes
from duetto.transport import wire_pb2 as wire
from duetto.transport.envelope import PIECE, SMALL, TRACE, VERSION, Limits, OtherVersion, heard, pieces, said


def ask(body: bytes = b"tree", **about: Any) -> bytes:
    return next(pieces(wire.Envelope(id=1, mine=True, ask=wire.Ask(part=7, key="[]", **about)), body))


def envelope(kind: str, **about: Any) -> wire.Envelope:
    made = wire.Envelope(version=VERSION, id=1, mine=kind in {"ask", "cancel", "more"}, **about)
    getattr(made, kind).SetInParent()
    return made


@given(st.binary(min_size=1, max_size=200), st.integers(1, 2**64 - 1), st.booleans())
def test_a_short_body_travels_in_one_envelope(body: bytes, number: int, asks: bool) -> None:
    kind = {"ask": wire.Ask(part=number)} if asks else {"reply": wire.Reply(version=-1, metrics={"a": 0.5})}
    (data,) = pieces(wire.Envelope(id=number, mine=asks, **kind), body)
    again = heard(data)
    assert (again.body, again.body_bytes, again.id, again.mine) == (body, len(body), number, asks)
    assert again.checksum == zlib.crc32(body)
    assert again.version == VERSION


@pytest.mark.parametrize("nbytes", [PIECE - 1, PIECE, PIECE + 1, 2 * PIECE, 2 * PIECE + 5])
def test_a_long_body_travels_in_pieces(nbytes: int) -> None:
    body = bytes(range(256)) * (nbytes // 256) + b"x" * (nbytes % 256)
    first, *more = map(heard, pieces(wire.Envelope(id=3, mine=True, ask=wire.Ask(part=7)), body))
    assert first.body_bytes == nbytes
    assert first.body + b"".join(each.body for each in more) == body
    assert all(each.WhichOneof("what") == "more" and (each.id, each.mine) == (3, True) for each in more)
    assert len(more) == max(0, -(-nbytes // PIECE) - 1)


def test_the_longest_description_and_key_fit_beside_a_piece() -> None:
    limits = Limits()
    data = ask(b"x" * PIECE, description="d" * limits.description_bytes, traceparent="t" * TRACE)
    assert len(data) + (16 << 10) <= limits.envelope_bytes
    heard(data)


def refused(data: bytes, why: str, limits: Limits = Limits()) -> None:
    with pytest.raises(WireError, match=why) as told:
        heard(data, limits)
    assert len(str(told.value).splitlines()) == 1
    assert len(str(told.value)) < 300


def test_another_version_is_a_fault_of_its_own() -> None:
    with pytest.raises(OtherVersion, match="version 2 of the protocol"):
        heard(wire.Envelope(version=2, hello=wire.Hello(name="a")).SerializeToString())


def test_each_thing_that_is_not_in_order_is_told() -> None:
    refused(b"\xff\xff\xff", "no envelope")
    refused(b"", "version 0")
    refused(said(wire.Envelope()), "nothing known")
    refused(ask(b""), "ask without a body")
    refused(envelope("reply").SerializeToString(), "reply without a body")
    refused(b"x" * (Limits().envelope_bytes + 1), "an envelope of")
    refused(ask(b"x" * 100), "a body of 100 bytes", Limits(body_bytes=99))
    refused(ask(description="d" * 101), "a description of 101", Limits(description_bytes=100))
    refused(ask(traceparent="t" * (TRACE + 1)), "a trace context")
    refused(said(wire.Envelope(hello=wire.Hello(name="n" * SMALL))), "hello of")
    for kind in ("ask", "reply", "cancel", "more"):
        made = envelope(kind)
        made.id = 0
        refused(made.SerializeToString(), f"{kind} without a number")
    for kind in ("ask", "reply", "cancel"):
        made = envelope(kind)
        made.mine = not made.mine
        refused(made.SerializeToString(), f"{kind} of the wrong side's ask")
    for kind in ("hello", "cancel", "bye", "rest", "now"):
        refused(envelope(kind, body=b"x", checksum=zlib.crc32(b"x")).SerializeToString(), f"a body where {kind}")
        refused(envelope(kind, body_bytes=1).SerializeToString(), f"a body where {kind}")
    for nbytes in (9, 11, PIECE, 0):
        made = envelope("ask", body=b"x" * 10, checksum=zlib.crc32(b"x" * 10), body_bytes=nbytes)
        refused(made.SerializeToString(), "10 bytes of a body of")
    refused(said(wire.Envelope(rest=wire.Rest(until=math.nan))), "a time that is none")
    refused(said(wire.Envelope(now=wire.Now(time=math.inf))), "a time that is none")
    assert heard(said(wire.Envelope(rest=wire.Rest(until=math.inf)))).rest.until == math.inf


def test_a_changed_body_is_noticed() -> None:
    data = bytearray(ask(b"the body"))
    data[data.index(b"the body")] ^= 1
    refused(bytes(data), "does not match its checksum")


@given(st.integers(0, 400), st.integers(0, 7))
def test_a_flipped_bit_changes_nothing_else(at: int, bit: int) -> None:
    data = bytearray(ask(b"b" * 64, description="d" * 64))
    data[at % len(data)] ^= 1 << bit
    with suppress(WireError):
        heard(bytes(data))


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    with suppress(WireError):
        heard(data)


@given(st.integers(0, 100))
def test_a_cut_envelope_is_refused(left: int) -> None:
    data = ask(b"b" * 64)
    if left < len(data):
        with pytest.raises(WireError):
            heard(data[:left])


def test_depth_bombs_in_protobuf_are_refused() -> None:
    bomb = b""
    for _ in range(2000):
        bomb = b"\x0b" + bomb + b"\x0c"  # a group within a group, of a field that nobody knows
    refused(envelopes.said(wire.Envelope(hello=wire.Hello(name="a"))) + bomb, "no envelope")
