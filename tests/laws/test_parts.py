"""What every part is: a frozen dataclass of hyper-parameters, one step below its contract."""

import dataclasses
import importlib
import math
from typing import Any, get_origin

import pytest

from duetto.policies import Boosted, Jumps, Logistic, Neighbours, Network, Tier
from duetto.types import Aggregator, Codec, Policy

BELOW = (Boosted, Jumps, Logistic, Neighbours, Network, Tier)  # what parts are made of


def test_every_part_has_an_example(without_example: list[str]) -> None:
    assert without_example == [], "add an example to EXAMPLES in tests/laws/conftest.py"


def test_the_walk_finds_all_three_kinds(classes: dict[type, str]) -> None:
    assert {"Quantise", "Mean", "Threshold", "Chain"} <= {cls.__name__ for cls in classes}
    assert set(classes.values()) == {"codec", "aggregator", "policy"}


def test_a_part_is_frozen_and_hashable(part: Any) -> None:
    assert dataclasses.is_dataclass(part)
    name = next((field.name for field in dataclasses.fields(part)), "anything")
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(part, name, None)
    copy = dataclasses.replace(part)
    assert copy is not part
    assert (copy, hash(copy)) == (part, hash(part))


def test_the_repr_of_a_part_builds_it_again(part: Any, classes: dict[type, str]) -> None:
    names = {cls.__name__: cls for cls in (*classes, *BELOW)} | {"inf": math.inf}
    assert eval(repr(part), names) == part


def test_a_part_stands_directly_below_its_contract(part: Any) -> None:
    contract = type(part).__bases__[0]
    assert contract in (Codec, Aggregator, Policy)
    assert type(part).__bases__ == (contract,)
    assert all(get_origin(base) is contract for base in type(part).__orig_bases__), "name the type of its state"


@pytest.mark.parametrize("room", ["aggregation", "codecs", "policies"])
def test_public_names_are_sorted_and_there(room: str) -> None:
    module = importlib.import_module(f"duetto.{room}")
    assert module.__all__ == sorted(set(module.__all__))
    assert all(hasattr(module, name) for name in module.__all__)


def test_every_part_of_the_three_rooms_is_public(classes: dict[type, str]) -> None:
    for cls in classes:
        room = ".".join(cls.__module__.split(".")[:2])
        if room in ("duetto.aggregation", "duetto.codecs", "duetto.policies"):
            assert cls.__name__ in importlib.import_module(room).__all__
