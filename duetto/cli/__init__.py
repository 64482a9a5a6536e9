"""The command line: one file a command.

Files: demo · simulate · bench · adopt · route · plan · leak · elastic · compress · profile · cloud · device · crowd ·
flower · report · data · info (the commands) · flags (options from a dataclass) · executors (an executor by its name) ·
model (a model by its name) · real (programs on real machines) · running (a run, from its start to its table) · shown
(a result in the terminal) · console (progress, JSON, errors).

What needs torch is imported when a command runs, so that help, completion and ``duetto info`` are quick and work on a
device without it.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import click
import typer

from duetto import __version__
from duetto.cli import (
    adopt,
    bench,
    cloud,
    compress,
    console,
    crowd,
    data,
    demo,
    device,
    elastic,
    flower,
    info,
    leak,
    plan,
    profile,
    report,
    route,
    simulate,
)

__all__ = ["app", "main"]

_GLOBAL = {"--debug": 0, "--threads": 1}  # flags that may stand anywhere, and how many values each takes


class _Root(console.Commands):
    """The command ``duetto``."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order in which a newcomer needs them."""
        return [
            "demo",
            "simulate",
            "bench",
            "adopt",
            "route",
            "plan",
            "leak",
            "elastic",
            "compress",
            "profile",
            "cloud",
            "device",
            "crowd",
            "flower",
            "report",
            "data",
            "info",
        ]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Global flags may stand behind the command, too."""
        return super().parse_args(ctx, _front(args))


def _front(args: Sequence[str]) -> list[str]:
    front, rest, words = [], [], iter(args)
    for word in words:
        if word == "--":
            rest += [word, *words]
        elif word.partition("=")[0] in _GLOBAL:
            front.append(word)
            front += [value for _, value in zip(range(_GLOBAL[word] if "=" not in word else 0), words, strict=False)]
        else:
            rest.append(word)
    return [*front, *rest]


def _version(asked: bool) -> None:
    if asked:
        print(f"duetto {__version__}")
        raise typer.Exit


app = typer.Typer(
    cls=_Root,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    epilog=console.examples(
        ("duetto demo", "a small and a large model answer and learn together, in a minute or two"),
        ("duetto simulate closed-loop --task handwriting", "the same on real people's handwriting"),
        ("duetto report demo --open", "a run as a page with figures"),
        ("duetto info", "what is installed and found here"),
    ),
)


@app.callback(invoke_without_command=True)
def root(
    ctx: typer.Context,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of a computation. [dim]\\[default: $OMP_NUM_THREADS, or 1][/]")
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show the trace of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """A small model on the device and a large model in the cloud, answering and learning together."""
    # Before torch is loaded, which reads this once. Duetto's operations are many and small: a second thread gains
    # little, and two OpenMP threads that wait for each other beside other load were measured 20 times slower.
    os.environ["OMP_NUM_THREADS"] = str(threads or os.environ.get("OMP_NUM_THREADS") or 1)
    if threads and (torch := sys.modules.get("torch")):
        torch.set_num_threads(threads)
    console.help_alone(ctx)


app.command(epilog=demo.EXAMPLES)(demo.demo)
app.add_typer(simulate.app, name="simulate")
app.add_typer(bench.app, name="bench")
app.command(epilog=adopt.EXAMPLES)(adopt.adopt)
app.add_typer(route.app, name="route")
app.command(epilog=plan.EXAMPLES)(plan.plan)
app.command(epilog=leak.EXAMPLES)(leak.leak)
app.command(epilog=elastic.EXAMPLES)(elastic.elastic)
app.command(epilog=compress.EXAMPLES)(compress.compress)
app.command(epilog=profile.EXAMPLES)(profile.profile)
app.add_typer(cloud.app, name="cloud")
app.add_typer(device.app, name="device")
app.command(epilog=crowd.EXAMPLES)(crowd.crowd)
app.add_typer(flower.app, name="flower")
app.command(epilog=report.EXAMPLES)(report.report)
app.add_typer(data.app, name="data")
app.command(epilog=info.EXAMPLES)(info.info)


def main(args: Sequence[str] | None = None) -> int:
    """Run a command line; the exit code.

    0 done, 1 a bug, 2 something that the user can mend, 130 stopped by ctrl-C.
    """
    words = list(sys.argv[1:] if args is None else args)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that lacks a character still gets the rest
    try:
        code: Any = typer.main.get_command(app).main(words, prog_name="duetto", standalone_mode=False)
    except (KeyboardInterrupt, click.Abort):
        console.line("stopped")
        return 130
    except Exception as error:
        return console.failed(error, debug="--debug" in words)
    return code if isinstance(code, int) else 0
