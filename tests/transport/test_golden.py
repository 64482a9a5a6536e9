"""Golden bytes for writers of other clients: each envelope derived by hand, byte by byte, as docs/protocol.md tells.

``python tests/transport/test_golden.py`` writes the files anew; without it they only compare. What is derived knows
nothing of Duetto: a field is its tag and its value, a tree is a safetensors buffer, a part is numbered by its SHA-256.
"""

import hashlib
import json
import re
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from duetto import tree as trees
from duetto.protocols.probe import Echo
from duetto.transport import envelope as envelopes
from duetto.transport import vocabulary
from duetto.transport import wire_pb2 as wire
from duetto.transport.envelope import heard, pieces, said
from duetto.transport.session import SOFTWARE

GOLDEN = Path(__file__).parent / "golden"
DOCS = Path(__file__).parents[2] / "docs" / "protocol.md"
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

# ------------------------------------------------------------------------------------------- by hand


def varint(number: int) -> bytes:
    out = bytearray()
    while True:
        number, low = number >> 7, number & 0x7F
        out.append(low | (0x80 if number else 0))
        if not number:
            return bytes(out)


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value) if value else b""


def bytes_of(field: int, value: bytes | str, empty: bool = False) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return varint(field << 3 | 2) + varint(len(data)) + data if data or empty else b""


def fixed64(field: int, value: int) -> bytes:
    return varint(field << 3 | 1) + struct.pack("<Q", value)


def double(field: int, value: float) -> bytes:
    return varint(field << 3 | 1) + struct.pack("<d", value)


def fixed32(field: int, value: int) -> bytes:
    return varint(field << 3 | 5) + struct.pack("<I", value) if value else b""


def pair(field: int, name: str, value: float) -> bytes:
    return bytes_of(field, bytes_of(1, name) + double(2, value))


def envelope(
    kind: int, what: bytes, *, ask: int = 0, mine: bool = False, body: bytes = b"", more: bool = False
) -> bytes:
    head = number(1, 1) + number(2, ask) + number(3, mine) + bytes_of(kind, what, empty=True)
    nbytes = 0 if more else len(body)
    return head + number(13, nbytes) + bytes_of(14, body) + fixed32(15, zlib.crc32(body))


def tensor(pointer: str, dtype: str, shape: list[int], data: bytes) -> bytes:
    header = json.dumps(
        {pointer: {"dtype": dtype, "shape": shape, "data_offsets": [0, len(data)]}}, separators=(",", ":")
    ).encode()
    header += b" " * (-len(header) % 8)
    return struct.pack("<Q", len(header)) + header + data


DESCRIPTION = '{"class":"protocols.probe:Echo","settings":{}}'
PART = int.from_bytes(hashlib.sha256(DESCRIPTION.encode()).digest()[:8], "little")
BODY = tensor("/x", "F32", [2], struct.pack("<2f", 1.0, 2.0))
ANSWER = tensor("/logits", "F32", [1, 2], struct.pack("<2f", 0.5, -1.0))
KEY = '[0,"ann",7]'

HAND = {
    "hello": envelope(4, bytes_of(1, "ann") + bytes_of(2, SOFTWARE) + pair(3, "examples", 3.0)),
    "ask": envelope(
        5,
        fixed64(1, PART) + bytes_of(2, DESCRIPTION) + bytes_of(3, KEY) + number(4, 2000),
        ask=1,
        mine=True,
        body=BODY,
    ),
    "ask_again": envelope(5, fixed64(1, PART) + bytes_of(3, KEY) + bytes_of(5, TRACE), ask=2, mine=True, body=BODY),
    "reply": envelope(6, number(1, 3) + pair(3, "compute_seconds", 0.25), ask=1, body=ANSWER),
    "failure": envelope(6, bytes_of(2, "busy with 256 asks of yours") + pair(3, "retry_after", 1.5), ask=2),
    "cancel": envelope(7, b"", ask=2, mine=True),
    "more": envelope(8, b"", ask=3, mine=True, body=b"the end", more=True),
    "bye": envelope(9, bytes_of(1, "ann was revoked") + number(2, 1)),
    "rest": envelope(10, double(1, 12.5)),
    "now": envelope(11, double(1, 12.5)),
}

# ------------------------------------------------------------------------------------------- by Duetto


def by_duetto() -> dict[str, bytes]:
    part, description = vocabulary.written(Echo())
    body = trees.encode({"x": np.array([1, 2], np.float32)})
    answer = trees.encode({"logits": np.array([[0.5, -1]], np.float32)})
    asked: dict[str, Any] = {"part": part, "key": vocabulary.key_text((0, "ann", 7))}
    first = wire.Ask(**asked, description=description, milliseconds=2000)
    cancel, more = wire.Envelope(id=2, mine=True), wire.Envelope(id=3, mine=True)
    cancel.cancel.SetInParent()
    more.more.SetInParent()
    more.version, more.body, more.checksum = envelopes.VERSION, b"the end", zlib.crc32(b"the end")
    failure = wire.Reply(failure="busy with 256 asks of yours", metrics={"retry_after": 1.5})
    return {
        "hello": said(wire.Envelope(hello=wire.Hello(name="ann", software=SOFTWARE, traits={"examples": 3.0}))),
        "ask": next(pieces(wire.Envelope(id=1, mine=True, ask=first), body)),
        "ask_again": next(pieces(wire.Envelope(id=2, mine=True, ask=wire.Ask(**asked, traceparent=TRACE)), body)),
        "reply": next(
            pieces(wire.Envelope(id=1, reply=wire.Reply(version=3, metrics={"compute_seconds": 0.25})), answer)
        ),
        "failure": next(pieces(wire.Envelope(id=2, reply=failure), b"")),
        "cancel": said(cancel),
        "more": more.SerializeToString(),
        "bye": said(wire.Envelope(bye=wire.Bye(why="ann was revoked", final=True))),
        "rest": said(wire.Envelope(rest=wire.Rest(until=12.5))),
        "now": said(wire.Envelope(now=wire.Now(time=12.5))),
    }


@pytest.mark.parametrize("name", HAND)
def test_golden_bytes_are_what_is_derived_and_what_is_said(name: str) -> None:
    golden = (GOLDEN / f"{name}.bin").read_bytes()
    assert golden == HAND[name]
    assert golden == by_duetto()[name]
    assert heard(golden).WhichOneof("what") == {"ask_again": "ask", "failure": "reply"}.get(name, name)


def test_there_is_one_of_every_kind_and_no_other() -> None:
    kinds = {field.name for field in wire.Envelope.DESCRIPTOR.oneofs_by_name["what"].fields}
    assert {heard(data).WhichOneof("what") for data in HAND.values()} == kinds
    assert {path.stem for path in GOLDEN.glob("*.bin")} == HAND.keys()


def test_the_example_of_the_page_is_the_golden_ask() -> None:
    page = DOCS.read_text(encoding="utf-8")
    blocks = re.findall(r"^```text\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    shown = [block for block in blocks if block.startswith("08 01")]
    assert len(shown) == 1
    told = re.sub(r"#.*", "", shown[0])
    assert bytes.fromhex("".join(told.split())) == (GOLDEN / "ask.bin").read_bytes()


def test_the_page_tells_the_numbers_of_the_code() -> None:
    from duetto.transport import party, session
    from duetto.transport.envelope import PIECE, SMALL, Limits

    page = DOCS.read_text(encoding="utf-8").replace(",", "")
    for value in (PIECE, SMALL, Limits().envelope_bytes, Limits().description_bytes, Limits().parts, Limits().asks):
        assert f" {value}" in page, value
    for value in (Limits().body_bytes, Limits().held_bytes, vocabulary.KEY_BYTES, trees.DEPTH, party.REMEMBERED):
        assert f" {value}" in page, value
    assert f"{session.HELLO_SECONDS:g} s" in page
    assert all(f"`{field.name}`" in page for field in wire.Envelope.DESCRIPTOR.fields)


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for name, data in HAND.items():
        (GOLDEN / f"{name}.bin").write_bytes(data)
