"""``duetto report``: a run, or several side by side, as one page and in the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from duetto.cli import console, running, shown
from duetto.errors import ConfigError

EXAMPLES = console.examples(
    ("duetto report demo --open", "one run, in a browser"),
    ("duetto report quick slow --out both.html", "two side by side"),
    ("duetto report phone-wifi phone-4g", "two of `duetto plan --save`: their maps beside each other"),
    ("duetto report demo --tensorboard logs", "then `tensorboard --logdir logs`"),
)


def report(
    runs: Annotated[list[str] | None, running.RunName] = None,
    out: Annotated[
        Path | None, typer.Option(help="The page. [dim]\\[default: report.html in the run's folder][/]")
    ] = None,
    runs_dir: running.RunsDir = Path("runs"),
    opened: Annotated[bool, typer.Option("--open/--no-open", help="Show the page in a browser.")] = False,
    tensorboard: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write the records as TensorBoard event files, too.")
    ] = None,
    as_json: running.Json = False,
) -> None:
    """Write a run's page, which opens from disk and needs no network; several runs are compared."""
    from duetto.evaluation import records, report
    from duetto.evaluation.result import Result
    from duetto.evaluation.tensorboard import export

    if not runs:
        there = ", ".join(running.known(runs_dir)) or "none yet; make one with `duetto demo`"
        raise ConfigError("no run is named", f"in {runs_dir}/ there are {there}")
    folders = [running.folder(runs_dir, run) for run in runs]
    if len(set(folders)) < len(folders):
        raise ConfigError("a run is named twice", "name each once")
    several = len(folders) > 1
    page = out or (
        runs_dir / f"{'-and-'.join(folder.name for folder in folders)}.html" if several else folders[0] / "report.html"
    )
    page.parent.mkdir(parents=True, exist_ok=True)
    with console.stoppable("stopped"), console.Progressing() as progress:
        results = [Result.load(folder / "result.json") for folder in folders]
        progress("writing the report", 0, 1)
        report.write(folders, page)
        events = []
        for folder in folders if tensorboard else []:
            progress(f"writing event files of {folder.name}", 0, 1)
            assert tensorboard is not None
            events.append(export(records.read(folder / "records.jsonl"), tensorboard / folder.name))
    if as_json:
        entries = [shown.summary(folder, result) for folder, result in zip(folders, results, strict=True)]
        console.emit({"report": str(page), "events": [str(path) for path in events], "runs": entries})
    else:
        if several:
            shown.compared(results)
        else:
            shown.show(folders[0], results[0], figures=False)
        console.out().print(f"\nReport: {page}", soft_wrap=True, markup=False)
        for path in events:
            console.out().print(f"Events: {path}", soft_wrap=True, markup=False)
    if opened:
        typer.launch(page.resolve().as_uri())
