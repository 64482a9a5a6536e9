"""A run from its start to its table, for all commands that make one."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from duetto.cli import console, shown
from duetto.errors import ConfigError, DataError

if TYPE_CHECKING:
    from duetto.programs.runs import Experiment

TASKS = ("activity", "cifar", "digits", "handwriting", "ratings", "sensors", "shakespeare", "tweets")
STOPPED = "stopped; run the same command again to go on"


def _networks() -> list[str]:
    from duetto.simulation.link import NAMES

    return [name.replace("<mbps>", "10") for name in NAMES]


def _runs(ctx: typer.Context) -> list[str]:
    return known(Path(ctx.params.get("runs_dir") or "runs"))


RunsDir = Annotated[Path, typer.Option(help="Folder that holds all runs.")]
Fresh = Annotated[bool, typer.Option("--fresh", help="Forget the run of this name, and begin again.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead.")]
Network = typer.Option(
    help="Between devices and cloud: wifi, synthetic, constant-<mbps>, or measured ones such as 4g-commute.",
    autocompletion=_networks,
)
RunName = typer.Argument(metavar="RUN", help="A run's name, or its folder.", autocompletion=_runs, show_default=False)


def data_root() -> Path | None:
    """``$DUETTO_DATA``, if it is set.

    Raises:
        ConfigError: it is set, and no folder.
    """
    named = os.environ.get("DUETTO_DATA")
    if named and not Path(named).is_dir():
        raise ConfigError(f"DUETTO_DATA is {named!r}, which is no folder", "name the folder that holds the sets")
    return Path(named) if named else None


def place(runs_dir: Path, name: str) -> Path:
    """The folder of a run that is to be made.

    Raises:
        ConfigError: a name that would leave the folder of runs.
    """
    if not name or name in (".", "..") or "/" in name or "\\" in name:
        raise ConfigError(f"a run called {name!r}", "give a name without slashes; --runs-dir names the folder")
    return runs_dir / name


def known(runs_dir: Path) -> list[str]:
    """The names of the runs that are there."""
    return sorted(path.parent.name for path in runs_dir.glob("*/config.json"))


def folder(runs_dir: Path, run: str) -> Path:
    """The folder of a run that is there, by its name or its folder.

    Raises:
        DataError: neither; it tells which runs there are.
    """
    for path in (runs_dir / run, Path(run)):
        if (path / "config.json").is_file():
            return path
    there = ", ".join(known(runs_dir)) or "none yet; make one with `duetto demo`"
    raise DataError(f"no run is called {run!r}", f"in {runs_dir}/ there are {there}")


def carry_out(experiment: Experiment, into: Path, *, fresh: bool, as_json: bool, figures: bool, opened: bool) -> None:
    """Do the experiment, or what of it is left, write its page, and show what it found."""
    from duetto.evaluation import report
    from duetto.programs import runs

    if fresh:
        runs.forget(into)
    again = (into / "result.json").exists()
    began = time.monotonic()
    with console.stoppable(STOPPED), console.Progressing() as progress:
        result = runs.run(experiment, into, progress)
        page = into / "report.html"
        if not (again and page.exists()):
            progress("writing the report", 0, 1)
            report.write(into, page)
    if as_json:
        console.emit(shown.summary(into, result) | {"report": str(page), "network": experiment.network})
    else:
        shown.show(into, result, figures=figures)
        took = "done before; --fresh does it again" if again else f"{time.monotonic() - began:.0f} s"
        console.out().print(f"\nReport: {page} [dim]({took})[/]", soft_wrap=True)
    if opened:
        typer.launch(page.resolve().as_uri())
