"""``duetto leak``: what the features at each cut of a model give away, and whether a codec hides any of it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from duetto.cli import console, running
from duetto.cli import model as models
from duetto.cli.simulate import parse

if TYPE_CHECKING:
    from rich.table import Table

    from duetto.programs.leaked import Told

EXAMPLES = console.examples(
    ("duetto leak small --task handwriting", "leakage against depth, codec and accuracy, with a page to look at"),
    ("duetto leak large --task cifar --codecs int4+zstd --seeds 0,1,2", "one codec beside the undefended features"),
    ("duetto leak nets:trained --task digits --cuts 4 --rows 1000 --json", "your own trained module, for machines"),
    ("duetto plan handwriting.small --leakage runs/leak-handwriting --max-leakage 0.6", "then plan by it"),
)


def leak(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="small or large of the task's pair, or MODULE:NAME of a module.")
    ],
    task: Annotated[
        str,
        typer.Option(
            help=f"Whose people: one of {', '.join(running.TASKS)}.", autocompletion=lambda: list(running.TASKS)
        ),
    ] = "digits",
    codecs: Annotated[str, typer.Option(help="Some of float32+zstd,int8+zstd,int4+zstd, or all.")] = "all",
    seeds: Annotated[str, typer.Option(help="Each draws its own people and models.")] = "0",
    cuts: Annotated[int, typer.Option(min=3, help="Cuts to attack at most, spread over the model.")] = 8,
    rows: Annotated[int, typer.Option(min=2, help="Public inputs that teach the attacker's decoder.")] = 6000,
    scored: Annotated[int, typer.Option(min=1, help="Inputs of each user that are attacked, at most.")] = 8,
    steps: Annotated[int, typer.Option(min=1, help="Of a decoder's training, on 64 inputs each.")] = 600,
    name: Annotated[str | None, typer.Option(help="Of the run. [dim]\\[default: leak-TASK][/]")] = None,
    runs_dir: running.RunsDir = Path("runs"),
    fresh: running.Fresh = False,
    as_json: running.Json = False,
) -> None:
    """Reconstruct inputs from what crosses each cut, by user, as an attacker does who knows the codec.

    It needs the extra "leak". Pictures in its page are of the task's calibration people.
    """
    from duetto.programs import leak as program
    from duetto.programs import leak_page, leaked, runs

    which = tuple(program.RELEASES) if codecs == "all" else tuple(codecs.split(","))
    settings = program.Settings(cuts, rows, scored, steps)
    role = model.removeprefix(f"{task}.")
    what = program.Attack(task, role, which, parse(seeds), settings)
    into = running.place(runs_dir, f"leak-{task}" if name is None else name)
    if fresh:
        runs.forget(into)
    with console.stoppable(running.STOPPED), console.Progressing() as progress:
        own = models.imported(role) if ":" in role else None
        found = program.attacked(what, into, progress, module=own)
        progress("writing the report", 0, 1)
        made = leaked.told(found, settings.redraws)
        leaked.save(made, into / "leakage.json")
        page = into / "report.html"
        shown = program.pictures(what, into)
        page.write_text(leak_page.page(made, f"{role} of {task}, seeds {seeds}", shown), encoding="utf-8")
    if as_json:
        console.emit({"task": task, "model": model, **asdict(made), "report": str(page)})
        return
    out = console.out()
    out.print(table(made, f"{model} of {task}, seeds {seeds}: {made.lines[0].measure}, means over users"))
    known = "; ".join(f"{name} {each.value:.3f}" for name, each in made.guesses.items())
    out.print(
        f"\nKnown without features: {known}. Whoever gets the input itself (cut 0) knows it.\n",
        soft_wrap=True,
        markup=False,
    )
    for note in made.notes:
        out.print(f"- {note}", soft_wrap=True, markup=False)
    out.print(f"\nReport: {page}", soft_wrap=True, markup=False)


def table(made: Told, title: str) -> Table:
    """The lines for a terminal; what fails as a defence stands out."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    drawn = Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, title_justify="left")
    drawn.add_column("cut", no_wrap=True)
    drawn.add_column("codec", no_wrap=True)
    for head in ("kB", "acc. %", "naive", "adaptive", "worst", "kept"):
        drawn.add_column(head, justify="right", no_wrap=True)
    drawn.add_column("", no_wrap=True)
    styles = {"fails": "red", "hides most": "green"}
    before = None
    for line in made.lines:
        drawn.add_row(
            str(line.cut) if line.cut != before else "",
            line.codec.removesuffix("+zstd"),
            f"{line.up_bytes / 1000:.2f}",
            f"{100 * line.accuracy.value:.1f}",
            f"{line.naive.value:.3f}",
            f"{line.nearness.value:.3f}",
            f"{line.most.value:.3f}",
            "" if line.kept is None else f"{line.kept:.0%}",
            Text(line.verdict if line.verdict != "undefended" else "", styles.get(line.verdict, "")),
        )
        before = line.cut
    return drawn
