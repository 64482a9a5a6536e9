"""Ranged: its error, its layout, what it clips, and what it refuses."""

from typing import Any

import hypothesis.extra.numpy as arrays
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from duetto import tree as trees
from duetto.codecs import Quantise, Ranged, Zstd, ranges
from duetto.codecs.packing import packed, unpacked
from duetto.errors import ConfigError, DataError, WireError
from duetto.tree import Shaped, Tree
from duetto.types import Chain

BITS = pytest.mark.parametrize("bits", [8, 4, 2])
SHAPES = arrays.array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=6)


def there(codec: Ranged, x: Tree) -> Tree:
    """Encoded."""
    return codec.encode({}, x, ())[1]


def back(codec: Ranged, x: Tree) -> Tree:
    """Encoded, sent and decoded."""
    return codec.decode(trees.decode(trees.encode(there(codec, x))))


def to(low: float, high: float, bits: Any = 8, packed: bool = True) -> Ranged:
    """For a bare leaf."""
    return Ranged(bits, (("", low, high),), packed)


@BITS
@pytest.mark.parametrize("tight", [True, False])
@given(st.data())
def test_the_error_is_at_most_half_a_step_within_and_the_distance_outside(
    bits: int, tight: bool, data: st.DataObject
) -> None:
    width = data.draw(st.sampled_from([16, 32, 64]))
    most = {16: 60000.0, 32: 2.0**126, 64: 2.0**1000}[width]
    x = data.draw(arrays.arrays(f"float{width}", SHAPES, elements=st.floats(-most, most, width=width)))
    wide = x.astype(np.float64)
    low, high = wide.min(), wide.max()
    if tight:  # a quarter of the range lies outside, at its top
        high = low + (high - low) * 0.75
    codec = to(low, high, bits)
    y = back(codec, x)
    eps, tiny = (float(getattr(np.finfo(x.dtype), name)) for name in ("eps", "smallest_subnormal"))
    single = 8 * float(np.finfo(np.float32 if width < 64 else np.float64).eps)
    rounding = max(abs(low), abs(high)) * (eps + single) + tiny + 1e-297  # a step below 1e-300 is none
    outside = np.maximum(wide - high, 0)
    assert (np.abs(y - wide) <= np.maximum((high - low) / (2**bits - 1) / 2, outside) + rounding).all()
    assert np.abs(y - wide).max() <= codec.error(x)[""]
    assert codec.error(x)[""] <= max((high - low) / (2**bits - 1) / 2, outside.max()) * (1 + 1e-12) + rounding


@BITS
@given(st.data())
def test_packing_has_no_effect_on_values(bits: int, data: st.DataObject) -> None:
    x = data.draw(arrays.arrays("float32", SHAPES, elements=st.floats(-3, 3, width=32)))
    assert (back(to(-2, 2, bits), x) == back(to(-2, 2, bits, packed=False), x)).all()


@BITS
def test_levels_come_back_exactly_and_zero_stays_zero(bits: int) -> None:
    x = np.arange(2**bits, dtype=np.float32)[::-1] / 4 - 3
    assert (back(to(float(x.min()), float(x.max()), bits), x) == x).all()
    relu = np.array([0, 0, 0.7, 9], np.float32)
    assert back(to(0, 5.3, bits), relu)[:2].tolist() == [0, 0]


@BITS
def test_it_rounds_as_the_quantiser_that_looks_at_each_message(bits: int) -> None:
    x = np.random.default_rng(0).normal(size=(3, 100_000)).astype(np.float32)  # several blocks
    step = float(np.ptp(x)) / (2**bits - 1)
    own, fixed = (codec.decode(codec.encode({}, x, ())[1]) for codec in (Quantise(bits), Ranged(bits, ranges([x]))))
    apart = np.abs(own - fixed)
    assert (apart > 1e-5).mean() < 1e-4  # values in the middle between two levels, where float32 decides
    assert apart.max() < step * 1.001


def test_codes_are_counted_from_the_low_end() -> None:
    coded = there(to(0, 255), np.array([[-9, 0, 0.6, 254.4, 255, 1e9]], np.float32))
    assert coded["float32"].tolist() == [[0, 0, 1, 254, 255, 255]]


def test_four_bits_share_a_byte_first_code_lowest_along_the_last_axis() -> None:
    x = np.array([[0, 15, 3], [7, 1, 2]])
    assert there(to(0, 15, 4), x.astype(np.float64))["float64-1"].tolist() == [[15 << 4, 3], [1 << 4 | 7, 2]]
    assert there(to(0, 15, 4, packed=False), x.astype(np.float16))["float16"].tolist() == x.tolist()


def test_two_bits_are_packed_first_code_lowest() -> None:
    coded = there(to(0, 3, 2), np.array([0, 1, 2, 3, 1, 0], np.float32))
    assert coded["float32-2"].tolist() == [0 | 1 << 2 | 2 << 4 | 3 << 6, 1]


@given(st.sampled_from([1, 2, 4]), st.data())
def test_packed_codes_come_apart_again(each: int, data: st.DataObject) -> None:
    codes = data.draw(arrays.arrays("uint8", SHAPES, elements=st.integers(0, 2 ** (8 // each) - 1)))
    full = np.concatenate([codes, np.zeros((*codes.shape[:-1], -codes.shape[-1] % each), np.uint8)], -1)
    assert (unpacked(packed(codes, each), each) == full).all()


@BITS
def test_rows_can_be_joined_and_sliced_while_coded(bits: int) -> None:
    x = np.random.default_rng(0).normal(size=(4, 3, 5)).astype(np.float32)
    codec = Ranged(bits, ranges([x]))
    ((name, codes),) = there(codec, x).items()
    alone = [there(codec, row[None])[name] for row in x]
    assert (np.concatenate(alone) == codes).all()
    assert (codec.decode({name: codes[1:3]}) == back(codec, x)[1:3]).all()


@BITS
@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0), (2, 0, 4)])
def test_an_empty_leaf_keeps_its_shape(bits: int, shape: tuple[int, ...]) -> None:
    y = back(to(0, 1, bits), np.zeros(shape, np.float32))
    assert (y.shape, y.dtype) == (shape, np.float32)


@BITS
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("value", [0.0, -3.25, 5e-324])
def test_a_constant_range_gives_its_value(bits: int, dtype: str, value: float) -> None:
    y = back(to(value, value, bits), np.full((2, 3), 7, dtype))
    assert (y == np.array(value).astype(dtype)).all()


def test_other_leaves_pass_and_trees_keep_their_form() -> None:
    x = {"a": {"w": np.ones((2, 3), np.float32), "n": np.arange(3)}, "b": np.ones(2), "s": np.float32(3), "e": {}}
    codec = Ranged(8, (("/a/w", 0.0, 2.0), ("/gone", 0.0, 1.0)))
    coded = there(codec, x)
    assert set(coded["a"]["w"]) == {"float32"}
    assert coded["b"] is x["b"]
    assert trees.spec(codec.decode(coded)) == trees.spec(x)
    assert codec.size(trees.spec(x)) == len(trees.encode(coded))


def test_a_message_carries_no_range() -> None:
    x = {"relu": np.random.default_rng(0).random((1, 24, 8, 8)).astype(np.float32)}
    fixed, own = (len(trees.encode(codec.encode({}, x, ())[1])) for codec in (Ranged(8, ranges([x])), Quantise(8)))
    assert 24 * 64 + 60 < fixed <= own - 64
    one = Chain((Ranged(4, ranges([x])), Zstd(1)))
    assert trees.spec(one.decode(one.encode(one.init(), x, ())[1])) == trees.spec(x)


def test_ranges_are_those_of_all_messages() -> None:
    first, second = ({"a": np.array([1.0, low]), "n": np.arange(3), "s": np.float64(99)} for low in (-2.0, 5.0))
    assert ranges([first, second]) == (("/a", -2.0, 5.0),)


def test_a_range_may_leave_out_the_rarest_at_both_ends() -> None:
    x = np.random.default_rng(0).permutation(1001).astype(np.float64)
    assert ranges([x], keep=0.98) == (("", 10.0, 990.0),)
    assert ranges([np.maximum(x - 500, 0)], keep=0.98) == (("", 0.0, 490.0),)


@pytest.mark.parametrize("messages", [[], [{"n": np.arange(3)}], [np.array([1, np.nan])], [np.zeros((0, 3))]])
def test_nothing_to_calibrate_on(messages: list[Tree]) -> None:
    with pytest.raises(DataError):
        ranges(messages)


@pytest.mark.parametrize("keep", [0.4, 1.1, np.nan])
def test_a_share_that_cannot_be_kept(keep: float) -> None:
    with pytest.raises(ConfigError, match="keep"):
        ranges([np.ones(3)], keep)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("ends", [(0.0, 1.0), (1.0, 1.0)])
@pytest.mark.parametrize("at", [0, 70_000])
def test_what_is_not_finite_is_named(value: float, ends: tuple[float, float], at: int) -> None:
    x = np.zeros(70_001, np.float32)
    x[at] = value
    with pytest.raises(DataError, match="the leaf /w holds NaN or infinity"):
        there(Ranged(8, (("/w", *ends),)), {"w": x})


def test_what_is_large_but_finite_is_clipped() -> None:
    x = np.array([-3e38, 3e38, 0.5], np.float32)
    assert back(to(0, 1), x)[:2].tolist() == [0, 1]
    assert to(0, 1).error(x)[""] == pytest.approx(3e38, rel=1e-6)


def test_a_branch_that_looks_coded_is_refused() -> None:
    x = {"w": {"float32": np.ones(2)}}
    codec = Ranged(8, (("/w", 0.0, 1.0),))
    for action in (lambda: there(codec, x), lambda: codec.becomes(trees.spec(x))):
        with pytest.raises(ConfigError, match="looks like a coded leaf"):
            action()
    assert set(there(Ranged(8, (("/v", 0.0, 1.0),)), x)["w"]) == {"float32"}


@pytest.mark.parametrize(
    ("bits", "given"),
    [
        (3, ()),
        (8, (("/a", 1.0, 0.0),)),
        (8, (("/a", np.nan, 0.0),)),
        (8, (("/a", 0.0, np.inf),)),
        (8, (("/a", -1.7e308, 1.7e308),)),
        (8, (("/a", 0.0, 1.0), ("/a", 0.0, 2.0))),
    ],
)
def test_settings_that_cannot_be_met(bits: Any, given: Any) -> None:
    with pytest.raises(ConfigError):
        Ranged(bits, given)


@pytest.mark.parametrize(
    "message",
    [
        np.ones(3),
        {"float32": np.ones(3)},
        {"float32": np.array(3, np.uint8)},
        {"float32-2": np.zeros(3, np.uint8)},
        {"float32-1": np.zeros((3, 0), np.uint8)},
    ],
)
def test_a_malformed_message_is_a_wire_error(message: Tree) -> None:
    with pytest.raises(WireError):
        to(0, 1, 4).decode(message)


def test_a_code_that_does_not_exist_is_a_wire_error() -> None:
    with pytest.raises(WireError, match="codes above 15"):
        to(0, 1, 4, packed=False).decode({"float32": np.array([16], np.uint8)})


def test_sizes_are_exact() -> None:
    spec = {"w": Shaped((5, 7), "float16")}
    x = {"w": np.zeros((5, 7), np.float16)}
    for bits, each in ((8, 7), (4, 4), (2, 2)):
        codec = Ranged(bits, (("/w", 0.0, 1.0),))
        assert codec.size(spec) == len(trees.encode(there(codec, x)))
        assert next(iter(codec.becomes(spec)["w"].values())).shape == (5, each)
