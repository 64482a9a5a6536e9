"""Parts become plain values and come back the same; nothing is made of what is no part."""

import json
import math
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from duetto.errors import ConfigError
from duetto.parts import DEPTH, built, described


@dataclass(frozen=True)
class Inner:
    size: int = 1
    rate: float = 0.5


@dataclass(frozen=True)
class Outer:
    what: Any = None
    local: int = field(default=0, metadata={"local": True})


@dataclass(frozen=True)
class Picky:
    share: float

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ConfigError(f"a share of {self.share}", "use (0, 1]")
        {0.5: 1}[self.share]


class Loose:
    """No dataclass."""


KNOWN: dict[str, type] = {each.__name__: each for each in (Inner, Outer, Picky, Loose)}


def name(kind: type) -> str | None:
    return kind.__name__ if kind in KNOWN.values() else None


def find(called: str) -> type:
    if called not in KNOWN:
        raise ConfigError(f"no {called}")
    return KNOWN[called]


def same(one: Any, other: Any) -> bool:
    """Equal, of equal kind, NaN included."""
    return repr(one) == repr(other)


texts = st.text(st.characters(codec="utf-8")) | st.sampled_from(["inf", "-inf", "nan", "class", ""])
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3).map(tuple) | inner.map(Outer) | st.builds(Inner, st.integers()),
    max_leaves=8,
)


@given(values)
def test_a_part_comes_back_the_same_through_json(value: Any) -> None:
    text = json.dumps(described(Outer(value), name), allow_nan=False)
    assert same(built(json.loads(text), find), Outer(value))


def test_numbers_that_json_lacks_are_told_from_texts() -> None:
    for value in (math.inf, -math.inf, "inf", "-inf", "nan", (math.inf, ("inf", -math.inf))):
        assert built(described(Outer(value), name), find) == Outer(value)
    assert math.isnan(built(described(Outer(math.nan), name), find).what)


def test_what_is_local_stays() -> None:
    assert described(Outer(1, local=7), name) == {"class": "Outer", "settings": {"what": 1}}
    with pytest.raises(ConfigError, match="has no 'local'"):
        built({"class": "Outer", "settings": {"local": 7}}, find)


@pytest.mark.parametrize("value", [[1], {"a": 1}, {1}, object(), Loose(), Inner, 1j, b"x"])
def test_what_cannot_be_described_is_told(value: Any) -> None:
    with pytest.raises(ConfigError, match="a part that holds"):
        described(Outer(value), name)


def deep(depth: int) -> Any:
    about: Any = 1
    for _ in range(depth):
        about = [about]
    return about


@pytest.mark.parametrize(
    ("about", "why"),
    [
        ({"class": "Nobody", "settings": {}}, "no Nobody"),
        ({"class": ["Inner"], "settings": {}}, "no "),
        ({"class": "Loose", "settings": {}}, "no part"),
        ({"class": "Inner"}, "a class and its settings"),
        ({"class": "Inner", "settings": []}, "a class and its settings"),
        ({"class": "Inner", "settings": {}, "more": 1}, "a class and its settings"),
        ({"class": "Inner", "settings": {"weight": 1}}, "has no 'weight'"),
        ({"class": "Picky", "settings": {}}, "cannot be made"),
        ({"class": "Picky", "settings": {"share": 2}}, "a share of 2"),
        ({"class": "Picky", "settings": {"share": "much"}}, "cannot be made"),
        ({"class": "Picky", "settings": {"share": 0.25}}, "cannot be made"),
        (deep(DEPTH + 1), "parts inside parts"),
        (deep(900), "parts inside parts"),
    ],
)
def test_what_is_no_part_is_refused(about: Any, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        built(about, find)
