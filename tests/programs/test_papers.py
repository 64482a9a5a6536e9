"""What is read from docstrings, and that every algorithm's has it."""

import importlib
import pkgutil
from types import ModuleType

import pytest

from duetto import algorithms
from duetto.errors import DataError
from duetto.programs import papers
from duetto.programs.papers import Paper

ALGORITHMS = [info.name for info in pkgutil.iter_modules(algorithms.__path__) if info.name != "common"]


def module(doc: str | None) -> ModuleType:
    return ModuleType("some.method", doc)


DOC = """FedThis, FedThat: it does: this.

Ann, de Ben: FedThis: Think, Then Act, ICML
2021. More words, 1999.

Words (Eve: Another, 2020).

Eve: One More Paper, 2022, with words.

Words before.
Up: a
change. Down: all. Stays: the rest; more.
"""


def test_a_docstring_says_it_all() -> None:
    said = papers.read(module(DOC))
    assert (said.names, said.does) == (("FedThis", "FedThat"), "it does: this")
    assert said.papers == (
        Paper("Ann, de Ben", "FedThis: Think, Then Act", "ICML", 2021),
        Paper("Eve", "One More Paper", "", 2022),
    )
    assert [str(paper) for paper in said.papers] == [
        "Ann, de Ben: FedThis: Think, Then Act, ICML 2021",
        "Eve: One More Paper, 2022",
    ]
    assert (said.up, said.down, said.stays) == ("a change", "all", "the rest; more")
    assert [said.name_of(name) for name in ("fed_that", "fedthis", "other")] == ["FedThat", "FedThis", "FedThis"]


def test_what_is_not_said_is_empty() -> None:
    said = papers.read(module("Name: words.\n\nAnn: A Title, 2020. Up: a. Down: b."))
    assert (said.up, said.down, said.stays) == ("", "", "")


@pytest.mark.parametrize("doc", [None, "Name: words.", "Name: words.\n\nNo paper here, 2020."])
def test_without_a_paper_there_is_no_entry(doc: str | None) -> None:
    with pytest.raises(DataError, match=r"some\.method names no paper"):
        papers.read(module(doc))


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_algorithm_says_what_travels(name: str) -> None:
    said = papers.read(importlib.import_module(f"duetto.algorithms.{name}"))
    assert said.up
    assert said.down
    assert said.stays
