"""``duetto simulate PROGRAM``: any program on a simulated fleet; its settings are the flags."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import click
import typer

from duetto.cli import console, flags, running
from duetto.errors import ConfigError


@dataclass(frozen=True)
class Program:
    """A program: where its ``Settings`` are, and what it is."""

    module: str
    what: str


PROGRAMS: Mapping[str, Program] = {
    "closed-loop": Program(
        "duetto.programs.closed_loop",
        "Answer together, learn from the cloud's answers by night, recalibrate; scored before and after.",
    ),
}
SEEDS = "0,1,2"


class Programs(console.Commands):
    """The commands below ``simulate``, each made from its program's settings when it is needed."""

    kind = "program"

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All programs."""
        return list(PROGRAMS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """The command of a program."""
        return command(name) if name in PROGRAMS else None


app = typer.Typer(
    cls=Programs,
    rich_markup_mode="rich",
    epilog=console.examples(
        ("duetto simulate closed-loop --task handwriting", "three seeds, over measured 4G links where there are any"),
        ("duetto simulate closed-loop --help", "all settings"),
    ),
)


@app.callback(invoke_without_command=True)
def simulate(ctx: typer.Context) -> None:
    """Run a program on a simulated fleet, over real or invented networks.

    A run that is stopped (ctrl-C) goes on where it was when the same command is given again.
    """
    console.help_alone(ctx)


def command(name: str) -> click.Command:
    """The command of a program, with a flag for each of its settings."""
    settings = import_module(PROGRAMS[name].module).Settings

    def run(
        task: Annotated[
            str, typer.Option(help=f"One of {', '.join(running.TASKS)}.", autocompletion=lambda: list(running.TASKS))
        ] = "digits",
        seeds: Annotated[str, typer.Option(help="Each draws its own users, models and links.")] = SEEDS,
        network: Annotated[str | None, running.Network] = None,
        name: Annotated[str | None, typer.Option(help="Of the run. [dim]\\[default: PROGRAM-TASK][/]")] = None,
        runs_dir: running.RunsDir = Path("runs"),
        opened: Annotated[bool, typer.Option("--open/--no-open", help="Show the report in a browser.")] = False,
        fresh: running.Fresh = False,
        as_json: running.Json = False,
        **chosen: Any,
    ) -> None:
        from duetto.programs.runs import Experiment

        over, why = (network, "") if network else _network()
        into = running.place(runs_dir, f"{program}-{task}" if name is None else name)
        experiment = Experiment(task, parse(seeds), over, settings(**chosen))
        if not as_json:
            numbers = f"seed{'s' * (len(experiment.seeds) > 1)} {', '.join(map(str, experiment.seeds))}"
            console.line(f"{program} on {task}, {numbers}, network {over}{why}: {into}", "dim")
        running.carry_out(experiment, into, fresh=fresh, as_json=as_json, figures=True, opened=opened)

    program, run.__doc__ = name, PROGRAMS[name].what
    single = typer.Typer(add_completion=False, rich_markup_mode="rich")
    single.command(
        name,
        epilog=console.examples(
            (f"duetto simulate {name} --task handwriting", "the task's figures, over three seeds"),
            (f"duetto simulate {name} --seeds 0 --rounds 40 --name quick", "one short run under a name of its own"),
            (f"duetto simulate {name} --network constant-2 --name slow", "then `duetto report quick slow`"),
        ),
    )(flags.taking(run, flags.of(settings, but=("seed",))))
    return typer.main.get_command(single)


def parse(text: str) -> tuple[int, ...]:
    """``"0,1,2"`` as numbers.

    Raises:
        ConfigError: something else.
    """
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() and word.isascii() for word in words):
        raise ConfigError(f"the seeds {text!r}", "give whole numbers from 0 with commas between them, such as 0,1,2")
    return tuple(int(word) for word in words)


def _network() -> tuple[str, str]:
    """The network where none is named, and why it is this one."""
    root = running.data_root()
    if root and (root / "traces" / "index.csv").is_file():
        return "4g-commute", f" (measured, from {root / 'traces'})"
    return "synthetic", " (invented: DUETTO_DATA holds no traces)" if root else " (invented: DUETTO_DATA is not set)"
