"""What algorithms have in common."""

import inspect
from collections.abc import Callable
from typing import Any, Required, get_origin, get_type_hints

import numpy as np
import pytest

from duetto import algorithms
from duetto import tree as trees
from duetto.algorithms.common import Common, remembered, variant
from duetto.algorithms.fedavg import Average
from duetto.errors import ConfigError
from duetto.models import Mlp
from duetto.models.principal import principal
from duetto.policies import Everyone, Uniform
from duetto.training import SGD, CrossEntropy
from duetto.types import Rows

KEYWORDS = {n: p for n, p in inspect.signature(variant).parameters.items() if p.kind == p.KEYWORD_ONLY}

PUBLIC = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
OTHER = Mlp((3,), 2, (4,))
OWN: dict[str, Any] = {"levels": (1.0, 0.5), "rank": 2, "control": OTHER, "hidden": 3, "size": 4, "hessian": "fo"}
OWN |= dict.fromkeys(("bridge", "digest", "every", "first", "noise", "passes"), 1) | dict.fromkeys(
    ("svd", "published"), True
)
OWN |= {"cut": 2, "shown": 2, "shares": False}
FIRST: dict[str, Callable[[Any], tuple[Any, ...]]] = {
    "dc_ccl": lambda problem: (problem.net, problem.params, (OTHER, OTHER.init(0)), PUBLIC),
    "dccl": lambda problem: (problem.net, problem.params, Rows(PUBLIC, np.arange(4) % 2)),
    "dsfl": lambda problem: ((problem.net, OTHER), 4),
    "fedagg": lambda problem: ((OTHER, OTHER, problem.net), (("ann",),), principal(PUBLIC, 2)),
    "feddf": lambda problem: ((problem.net, OTHER), PUBLIC),
    "fedgkt": lambda problem: (OTHER, OTHER.init(0), Mlp((4,), 2, ())),
    "fedmd": lambda problem: ((problem.net, OTHER), 4),
    "slow_fast": lambda problem: (
        problem.net,
        problem.params,
        (OTHER, OTHER.init(0)),
        Rows(PUBLIC, np.arange(4) % 2),
    ),
}


def test_what_all_builders_take_is_said_twice_and_the_same() -> None:
    assert get_type_hints(Common) == {name: get_type_hints(variant)[name] for name in KEYWORDS}
    needed = {n for n, hint in get_type_hints(Common, include_extras=True).items() if get_origin(hint) is Required}
    assert needed == {name for name, p in KEYWORDS.items() if p.default is p.empty}


@pytest.mark.parametrize("name", algorithms.__all__)
def test_a_builder_s_signature_spells_out_what_it_takes(name: str, problem: Any) -> None:
    build = getattr(algorithms, name)
    signature = inspect.signature(build)
    assert not [p for p in signature.parameters.values() if p.kind == p.VAR_KEYWORD]
    assert [p for p in signature.parameters if p in KEYWORDS] == list(KEYWORDS)
    own = {n: 0.5 for n, p in signature.parameters.items() if p.kind == p.KEYWORD_ONLY and n not in KEYWORDS}
    own |= {n: value for n, value in OWN.items() if n in own}
    momentum = 0.0 if name in {"apfl", "per_fedavg"} else 0.6  # these step on two sets of parameters at once
    how: Any = {"lr": 0.3, "epochs": 4, "batch_size": 5, "momentum": momentum, "cohort": Uniform(2)}
    assert set(how) == set(KEYWORDS)
    given = FIRST.get(name, lambda problem: (problem.net, problem.params))(problem)
    built = build(*given, **own, **how)
    client = built.client
    assert client.loss[0] == CrossEntropy()
    assert (client.optimiser, client.epochs, client.batch_size) == (SGD(0.3, momentum), 4, 5)
    assert built.cohort == Uniform(2)
    if name not in {
        "duet",
        "dsfl",
        "fedadg",
        "fedagg",
        "feddf",
        "fedgkt",
        "fedmd",
    }:  # these learn more than one network, or none that is shared
        assert client.net == problem.net
        assert built.params is problem.params
    with pytest.raises(TypeError):
        build(*given, **own, **how, colour="green")


def test_everyone_takes_part_unless_told_otherwise(problem: Any) -> None:
    assert variant(problem.net, problem.params, Average(), lr=0.1, epochs=1).cohort == Everyone()


def test_a_client_remembers_nothing_at_first(problem: Any) -> None:
    first = remembered({"params": 1}, "control", problem.params)
    assert trees.spec(first) == trees.spec(problem.params)
    assert trees.norm(first) == 0
    assert remembered({"control": problem.params}, "control", first) is problem.params


def test_what_is_remembered_of_another_network_is_refused(problem: Any) -> None:
    other = trees.map(lambda leaf: np.concatenate([leaf, leaf]), problem.params)
    with pytest.raises(ConfigError, match=r"^what a client remembers as 'control' is of another network: "):
        remembered({"control": other}, "control", problem.params)
