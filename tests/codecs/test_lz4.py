"""Lz4: lossless, and safe against what pretends to be small."""

import sys
import tracemalloc

import numpy as np
import pytest

from duetto import tree as trees
from duetto.codecs import Lz4, Zstd
from duetto.errors import ConfigError, WireError
from duetto.tree import Shaped, Tree

frames = pytest.importorskip("lz4.frame")

TREE = {"w": np.zeros((100, 100), np.float32), "n": np.array(3), "nan": np.array([np.nan, -0.0])}


def frame(tree: Tree = TREE, **settings: bool) -> np.ndarray:
    """A tree in a frame of other settings than ours."""
    return np.frombuffer(frames.compress(trees.encode(tree), **settings), np.uint8)


def test_it_shrinks_and_loses_nothing() -> None:
    _, coded = Lz4().encode({}, TREE, ())
    assert (coded.dtype, coded.ndim) == (np.uint8, 1)
    assert coded.nbytes < len(trees.encode(TREE)) / 50
    assert trees.encode(Lz4().decode(coded)) == trees.encode(TREE)


def test_a_higher_level_is_smaller_and_zstd_smaller_still() -> None:
    walk = np.random.default_rng(0).integers(-1, 2, 20000).cumsum().astype(np.int16)
    fast, small, other = (codec.encode({}, walk, ())[1].nbytes for codec in (Lz4(), Lz4(9), Zstd(1)))
    assert other < small < fast


def test_the_size_depends_on_the_values() -> None:
    assert Lz4().becomes({"w": Shaped((3,))}) is None


def test_a_bomb_is_refused_before_it_goes_off() -> None:
    bomb = np.frombuffer(frames.compress(bytes(1 << 26)), np.uint8)  # 64 MiB in a few hundred KiB
    honest = np.frombuffer(frames.compress(bytes(100)), np.uint8)
    lying = np.concatenate([honest[:6], [100], np.zeros(7, np.uint8), honest[14:15], bomb[15:]]).astype(np.uint8)
    tracemalloc.start()
    try:
        with pytest.raises(WireError, match="67108864 bytes"):
            Lz4(limit=1 << 20).decode(bomb)
        with pytest.raises(WireError):
            Lz4(limit=1 << 20).decode(lying)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 << 20


def test_a_sender_keeps_to_the_limit_too() -> None:
    limit = len(trees.encode(TREE))
    assert set(Lz4(limit=limit).decode(Lz4(limit=limit).encode({}, TREE, ())[1])) == set(TREE)
    with pytest.raises(WireError, match=f"limit is {limit - 1}"):
        Lz4(limit=limit - 1).encode({}, TREE, ())


def test_every_changed_byte_is_noticed() -> None:
    _, coded = Lz4().encode({}, {"w": np.arange(40)}, ())
    for i in range(len(coded)):
        changed = coded.copy()
        changed[i] ^= 1
        try:
            decoded = Lz4().decode(changed)
        except WireError:
            continue
        assert (decoded["w"] == np.arange(40)).all()


@pytest.mark.parametrize(
    "message",
    [
        np.zeros(0, np.uint8),
        np.arange(9, dtype=np.uint8),
        frame()[:-1],
        frame(store_size=False),
        np.concatenate([frame(), frame()]),
        np.concatenate([frame(), np.zeros(1, np.uint8)]),
        frame().astype(np.int64),
        frame()[None],
        np.frombuffer(frames.compress(b"no tree"), np.uint8),
        {"w": frame()},
    ],
)
def test_a_malformed_message_is_a_wire_error(message: Tree) -> None:
    with pytest.raises(WireError):
        Lz4().decode(message)


@pytest.mark.parametrize("settings", [{"level": -1}, {"level": 2}, {"level": 13}, {"limit": -1}])
def test_settings_that_cannot_be_met(settings: dict[str, int]) -> None:
    with pytest.raises(ConfigError):
        Lz4(**settings)


def test_without_the_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lz4.frame", None)
    with pytest.raises(ConfigError, match=r"pip install 'duetto\[codec\]'"):
        Lz4().encode({}, TREE, ())
