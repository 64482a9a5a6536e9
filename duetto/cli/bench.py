"""``duetto bench``: what belongs side by side, in one table."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import click
import typer

from duetto.cli import console, flags, running
from duetto.cli.simulate import SEEDS, parse

if TYPE_CHECKING:
    from rich.table import Table

    from duetto.programs.federated import Line

EXAMPLES = console.examples(
    ("duetto bench federated --task handwriting", "all algorithms on real writers, three seeds"),
    ("duetto bench federated --task cifar --partition dirichlet:0.1 --algorithms fedavg,scaffold,feddyn", ""),
    ("duetto bench federated --rounds 20 --seeds 0 --name quick --json", "for machines"),
)


class Benches(console.Commands):
    """The commands below ``bench``, made when they are needed."""

    kind = "bench"

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All of them."""
        return ["federated"]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """One of them."""
        return federated() if name == "federated" else None


app = typer.Typer(cls=Benches, rich_markup_mode="rich", epilog=EXAMPLES)


@app.callback(invoke_without_command=True)
def bench(ctx: typer.Context) -> None:
    """Compare algorithms with each other and with their baselines, by user."""
    console.help_alone(ctx)


def federated() -> click.Command:
    """The command that compares algorithms of federated learning."""
    from duetto.programs.federated import BASELINES, METHODS, Settings

    def run(
        task: Annotated[
            str, typer.Option(help=f"One of {', '.join(running.TASKS)}.", autocompletion=lambda: list(running.TASKS))
        ] = "digits",
        algorithms: Annotated[str, typer.Option(help="Which, with commas between, or all.")] = "all",
        seeds: Annotated[str, typer.Option(help="Each draws its own people, cohorts and start.")] = SEEDS,
        executor: Annotated[str, typer.Option(help="auto, sequential, cohort, processes, ray, ray:ADDRESS.")] = "auto",
        name: Annotated[str | None, typer.Option(help="Of the run. [dim]\\[default: federated-TASK][/]")] = None,
        runs_dir: running.RunsDir = Path("runs"),
        fresh: running.Fresh = False,
        as_json: running.Json = False,
        **chosen: Any,
    ) -> None:
        """Algorithms of federated learning: same people, same rounds, one table."""
        from duetto.cli import executors
        from duetto.evaluation import records, report
        from duetto.programs import federated, runs

        names = (*BASELINES, *METHODS) if algorithms == "all" else tuple(algorithms.split(","))
        settings = Settings(**chosen)
        what = federated.Comparison(task, names, parse(seeds), settings, executor=executors.executor(executor))
        into = running.place(runs_dir, f"federated-{task}" if name is None else name)
        if fresh:
            runs.forget(into)
        with console.stoppable(running.STOPPED), console.Progressing() as progress:
            outcomes = federated.compare(what, into, progress)
        found, page = federated.lines(outcomes), into / "report.html"
        federated.result(what, into.name, outcomes).save(into / "result.json")
        records.write(into / "records.jsonl", [])
        report.write(into, page)
        if as_json:
            console.emit({"task": task, "settings": asdict(settings), "lines": [asdict(line) for line in found]})
        else:
            title = f"{task}, {settings.partition}, {settings.rounds} rounds: %, means over users"
            console.out().print(table(found, title))
            console.out().print(f"\nReport: {page}", soft_wrap=True, markup=False)

    single = typer.Typer(add_completion=False, rich_markup_mode="rich")
    single.command("federated", epilog=EXAMPLES)(flags.taking(run, flags.of(Settings)))
    return typer.main.get_command(single)


def table(found: list[Line], title: str) -> Table:
    """The lines for a terminal; what is best stands out."""
    from rich.table import Table

    shown = Table(title=title, box=None, header_style="bold", title_justify="left", padding=(0, 2, 0, 0))
    shown.add_column("", no_wrap=True)
    for column in ("held", "unseen", "worst", "over fedavg", "to central", "kB up"):
        shown.add_column(column, justify="right", no_wrap=True)
    for line in found:
        if line.diverged:
            shown.add_row(line.name, f"[red]{line.diverged}[/]")
            continue
        shown.add_row(
            line.name,
            *(_percent(value) for value in (line.held, line.unseen, line.worst)),
            _interval(line.gain),
            _interval(line.gap),
            f"{line.up_bytes / 1000:,.1f}" if line.up_bytes else "",
        )
    return shown


def _percent(value: float) -> str:
    return "" if math.isnan(value) else f"{100 * value:.1f}"


def _interval(value: tuple[float, float, float] | None) -> str:
    if value is None:
        return ""
    middle, low, high = (100 * each for each in value)
    return f"{middle:+.1f} ({low:.0f}, {high:.0f})"
