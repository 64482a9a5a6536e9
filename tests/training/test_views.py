"""Views: what travels and what stays make the whole again."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from torch import nn

from duetto import tree as trees
from duetto.errors import ConfigError
from duetto.models import Conv, Mlp, Net
from duetto.training import BatchNorm, Body, Full, Head, Masked, last_layer

NET = Conv((1, 8, 8), 10, (4, 6), (5,))
PARAMS = NET.init(0)
VIEWS: list[Any] = [
    Full(),
    Body(()),
    Body((last_layer(NET),)),
    Body(("*",)),
    Head(()),
    Head((last_layer(NET),)),
    Head(("*.bias", "0.*")),
    Masked(0.0),
    Masked(0.3, seed=4),
    Masked(1.0),
    BatchNorm(NET),
]


@dataclass(frozen=True)
class Normed(Net):
    """Three layers, the middle one normalises."""

    shape: tuple[int, ...] = (3,)
    classes: int = 2

    def module(self) -> nn.Module:
        """``Linear -> LayerNorm -> Linear``."""
        return nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2))


def names(tree: Any) -> set[str]:
    return {pointer for pointer, _ in trees.leaves(tree)} if tree else set()


@pytest.mark.parametrize("view", VIEWS, ids=repr)
def test_both_sides_are_the_whole(view: Any) -> None:
    whole = view.join(view.travels(PARAMS, "ann"), view.stays(PARAMS, "ann"))
    assert trees.encode(whole) == trees.encode(PARAMS)
    assert trees.encode(PARAMS) == trees.encode(NET.init(0)), "nothing was written to"


@pytest.mark.parametrize("view", VIEWS, ids=repr)
def test_what_changes_on_one_side_is_changed_in_the_whole(view: Any) -> None:
    twice = view.join(trees.scale(view.travels(PARAMS, ""), 2.0), view.stays(PARAMS, ""))
    back = view.join(view.travels(twice, ""), view.stays(PARAMS, ""))
    assert trees.encode(back) == trees.encode(twice)


def test_the_last_layer_is_named() -> None:
    assert (
        names(Head((last_layer(NET),)).travels(PARAMS))
        == {"/11/weight", "/11/bias"}
        == names(Body((last_layer(NET),)).stays(PARAMS))
    )
    assert names(Body((last_layer(NET),)).travels(PARAMS)) == names(PARAMS) - {"/11/weight", "/11/bias"}


def test_normalisation_stays() -> None:
    assert names(BatchNorm(Normed()).stays(Normed().init(0))) == {"/1/weight", "/1/bias"}
    assert BatchNorm(Mlp((3,), 2, (4,))) == Body(())


def test_a_mask_is_a_share_of_every_leaf_and_the_same_for_all() -> None:
    view = Masked(0.25, seed=1)
    sent = view.travels(PARAMS, "ann")
    for pointer, leaf in trees.leaves(PARAMS):
        assert dict(trees.leaves(sent))[pointer].shape == (round(0.25 * leaf.size),)
    np.testing.assert_array_equal(sent["0"]["weight"], view.travels(PARAMS, "ben")["0"]["weight"])
    assert np.any(sent["0"]["weight"] != Masked(0.25, seed=2).travels(PARAMS)["0"]["weight"])


def test_mistakes_are_told() -> None:
    with pytest.raises(ConfigError, match="a share of"):
        Masked(1.1)
    with pytest.raises(ConfigError, match="a leaf travels or stays"):
        Body(()).join(PARAMS, PARAMS)
