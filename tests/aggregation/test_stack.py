"""Stack: every reply by its sender."""

import numpy as np
import pytest

from duetto.aggregation import Stack
from duetto.errors import DataError
from duetto.types import Reply


def test_replies_are_kept_by_sender_in_order_of_names() -> None:
    state = Stack().init()
    for name in ("b", "c", "a"):
        state = Stack().add(state, Reply(name, {"w": np.full(2, ord(name))}, weight=9.0))
    after, result = Stack().finish(state)
    assert list(result) == ["a", "b", "c"]
    assert [tree["w"].tolist() for tree in result.values()] == [[97, 97], [98, 98], [99, 99]]
    assert after == {}


def test_a_sender_replies_once() -> None:
    state = Stack().add({}, Reply("a", np.ones(2)))
    with pytest.raises(DataError, match="a replied twice"):
        Stack().add(state, Reply("a", np.ones(2)))
    with pytest.raises(DataError, match="a replied twice"):
        Stack().merge(state, state)


def test_a_partial_tree_is_refused() -> None:
    with pytest.raises(DataError, match="partial"):
        Stack().add({}, Reply("a", {"w": np.ones(1)}, index={"/w": np.array([0])}))


def test_weighed_it_keeps_weights_and_partial_trees() -> None:
    """The parts are told apart by whoever reads them."""
    part = Reply("a", {"w": np.ones(1)}, 3.0, index={"/w": ((2,), np.array([1]))})
    weighed = Stack(weighed=True)
    _, kept = weighed.finish(weighed.add(weighed.init(), part))
    assert kept["a"]["weight"] == 3.0
    np.testing.assert_array_equal(kept["a"]["tree"]["w"], np.ones(1))
