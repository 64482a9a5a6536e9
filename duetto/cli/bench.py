"""``duetto bench``: what belongs side by side, in one table."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
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
    from duetto.programs.personal import Line as Personal
    from duetto.programs.routing import Line as Routed

EXAMPLES = console.examples(
    ("duetto bench federated --task handwriting", "all algorithms on real writers, three seeds"),
    ("duetto bench federated --task cifar --partition dirichlet:0.1 --algorithms fedavg,scaffold,feddyn", ""),
    ("duetto bench federated --rounds 20 --seeds 0 --name quick --json", "for machines"),
    ("duetto bench personal --task activity --seeds 0,1,2", "personalised methods, over FedAvg + fine-tuning"),
    ("duetto bench routing --tasks digits,activity", "all routers, one table a task"),
)


class Benches(console.Commands):
    """The commands below ``bench``, made when they are needed."""

    kind = "bench"

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All of them."""
        return ["federated", "personal", "routing"]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """One of them."""
        made = {"federated": federated, "personal": personal, "routing": routing}
        return made[name]() if name in made else None


app = typer.Typer(cls=Benches, rich_markup_mode="rich", epilog=EXAMPLES)


@app.callback(invoke_without_command=True)
def bench(ctx: typer.Context) -> None:
    """Compare algorithms, personalised methods or routers with each other and with their baselines, by user."""
    console.help_alone(ctx)


def federated() -> click.Command:
    """The command that compares algorithms of federated learning."""
    from duetto.programs import federated

    said = "Algorithms of federated learning: same people, same rounds, one table."
    return _learning(federated, "algorithms", table, said)


def personal() -> click.Command:
    """The command that compares personalised methods."""
    from duetto.programs import personal

    said = "Personalised federated learning: each device answers with its own, over FedAvg + fine-tuning."
    return _learning(personal, "methods", personal_table, said, but=("points",))


def _learning(
    program: Any, named: str, shown: Callable[[Any, str], Table], said: str, but: Sequence[str] = ()
) -> click.Command:
    """The command of a program that compares what learns: ``program`` has ``BASELINES``, ``METHODS``, ``Settings``,
    ``Comparison``, ``compare``, ``lines`` and ``result``."""
    kind = program.__name__.rpartition(".")[2]

    def run(
        task: Annotated[
            str, typer.Option(help=f"One of {', '.join(running.TASKS)}.", autocompletion=lambda: list(running.TASKS))
        ] = "digits",
        seeds: Annotated[str, typer.Option(help="Each draws its own people, cohorts and start.")] = SEEDS,
        executor: Annotated[str, typer.Option(help="auto, sequential, cohort, processes, ray, ray:ADDRESS.")] = "auto",
        name: Annotated[str | None, typer.Option(help="Of the run. [dim]\\[default: COMMAND-TASK][/]")] = None,
        runs_dir: running.RunsDir = Path("runs"),
        fresh: running.Fresh = False,
        as_json: running.Json = False,
        **chosen: Any,
    ) -> None:
        from duetto.cli import executors
        from duetto.evaluation import records, report
        from duetto.programs import runs

        which = chosen.pop(named)
        names = (*program.BASELINES, *program.METHODS) if which == "all" else tuple(which.split(","))
        settings = program.Settings(**chosen)
        what = program.Comparison(task, names, parse(seeds), settings, executor=executors.executor(executor))
        into = running.place(runs_dir, f"{kind}-{task}" if name is None else name)
        if fresh:
            runs.forget(into)
        with console.stoppable(running.STOPPED), console.Progressing() as progress:
            outcomes = program.compare(what, into, progress)
        found, page = program.lines(outcomes), into / "report.html"
        program.result(what, into.name, outcomes).save(into / "result.json")
        records.write(into / "records.jsonl", [])
        report.write(into, page)
        if as_json:
            console.emit({"task": task, "settings": asdict(settings), "lines": [asdict(line) for line in found]})
        else:
            title = f"{task}, {settings.partition}, {settings.rounds} rounds: %, means over users"
            console.out().print(shown(found, title))
            console.out().print(f"\nReport: {page}", soft_wrap=True, markup=False)

    run.__doc__ = said
    which = flags.option(named, Annotated[str, typer.Option(help="Which, with commas between, or all.")], "all")
    single = typer.Typer(add_completion=False, rich_markup_mode="rich")
    single.command(kind, epilog=EXAMPLES)(flags.taking(run, [which, *flags.of(program.Settings, but=but)]))
    return typer.main.get_command(single)


def routing() -> click.Command:
    """The command that compares routers."""
    from duetto.programs.routing import BASELINES, ROUTERS, TASKS, Settings

    def run(
        tasks: Annotated[
            str, typer.Option(help=f"Some of {', '.join(running.TASKS)}, with commas between, or all.")
        ] = "all",
        routers: Annotated[str, typer.Option(help="Which, with commas between, or all.")] = "all",
        seeds: Annotated[str, typer.Option(help="Each draws its own users and models.")] = "0",
        name: Annotated[str, typer.Option(help="Of the run.")] = "routing",
        runs_dir: running.RunsDir = Path("runs"),
        fresh: running.Fresh = False,
        as_json: running.Json = False,
        **chosen: Any,
    ) -> None:
        """Routers on small/large pairs: same users, same models, one table; random and the oracle beside them."""
        from duetto.programs import routing, runs

        what = routing.Comparison(
            TASKS if tasks == "all" else tuple(tasks.split(",")),
            (*BASELINES, *ROUTERS) if routers == "all" else tuple(routers.split(",")),
            parse(seeds),
            Settings(**chosen),
        )
        into = running.place(runs_dir, name)
        if fresh:
            runs.forget(into)
        with console.stoppable(running.STOPPED), console.Progressing() as progress:
            outcomes = routing.compare(what, into, progress)
            found = routing.lines(outcomes)
            pages = routing.pictures(outcomes, into)
        if as_json:
            console.emit({"settings": asdict(what.settings), "lines": [asdict(line) for line in found]})
            return
        for task in what.tasks:
            own = [each for each in outcomes if each.task == task and each.name == what.names[0]]
            small, large = (sum(getattr(each, side) for each in own) / len(own) for side in ("small", "large"))
            title = f"{task}: {own[0].users} users, {len(own)} seeds, small {small:.1%}, large {large:.1%}"
            console.out().print(routers_table([line for line in found if line.task == task], title))
        for page in pages:
            console.out().print(f"Report: {page}", soft_wrap=True)

    single = typer.Typer(add_completion=False, rich_markup_mode="rich")
    single.command("routing", epilog=EXAMPLES)(flags.taking(run, flags.of(Settings)))
    return typer.main.get_command(single)


def routers_table(found: list[Routed], title: str) -> Table:
    """One task's routers for a terminal; what is above or below the best threshold with certainty stands out."""
    from rich.table import Table

    shown = Table(title=title, box=None, header_style="bold", title_justify="left")
    shown.add_column("", no_wrap=True)
    columns = ("device", "area, %", "APGR", "of oracle", "ask at -0.5", "at -1", "at -2", "over best threshold")
    for column in columns:
        shown.add_column(column, justify="right")
    for line in found:
        over = _interval(line.over)
        if line.over is not None and line.over[1] > 0:
            over = f"[green]{over}[/]"
        elif line.over is not None and line.over[2] < 0:
            over = f"[red]{over}[/]"
        middle, low, high = (100 * each for each in line.area)
        shown.add_row(
            line.name,
            f"{line.compute}x",
            f"{middle:.2f} ({low:.2f} to {high:.2f})",
            *("" if math.isnan(value) else f"{value:.3f}" for value in (line.apgr, line.oracle)),
            *(_percent(value) for value in line.asked),
            over,
        )
    return shown


def personal_table(found: list[Personal], title: str) -> Table:
    """The lines for a terminal: device users, those who join after training, and the same before they have trained."""
    from rich.table import Table

    shown = Table(title=title, box=None, header_style="bold", title_justify="left", padding=(0, 2, 0, 0))
    shown.add_column("", no_wrap=True)
    ranked = any(not math.isnan(line.gauc) for line in found)
    columns = ["held", "worst", "over fine-tuning", "joined", "cold", *["GAUC"] * ranked, "kB up", "kB down", "s"]
    for column in columns:
        shown.add_column(column, justify="right", no_wrap=True)
    for line in found:
        if line.diverged:
            shown.add_row(line.name, f"[red]{line.diverged}[/]")
            continue
        kilobytes = (f"{each / 1000:,.1f}" if each else "" for each in (line.up_bytes, line.down_bytes))
        shares = (_percent(value) for value in (line.unseen, line.cold, *[line.gauc] * ranked))
        first = (_percent(line.held), _percent(line.worst), _interval(line.gain))
        shown.add_row(line.name, *first, *shares, *kilobytes, f"{line.seconds:.0f}")
    return shown


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
