"""bound: what a codec promises is checked against what it does."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from duetto.codecs import Progressive, Quantise, Ranged, TopK, Zstd, bound, ranges
from duetto.errors import ConfigError, DataError
from duetto.tree import Tree
from duetto.types import Chain, Codec, Domain, Key

X = {"relu": np.maximum(np.random.default_rng(0).normal(size=(4, 6, 9)), 0).astype(np.float32), "n": np.arange(3)}
TOP = float(X["relu"].max())


@pytest.mark.parametrize(
    "codec",
    [
        Ranged(8, ranges([X])),
        Ranged(2, ranges([X])),
        Quantise(8),
        Quantise(4, "channel"),
        Quantise(2, stochastic=True),
        Progressive(Ranged(8, ranges([X])), (4, 4)),
        Chain((Chain((Ranged(4, ranges([X])),)), Zstd(1), Zstd(3))),
    ],
    ids=repr,
)
def test_what_is_seen_is_near_what_is_promised(codec: Codec[Any]) -> None:
    found = bound(codec, [X])
    assert set(found) == {"/relu"}
    assert 0 < found["/relu"].seen <= found["/relu"].promised < found["/relu"].seen * 1.3


def test_the_promise_is_half_a_step() -> None:
    assert bound(Ranged(4, ranges([X])), [X])["/relu"].promised == pytest.approx(TOP / 15 / 2, rel=1e-4)


def test_what_is_clipped_counts() -> None:
    found = bound(Ranged(8, (("/relu", 0.0, 1.0),)), [X])["/relu"]
    assert found.seen == pytest.approx(TOP - 1)
    assert found.seen <= found.promised < TOP - 1 + 1e-4


def test_it_is_the_worst_of_all_messages() -> None:
    small = {"relu": X["relu"] / 8}
    assert bound(Quantise(8), [small, X, small]) == bound(Quantise(8), [X])


def test_what_is_lossless_promises_nothing_lost() -> None:
    for codec in (Zstd(), Chain(), Chain((Zstd(1), Zstd(3)))):
        assert bound(codec, [X])["/relu"].promised == bound(codec, [X])["/relu"].seen == 0


@dataclass(frozen=True)
class Wrong(Codec[Tree]):
    """Promises more than it keeps."""

    takes = frozenset({Domain.FLOATS})
    gives = Domain.FLOATS

    def encode(self, state: Tree, tree: Tree, key: Key) -> tuple[Tree, Tree]:
        return state, {"relu": tree["relu"] * np.float32(self.factor)}

    def decode(self, tree: Tree) -> Tree:
        return tree

    def becomes(self, spec: Any) -> Any:
        return spec

    def error(self, tree: Tree) -> dict[str, float]:
        return {"/relu": 1e-3}

    factor: float = 1.1


@pytest.mark.parametrize("factor", [1.1, np.nan])
def test_a_codec_that_breaks_its_promise_is_an_error(factor: float) -> None:
    with pytest.raises(DataError, match=r"off by .* in /relu, but promised 0.001"):
        bound(Wrong(factor), [X])
    assert bound(Wrong(1.0), [X])["/relu"].seen == 0


@pytest.mark.parametrize("codec", [TopK(0.1), Chain((TopK(0.1), Quantise(8)))])
def test_a_codec_that_promises_nothing(codec: Codec[Any]) -> None:
    with pytest.raises(ConfigError, match="promises no bound"):
        bound(codec, [X])


@pytest.mark.parametrize("messages", [[], [{"n": np.arange(3)}]])
def test_nothing_to_measure_on(messages: list[Tree]) -> None:
    with pytest.raises(DataError, match="no floating leaf"):
        bound(Zstd(), messages)
