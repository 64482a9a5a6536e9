"""What the docstring of a method's module says: what it does, in which paper, what travels and what stays.

The docstring is the only source. Its first line is ``Name: what it does.`` A paragraph that begins
``Authors: Title, Venue 2020`` names a paper, the venue where it has one. A line that begins ``Up: ... Down: ... Stays:
...`` says what leaves a device, what reaches it, and what does not leave it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from types import ModuleType

from duetto.errors import DataError

_PAPER = re.compile(r"(?P<authors>[^:;(]+): (?P<title>.+?), (?P<venue>[A-Z][^,.:;]* )?(?P<year>(?:19|20)\d\d)\b")
_TRAVELS = re.compile(r"Up: (?P<up>.+?)\. Down: (?P<down>.+?)\. Stays: (?P<stays>.+)\.")


@dataclass(frozen=True)
class Paper:
    """Who wrote it, what it is called, where it appeared (empty: a preprint, a report), and when."""

    authors: str
    title: str
    venue: str
    year: int

    def __str__(self) -> str:
        return f"{self.authors}: {self.title}, {f'{self.venue} {self.year}'.strip()}"


@dataclass(frozen=True)
class Said:
    """What a docstring says.

    Attributes:
        names: of the method, or of several.
        does: what it does, in a sentence.
        papers: the paragraphs' papers, at least one.
        up, down, stays: what leaves a device, what reaches it, what stays; empty where nothing is said.
    """

    names: tuple[str, ...]
    does: str
    papers: tuple[Paper, ...]
    up: str = ""
    down: str = ""
    stays: str = ""

    def name_of(self, builder: str) -> str:
        """The method's name, where one module has several builders that are called alike; else the first."""
        return next((name for name in self.names if _letters(name) == _letters(builder)), self.names[0])


def read(module: ModuleType) -> Said:
    """What a module's docstring says.

    Raises:
        DataError: it names no paper.
    """
    text = module.__doc__ or ""
    first, *paragraphs = [" ".join(part.split()) for part in text.split("\n\n")]
    found = [match for part in paragraphs if (match := _PAPER.match(part))]
    if not found:
        raise DataError(f"{module.__name__} names no paper", "begin a paragraph with 'Authors: Title, Venue 2020'")
    papers = tuple(
        Paper(each["authors"], each["title"], (each["venue"] or "").strip(), int(each["year"])) for each in found
    )
    names, _, does = first.partition(": ")
    lines = text[text.find("\nUp: ") :].strip().split("\n\n")[0] if "\nUp: " in text else ""
    travels = _TRAVELS.fullmatch(" ".join(lines.split()))
    return Said(tuple(names.split(", ")), does.rstrip("."), papers, **(travels.groupdict() if travels else {}))


def _letters(name: str) -> str:
    return re.sub(r"[^a-z]", "", name.lower())
