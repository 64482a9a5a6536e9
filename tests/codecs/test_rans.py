"""Rans: lossless, as short as its priors allow, and deaf to other priors."""

import sys
from typing import Any

import hypothesis.extra.numpy as arrays
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from duetto import tree as trees
from duetto.codecs import Ranged, Rans, Zstd, priors, ranges
from duetto.errors import ConfigError, DataError, WireError
from duetto.tree import Shaped, Tree
from duetto.types import Chain

pytest.importorskip("constriction")

DRAW = np.random.default_rng(0)
SHARES = np.array([[0.9, 0.05, 0.03, 0.02], [0.25, 0.25, 0.25, 0.25], [0.01, 0.01, 0.01, 0.97]])
few = settings(max_examples=25)


def drawn(rows: int, seed: int = 0) -> np.ndarray:
    """Codes ``[rows, 3, 16]`` of which each channel has shares of its own."""
    draw = np.random.default_rng(seed)
    return np.stack([draw.choice(4, (rows, 16), p=share) for share in SHARES], 1).astype(np.uint8)


KNOWN = Rans(priors([{"code": drawn(400, 1)}], 4))


def there(codec: Rans, x: Tree) -> np.ndarray:
    """Encoded."""
    coded: np.ndarray = codec.encode({}, x, ())[1]
    return coded


def same(left: Tree, right: Tree) -> bool:
    """Bit for bit."""
    return trees.encode(left) == trees.encode(right)


@pytest.mark.parametrize("rows", [1, 7, 300])
def test_a_message_is_as_long_as_the_priors_say(rows: int) -> None:
    x = {"code": drawn(rows)}
    coded = there(KNOWN, x)
    ideal = sum(-np.log2(SHARES[c])[x["code"][:, c]].sum() for c in range(3)) / 8
    head = 4 + 1 + 3 + (1 if rows < 128 else 2) - 1 + 1  # checksum, axes, their sizes, nothing else
    assert len(coded) == pytest.approx(head + KNOWN.bits(x) / 8, abs=8)  # a stream ends in whole words
    assert KNOWN.bits(x) / 8 == pytest.approx(ideal, rel=0.02, abs=1)
    assert same(KNOWN.decode(coded), x)


def test_a_small_code_is_far_below_zstd() -> None:
    x = {"code": drawn(1)}
    zstd = Zstd(19).encode({}, x, ())[1]
    assert len(there(KNOWN, x)) < len(zstd) / 2


@few
@given(st.data())
def test_any_codes_come_back_whatever_is_beside_them(data: st.DataObject) -> None:
    shape = data.draw(arrays.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=4))
    channels, axis = data.draw(st.sampled_from([(1, 0)] + [(n, i) for i, n in enumerate(shape) if n]))
    codes = data.draw(arrays.arrays("uint8", shape, elements=st.integers(0, 4)))
    row = st.tuples(*[st.integers(1, 10**9)] * 5)
    counts = data.draw(st.tuples(*[row] * channels))
    where, tree = data.draw(
        st.sampled_from(
            [
                ("", codes),
                ("/a/b~1c", {"a": {"b/c": codes}}),
                ("/a/b", {"a": {"b": codes, "e": {}}, "scalar": np.float32(2), "other": np.arange(3, dtype=np.uint8)}),
            ]
        )
    )
    codec = Rans((("/gone", 1, ((1, 1),)), (where, axis, counts)))
    coded = there(codec, tree)
    assert same(codec.decode(trees.decode(trees.encode(coded))), tree)
    assert same(coded, there(codec, tree))


def test_behind_a_quantiser() -> None:
    x = {"relu": np.maximum(DRAW.normal(size=(6, 3, 8, 8)), 0).astype(np.float32)}
    ranged = Ranged(4, ranges([x]), packed=False)
    codec = Chain((ranged, Rans(priors([ranged.encode({}, x, ())[1]], 16))))
    _, coded = codec.encode(codec.init(), x, ())
    assert same(codec.decode(coded), ranged.decode(ranged.encode({}, x, ())[1]))
    assert len(coded) < x["relu"].size / 2


def test_counts_are_by_channel_and_never_zero() -> None:
    x = np.array([[[0, 0], [1, 2]], [[0, 0], [1, 1]]], np.uint8)
    assert priors([x, {}], 3) == (("", 1, ((5, 1, 1), (1, 4, 2))),)
    assert priors([x], 3, shared=True) == (("", 1, ((5, 4, 2),)),)
    assert priors([x[0, 0]], 3) == (("", 1, ((3, 1, 1),)),)


@pytest.mark.parametrize(
    "messages",
    [[], [{"w": np.ones(3)}], [np.array([[3]], np.uint8)], [np.zeros((1, 2), np.uint8), np.zeros((1, 3), np.uint8)]],
)
def test_nothing_to_count(messages: list[Tree]) -> None:
    with pytest.raises(DataError):
        priors(messages, 3)


@pytest.mark.parametrize(
    ("codes", "said"),
    [(np.full((1, 3, 2), 4, np.uint8), "a code of 4 in /code"), (np.zeros((1, 2, 3), np.uint8), "has shape")],
)
def test_codes_outside_of_the_prior_are_named(codes: np.ndarray, said: str) -> None:
    with pytest.raises(DataError, match=said):
        there(KNOWN, {"code": codes})


def test_other_priors_are_noticed() -> None:
    other = Rans(priors([{"code": drawn(400, 2)}], 4))
    with pytest.raises(WireError, match="other priors"):
        other.decode(there(KNOWN, {"code": drawn(2)}))


def test_every_changed_or_lost_byte_is_noticed() -> None:
    coded = there(KNOWN, {"code": drawn(2)})
    for i in range(len(coded)):
        changed = coded.copy()
        changed[i] ^= 1
        for message in (changed, coded[:i]):
            with pytest.raises(WireError):
                KNOWN.decode(message)


def forged(body: bytes, codec: Rans = KNOWN) -> np.ndarray:
    """A message whose checksum is right."""
    return np.frombuffer(codec._checksum(body) + body, np.uint8)


ZERO = bytes(4)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x03\x02",
        b"\x80\x80\x80\x80\x80\x80",
        b"\x21" + b"\x01" * 33 + b"\x00",
        b"\x03\x01\x04\x01\x00",
        b"\x03\x01\x03\x01\x09ab",
        b"\x03\x01\x03\x01\x00ab",
        b"\x03\x01\x03\x01\x00" + ZERO,
        b"\x03\x01\x03\x01\x00" + b"\x01\x02\x03\x04" * 9,
        b"\x03\x01\x03\xff\xff\xff\xff\x07\x00",
        b"\x01\x03\x48" + trees.encode(np.zeros(0, np.uint8)),
    ],
)
def test_a_forged_message_is_a_wire_error(body: bytes) -> None:
    with pytest.raises(WireError):
        KNOWN.decode(forged(body))


@pytest.mark.parametrize("rest", [{"code": np.arange(3)}, np.arange(3)])
def test_a_leaf_that_is_there_already_is_a_wire_error(rest: Tree) -> None:
    other = trees.encode(rest)
    coded = there(KNOWN, {"code": drawn(1)})
    body = coded[4:8].tobytes() + bytes([len(other) & 127 | 128, len(other) >> 7]) + other + coded[9:].tobytes()
    with pytest.raises(WireError, match="passes through a leaf"):
        KNOWN.decode(forged(body))


@pytest.mark.parametrize("message", [np.zeros(9, np.int8), np.zeros((3, 3), np.uint8), {"w": np.zeros(9, np.uint8)}])
def test_a_malformed_message_is_a_wire_error(message: Tree) -> None:
    with pytest.raises(WireError):
        KNOWN.decode(message)


def test_both_sides_keep_to_the_limit() -> None:
    x = {"code": drawn(2)}
    small = Rans(KNOWN.priors, limit=95)
    for action in (lambda: there(small, x), lambda: small.decode(there(KNOWN, x))):
        with pytest.raises(WireError, match="limit is 95"):
            action()
    assert same(Rans(KNOWN.priors, limit=96).decode(there(KNOWN, x)), x)


def test_the_size_depends_on_the_values() -> None:
    assert KNOWN.becomes({"code": Shaped((3,), "uint8")}) is None


@pytest.mark.parametrize(
    "given",
    [
        (("/a", 1, ((1, 1),)), ("/a", 1, ((1, 1),))),
        (("/a", -1, ((1, 1),)),),
        (("/a", 1, ()),),
        (("/a", 1, ((1, 1), (1, 1, 1))),),
        (("/a", 1, ((1,),)),),
        (("/a", 1, ((1,) * 257,)),),
        (("/a", 1, ((1, 0),)),),
    ],
)
def test_settings_that_cannot_be_met(given: Any) -> None:
    with pytest.raises(ConfigError):
        Rans(given)


def test_without_the_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "constriction", None)
    with pytest.raises(ConfigError, match=r"pip install 'duetto\[codec\]'"):
        there(KNOWN, {"code": drawn(1)})
