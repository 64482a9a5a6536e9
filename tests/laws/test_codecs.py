"""The laws of every codec."""

from collections.abc import Mapping
from typing import Any

import hypothesis.extra.numpy as arrays
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings

from duetto import tree as trees
from duetto.codecs import Factored, Zstd
from duetto.errors import WireError
from duetto.tree import Shaped, Tree
from duetto.types import Chain, Codec, Domain

NAMES = st.text(min_size=1, max_size=4)
SHAPES = arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5)
KEYS = st.tuples(st.integers(0, 9), st.text(max_size=3))
few = settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])


def leaf(dtypes: tuple[str, ...] = ("float16", "float32", "float64", "int32", "int64", "uint8", "bool")) -> Any:
    """Arrays of every kind; float64 within what a range can span."""
    return st.sampled_from(dtypes).flatmap(
        lambda dtype: arrays.arrays(
            dtype,
            SHAPES,
            elements=st.floats(-1e150, 1e150)
            if dtype == "float64"
            else arrays.from_dtype(np.dtype(dtype), allow_nan=False, allow_infinity=False),
        )
    )


def tree(leaves: Any) -> Any:
    """Trees of two floors, and bare leaves."""
    return st.recursive(leaves, lambda child: st.dictionaries(NAMES, child, max_size=3), max_leaves=5)


FINITE = tree(leaf())
ANY = tree(arrays.arrays(st.sampled_from(["float16", "float32", "float64", "int8", "int64", "uint8", "bool"]), SHAPES))


def same(left: Tree, right: Tree) -> bool:
    """Bit for bit."""
    return trees.encode(left) == trees.encode(right)


@few
@given(FINITE, KEYS)
def test_decoding_gives_back_structure_shapes_and_dtypes(codec: Codec[Any], x: Tree, key: tuple[Any, ...]) -> None:
    _, coded = codec.encode(codec.init(), x, key)
    assert trees.spec(codec.decode(coded)) == trees.spec(x)


@few
@given(FINITE, KEYS)
def test_decoding_works_on_what_crossed_a_wire(codec: Codec[Any], x: Tree, key: tuple[Any, ...]) -> None:
    _, coded = codec.encode(codec.init(), x, key)
    assert same(codec.decode(trees.decode(trees.encode(coded))), codec.decode(coded))


@few
@given(FINITE, KEYS)
def test_the_same_key_gives_the_same_bytes(codec: Codec[Any], x: Tree, key: tuple[Any, ...]) -> None:
    before = trees.encode(x)
    (_, one), (_, two) = codec.encode(codec.init(), x, key), codec.encode(codec.init(), x, key)
    assert same(one, two)
    assert trees.encode(x) == before, "encoding changed its input"


@few
@given(FINITE, KEYS)
def test_the_size_is_known_exactly_or_not_at_all(codec: Codec[Any], x: Tree, key: tuple[Any, ...]) -> None:
    _, coded = codec.encode(codec.init(), x, key)
    size, becomes = codec.size(trees.spec(x)), codec.becomes(trees.spec(x))
    assert size in (None, len(trees.encode(coded)))
    assert becomes in (None, trees.spec(coded))


def test_only_bytes_have_a_size_that_depends_on_values(codec: Codec[Any]) -> None:
    codecs = codec.codecs if isinstance(codec, Chain) else (codec,)
    depends = any(each.gives == Domain.BYTES or isinstance(each, Factored) for each in codecs)
    assert (codec.size({"w": Shaped((3, 4))}) is None) == depends


@few
@given(tree(leaf(("int32", "int64", "uint8", "bool"))), st.floats(-9, 9), KEYS)
def test_scalars_and_integers_come_back_unchanged(
    codec: Codec[Any], x: Tree, scalar: float, key: tuple[Any, ...]
) -> None:
    x = {"x": x, "scalar": np.array(scalar), "half": np.array(scalar, np.float16), "nan": np.array(np.nan)}
    _, coded = codec.encode(codec.init(), x, key)
    assert same(codec.decode(coded), x)
    if not isinstance(codec, Chain) and codec.gives != Domain.BYTES:
        assert same(coded, x)


@pytest.mark.parametrize("lossless", [Chain(), Zstd(), Chain((Zstd(),)), Chain((Zstd(1), Zstd(9)))], ids=repr)
@few
@given(ANY)
def test_a_lossless_chain_is_the_identity(lossless: Codec[Any], x: Tree) -> None:
    _, coded = lossless.encode(lossless.init(), x, (0,))
    assert same(lossless.decode(coded), x)


def test_what_rounds_by_chance_is_unbiased(chancy_codec: Any) -> None:
    x = np.random.default_rng(0).normal(size=(3, 40))
    draws, alpha = 400, 1e-9
    drawn = np.array(
        [chancy_codec.decode(chancy_codec.encode(chancy_codec.init(), x, ("u", i))[1]) for i in range(draws)]
    )
    # Hoeffding, over all entries: every draw is one of the two levels around x, a step apart.
    step = (x.max() - x.min()) / (2**chancy_codec.bits - 1)
    assert np.abs(drawn.mean(axis=0) - x).max() < step * np.sqrt(np.log(2 * x.size / alpha) / (2 * draws))
    assert np.ptp(drawn, axis=0).max() > 0


@few
@given(ANY)
def test_a_tree_that_was_not_encoded_is_a_wire_error_or_a_tree(codec: Codec[Any], x: Tree) -> None:
    decodes(codec, x)


@few
@given(st.binary(max_size=200))
def test_bytes_that_were_not_encoded_are_a_wire_error_or_a_tree(codec: Codec[Any], data: bytes) -> None:
    decodes(codec, np.frombuffer(data, np.uint8))


@few
@given(FINITE, st.data())
def test_a_damaged_message_is_a_wire_error_or_a_tree(codec: Codec[Any], x: Tree, data: st.DataObject) -> None:
    _, coded = codec.encode(codec.init(), x, (0,))
    pointers = [pointer for pointer, _ in trees.leaves(coded)]
    assume(pointers)
    decodes(codec, damaged(coded, data.draw(st.sampled_from(pointers)), data))


def decodes(codec: Codec[Any], message: Tree) -> None:
    """It gives a tree that can be encoded, or raises WireError and nothing else."""
    try:
        trees.encode(codec.decode(message))
    except WireError:
        return


def damaged(coded: Tree, target: str, data: st.DataObject, pointer: str = "") -> Tree:
    """The message with one leaf lost, exchanged, cut short, of another dtype, or with one byte changed."""
    if isinstance(coded, Mapping):
        children = {}
        for name, child in coded.items():
            below = f"{pointer}/{name.replace('~', '~0').replace('/', '~1')}"
            if below != target or data.draw(st.booleans()):
                children[name] = damaged(child, target, data, below)
        return children
    if pointer != target:
        return coded
    array = np.array(coded)
    kind = data.draw(st.sampled_from(["exchange", "cut", "dtype", "byte"]))
    if kind == "byte" and array.nbytes:
        raw = bytearray(array.tobytes())
        raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
        return np.frombuffer(bytes(raw), array.dtype).reshape(array.shape)
    if kind == "cut":
        return array.reshape(-1)[:-1]
    if kind == "dtype":
        return np.zeros(array.shape, data.draw(st.sampled_from(["float32", "int64", "uint8", "bool"])))
    return data.draw(arrays.arrays(array.dtype, SHAPES))
