"""``duetto elastic``: a task's model as one set of weights, trained once, in the size that a device can bear."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from duetto.cli import console, running
from duetto.cli import profile as profiles
from duetto.errors import ConfigError

if TYPE_CHECKING:
    from rich.table import Table

    from duetto.programs.elastic import Line

EXAMPLES = console.examples(
    ("duetto elastic --task digits", "train once; what each width costs and is worth"),
    ("duetto elastic --task handwriting --device microcontroller --max-latency 8", "the best within 8 ms"),
    ("duetto elastic --task activity --model large --depths 1 --out models", "saved as safetensors and ONNX"),
    ("duetto elastic --device here --json", "latency measured on this machine"),
)


def _devices() -> list[str]:
    from duetto.simulation import energy

    return ["here", *energy.profiles()]


def elastic(
    task: Annotated[
        str, typer.Option(help=f"One of {', '.join(running.TASKS)}.", autocompletion=lambda: list(running.TASKS))
    ] = "digits",
    model: Annotated[Literal["small", "large"], typer.Option(help="Of the task's pair: the largest size.")] = "small",
    widths: Annotated[str, typer.Option(help="Shares of its channels, rising to 1.")] = "0.25,0.5,0.75,1",
    depths: Annotated[str, typer.Option(help="Blocks or layers that are kept, beside all of them.")] = "",
    passes: Annotated[int, typer.Option(min=0, help="Over the public rows; 0 is as many as the small model's.")] = 0,
    between: Annotated[int, typer.Option(min=0, help="Sizes of a step beside the largest and the smallest.")] = 2,
    weight: Annotated[float, typer.Option(min=0, help="Of what each size learns from the largest.")] = 0.3,
    seed: Annotated[int, typer.Option(help="Of users, first parameters, and the order of rows.")] = 0,
    device: Annotated[
        str,
        typer.Option(
            help="here, a device of `duetto info --devices`, or a file of `duetto profile`.", autocompletion=_devices
        ),
    ] = "mid-phone",
    like: Annotated[
        str, typer.Option(help="With a file as device: whose watts and overhead it has.", autocompletion=_devices)
    ] = "mid-phone",
    max_latency: Annotated[float, typer.Option(help="Milliseconds of an answer.", show_default=False)] = math.inf,
    max_energy: Annotated[float, typer.Option(help="Millijoules of an answer.", show_default=False)] = math.inf,
    max_bytes: Annotated[float, typer.Option(help="Of its weights.", show_default=False)] = math.inf,
    out: Annotated[Path | None, typer.Option(help="Folder to save the chosen size in, by itself.")] = None,
    svg: Annotated[Path | None, typer.Option(help="Write a picture of accuracy against energy.")] = None,
    name: Annotated[str | None, typer.Option(help="Of the run. [dim]\\[default: elastic-TASK][/]")] = None,
    runs_dir: running.RunsDir = Path("runs"),
    fresh: running.Fresh = False,
    as_json: running.Json = False,
) -> None:
    """One model for every device: train all sizes at once, and take the best that keeps the limits."""
    from duetto.evaluation import plot, records, report
    from duetto.models.search import Limits
    from duetto.programs import elastic as program
    from duetto.programs import runs
    from duetto.tasks import load

    limits = Limits(max_latency / 1e3, max_energy / 1e3, max_bytes)
    sizes = _numbers("widths", widths, float), _numbers("depths", depths, int)
    settings = program.Settings(model, *sizes, passes, between, weight, seed)
    measured = profiles.read(Path(device)) if device.endswith(".json") else None
    where = like if measured is not None else device
    into = running.place(runs_dir, f"elastic-{task}" if name is None else name)
    if fresh:
        runs.forget(into)
    with console.stoppable(running.STOPPED), console.Progressing() as progress:
        progress("reading the data", 0, 1)
        loaded = load(task, seed)
        params = program.trained(loaded, settings, into, progress)
        lines = program.rated(loaded, settings, params, where, progress, measured)
        taken = program.chosen(lines, limits)
        files = program.saved(loaded, settings, params, taken.rated.sub, out) if out else ()
        program.result(into.name, task, settings, device, lines, taken, limits).save(into / "result.json")
        records.write(into / "records.jsonl", [])
        page = report.write(into, into / "report.html")
        title = f"{task}, {model} model on {device}: one training, {len(lines)} sizes"
        if svg:
            svg.write_text(plot.sizes(program.points(lines, taken), title, "microjoules an answer"), encoding="utf-8")
            files = (*files, svg)
    if as_json:
        console.emit(
            {
                "task": task,
                "device": device,
                "chosen": taken.name,
                "sizes": [program.told(line) for line in lines],
                "files": [str(file) for file in files],
                "report": str(page),
            }
        )
        return
    shown = console.out()
    shown.print(_table(lines, taken, title))
    shown.print("[dim]▸ taken, · not beaten, both on calibration users; accuracy is that of unseen users[/]")
    for file in (*files, page):
        shown.print(f"{'Report' if file == page else 'Saved'}: {file}", soft_wrap=True, markup=False)


def _numbers(what: str, text: str, kind: Any) -> tuple[Any, ...]:
    try:
        return tuple(kind(part) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise ConfigError(f"{what} of {text!r}", "write numbers with commas between") from error


def _table(lines: Sequence[Line], taken: Line, title: str) -> Table:
    from rich.table import Table

    drawn = Table(title=title, box=None, header_style="bold", title_justify="left", padding=(0, 2, 0, 0))
    drawn.add_column("size", no_wrap=True)
    for column in ("kB", "MFLOP", "ms", "mJ", "accuracy, %", "worst tenth"):
        drawn.add_column(column, justify="right", no_wrap=True)
    for line in lines:
        low, high = 100 * line.accuracy.low, 100 * line.accuracy.high
        drawn.add_row(
            f"{'▸' if line is taken else '·' if line.front else ' '} {line.name}",
            f"{line.rated.nbytes / 1e3:,.1f}",
            f"{line.flops / 1e6:.3g}",
            f"{1e3 * line.rated.seconds:.3g}",
            f"{1e3 * line.rated.joules:.3g}",
            f"{100 * line.accuracy.value:.1f} ({low:.1f} to {high:.1f})",
            f"{100 * line.worst:.1f}",
            style="bold" if line is taken else "",
        )
    return drawn
