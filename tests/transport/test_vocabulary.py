"""Skills by name: what one side writes the other reads, and nothing else that a text names is made or imported."""

import json
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from duetto.codecs import Quantise, TopK, Zstd
from duetto.errors import ConfigError, WireError
from duetto.protocols import Coded
from duetto.protocols.probe import Echo
from duetto.protocols.stages import Advance, Finish
from duetto.transport import vocabulary
from duetto.transport.vocabulary import KEY_BYTES, classes, key_of, key_text, read, written
from duetto.tree import Tree
from duetto.types import Chain, Key, Local, Skill


@dataclass(frozen=True)
class Own(Skill):
    """A user's."""

    slot: str = "a"
    rate: Any = 1.0

    def __call__(self, local: Local, tree: Tree, key: Key, sender: str) -> tuple[Local, Tree]:
        return local, tree


SKILLS = [
    Echo(),
    Finish("large"),
    Advance(0, 2),
    Coded(Echo(), there=Chain((Quantise(8), Zstd(1))), back=TopK(0.1)),
    Coded(Coded(Finish("x"), Chain()), Zstd(3)),
    Own(),
    Own("inf", (1, float("inf"))),
]


@pytest.mark.parametrize("skill", SKILLS, ids=repr)
def test_a_skill_is_read_as_it_was_written(skill: Skill) -> None:
    number, text = written(skill)
    assert number == vocabulary.number(text)
    assert read(text, classes((Own,))) == skill
    assert written(read(text, classes((Own,)))) == (number, text)


def test_who_does_not_list_a_class_does_not_know_it() -> None:
    with pytest.raises(ConfigError, match="nothing here is called 'Own'"):
        read(written(Own())[1], {})


def test_a_skill_that_cannot_be_hashed_is_told() -> None:
    for rate in ([1], {"a": 1}, np.ones(2)):
        with pytest.raises(ConfigError, match="Own cannot be written"):
            written(Own(rate=rate))
    with pytest.raises(ConfigError, match="a part that holds"):
        written(Own(rate=frozenset({1})))


@pytest.mark.parametrize(
    "name",
    [
        "os:system",
        "types:Skill",  # no dataclass
        "types:np",
        "types:dataclass",
        "errors:ConfigError",
        "tree:Shaped",
        "transport.session:Session",
        "transport.kept:Kept",
        "cloud.service:Left",
        "cli:main",
        "codecs..quantise:Quantise",
        ".codecs:Quantise",
        "codecs.:Quantise",
        "codecs:Quantise",  # it lives in codecs.quantise
        "codecs.quantise:Quantise.bits",
        "codecs.quantise:_Hidden",
        "codecs.quantise:Chain",  # another module's
        "codecs.quantise:__builtins__",
        "codecs.quantise",
        "codecs.nowhere:Part",
        "codecs." + "a" * 300 + ":Part",
        "codecs.\0:Part",
        "models.../../etc:Part",
        "codecs.é:Part",
        ":",
        "",
    ],
)
def test_no_other_name_is_made_or_imported(name: str) -> None:
    with pytest.raises(ConfigError):
        read(json.dumps({"class": name, "settings": {}}), {})


NO_SKILLS = ["", "{", "1", "null", "[]", '"text"', "[" * 100_000, '{"class":' * 50_000, '"\\ud800"', "1" * 5000]


@pytest.mark.parametrize("text", NO_SKILLS, ids=lambda text: text[:9])
def test_what_describes_no_skill_is_refused(text: str) -> None:
    with pytest.raises((WireError, ConfigError)) as told:
        read(text, {})
    assert len(str(told.value)) < 300


def test_a_part_that_is_no_skill_is_refused() -> None:
    with pytest.raises(WireError, match="a Zstd where a skill should be"):
        read(json.dumps({"class": "codecs.entropy:Zstd", "settings": {"level": 1}}), {})


words = st.text(st.characters(codec="utf-8"), max_size=20)


@given(st.lists(st.integers() | words, max_size=8).map(tuple))
def test_a_key_comes_back_the_same(key: Key) -> None:
    again = key_of(key_text(key))
    assert again == key
    assert list(map(type, again)) == list(map(type, key))


NO_KEYS: list[Any] = [np.int64(1), np.str_("a"), True, 1.0, None, b"a", (1,), "\ud800", 10**5000, "x" * KEY_BYTES]


@pytest.mark.parametrize("part", NO_KEYS, ids=lambda part: type(part).__name__)
def test_a_key_that_would_not_come_back_the_same_is_not_written(part: Any) -> None:
    with pytest.raises(ConfigError, match="a key"):
        key_text((0, part))


NO_KEY_TEXTS = ["", "[", "1", "{}", "[1.0]", "[true]", "[null]", "[[1]]", "[" * 100_000, '["\\ud800"]']
NO_KEY_TEXTS += [f"[{'9' * 5000}]", json.dumps(["x" * KEY_BYTES])]


@pytest.mark.parametrize("text", NO_KEY_TEXTS, ids=lambda text: text[:9])
def test_what_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(WireError, match="a key"):
        key_of(text)


def test_a_device_without_torch_reads_skills_that_need_none() -> None:
    number, text = written(Coded(Finish("large"), Chain((Quantise(8), Zstd(1)))))
    code = f"""
import sys
sys.modules["torch"] = None
from duetto.transport.vocabulary import number, read
assert read({text!r}, {{}}).name == "Finish"
assert number({text!r}) == {number}
try:
    read('{{"class":"training.client:Client","settings":{{}}}}', {{}})
except Exception as fault:
    assert type(fault).__name__ == "ConfigError" and "duetto[train]" in str(fault), fault
else:
    raise AssertionError
"""
    subprocess.run([sys.executable, "-c", code], check=True)
