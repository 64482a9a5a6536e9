"""Zstd: lossless, and safe against what pretends to be small."""

import tracemalloc

import numpy as np
import pytest
import zstandard

from duetto import tree as trees
from duetto.codecs import Quantise, Zstd
from duetto.errors import ConfigError, WireError
from duetto.tree import Shaped, Tree
from duetto.types import Chain

TREE = {"w": np.zeros((100, 100), np.float32), "n": np.array(3), "nan": np.array([np.nan, -0.0])}


def frame(tree: Tree = TREE, **settings: bool) -> np.ndarray:
    """A tree in a frame of other settings than ours."""
    return np.frombuffer(zstandard.ZstdCompressor(**settings).compress(trees.encode(tree)), np.uint8)


def test_it_shrinks_and_loses_nothing() -> None:
    _, coded = Zstd().encode({}, TREE, ())
    assert (coded.dtype, coded.ndim) == (np.uint8, 1)
    assert coded.nbytes < len(trees.encode(TREE)) / 50
    assert trees.encode(Zstd().decode(coded)) == trees.encode(TREE)


def test_a_higher_level_is_smaller() -> None:
    walk = np.random.default_rng(0).integers(-1, 2, 20000).cumsum().astype(np.int16)
    fast, small = (Zstd(level).encode({}, walk, ())[1].nbytes for level in (1, 19))
    assert small < fast


def test_a_quantised_tree_is_smaller_still() -> None:
    x = np.sin(np.arange(10000) / 500).astype(np.float32)
    plain, both = (codec.encode(codec.init(), x, (0,))[1].nbytes for codec in (Zstd(), Chain((Quantise(4), Zstd()))))
    assert both < plain / 8


def test_the_size_depends_on_the_values() -> None:
    assert Zstd().becomes({"w": Shaped((3,))}) is None
    assert Zstd().size({"w": Shaped((3,))}) is None


def test_a_bomb_is_refused_before_it_goes_off() -> None:
    bomb = np.frombuffer(zstandard.compress(bytes(1 << 26)), np.uint8)  # 64 MiB in a few KiB
    tracemalloc.start()
    try:
        with pytest.raises(WireError, match="67108864 bytes"):
            Zstd(limit=1 << 20).decode(bomb)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20


def test_a_frame_that_hides_its_size_is_refused() -> None:
    with pytest.raises(WireError, match="hides its size"):
        Zstd().decode(frame(write_content_size=False))


def test_a_frame_that_lies_about_its_size_is_refused() -> None:
    honest = frame({"w": np.zeros(50, np.uint8)})
    size = len(trees.encode({"w": np.zeros(50, np.uint8)}))
    assert size < 256
    lying = honest.copy()
    lying[5] -= 8  # magic (4), descriptor (1), then one byte of size
    assert zstandard.get_frame_parameters(lying.tobytes()).content_size == size - 8
    with pytest.raises(WireError):
        Zstd().decode(lying)


def test_a_sender_keeps_to_the_limit_too() -> None:
    limit = len(trees.encode(TREE))
    _, coded = Zstd(limit=limit).encode({}, TREE, ())
    assert set(Zstd(limit=limit).decode(coded)) == set(TREE)
    with pytest.raises(WireError, match=f"limit is {limit - 1}"):
        Zstd(limit=limit - 1).encode({}, TREE, ())


def test_every_changed_byte_is_noticed() -> None:
    _, coded = Zstd().encode({}, {"w": np.arange(40)}, ())
    for i in range(len(coded)):
        changed = coded.copy()
        changed[i] ^= 1
        try:
            decoded = Zstd().decode(changed)
        except WireError:
            continue
        assert (decoded["w"] == np.arange(40)).all()  # a bit that means nothing, such as one kept for later versions


@pytest.mark.parametrize(
    "message",
    [
        np.zeros(0, np.uint8),
        np.arange(9, dtype=np.uint8),
        frame()[:-1],
        np.concatenate([frame(), frame()]),
        np.concatenate([frame(), np.zeros(1, np.uint8)]),
        frame().astype(np.int64),
        frame()[None],
        np.frombuffer(zstandard.compress(b"no tree"), np.uint8),
        {"w": frame()},
    ],
)
def test_a_malformed_message_is_a_wire_error(message: Tree) -> None:
    with pytest.raises(WireError):
        Zstd().decode(message)


@pytest.mark.parametrize("settings", [{"level": 0}, {"level": 23}, {"limit": -1}])
def test_settings_that_cannot_be_met(settings: dict[str, int]) -> None:
    with pytest.raises(ConfigError):
        Zstd(**settings)
