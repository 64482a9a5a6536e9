"""Progressive: all parts are the quantiser, the first is its neighbourhood."""

from typing import Any

import hypothesis.extra.numpy as arrays
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from duetto import tree as trees
from duetto.codecs import Progressive, Ranged, Zstd, counts, ranges
from duetto.errors import ConfigError, WireError
from duetto.tree import Tree
from duetto.types import Chain

STEPS = [(8, (4, 4)), (8, (2, 2, 4)), (8, (4, 2, 2)), (8, (2, 2, 2, 2)), (4, (2, 2))]
SHAPES = arrays.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=5)
RANGES = (("/a", -2.0, 2.0), ("/b/c", 0.0, 3.0))


def there(codec: Progressive, x: Tree) -> Tree:
    """Encoded."""
    return codec.encode({}, x, ())[1]


@pytest.mark.parametrize(("bits", "steps"), STEPS)
@settings(max_examples=25)
@given(st.data())
def test_all_parts_are_the_quantiser_and_fewer_are_near_it(
    bits: Any, steps: tuple[int, ...], data: st.DataObject
) -> None:
    leaf = arrays.arrays(st.sampled_from(["float32", "float64"]), SHAPES, elements=st.floats(-4, 4, width=32))
    x = {"a": data.draw(leaf), "b": {"c": data.draw(leaf), "n": np.arange(3)}, "s": np.float32(1)}
    ranged = Ranged(bits, RANGES)
    exact = ranged.decode(ranged.encode({}, x, ())[1])
    codec = Progressive(ranged, steps, data.draw(st.sampled_from([(), counts(ranged, [x])])))
    sent = [trees.decode(trees.encode(part)) for part in codec.parts(there(codec, x))]
    assert len(sent) == len(steps)
    assert trees.encode(codec.decode(codec.joined(sent))) == trees.encode(exact)
    for k in range(1, len(steps)):
        coarse = codec.decode(codec.joined(sent[:k]))
        assert trees.spec(coarse) == trees.spec(x)
        bins = 2 ** sum(steps[:k])
        for (pointer, low, high), y, z in (
            (RANGES[0], coarse["a"], exact["a"]),
            (RANGES[1], coarse["b"]["c"], exact["b"]["c"]),
        ):
            assert pointer
            assert np.abs(y - z).max(initial=0) <= (high - low) / bins * 1.001


def test_the_size_is_exact() -> None:
    x = {"a": np.zeros((3, 5), np.float32), "b": {"c": np.zeros(3, np.float16)}, "s": np.float32(1)}
    for bits, steps in STEPS:
        codec = Progressive(Ranged(bits, RANGES), steps)
        assert codec.becomes(trees.spec(x)) == trees.spec(there(codec, x))
        assert codec.size(trees.spec(x)) == len(trees.encode(there(codec, x)))


def test_a_part_holds_its_bits() -> None:
    codec = Progressive(Ranged(8, (("", 0.0, 255.0),)), (4, 4))
    coded = there(codec, np.array([0x12, 0xAB], np.float32))
    assert coded["float32"].tolist() == [0xA1]
    assert coded["later-1"].tolist() == [0xB2]
    assert codec.decode(codec.parts(coded)[0]).tolist() == [0x17 + 0.5, 0xA7 + 0.5]


def test_with_counts_a_coarse_value_is_the_mean_of_what_it_may_be() -> None:
    x = np.array([0] * 7 + [8, 0xF0, 0xFF, 0xFF, 0xFF], np.float32)
    ranged = Ranged(8, (("", 0.0, 255.0),))
    codec = Progressive(ranged, (4, 4), counts(ranged, [x[:4], x[4:]]))
    coarse = codec.decode(codec.parts(there(codec, x))[0])
    np.testing.assert_allclose(coarse[[0, 7, 8, 9]], [1, 1, (0xF0 + 3 * 0xFF) / 4, (0xF0 + 3 * 0xFF) / 4])
    unseen = codec.decode(codec.parts(there(codec, np.array([0x30], np.float32)))[0])
    assert unseen.tolist() == [0x37 + 0.5]


def test_each_part_through_a_byte_codec_of_its_own() -> None:
    x = {"relu": np.maximum(np.random.default_rng(0).normal(size=(1, 8, 16, 16)), 0).astype(np.float32)}
    codec, zstd = Progressive(Ranged(8, ranges([x])), (4, 4)), Zstd(1)
    messages = [zstd.encode({}, part, ())[1] for part in codec.parts(there(codec, x))]
    arrived = [zstd.decode(message) for message in messages]
    assert trees.encode(codec.joined(arrived)) == trees.encode(there(codec, x))
    chain = Chain((codec, zstd))
    assert trees.spec(chain.decode(chain.encode(chain.init(), x, ())[1])) == trees.spec(x)


@pytest.mark.parametrize(
    ("bits", "steps", "occurring"),
    [
        (8, (8,), ()),
        (8, (4, 2), ()),
        (8, (6, 2), ()),
        (4, (4,), ()),
        (4, (2, 2), (("/a", (1, 2)),)),
        (4, (2, 2), (("/a", (-1,) * 16),)),
    ],
)
def test_settings_that_cannot_be_met(bits: Any, steps: tuple[int, ...], occurring: Any) -> None:
    with pytest.raises(ConfigError):
        Progressive(Ranged(bits, RANGES), steps, occurring)


def test_a_branch_that_looks_coded_is_refused() -> None:
    with pytest.raises(ConfigError, match="looks like a coded leaf"):
        there(Progressive(Ranged(8, RANGES), (4, 4)), {"a": {"float32": np.ones(2)}})


@pytest.mark.parametrize(
    "change",
    [
        lambda good: {"later-1": good["later-1"]},
        lambda good: {**good, "later-2": good["later-1"]},
        lambda good: {"float32-1": good["float32-1"], "later-2": good["later-1"]},
        lambda good: {"float32-1": good["float32-1"], "later-1": good["later-1"][:1]},
        lambda good: {"float32-1": good["float32-1"], "later-1": good["later-1"].astype(np.int8)},
        lambda good: {"float32-1": good["float32-1"], "later-1": np.array(3, np.uint8)},
        lambda good: {"float32-1": good["float32-1"], "float64-1": good["float32-1"], "later-1": good["later-1"]},
        lambda good: np.ones(3),
        lambda good: {"float32": np.ones(3)},
        lambda good: {"float32-3": good["float32-1"]},
        lambda good: {"float32": np.array(3, np.uint8)},
    ],
)
def test_a_malformed_message_is_a_wire_error(change: Any) -> None:
    codec = Progressive(Ranged(8, RANGES), (4, 4))
    good = there(codec, {"a": np.zeros((2, 3), np.float32)})
    with pytest.raises(WireError):
        codec.decode({"a": change(good["a"])})


def test_parts_that_overlap_are_a_wire_error() -> None:
    codec = Progressive(Ranged(8, RANGES), (4, 4))
    first, _ = codec.parts(there(codec, {"a": np.zeros((2, 3), np.float32)}))
    with pytest.raises(WireError, match="same leaf"):
        codec.joined([first, first])
    with pytest.raises(WireError, match="first is missing"):
        codec.decode(codec.parts(there(codec, {"a": np.zeros(3)}))[1])


@pytest.mark.parametrize("x", [np.ones(3), {}, {"a": np.ones(2), "e": {}}])
def test_what_is_not_coded_goes_with_the_first_part(x: Tree) -> None:
    codec = Progressive(Ranged(8, (("/b", 0.0, 1.0),)), (4, 4))
    first, second = codec.parts(there(codec, x))
    assert second == {}
    for message in (first, codec.joined([first, second])):
        assert trees.encode(codec.decode(message)) == trees.encode(x)
