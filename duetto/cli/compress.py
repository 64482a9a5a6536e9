"""``duetto compress``: a task's model made small in many ways, with bytes, latency and accuracy by user."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from duetto.cli import console, running
from duetto.errors import ConfigError

if TYPE_CHECKING:
    from rich.table import Table

    from duetto.programs.compress import Found, Line

EXAMPLES = console.examples(
    ("duetto compress small --task handwriting", "all ways, a table, and the file that is chosen"),
    ("duetto compress digits.large --max-bytes 10 --max-latency 30", "other limits; what was made is not made again"),
    ("duetto compress small --task digits --way pruned --way 'static int8'", "only these, beside the original"),
)
STOPPED = "stopped; run the same command again to go on"


def compress(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="small or large, or TASK.small, TASK.large.",
            autocompletion=lambda: ["small", "large"],
        ),
    ],
    task: Annotated[
        str | None, typer.Option(help="Whose model.", autocompletion=lambda: list(running.TASKS), show_default=False)
    ] = None,
    max_loss: Annotated[float, typer.Option(help="Points of accuracy that may be lost, mean of users.")] = 0.5,
    max_worst_loss: Annotated[float, typer.Option(help="Points that the worst 10 % of users may lose.")] = 1.0,
    max_bytes: Annotated[float, typer.Option(help="Bytes of the file, percent of the original's.")] = 25.0,
    max_latency: Annotated[float, typer.Option(help="Latency, percent of the original's.")] = 50.0,
    way: Annotated[
        list[str] | None, typer.Option(help="A way to try; may be repeated. [dim]\\[default: all][/]")
    ] = None,
    passes: Annotated[
        int, typer.Option(help="Passes over the cloud's rows for what begins anew; 0 is as the task's own recipe.")
    ] = 0,
    rounds: Annotated[int, typer.Option(help="Rounds of the latencies.")] = 41,
    seed: Annotated[int, typer.Option(help="Of the task and of all that is drawn.")] = 0,
    name: Annotated[str | None, typer.Option(help="Of the run. [dim]\\[default: compress-TASK-MODEL-SEED][/]")] = None,
    runs_dir: running.RunsDir = Path("runs"),
    fresh: running.Fresh = False,
    as_json: running.Json = False,
) -> None:
    """Make a task's model small in many ways; print size, latency here, accuracy by user, and the Pareto front.

    A way is chosen by the limits on calibration users; what is printed is about unseen users. The run's folder holds
    chosen.onnx, which a device opens as it is, and report.html.
    """
    from duetto.programs import compress as program
    from duetto.programs import compress_page, runs

    limits = program.Limits(max_loss, max_worst_loss, max_bytes, max_latency)
    whose, role = _named(model, task)
    settings = program.Settings(whose, role, seed, passes, rounds)
    folder = running.place(runs_dir, name or f"compress-{whose}-{role}-{seed}")
    if fresh:
        runs.forget(folder)
    with console.stoppable(STOPPED), console.Progressing() as progress:
        found = program.compress(settings, limits, folder, progress, tuple(way or ()))
        page = compress_page.write(found, folder / "report.html")
    if as_json:
        console.emit(_told(found, folder))
        return
    _show(found, folder, page)


def _named(model: str, task: str | None) -> tuple[str, str]:
    whose, dot, role = model.rpartition(".")
    if dot and task is not None and whose != task:
        raise ConfigError(f"{model} is no model of the task {task!r}", "name the task once")
    whose = whose if dot else (task or "")
    if role not in ("small", "large") or not whose:
        raise ConfigError(
            f"no model is called {model!r}", "say small or large with --task TASK, or TASK.small, TASK.large"
        )
    if whose not in running.TASKS:
        raise console.choose("task", whose, running.TASKS)
    return whose, role


def _told(found: Found, folder: Path) -> dict[str, Any]:
    from dataclasses import asdict

    from duetto.programs import compress_page

    return {
        "headline": compress_page.headline(found),
        "settings": asdict(found.settings),
        "limits": asdict(found.limits),
        "chosen": found.chosen,
        "file": str(folder / "chosen.onnx") if found.chosen else None,
        "report": str(folder / "report.html"),
        "notes": compress_page.notes(found),
        "ways": [asdict(line) for line in found.lines],
    }


def _show(found: Found, folder: Path, page: Path) -> None:
    from rich.text import Text

    from duetto.programs import compress_page

    out = console.out()
    out.print()
    out.print(Text(compress_page.headline(found), "bold" if found.chosen else "bold yellow"))
    out.print()
    out.print(_table(found))
    out.print(
        Text(
            "us: median of an answer here, one row; lost: points of accuracy of unseen users, mean of users and worst "
            "tenth; •: on the front; ▸: chosen on calibration users.",
            "dim",
        )
    )
    out.print(Text("\nWhat speaks against it", "bold"))
    for note in compress_page.notes(found):
        out.print(Text(f" - {note}"))
    if found.chosen:
        out.print(f"\nFile: {folder / 'chosen.onnx'}", soft_wrap=True, markup=False)
    out.print(f"Report: {page}", soft_wrap=True, markup=False)


def _table(found: Found) -> Table:
    from rich import box
    from rich.table import Table

    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1), collapse_padding=True)
    drawn.add_column("way", no_wrap=True)
    for head in ("kB", "%", "us", "%", "acc %", "lost", "worst"):
        drawn.add_column(head, justify="right", no_wrap=True)
    for line in found.lines:
        mark = "▸" if line.outcome.name == found.chosen else "•" if line.front else " "
        drawn.add_row(f"{mark} {line.outcome.name}", *_cells(line), style="bold" if mark == "▸" else "")
    return drawn


def _cells(line: Line) -> tuple[str, ...]:
    from duetto.evaluation import users
    from duetto.programs.compress import per_user
    from duetto.programs.compress_page import percent

    accuracy = float(users.user_mean(per_user(line.outcome.unseen)))
    return (
        f"{line.outcome.nbytes / 1e3:,.1f}",
        percent(line.share),
        f"{1e6 * line.seconds.value:,.1f}",
        percent(line.latency.value),
        f"{100 * accuracy:.2f}",
        f"{line.loss.value:+.2f}",
        f"{line.worst.value:+.2f}",
    )
