"""Over-selection: the same policy, with more of them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from duetto import tree as trees
from duetto.errors import ConfigError
from duetto.policies import (
    BySize,
    Deadline,
    Everyone,
    LeastAvailable,
    Oort,
    OverSelected,
    Poisson,
    PowerOfChoice,
    Uniform,
)
from duetto.types import Policy, Seen

SEEN = Seen(traits={"examples": np.arange(1, 61), "flops": np.ones(60)}, size=60)


@pytest.mark.parametrize(
    ("small", "large"),
    [
        (Uniform(10), Uniform(13)),
        (BySize(10), BySize(13)),
        (PowerOfChoice(10, 20), PowerOfChoice(13, 20)),
        (Oort(10), Oort(13)),
        (Deadline(10, 5.0), Deadline(13, 5.0)),
        (LeastAvailable(10), LeastAvailable(13)),
    ],
    ids=lambda policy: type(policy).__name__,
)
def test_it_is_the_larger_policy(
    one_round: Callable[..., tuple[Any, np.ndarray]], small: Policy[Any], large: Policy[Any]
) -> None:
    policy = OverSelected(small)
    assert policy.sampling == small.sampling
    mine, other = policy.init(), large.init()
    for i in range(3):
        mine, chosen = one_round(policy, mine, SEEN, (i,), loss=np.arange(60.0), seconds=np.arange(60.0))
        other, expected = one_round(large, other, SEEN, (i,), loss=np.arange(60.0), seconds=np.arange(60.0))
        assert (chosen == expected).all()
        assert trees.encode(mine) == trees.encode(other)
    assert chosen.any()


@pytest.mark.parametrize(("size", "factor", "asked"), [(100, 1.1, 110), (7, 1.3, 10), (100, 1.3, 130), (5, 1, 5)])
def test_the_size_is_rounded_up_and_no_further(size: int, factor: float, asked: int) -> None:
    assert OverSelected(Uniform(size), factor).size == asked


@pytest.mark.parametrize("factor", [0.99, np.nan, np.inf])
def test_a_factor_that_selects_fewer_or_all(factor: float) -> None:
    with pytest.raises(ConfigError, match="use a factor from 1"):
        OverSelected(Uniform(3), factor)


@pytest.mark.parametrize("policy", [Everyone(), Poisson(0.5), Uniform(share=0.5), OverSelected(Uniform(3))])
def test_a_policy_without_a_size(policy: Policy[Any]) -> None:
    with pytest.raises(ConfigError, match="no size"):
        OverSelected(policy)


def test_a_size_that_the_policy_refuses() -> None:
    with pytest.raises(ConfigError, match="10 candidates for a cohort of 13"):
        OverSelected(PowerOfChoice(10, 10))
