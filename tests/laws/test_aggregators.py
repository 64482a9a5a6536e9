"""The laws of every aggregator."""

from collections.abc import Sequence
from functools import reduce
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import assume, given, settings

from duetto import tree as trees
from duetto.errors import DataError
from duetto.tree import Tree
from duetto.types import Aggregator, Reply

few = settings(max_examples=25)


@st.composite
def cohorts(draw: st.DrawFn, smallest: int = 1) -> list[Reply]:
    """Replies of one structure, float64, of magnitudes from 1e-3 to 1e3 and weights from 1e-3 to 1e3."""
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    count = draw(st.integers(smallest, 8))
    shape = tuple(draw(st.lists(st.integers(0, 4), max_size=3)))
    return [
        Reply(
            sender=f"user{i}",
            tree={
                "w": generator.normal(size=shape) * 10 ** generator.uniform(-3, 3),
                "inner": {"b": generator.normal(size=3), "tau": np.array(generator.uniform(1, 9))},
            },
            weight=float(10 ** generator.uniform(-3, 3)),
        )
        for i in range(count)
    ]


def added(aggregator: Aggregator[Any], replies: Sequence[Reply]) -> Any:
    """The state after all replies."""
    return reduce(aggregator.add, replies, aggregator.init())


def suffice(aggregator: Aggregator[Any], replies: Sequence[Reply]) -> None:
    """Draw other replies where these are fewer than the aggregator says that it needs (Krum)."""
    assume(len(replies) >= getattr(aggregator, "least", 1))


def finished(aggregator: Aggregator[Any], replies: Sequence[Reply]) -> Tree:
    """The aggregate of all replies."""
    suffice(aggregator, replies)
    return aggregator.finish(added(aggregator, replies))[1]


def close(left: Tree, right: Tree, replies: Sequence[Reply]) -> bool:
    """Equal to 1e-12 of the largest number that went in."""
    scale = max((np.abs(leaf).max(initial=0) for reply in replies for _, leaf in trees.leaves(reply.tree)), default=0)
    pairs = zip(trees.leaves(left), trees.leaves(right), strict=True)
    return trees.spec(left) == trees.spec(right) and all(
        np.abs(a - b).max(initial=0) <= 1e-12 * scale for (_, a), (_, b) in pairs
    )


@few
@given(cohorts(), st.randoms())
def test_the_order_of_replies_does_not_matter(aggregator: Aggregator[Any], replies: list[Reply], random: Any) -> None:
    shuffled = random.sample(replies, len(replies))
    assert close(finished(aggregator, shuffled), finished(aggregator, replies), replies)


@few
@given(cohorts(), st.integers(0, 8))
def test_parts_merge_to_the_whole(aggregator: Aggregator[Any], replies: list[Reply], at: int) -> None:
    left, right = added(aggregator, replies[:at]), added(aggregator, replies[at:])
    whole = finished(aggregator, replies)
    for merged in (aggregator.merge(left, right), aggregator.merge(right, left)):
        assert close(aggregator.finish(merged)[1], whole, replies)


@few
@given(cohorts())
def test_equal_in_is_equal_out(aggregator: Aggregator[Any], replies: list[Reply]) -> None:
    tree = replies[0].tree
    equal = [Reply(reply.sender, tree, reply.weight) for reply in replies]
    result = finished(aggregator, equal)
    kept_apart = set(result) == {reply.sender for reply in equal}
    for outcome in [result[reply.sender] for reply in equal] if kept_apart else [result]:
        assert close(outcome, tree, equal)


@few
@given(cohorts(smallest=2))
def test_a_linear_state_is_a_tree_that_adds(linear_aggregator: Aggregator[Any], replies: list[Reply]) -> None:
    aggregator = linear_aggregator
    left, right = added(aggregator, replies[:1]), added(aggregator, replies[1:])
    trees.encode(left)  # a tree of arrays
    total = trees.add(left, right)
    assert trees.encode(aggregator.merge(left, right)) == trees.encode(total)
    assert close(aggregator.finish(total)[1], finished(aggregator, replies), replies)


@few
@given(cohorts(smallest=2))
def test_states_and_replies_are_left_as_they_were(aggregator: Aggregator[Any], replies: list[Reply]) -> None:
    def seal(leaf: Any) -> None:
        if isinstance(leaf, np.ndarray):
            leaf.setflags(write=False)

    suffice(aggregator, replies)
    for reply in replies:
        trees.map(seal, reply.tree)
    state = aggregator.init()
    for reply in replies:
        sent, before = trees.encode(reply.tree), trees.encode(state)
        after = aggregator.add(state, reply)
        assert (trees.encode(reply.tree), trees.encode(state)) == (sent, before)
        state = after
        trees.map(seal, state)
    before = trees.encode(state)
    aggregator.finish(state)
    assert trees.encode(state) == before


@few
@given(cohorts())
def test_finishing_starts_anew(aggregator: Aggregator[Any], replies: list[Reply]) -> None:
    suffice(aggregator, replies)
    state, first = aggregator.finish(added(aggregator, replies))
    _, second = aggregator.finish(reduce(aggregator.add, replies, state))
    assert trees.encode(first) == trees.encode(second)


def test_nothing_added_is_an_error(aggregator: Aggregator[Any]) -> None:
    with pytest.raises(DataError):
        aggregator.finish(aggregator.init())


def test_a_failure_is_not_added(aggregator: Aggregator[Any]) -> None:
    with pytest.raises(DataError, match="timed out"):
        aggregator.add(aggregator.init(), Reply("user", failure="timed out"))
