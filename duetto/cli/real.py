"""What the commands that run on real machines share: programs, their settings, records on their way to a file."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from duetto.errors import ConfigError
from duetto.types import Record

if TYPE_CHECKING:
    from duetto.programs.deployed import Deployed

_PANEL = "A program, instead of a model"
Insecure = Annotated[
    bool, typer.Option("--insecure", help="Speak plain text, without certificates: for one machine only.")
]
Program = Annotated[str | None, typer.Option(help="Run a program's role, such as closed-loop.", rich_help_panel=_PANEL)]
Task = Annotated[str, typer.Option(help="The program's task.", rich_help_panel=_PANEL)]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="A setting of the program, as NAME=VALUE; may be repeated.", rich_help_panel=_PANEL),
]
Users = Annotated[int, typer.Option(min=0, help="How many devices take part; 0 is all.", rich_help_panel=_PANEL)]
Rehearse = Annotated[
    bool,
    typer.Option(
        "--rehearse",
        help="On virtual time, which jumps while nobody has anything to do; all parties must say so.",
        rich_help_panel=_PANEL,
    ),
]
Records = Annotated[Path | None, typer.Option(help="Append records to this file, as JSON lines.")]


def program(name: str, task: str, settings: list[str] | None, users: int) -> Deployed:
    """The program of that name.

    Raises:
        ConfigError: no such program, task or setting.
    """
    from duetto.programs.deployed import deployed

    pairs = [text.partition("=") for text in settings or []]
    if wrong := [text for text, (_, sign, _) in zip(settings or [], pairs, strict=True) if not sign]:
        raise ConfigError(f"the setting {wrong[0]!r}", "write it as NAME=VALUE")
    return deployed(name, task, {word: value for word, _, value in pairs}, users)


@contextmanager
def written(path: Path | None) -> Iterator[Callable[[Record], None]]:
    """What appends a record to the file, if one is named; each is there before the next one.

    A role that was killed and is resumed logs some records again: a record that an earlier process has written, by its
    party, user, protocol and step, is left out. Of one that was cut short nothing stays.
    """
    if path is None:
        yield lambda record: None
        return
    from duetto.evaluation import records

    records.append(path, ())
    there = Counter(_named(record) for record in records.read(path))
    with path.open("a", encoding="utf-8") as file:

        def write(record: Record) -> None:
            if there[_named(record)]:
                there[_named(record)] -= 1
                return
            file.write(records.line(record) + "\n")
            file.flush()

        yield write


def _named(record: Record) -> tuple[str, str, str, int]:
    return record.party, record.user, record.protocol, record.step


def quiet() -> None:
    """One thread a process, before torch is loaded: what runs here shares its machine with an application."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def serving() -> None:
    """What a process that serves many wants: the memory of a batch is kept for the next one, where the C library lets
    us say so (measured: a third of the time of a batch of convolutions), and threads take turns soon."""
    sys.setswitchinterval(5e-4)
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL("libc.so.6")
        library.mallopt(-1, 256 << 20)  # M_TRIM_THRESHOLD
        library.mallopt(-2, 64 << 20)  # M_TOP_PAD


def loaded() -> None:
    """What a process that serves has loaded stays: the garbage collector goes through it no more, which would stop
    everybody for tenths of a second (measured: 200 ms of every second with torch and 18,000 questions a second)."""
    gc.collect()
    gc.freeze()


def me() -> str:
    """Who uses this command line, as the system says."""
    import getpass

    try:
        return f"{getpass.getuser()} (command line)"
    except (OSError, KeyError):
        return "somebody (command line)"
