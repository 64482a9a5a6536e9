"""What the command line says besides its results: progress, JSON, and errors of one line."""

from __future__ import annotations

import json
import logging
import math
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

import click
import typer
from typer.core import TyperGroup

from duetto.errors import ConfigError, Error

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

EVERY = 10.0  # seconds between two lines of progress where there is no terminal
WORTH = 1.0  # seconds that a stage must have taken to be mentioned once it is over
_EXTRAS = {
    "torch": "train",
    "sklearn": "train",
    "scipy": "train",
    "httpx": "data",
    "tensorboard": "report",
    "skimage": "leak",
}


def out() -> Console:
    """Where results go."""
    from rich.console import Console

    return Console(highlight=False)


def err() -> Console:
    """Where everything else goes."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def examples(*lines: tuple[str, str]) -> str:
    """The examples under a command's help: (what one types, what it does)."""
    drawn = [part for typed, does in lines for part in (f"[dim]# {does}[/]", f"[cyan]{typed}[/]")]
    return "\n\n".join(["[bold]Examples[/]", *drawn])


class Commands(TyperGroup):
    """A command that only holds others: alone it shows its help, and an unknown one is told by name."""

    kind = "command"

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that the first word names."""
        known = self.list_commands(ctx)
        if args and args[0] not in known and not args[0].startswith("-") and not ctx.resilient_parsing:
            raise choose(self.kind, args[0], known)
        return super().resolve_command(ctx, args)


def help_alone(ctx: typer.Context) -> None:
    """Show the help of a command of commands that is called without one."""
    if ctx.invoked_subcommand is None and (text := ctx.get_help()):  # typer prints it itself where it can
        print(text)


# ------------------------------------------------------------------------------------------------------------ JSON


def emit(value: Any) -> None:
    """Print one JSON document; numbers that are not finite become null."""
    print(json.dumps(plain(value), indent=1, allow_nan=False))


def plain(value: Any) -> Any:
    """The value as JSON knows it."""
    if isinstance(value, Mapping):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


# ---------------------------------------------------------------------------------------------------------- errors


def line(text: str, style: str = "") -> None:
    """One line on stderr, never wrapped."""
    from rich.text import Text

    err().print(Text(" ".join(text.split()), style), soft_wrap=True)


def failed(error: Exception, debug: bool) -> int:
    """Say what went wrong, in one line; the exit code."""
    from rich.text import Text

    mended = _mendable(error)
    if debug:
        traceback.print_exception(error)
    if mended is None:
        what, remedy = f"{type(error).__name__}: {error}", "this is a bug; run again with --debug"
    else:
        what, remedy = mended.fault, mended.remedy
    words = " ".join(f"{what}: {remedy}".split()) if remedy else " ".join(what.split())
    err().print(Text.assemble(("error: ", "bold red"), words), soft_wrap=True)
    return 1 if mended is None else 2


def _mendable(error: Exception) -> Error | None:
    """The error as one that the user can mend, if it is."""
    if isinstance(error, Error):
        return error
    if isinstance(error, click.ClickException):
        path = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "duetto"
        return ConfigError(error.format_message().rstrip(".?"), f"see {path} --help")
    if isinstance(error, ModuleNotFoundError) and (extra := _EXTRAS.get((error.name or "").partition(".")[0])):
        return ConfigError(f"this needs {error.name}, which is not installed", f"pip install 'duetto[{extra}]'")
    if isinstance(error, OSError) and error.filename is not None:
        return Error(f"{error.filename}: {error.strerror}", "mend this, or name another place")
    return None


@contextmanager
def stoppable(words: str) -> Iterator[None]:
    """Ctrl-C ends what is done here with these words."""
    try:
        yield
    except KeyboardInterrupt:
        # An event loop that was left in the middle would tell of each task that it did not end.
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)
        line(words, "yellow")
        raise typer.Exit(130) from None


# -------------------------------------------------------------------------------------------------------- progress


class Progressing:
    """Progress on stderr: a bar in a terminal, else a line now and then; called with what, how much, of how much.

    What comes in sequence with the same total is one stage (the scoring of one system after another); a total of 1 or
    None is a stage whose length nobody knows.
    """

    def __init__(self, unit: str = "") -> None:
        self._console = err()
        self._unit = unit
        self._live: Progress | None = None
        self._task: TaskID | None = None
        self._what, self._done, self._of = "", 0.0, -1.0
        self._began = self._told = time.monotonic()

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            from rich import progress

            amount = progress.DownloadColumn() if self._unit == "bytes" else progress.TaskProgressColumn()
            self._live = progress.Progress(
                progress.SpinnerColumn(),
                progress.TextColumn("{task.description}"),
                progress.BarColumn(24),
                amount,
                progress.TimeElapsedColumn(),
                console=self._console,
                transient=True,
                refresh_per_second=5,
            )
            self._live.start()
        return self

    def __exit__(self, fault: type[BaseException] | None, *rest: object) -> None:
        if fault is None:
            self._over()
        if self._live:
            self._live.stop()

    def __call__(self, what: str, done: float, of: float | None) -> None:
        """Tell what is being done."""
        total = float(of or 1)
        now = time.monotonic()
        follows = total == self._of and done >= self._done and (total > 1 or what == self._what)
        if not follows:
            self._over()
            self._began = self._told = now
            if self._live:
                self._task = self._live.add_task(what, total=total if total > 1 else None)
            elif self._what.rpartition(" ")[0] != what.rpartition(" ")[0] or total > 1:
                self._console.print(what, soft_wrap=True, markup=False)
        elif self._live and self._task is not None and (now - self._told > 0.1 or done >= total):
            self._live.update(self._task, description=what, completed=done)
            self._told = now
        elif not self._live and now - self._told > EVERY:
            share = f" {done / total:.0%}" if total > 1 else ""
            self._console.print(f"{what}{share}, {now - self._began:.0f} s", soft_wrap=True, markup=False)
            self._told = now
        self._what, self._done, self._of = what, done, total

    def _over(self) -> None:
        """The stage has ended."""
        if self._live and self._task is not None:
            self._live.remove_task(self._task)
            self._task = None
            if (took := time.monotonic() - self._began) >= WORTH:
                self._live.console.print(f"[green]✓[/] {self._what} [dim]{took:.0f} s[/]")


def choose(what: str, name: str, known: Sequence[str]) -> Error:
    """The error of an unknown name."""
    return ConfigError(f"no {what} is called {name!r}", f"choose one of {', '.join(known)}")
