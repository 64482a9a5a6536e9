"""Quantise: its error, its layout, and what it refuses."""

import hypothesis.extra.numpy as arrays
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from duetto import tree as trees
from duetto.codecs import Quantise
from duetto.errors import ConfigError, DataError, WireError
from duetto.tree import Shaped, Tree

BITS = pytest.mark.parametrize("bits", [8, 4, 2])
SHAPES = arrays.array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=6)


def there(codec: Quantise, x: Tree, key: tuple[int | str, ...] = ("k",)) -> Tree:
    """Encoded."""
    return codec.encode({}, x, key)[1]


def back(codec: Quantise, x: Tree, key: tuple[int | str, ...] = ("k",)) -> Tree:
    """Encoded and decoded."""
    return codec.decode(there(codec, x, key))


@BITS
@pytest.mark.parametrize("axis", ["leaf", "channel"])
@pytest.mark.parametrize("stochastic", [False, True])
@given(st.data())
def test_the_error_is_at_most_half_a_step(bits: int, axis: str, stochastic: bool, data: st.DataObject) -> None:
    width = data.draw(st.sampled_from([16, 32, 64]))
    most = {16: 60000.0, 32: 2.0**127, 64: 2.0**1000}[width]
    x = data.draw(arrays.arrays(f"float{width}", SHAPES, elements=st.floats(-most, most, width=width)))
    y = back(Quantise(bits, axis, stochastic), x)
    over = tuple(range(1, x.ndim)) if axis == "channel" and x.ndim > 1 else None
    wide = x.astype(np.float64)
    low, high = wide.min(axis=over, keepdims=True), wide.max(axis=over, keepdims=True)
    step = (high - low) / (2**bits - 1)
    rounding = np.maximum(np.abs(low), np.abs(high)) * (np.finfo(x.dtype).eps + 8 * np.finfo(np.float64).eps)
    tiny = np.finfo(x.dtype).smallest_subnormal
    assert (np.abs(y - wide) <= step / (1 if stochastic else 2) + rounding + tiny).all()
    assert ((low <= y) & (y <= high)).all()


@BITS
def test_the_bound_is_met_in_the_middle_between_two_levels(bits: int) -> None:
    levels = 2**bits - 1
    x = np.array([0.0, 0.5, levels])  # step 1: half of it is lost, rounding to even
    assert back(Quantise(bits), x).tolist() == [0.0, 0.0, levels]


@BITS
def test_levels_come_back_exactly(bits: int) -> None:
    x = np.arange(2**bits, dtype=np.float32)[::-1] / 4 - 3
    assert (back(Quantise(bits), x) == x).all()


@BITS
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_the_largest_numbers_of_a_dtype_stay_finite(bits: int, dtype: str) -> None:
    x = np.array([0, 0.3, 1]).astype(dtype) * np.finfo(dtype).max
    y = back(Quantise(bits), x)
    assert np.isfinite(y).all()
    assert y[-1] == x[-1]


@BITS
def test_the_smallest_numbers_of_a_dtype_keep_the_bound(bits: int) -> None:
    tiny = 5e-324
    x = np.arange(3) * tiny
    assert np.abs(back(Quantise(bits), x) - x).max() <= tiny


@BITS
@pytest.mark.parametrize("value", [0.0, -3.25, 65504.0])
@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_a_constant_leaf_is_exact(bits: int, value: float, dtype: str) -> None:
    x = np.full((3, 5), value, dtype)
    assert (back(Quantise(bits, "channel"), x) == x).all()


@BITS
@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0), (2, 0, 4)])
@pytest.mark.parametrize("axis", ["leaf", "channel"])
def test_an_empty_leaf_keeps_its_shape(bits: int, shape: tuple[int, ...], axis: str) -> None:
    y = back(Quantise(bits, axis), np.zeros(shape, np.float32))
    assert (y.shape, y.dtype) == (shape, np.float32)


def test_a_channel_is_not_blurred_by_its_neighbours() -> None:
    x = np.array([[0.0, 1.0, 0.4], [0.0, 1000.0, 400.0]])
    by_leaf, by_channel = (np.abs(back(Quantise(8, axis), x) - x)[0].max() for axis in ("leaf", "channel"))
    assert by_leaf > 0.1 > 0.5 / 255 >= by_channel


def test_four_bits_are_packed_first_code_lowest() -> None:
    coded = there(Quantise(4), np.array([0.0, 15.0, 3.0, 7.0, 1.0]))
    assert coded["codes"].tolist() == [15 << 4, 7 << 4 | 3, 1]
    assert coded["range"].tolist() == [0, 15]
    assert coded["shape"].tolist() == [5]


def test_two_bits_are_packed_first_code_lowest() -> None:
    coded = there(Quantise(2), np.array([[0.0, 1.0, 2.0], [3.0, 1.0, 0.0]], np.float32))
    assert coded["codes"].tolist() == [0 | 1 << 2 | 2 << 4 | 3 << 6, 1]
    assert coded["range"].dtype == np.float32


@pytest.mark.parametrize(("bits", "share"), [(8, 4), (4, 8), (2, 16)])
def test_a_large_float32_leaf_shrinks_by_its_bits(bits: int, share: int) -> None:
    spec = {"w": Shaped((1000, 64))}
    size = Quantise(bits).size(spec)
    assert 0 < size - 1000 * 64 * 4 // share < 300  # a header and a range


def test_chance_depends_on_the_key_and_on_the_leaf() -> None:
    leaf = np.random.default_rng(0).normal(size=200)
    x, codec = {"a": leaf, "b": leaf}, Quantise(2, stochastic=True)
    one, two = there(codec, x, ("k", 1)), there(codec, x, ("k", 2))
    assert (one["a"]["codes"] != one["b"]["codes"]).any()
    assert (one["a"]["codes"] != two["a"]["codes"]).any()
    alone = there(codec, {"b": leaf}, ("k", 1))
    assert (one["b"]["codes"] == alone["b"]["codes"]).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_named(value: float) -> None:
    with pytest.raises(DataError, match="the leaf /layer/w holds NaN or infinity"):
        there(Quantise(8), {"layer": {"w": np.array([0, value])}})


def test_a_range_that_overflows_is_named() -> None:
    with pytest.raises(DataError, match="the range of the leaf /w overflows"):
        there(Quantise(8), {"w": np.array([-1.7e308, 1.7e308])})


def test_a_branch_that_looks_coded_is_refused() -> None:
    x = {"codes": np.ones(2), "range": np.ones(2)}
    with pytest.raises(ConfigError, match="looks like a coded leaf"):
        there(Quantise(8), x)
    with pytest.raises(ConfigError, match="looks like a coded leaf"):
        Quantise(8).becomes(trees.spec(x))
    assert (back(Quantise(4), x)["codes"] == 1).all()


@pytest.mark.parametrize(("bits", "axis"), [(3, "leaf"), (16, "leaf"), (8, "rows")])
def test_settings_that_cannot_be_met(bits: int, axis: str) -> None:
    with pytest.raises(ConfigError):
        Quantise(bits, axis)


CODES = np.zeros((2, 3), np.uint8)
RANGE = np.array([0, 1], np.float32)
PACKED = {"codes": np.zeros(3, np.uint8), "range": RANGE, "shape": np.array([2, 3])}


@pytest.mark.parametrize(
    ("bits", "message"),
    [
        (8, np.ones(3)),
        (8, {"codes": CODES.astype(np.int8), "range": RANGE}),
        (8, {"codes": CODES, "range": RANGE.astype(np.int32)}),
        (8, {"codes": CODES, "range": RANGE[:1]}),
        (8, {"codes": CODES, "range": np.tile(RANGE, (3, 1))}),
        (8, {"codes": CODES, "range": RANGE[::-1]}),
        (8, {"codes": CODES, "range": RANGE * np.float32(np.nan)}),
        (8, {"codes": CODES, "range": np.array([-1.7e308, 1.7e308])}),
        (8, {"codes": np.uint8(3), "range": RANGE}),
        (8, PACKED),
        (4, {"codes": CODES, "range": RANGE}),
        (4, {**PACKED, "shape": np.array([2, 5])}),
        (4, {**PACKED, "shape": np.array([-2, -3])}),
        (4, {**PACKED, "shape": np.array([2.0, 3.0])}),
        (4, {**PACKED, "shape": np.array([[2, 3]])}),
        (4, {**PACKED, "shape": np.array([], np.int64)}),
        (4, {**PACKED, "codes": np.zeros(0, np.uint8), "shape": np.array([0, 2**62, 2**62])}),
        (2, PACKED),
    ],
)
def test_a_malformed_message_is_a_wire_error(bits: int, message: Tree) -> None:
    with pytest.raises(WireError):
        Quantise(bits).decode(message)
    if bits == 4:
        assert Quantise(4).decode(PACKED).tolist() == [[0, 0, 0], [0, 0, 0]]
