"""Mean: weights, dtypes, partial replies, and the same in torch."""

from typing import Any

import numpy as np
import pytest

from duetto import tree as trees
from duetto.aggregation import Mean
from duetto.errors import ConfigError, DataError
from duetto.tree import Tree
from duetto.types import Reply

DRAW = np.random.default_rng(0)
TREES = [
    {"w": DRAW.normal(size=(4, 3)), "inner": {"b": DRAW.normal(size=2), "tau": np.array(i + 1.0)}} for i in range(5)
]
WEIGHTS = [1.0, 2.0, 0.5, 7.0, 3.0]


def mean(aggregator: Mean, replies: list[Reply]) -> Tree:
    """The aggregate."""
    state = aggregator.init()
    for reply in replies:
        state = aggregator.add(state, reply)
    return aggregator.finish(state)[1]


def replies(weights: list[float] = WEIGHTS, **more: Any) -> list[Reply]:
    """One reply a tree."""
    return [Reply(f"u{i}", tree, weight, **more) for i, (tree, weight) in enumerate(zip(TREES, weights, strict=True))]


def test_it_is_the_weighted_average() -> None:
    result = mean(Mean(), replies())
    np.testing.assert_allclose(result["w"], np.average([t["w"] for t in TREES], axis=0, weights=WEIGHTS), rtol=1e-13)
    np.testing.assert_allclose(result["inner"]["tau"], np.average(range(1, 6), weights=WEIGHTS), rtol=1e-13)
    assert trees.spec(result) == trees.spec(TREES[0])


def test_no_reply_counts_more_than_the_cap() -> None:
    capped, low = mean(Mean(cap=2.0), replies()), mean(Mean(), replies([1.0, 2.0, 0.5, 2.0, 2.0]))
    assert trees.encode(capped) == trees.encode(low)
    assert trees.encode(capped) != trees.encode(mean(Mean(), replies()))


def test_a_cohort_s_weighted_sum_is_added_as_one_reply() -> None:
    aggregator = Mean(cap=2.0)
    weights = [aggregator.weigh(reply) for reply in replies()]
    total = sum(weights)
    cohort = trees.scale(TREES[0], weights[0] / total)
    for tree, weight in zip(TREES[1:], weights[1:], strict=True):
        cohort = trees.add(cohort, trees.scale(tree, weight / total))
    np.testing.assert_allclose(
        mean(Mean(), [Reply("cohort", cohort, total)])["w"], mean(aggregator, replies())["w"], rtol=1e-12
    )


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_floating_leaves_keep_their_dtype_and_are_summed_in_float64(dtype: str) -> None:
    big, small = np.full(3, 2048, dtype), np.ones(3, dtype)  # 2048 + 1 is lost in float16
    result = mean(Mean(), [Reply(f"u{i}", {"w": leaf}) for i, leaf in enumerate([big] + [small] * 1000)])
    assert result["w"].dtype == dtype
    np.testing.assert_allclose(result["w"], (2048 + 1000) / 1001, rtol=np.finfo(dtype).eps)


def test_integers_come_back_in_float64() -> None:
    result = mean(
        Mean(),
        [
            Reply("a", {"n": np.array([1, 2]), "on": np.array(True)}),
            Reply("b", {"n": np.array([2, 2]), "on": np.array(False)}),
        ],
    )
    assert trees.spec(result) == trees.spec({"n": np.zeros(2), "on": np.array(0.5)})
    assert (result["n"].tolist(), float(result["on"])) == ([1.5, 2], 0.5)


def test_partial_replies_divide_per_coordinate() -> None:
    first = Reply(
        "a", {"w": np.array([1.0, 2.0]), "b": np.array([1.0, 1.0])}, 1.0, index={"/w": ((2, 3), np.array([0, 4]))}
    )
    second = Reply(
        "b", {"w": np.array([[10.0, 20.0]]), "b": np.array([4.0, 4.0])}, 2.0, index={"/w": ((2, 3), np.array([[4, 5]]))}
    )
    whole = Reply("c", {"w": np.full((2, 3), 6.0), "b": np.array([0.0, 3.0])}, 3.0)
    aggregator = Mean()
    result = mean(aggregator, [first, second])
    np.testing.assert_allclose(result["w"], [[1, 0, 0], [0, (2 + 20) / 3, 20]])
    np.testing.assert_allclose(result["b"], [3, 3])
    expected = [[(1 + 18) / 4, 6, 6], [6, (2 + 20 + 18) / 6, (40 + 18) / 5]]
    for order in ([first, second, whole], [whole, second, first], [second, whole, first]):
        np.testing.assert_allclose(mean(aggregator, order)["w"], expected)
    left, right = aggregator.add({}, whole), aggregator.add(aggregator.add({}, first), second)
    np.testing.assert_allclose(aggregator.finish(trees.add(left, right))[1]["w"], expected)


def test_a_pointer_is_escaped() -> None:
    reply = Reply("a", {"a/b~": np.array([5.0])}, index={"/a~1b~0": ((3,), np.array([1]))})
    assert mean(Mean(), [reply])["a/b~"].tolist() == [0, 5, 0]


@pytest.mark.parametrize("weight", [-1.0, np.nan, np.inf])
def test_a_bad_weight_is_an_error(weight: float) -> None:
    with pytest.raises(DataError, match=f"u0 sent the weight {weight}"):
        Mean().add({}, Reply("u0", TREES[0], weight))


def test_weights_of_zero_are_nothing_to_average() -> None:
    with pytest.raises(DataError, match="no reply"):
        mean(Mean(), replies([0.0] * 5))
    some = mean(Mean(), replies([0.0, 2.0, 0.0, 0.0, 0.0]))
    assert trees.encode(some) == trees.encode(TREES[1])


def test_a_part_of_another_size_is_an_error() -> None:
    with pytest.raises(DataError, match="does not fit /w"):
        Mean().add({}, Reply("a", {"w": np.ones(2)}, index={"/w": ((5,), np.array([0, 1, 2]))}))


@pytest.mark.parametrize("positions", [[0, 6], [-1, 0]])
def test_a_position_outside_the_leaf_is_an_error(positions: list[int]) -> None:
    with pytest.raises(DataError, match="a sent an index outside /w: positions are"):
        Mean().add({}, Reply("a", {"w": np.ones(2)}, index={"/w": ((2, 3), np.array(positions))}))


def test_a_part_may_be_nothing() -> None:
    nothing = Reply("a", {"w": np.ones(0), "b": np.ones(1)}, index={"/w": ((2,), np.zeros(0, int))})
    assert mean(Mean(), [nothing])["w"].tolist() == [0, 0]


def test_another_structure_is_an_error() -> None:
    with pytest.raises(ConfigError):
        mean(Mean(), [Reply("a", {"w": np.ones(2)}), Reply("b", {"v": np.ones(2)})])


@pytest.mark.parametrize("cap", [0.0, -1.0, np.nan])
def test_a_cap_is_positive(cap: float) -> None:
    with pytest.raises(ConfigError):
        Mean(cap=cap)


def test_torch_gives_the_same_numbers() -> None:
    torch = pytest.importorskip("torch")
    of_torch = [
        Reply(reply.sender, trees.map(lambda leaf: torch.asarray(leaf, dtype=torch.float32), reply.tree), reply.weight)
        for reply in replies()
    ]
    of_numpy = [
        Reply(reply.sender, trees.map(lambda leaf: leaf.astype(np.float32), reply.tree), reply.weight)
        for reply in replies()
    ]
    left, right = mean(Mean(cap=2.0), of_torch), mean(Mean(cap=2.0), of_numpy)
    assert left["w"].dtype == torch.float32
    assert trees.encode(trees.map(lambda leaf: leaf.numpy(), left)) == trees.encode(right)
    part = Reply("a", {"w": torch.ones(2, dtype=torch.bfloat16)}, index={"/w": ((2, 2), np.array([3, 1]))})
    result = mean(Mean(), [part])["w"]
    assert (result.dtype, result.tolist()) == (torch.bfloat16, [[0, 1], [0, 1]])
