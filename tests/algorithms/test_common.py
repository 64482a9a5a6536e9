"""What algorithms have in common."""

import inspect
from typing import Any, Required, get_origin, get_type_hints

import numpy as np
import pytest

from duetto import algorithms
from duetto import tree as trees
from duetto.algorithms.common import Common, remembered, variant
from duetto.algorithms.fedavg import Average
from duetto.errors import ConfigError
from duetto.policies import Everyone, Uniform
from duetto.training import SGD, CrossEntropy

KEYWORDS = {n: p for n, p in inspect.signature(variant).parameters.items() if p.kind == p.KEYWORD_ONLY}


def test_what_all_builders_take_is_said_twice_and_the_same() -> None:
    assert get_type_hints(Common) == {name: get_type_hints(variant)[name] for name in KEYWORDS}
    needed = {n for n, hint in get_type_hints(Common, include_extras=True).items() if get_origin(hint) is Required}
    assert needed == {name for name, p in KEYWORDS.items() if p.default is p.empty}


def numbered(name: str) -> bool:
    """Whether a builder takes a network, its parameters, and numbers of its own."""
    own = inspect.signature(getattr(algorithms, name), eval_str=True).parameters
    kinds = [p.annotation for n, p in own.items() if p.kind == p.KEYWORD_ONLY and n not in KEYWORDS]
    return list(own)[:2] == ["net", "params"] and set(kinds) <= {float}


@pytest.mark.parametrize("name", [each for each in algorithms.__all__ if numbered(each)])
def test_a_builder_s_signature_spells_out_what_it_takes(name: str, problem: Any) -> None:
    build = getattr(algorithms, name)
    signature = inspect.signature(build)
    assert not [p for p in signature.parameters.values() if p.kind == p.VAR_KEYWORD]
    assert [p for p in signature.parameters if p in KEYWORDS] == list(KEYWORDS)
    own = {n: 0.5 for n, p in signature.parameters.items() if p.kind == p.KEYWORD_ONLY and n not in KEYWORDS}
    momentum = 0.0 if name == "apfl" else 0.6  # which steps on two sets of parameters at once
    how: Any = {"lr": 0.3, "epochs": 4, "batch_size": 5, "momentum": momentum, "cohort": Uniform(2)}
    assert set(how) == set(KEYWORDS)
    built = build(problem.net, problem.params, **own, **how)
    client = built.client
    assert client.loss[0] == CrossEntropy()
    assert (client.net, client.optimiser, client.epochs, client.batch_size) == (problem.net, SGD(0.3, momentum), 4, 5)
    assert built.cohort == Uniform(2)
    assert built.params is problem.params
    with pytest.raises(TypeError):
        build(problem.net, problem.params, **own, **how, colour="green")


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
