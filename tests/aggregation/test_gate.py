"""Gate: what passes, and the line for what does not."""

import math
from typing import Any

import hypothesis.extra.numpy as arrays
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from duetto.aggregation import Gate
from duetto.errors import ConfigError
from duetto.types import Reply

LIKE = {"w": np.zeros((2, 3), np.float32), "inner": {"n": np.array(0), "on": np.zeros(2, bool)}}
GOOD = {"w": np.full((2, 3), 2.0, np.float32), "inner": {"n": np.array(1), "on": np.array([True, False])}}
NORM = math.sqrt(6 * 4 + 1 + 1)


def changed(**leaves: Any) -> dict[str, Any]:
    """The good tree with other leaves."""
    return {"w": leaves.get("w", GOOD["w"]), "inner": {**GOOD["inner"], **leaves.get("inner", {})}}


def test_a_good_reply_passes() -> None:
    assert Gate(None)(Reply("a", GOOD), LIKE) is None
    assert Gate(norm=NORM * (1 + 1e-12), weight=3.0)(Reply("a", GOOD, 3.0), LIKE) is None
    assert Gate(None)(Reply("a", changed(w=GOOD["w"].astype(np.float64))), LIKE) is None, "another width is no fault"


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (Reply("a", failure="timed out"), "timed out"),
        (Reply("a"), "no tree"),
        (Reply("a", GOOD, 0.0), "the weight 0.0 is not positive and finite"),
        (Reply("a", GOOD, -1.0), "the weight -1.0 is not positive and finite"),
        (Reply("a", GOOD, math.nan), "the weight nan is not positive and finite"),
        (Reply("a", GOOD, math.inf), "the weight inf is not positive and finite"),
        (Reply("a", GOOD, 11.0), "the weight 11.0 is above 10.0"),
        (Reply("a", GOOD["w"]), "the tree has other branches than asked for"),
        (Reply("a", {"w": GOOD["w"]}), "the tree has other branches than asked for"),
        (Reply("a", {**GOOD, "more": np.ones(1)}), "the tree has other branches than asked for"),
        (Reply("a", {**GOOD, "w": {"w": GOOD["w"]}}), "the tree has other branches than asked for"),
        (Reply("a", changed(w=GOOD["w"].T)), "the leaf /w has shape (3, 2), not (2, 3)"),
        (Reply("a", changed(w=np.ones((2, 3), int))), "the leaf /w has dtype int64, not float32"),
        (Reply("a", changed(w=np.array("text"))), "the leaf /w has dtype <U4, not float32"),
        (Reply("a", changed(inner={"n": np.array(1.0)})), "the leaf /inner/n has dtype float64, not int64"),
        (Reply("a", changed(w=GOOD["w"] * np.float32(np.nan))), "the leaf /w holds NaN or infinity"),
        (Reply("a", changed(w=np.full((2, 3), -np.inf))), "the leaf /w holds NaN or infinity"),
        (Reply("a", changed(w=GOOD["w"] * 100)), "the norm 489.9 is above 50"),
        (Reply("a", changed(w=np.full((2, 3), 1e300))), "the norm 2.44949e+300 is above 50"),
        (Reply("a", GOOD, index={"/v": ((2, 3), np.array([0]))}), "the index names /v, which is no leaf"),
        (
            Reply("a", changed(w=np.ones(2)), index={"/w": ((2, 3), np.array([0]))}),
            "the leaf /w has an index that does not fit it",
        ),
        (
            Reply("a", changed(w=np.ones(1)), index={"/w": ((2, 3), np.ones(1))}),
            "the leaf /w has an index that does not fit it",
        ),
        (
            Reply("a", changed(w=np.ones(1)), index={"/w": ((3, 2), np.array([0]))}),
            "the leaf /w is part of the shape (3, 2), not (2, 3)",
        ),
        (
            Reply("a", changed(w=np.ones(1)), index={"/w": ((2, 3), np.array([6]))}),
            "the leaf /w has an index outside the full leaf",
        ),
        (
            Reply("a", changed(w=np.ones(1)), index={"/w": ((2, 3), np.array([-1]))}),
            "the leaf /w has an index outside the full leaf",
        ),
        (
            Reply("a", changed(w=np.ones(2)), index={"/w": ((2, 3), np.array([4, 4]))}),
            "the leaf /w has a position twice in its index",
        ),
        (
            Reply("a", changed(w=np.array([np.nan])), index={"/w": ((2, 3), np.array([4]))}),
            "the leaf /w holds NaN or infinity",
        ),
    ],
)
def test_a_bad_reply_is_told_why(reply: Reply, why: str) -> None:
    assert Gate(norm=50.0, weight=10.0)(reply, LIKE) == why


def test_a_partial_reply_passes() -> None:
    reply = Reply("a", changed(w=np.ones(2)), index={"/w": ((2, 3), np.array([5, 0]))})
    assert Gate(norm=50.0)(reply, LIKE) is None


def test_a_bare_leaf_is_a_tree_too() -> None:
    assert Gate(1.0)(Reply("a", np.array([3.0])), np.zeros(1)) == "the norm 3 is above 1"
    assert Gate(None)(Reply("a", np.zeros(2)), np.zeros(1)) == "the leaf (root) has shape (2,), not (1,)"
    assert Gate(1.0)(Reply("a", {"w": np.zeros(0)}), {"w": np.zeros(0)}) is None


@given(arrays.arrays("float64", 4, elements=st.floats(-1e300, 1e300)), st.floats(1e-3, 1e300))
def test_the_norm_is_numpy_s(x: np.ndarray, bound: float) -> None:
    largest = np.abs(x).max() or 1.0
    norm = float(np.linalg.norm(x / largest)) * float(largest)
    if abs(norm - bound) > 1e-12 * bound:
        assert (Gate(bound)(Reply("a", x), x) is None) == (norm < bound)


@given(st.data())
def test_it_never_raises(data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from(["float16", "float64", "int8", "uint64", "bool"]))
    x = data.draw(arrays.arrays(dtype, arrays.array_shapes(min_dims=0, min_side=0)))
    why = Gate(1.0, 1.0)(Reply("a", {"w": x}, data.draw(st.floats())), {"w": np.zeros(2, np.float32)})
    assert why is None or (why and "\n" not in why)


def test_torch_is_judged_the_same() -> None:
    torch = pytest.importorskip("torch")
    like = {"w": torch.zeros(3)}
    assert Gate(2.0)(Reply("a", {"w": torch.ones(3)}), like) is None
    assert Gate(1.0)(Reply("a", {"w": torch.ones(3)}), like) == "the norm 1.73205 is above 1"
    assert Gate(2.0)(Reply("a", {"w": torch.tensor([0, 0, torch.inf])}), like) == "the leaf /w holds NaN or infinity"


@pytest.mark.parametrize("bounds", [(0.0, None), (-1.0, None), (math.nan, None), (None, 0.0)])
def test_a_bound_is_positive(bounds: tuple[float | None, float | None]) -> None:
    with pytest.raises(ConfigError):
        Gate(*bounds)


def test_the_norm_has_no_default() -> None:
    with pytest.raises(TypeError):
        Gate()
