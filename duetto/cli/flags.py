"""Options of a command from the fields of a dataclass: a new field is a new flag, and its docstring the help."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, fields
from typing import Annotated, Any, get_type_hints

import typer


def of(kind: type, but: Sequence[str] = ()) -> list[inspect.Parameter]:
    """A keyword parameter for each field; ``but`` names those that are left out."""
    hints, said = get_type_hints(kind), helps(kind)
    found = []
    for field in fields(kind):
        if field.name in but:
            continue
        if field.default is MISSING:
            raise TypeError(f"{kind.__name__}.{field.name} has no plain default, so it cannot be a flag")
        how = typer.Option(help=said.get(field.name, ""), rich_help_panel=f"{_words(kind.__name__)} of the program")
        found.append(option(field.name, Annotated[hints[field.name], how], field.default))
    return found


def helps(kind: type) -> Mapping[str, str]:
    """What the docstring says of each of the ``Attributes:``, as sentences; a base's stands where it says nothing."""
    section = ((kind.__doc__ and inspect.getdoc(kind)) or "").partition("Attributes:\n")[2].partition("\n\n")[0]
    said: dict[str, str] = dict(helps(kind.__base__)) if kind.__base__ not in (None, object) else {}
    for entry in re.split(r"\n(?=    \w)", f"\n{inspect.cleandoc(section)}".replace("\n", "\n    ")):
        names, colon, text = " ".join(entry.split()).partition(": ")
        if colon:
            said |= {name.strip(): text[:1].upper() + text[1:] for name in names.split(",")}
    return said


def taking(run: Callable[..., None], more: Sequence[inspect.Parameter]) -> Callable[..., None]:
    """``run``, whose keywords beyond its own named ones are ``more``."""
    own = [p for p in inspect.signature(run, eval_str=True).parameters.values() if p.kind != p.VAR_KEYWORD]

    def command(**given: Any) -> None:
        run(**given)

    both = [*own, *more]
    command.__doc__ = run.__doc__
    command.__signature__ = inspect.Signature(both)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in both}
    return command


def option(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    """A keyword parameter, for :func:`taking`."""
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _words(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", " ", name).capitalize()
