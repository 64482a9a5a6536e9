"""The envelope: what one party says to another, as bytes and back (``wire.proto``; docs/protocol.md).

Nothing here talks or waits. What comes from outside is checked before it is believed: version, sizes, checksum, and
that it is one of the things that can be said. A body is a tree as :func:`duetto.tree.encode` writes it; a long one
travels in pieces, so that a model on its way does not hold up an answer.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from duetto.errors import WireError
from duetto.transport import wire_pb2 as wire

VERSION = 1
PIECE = 256 << 10  # bytes of a body in one envelope
SLACK = 320 << 10  # bytes of an envelope beside its body: the longest description, and some
SMALL = 16 << 10  # bytes of an envelope that neither asks nor answers
TRACE = 256  # characters of a trace context


class OtherVersion(WireError):
    """Who speaks another version of the protocol."""


@dataclass(frozen=True)
class Limits:
    """What a party takes from another.

    Attributes:
        body_bytes: of one tree.
        held_bytes: of all bodies that are half here, on one connection; and of those that are worked on.
        asks: that are worked on, or whose replies are not sent yet, at once on one connection.
        parts: descriptions that are remembered, on one connection; both sides must agree.
        description_bytes: of one.
    """

    body_bytes: int = 256 << 20
    held_bytes: int = 512 << 20
    asks: int = 256
    parts: int = 256
    description_bytes: int = 256 << 10

    @property
    def envelope_bytes(self) -> int:
        """The longest envelope."""
        return PIECE + SLACK


def pieces(said: wire.Envelope, body: bytes) -> Iterator[bytes]:
    """The envelope with its body, and as many more as it takes."""
    said.version, said.body_bytes = VERSION, len(body)
    said.body = body[:PIECE] if len(body) > PIECE else body
    said.checksum = zlib.crc32(said.body)
    yield said.SerializeToString()
    for start in range(PIECE, len(body), PIECE):
        part = body[start : start + PIECE]
        more = wire.Envelope(version=VERSION, id=said.id, mine=said.mine, body=part, checksum=zlib.crc32(part))
        more.more.SetInParent()
        yield more.SerializeToString()


def said(envelope: wire.Envelope) -> bytes:
    """An envelope without a body."""
    envelope.version = VERSION
    data: bytes = envelope.SerializeToString()
    return data


def heard(data: bytes, limits: Limits = Limits()) -> wire.Envelope:
    """The envelope in these bytes.

    Raises:
        WireError: too long, cut short, another version, nothing or something unknown in it, a wrong checksum, a body
            that is longer than it says or than is allowed.
    """
    if len(data) > limits.envelope_bytes:
        raise WireError(f"an envelope of {len(data):,} bytes", f"at most {limits.envelope_bytes:,} are taken")
    try:
        envelope: wire.Envelope = wire.Envelope.FromString(data)
    except DecodeError as fault:
        raise WireError("bytes that are no envelope", "they were cut or changed on the way") from fault
    if envelope.version != VERSION:
        raise OtherVersion(f"version {envelope.version} of the protocol", f"this side speaks version {VERSION}")
    kind = envelope.WhichOneof("what")
    if kind is None:
        raise WireError("an envelope that says nothing known", "both sides must speak the same version")
    if zlib.crc32(envelope.body) != envelope.checksum:
        raise WireError("a body that does not match its checksum", "it was changed on the way")
    if kind in _WHOLE and (envelope.body or envelope.body_bytes):
        raise WireError(f"a body where {kind} has none", "only asks and replies have one")
    if kind in _WHOLE and len(data) > SMALL:
        raise WireError(f"{kind} of {len(data):,} bytes", f"at most {SMALL:,} are taken")
    if kind in _NUMBERED and not envelope.id:
        raise WireError(f"{kind} without a number", "asks are numbered from 1")
    if kind in _MINE and envelope.mine != _MINE[kind]:
        raise WireError(f"{kind} of the wrong side's ask", "who asks says mine, who replies does not")
    if envelope.body_bytes > limits.body_bytes:
        raise WireError(f"a body of {envelope.body_bytes:,} bytes", f"at most {limits.body_bytes:,} are taken")
    if kind in {"ask", "reply"} and len(envelope.body) != min(envelope.body_bytes, PIECE):
        raise WireError(f"{len(envelope.body):,} bytes of a body of {envelope.body_bytes:,}", f"pieces have {PIECE:,}")
    if not envelope.body_bytes and (kind == "ask" or (kind == "reply" and not envelope.reply.failure)):
        raise WireError(f"{kind} without a body", "even an empty tree has one")
    if kind == "ask" and len(envelope.ask.description) > limits.description_bytes:
        raise WireError(f"a description of {len(envelope.ask.description):,} bytes", "describe it with less")
    if kind == "ask" and len(envelope.ask.traceparent) > TRACE:
        raise WireError(f"a trace context of {len(envelope.ask.traceparent):,} bytes", f"at most {TRACE} are taken")
    if math.isnan(envelope.rest.until) or not math.isfinite(envelope.now.time):
        raise WireError("a time that is none", "times are numbers")
    return envelope


_NUMBERED = frozenset({"ask", "reply", "cancel", "more"})
_WHOLE = frozenset({"hello", "cancel", "bye", "rest", "now"})
_MINE = {"ask": True, "cancel": True, "reply": False}
