"""Builders are given what their parameters are called."""

from dataclasses import replace

import numpy as np
import pytest

from duetto.algorithms.common import spelled_out, variant
from duetto.algorithms.fedavg import Average
from duetto.errors import ConfigError
from duetto.models import Mlp, Net
from duetto.programs.given import Given, built
from duetto.tree import Tree
from duetto.types import Algorithm, Rows

NET, OTHER = Mlp((3,), 2, (4,)), Mlp((3,), 2, (5,))
PUBLIC = np.zeros((6, 3), np.float32)
GIVEN = Given(NET, NET.init(0), (NET, OTHER), PUBLIC, Rows(PUBLIC, np.zeros(6)), (OTHER, OTHER.init(0)), NET)


def test_public_inputs_are_themselves_or_how_many() -> None:
    feddf, fedmd = (built(name, GIVEN, lr=0.1, epochs=1) for name in ("feddf", "fedmd"))
    assert feddf.server.public is PUBLIC  # type: ignore[attr-defined]
    assert fedmd.params["logits"].shape == (6, 2)
    assert fedmd.client.nets == (NET, OTHER)  # type: ignore[attr-defined]


def test_numbers_that_are_given_go_before_defaults() -> None:
    assert built("fedavgm", GIVEN, lr=0.1, epochs=1).server.beta == 0.9  # type: ignore[attr-defined]
    assert built("fedavgm", GIVEN, lr=0.1, epochs=1, beta=0.5).server.beta == 0.5  # type: ignore[attr-defined]


@spelled_out
def strange(net: Net, params: Tree, *, moon: int, **common: float) -> Algorithm:
    return variant(net, params, Average(), **common)  # type: ignore[arg-type]


def test_what_nobody_has_must_be_given() -> None:
    with pytest.raises(ConfigError, match="strange asks for moon"):
        built(strange, GIVEN, lr=0.1, epochs=1)
    assert built(strange, GIVEN, lr=0.1, epochs=1, moon=1).params is GIVEN.params
    assert built(strange, replace(GIVEN, more={"moon": 1}), lr=0.1, epochs=1).params is GIVEN.params
    with pytest.raises(ConfigError, match="fedprox asks for mu, lr, epochs"):
        built("fedprox", GIVEN)
    with pytest.raises(ConfigError, match="no algorithm is called 'taught'"):
        built("taught", GIVEN)
