"""Few of the values: which, how they travel, and what comes back."""

import numpy as np
import pytest

from duetto import tree as trees
from duetto.codecs import Quantise, RandomK, TopK, Zstd
from duetto.errors import ConfigError, WireError
from duetto.tree import Tree
from duetto.types import Chain, Codec

DRAW = np.random.default_rng(0)
LEAF = DRAW.normal(size=(20, 30)).astype(np.float32)


def sent(codec: Codec, tree: Tree, key: tuple = (1,)) -> tuple[Tree, int]:
    data = trees.encode(codec.encode(codec.init(), tree, key)[1])
    return codec.decode(trees.decode(data)), len(data)


@pytest.mark.parametrize("share", [0.001, 0.01, 0.1, 0.5, 1.0])
def test_the_largest_are_kept_and_nothing_else(share: float) -> None:
    back, _ = sent(TopK(share), {"w": LEAF})
    kept = max(1, round(share * LEAF.size))
    smallest = np.sort(np.abs(LEAF).reshape(-1))[-kept]
    np.testing.assert_array_equal(back["w"], np.where(np.abs(LEAF) >= smallest, LEAF, 0))


def test_positions_take_the_least_bytes() -> None:
    for share in (0.01, 0.2):
        _, nbytes = sent(TopK(share), {"w": LEAF})
        kept = round(share * LEAF.size)
        where = min(-(-LEAF.size // 8), 2 * kept)
        assert nbytes - 4 * kept - where < 400, "the rest is names"


@pytest.mark.parametrize("share", [0.01, 0.03, 0.05])
def test_an_entropy_coder_makes_little_of_the_positions(share: float) -> None:
    leaf = np.random.default_rng(5).normal(size=60_000).astype(np.float32)
    where = TopK(share).encode({}, {"w": leaf}, ())[1]["w"]["where"]
    coded = Zstd(19).encode({}, {"w": where}, ())[1]
    least = -(share * np.log2(share) + (1 - share) * np.log2(1 - share)) * len(leaf) / 8
    assert len(trees.encode(coded)) < 1.15 * least + 300, "the rest is names"


def test_nan_is_not_hidden() -> None:
    leaf = LEAF.copy()
    leaf[3, 4] = np.nan
    back, _ = sent(TopK(0.001), {"w": leaf})
    assert np.isnan(back["w"][3, 4])


def test_what_is_kept_can_be_quantised_and_compressed() -> None:
    exact, plain = sent(TopK(0.1), {"w": LEAF})
    back, nbytes = sent(Chain((TopK(0.1), Quantise(8), Zstd())), {"w": LEAF})
    step = (LEAF.max() - LEAF.min()) / 255
    assert np.abs(back["w"] - exact["w"]).max() <= step / 2 * 1.01
    assert nbytes < plain
    assert ((back["w"] != 0) <= (exact["w"] != 0)).all()


def test_random_positions_are_told_by_their_seed_and_unbiased_where_asked() -> None:
    back, nbytes = sent(RandomK(0.1), {"w": LEAF})
    assert np.count_nonzero(back["w"]) == 60
    assert (back["w"][back["w"] != 0] == LEAF[back["w"] != 0]).all()
    assert nbytes < 60 * 4 + 400
    mean = np.mean([sent(RandomK(0.25, unbiased=True), {"w": LEAF}, (i,))[0]["w"] for i in range(400)], axis=0)
    error = np.sqrt((1 / 0.25 - 1) / 400) * np.abs(LEAF)  # the standard error of a value that is there one time in four
    assert (np.abs(mean - LEAF) < 5 * error + 1e-6).all()


@pytest.mark.parametrize("share", [0.0, -0.1, 1.5, float("nan")])
@pytest.mark.parametrize("kind", [TopK, RandomK])
def test_a_share_is_one(kind: type, share: float) -> None:
    with pytest.raises(ConfigError, match="share"):
        kind(share)


GOOD = TopK(0.01).encode({}, {"w": LEAF}, ())[1]["w"]
RANDOM = RandomK(0.01).encode({}, {"w": LEAF}, ())[1]["w"]


@pytest.mark.parametrize(
    ("codec", "broken"),
    [
        (TopK(0.01), {**GOOD, "where": GOOD["where"][:-1]}),
        (TopK(0.01), {**GOOD, "where": np.zeros_like(GOOD["where"])}),
        (TopK(0.01), {**GOOD, "where": np.full_like(GOOD["where"], 255)}),
        (TopK(0.01), {**GOOD, "where": GOOD["where"].astype(np.uint16)}),
        (TopK(0.01), {**GOOD, "values": GOOD["values"].reshape(2, 3)}),
        (TopK(0.01), {**GOOD, "shape": np.array([1 << 40, 1 << 40])}),
        (TopK(0.01), {**GOOD, "shape": np.array([-1, 3])}),
        (TopK(0.01), {**GOOD, "shape": np.array([], np.int64)}),
        (TopK(0.5), {"values": np.zeros(9), "where": np.zeros(1, np.uint8), "shape": np.array([18])}),
        (RandomK(0.01), {**RANDOM, "values": np.zeros(601)}),
        (RandomK(0.01), {**RANDOM, "seed": np.zeros(2, np.int64)}),
    ],
)
def test_a_damaged_message_is_refused(codec: Codec, broken: Tree) -> None:
    with pytest.raises(WireError):
        codec.decode({"w": broken})


def test_a_branch_that_looks_coded_is_refused() -> None:
    with pytest.raises(ConfigError, match="looks like"):
        TopK(0.1).encode({}, {"w": {"values": LEAF, "where": LEAF, "shape": LEAF}}, ())
