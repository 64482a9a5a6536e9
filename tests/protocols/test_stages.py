"""One side of a cut as a skill: the device walks on, the cloud finishes from wherever it is asked."""

import re
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from duetto.errors import ConfigError, DataError
from duetto.models import Conv, Staged, stage
from duetto.protocols import Advance, Finish
from duetto.tree import Tree
from duetto.types import Local, Work

NET: Staged = stage(Conv((1, 8, 8), 3, (4, 6)).module(), torch.zeros(1, 1, 8, 8))
CUTS = NET.cuts()
X = np.random.default_rng(0).normal(size=(2, 1, 8, 8)).astype(np.float32)
LOCAL = Local(memory={"net": NET})
WHOLE = NET({"x": X})["logits"]


class Mean:
    """An exit: the mean of what crosses."""

    def __call__(self, tree: Tree) -> Tree:
        (leaf,) = tree.values()
        return {"logits": np.stack([leaf.mean((1, 2, 3))] * 3, 1)}

    def work(self, rows: int) -> Work:
        return Work(7.0 * rows, 0.0)


def ask(skill: Any, tree: Tree, local: Local = LOCAL) -> Tree:
    """One use."""
    return skill(local, tree, (0,), "phone")[1]


def test_walking_on_and_finishing_give_the_whole() -> None:
    tree: Tree = {"x": X}
    for start, stop in pairwise(CUTS[:-1]):
        assert ask(Finish(), tree)["logits"].tobytes() == WHOLE.tobytes()
        found = ask(Advance(start, stop), tree)
        assert set(found) == {"carried"}
        tree = found["carried"]
        assert int(tree["cut"]) == stop
    assert ask(Advance(CUTS[-2], CUTS[-1]), tree)["logits"].tobytes() == WHOLE.tobytes()


def test_an_exit_answers_on_the_way() -> None:
    cut = CUTS[2]
    local = Local(memory={"net": replace(NET, exits={cut: Mean()})})
    found = ask(Advance(0, cut), {"x": X}, local)
    (features,) = found["carried"]["features"].values()
    np.testing.assert_allclose(found["logits"][:, 0], features.mean((1, 2, 3)), rtol=1e-6)
    assert Advance(0, cut).work(local, {"x": X}).flops == NET[:cut].work(2).flops + 14


def test_work_adds_up() -> None:
    cut = CUTS[3]
    head = Advance(0, cut).work(LOCAL, {"x": X})
    tail = Finish().work(LOCAL, ask(Advance(0, cut), {"x": X})["carried"])
    assert head.flops + tail.flops == NET[:].work(2).flops == Finish().work(LOCAL, {"x": X}).flops


def test_features_of_one_cut_are_finished_together() -> None:
    carried = [ask(Advance(0, CUTS[2]), {"x": X[i : i + 1]})["carried"] for i in range(2)]
    found = Finish().many([LOCAL, LOCAL], carried, [(0,), (1,)], ["a", "b"])
    for i, (_, tree) in enumerate(found):
        np.testing.assert_allclose(tree["logits"][0], WHOLE[i], atol=1e-6)
    assert Finish().group(LOCAL, carried[0]) == Finish().group(LOCAL, carried[1])
    assert Finish().group(LOCAL, carried[0]) != Finish().group(LOCAL, {"x": X})


def test_a_fixed_number_of_rows_is_finished_one_by_one() -> None:
    fixed = replace(NET, graph=replace(NET.graph, free_rows=False, example_rows=1))
    local = Local(memory={"net": fixed})
    layouts = {
        name: replace(layout, axes=tuple((0, a + b) for a, b in layout.axes))
        for name, layout in NET.graph.layouts.items()
    }
    local = Local(memory={"net": replace(fixed, graph=replace(fixed.graph, layouts=layouts))})
    found = Finish().many([local, local], [{"x": X[:1]}, {"x": X[1:]}], [(0,), (1,)], ["a", "b"])
    for i, (_, tree) in enumerate(found):
        np.testing.assert_allclose(tree["logits"][0], WHOLE[i], atol=1e-6)


GOOD = ask(Advance(0, CUTS[2]), {"x": X})["carried"]


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        ({}, "neither inputs nor features"),
        ({"cut": np.float64(1), "features": {}}, "a cut that is float64"),
        ({"cut": np.int64(-1), "features": {}}, "features of cut -1"),
        ({"cut": np.int64(len(NET)), "features": {}}, "the model has the cuts 0 to"),
        ({"cut": np.int64(2), "features": {"other": X}}, "this side of the cut takes"),
        ({"cut": np.int64(2), "features": X}, "phone sent features without names"),
        ({"cut": np.int64(1), "features": GOOD["features"]}, "this side of the cut takes"),
        ({"x": X[:, :, :4]}, "give Shaped"),
        ({"x": X * np.nan}, "phone sent x that is not finite"),
    ],
)
def test_bad_messages(tree: Tree, said: str) -> None:
    with pytest.raises(DataError, match=said):
        ask(Finish(), tree)


def test_a_walk_out_of_order_and_a_party_without_a_model() -> None:
    with pytest.raises(DataError, match=re.escape(f"features of cut {CUTS[2]} where those of {CUTS[1]} go on")):
        ask(Advance(CUTS[1], CUTS[3]), GOOD)
    with pytest.raises(ConfigError, match="no staged model in 'net'"):
        ask(Finish(), {"x": X}, Local())
