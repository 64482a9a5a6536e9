"""A result in the terminal, and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from duetto.cli import console
from duetto.errors import DataError
from duetto.evaluation import table
from duetto.evaluation.result import Result

if TYPE_CHECKING:
    from rich.table import Table

_AMOUNTS = {"teaching_calls", "audit_calls", "break_even_inputs", "devices"}  # figures that are no shares
NEVER = 1e9  # inputs to break even, as a figure must be finite


def show(folder: Path, result: Result, figures: bool) -> None:
    """One run: its headline, its tables, what speaks against it, and perhaps all its figures."""
    from rich.text import Text

    out = console.out()
    out.print()
    out.print(Text(result.headline, "bold"))
    tables([result], letters=False)
    if figures:
        listed(result.seeds, read_figures(folder))
    notes(result.notes)


def compared(results: Sequence[Result]) -> None:
    """Several runs beside each other."""
    from rich.text import Text

    out = console.out()
    for letter, result in zip(_letters(), results, strict=False):
        out.print()
        out.print(Text.assemble((f"{letter}  {result.name}", "bold"), f"  {result.headline}"))
    tables(results, letters=True)
    for letter, result in zip(_letters(), results, strict=False):
        notes(result.notes, f" {letter}")


def tables(results: Sequence[Result], letters: bool) -> None:
    """The tables, and what learning cost."""
    from rich.text import Text

    out = console.out()
    for each in table.compact(*(result.rows for result in results), width=out.width):
        out.print()
        out.print(each)
    out.print()
    for letter, result in zip(_letters(), results, strict=False):
        for row in result.rows:
            if "accuracy" not in row.values:
                said = (
                    f"{column.label} {table.text(column, row.values.get(column.measure))[0]}"
                    for column in table.shown([row])
                )
                out.print(Text(f"{letter + '  ' if letters else ''}{row.name}: {', '.join(said)}"))
    scored = any("accuracy" in row.values for result in results for row in result.rows)
    out.print(Text(table.LEGEND if scored else f"mean: ms; {table.COSTS}", "dim"))


def listed(seeds: Sequence[int], figures: Mapping[str, Mapping[str, Any]]) -> None:
    """All figures of a run: name, mean, and each seed's where there is room for them."""
    out = console.out()
    drawn = _figures(seeds, figures)
    narrow = out.measure(drawn, options=out.options.update(width=1000)).maximum > out.width
    out.print()
    out.print(_figures((), figures) if narrow else drawn)
    if narrow:
        out.print("[dim]Each seed's are in figures.json.[/]")


def _figures(seeds: Sequence[int], figures: Mapping[str, Mapping[str, Any]]) -> Table:
    from rich import box
    from rich.table import Table

    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    drawn.add_column("figures", no_wrap=True, header_style="bold")
    drawn.add_column("mean", justify="right", no_wrap=True)
    several = len(seeds) > 1
    for seed in seeds if several else ():
        drawn.add_column(f"seed {seed}", justify="right", no_wrap=True, style="dim")
    first = ""
    for name, values in figures.items():
        if (begins := name.partition("_")[0]) != first and begins in ("unseen", "device", "worst"):
            drawn.add_section()
        first = begins
        each = [_figure(name, value) for value in values["seeds"]] if several else []
        drawn.add_row(name, _figure(name, values["mean"]), *each)
    return drawn


def notes(lines: Iterable[str], of: str = "") -> None:
    """What speaks against a run."""
    from rich.table import Table
    from rich.text import Text

    drawn = Table.grid(padding=(0, 1))
    for note in lines:
        drawn.add_row(" -", Text(note))
    if drawn.row_count:
        out = console.out()
        out.print(Text(f"\nWhat speaks against it{of}", "bold"))
        out.print(drawn)


def summary(folder: Path, result: Result) -> dict[str, Any]:
    """One run for machines; curves, rounds and users are in ``result.json``."""
    return {
        "name": result.name,
        "folder": str(folder),
        "task": result.task,
        "seeds": list(result.seeds),
        "headline": result.headline,
        "rows": [
            {
                "name": row.name,
                "values": {
                    measure: {"value": value.value, "low": value.low, "high": value.high}
                    if isinstance(value, table.Interval)
                    else float(value)
                    for measure, value in row.values.items()
                },
            }
            for row in result.rows
        ],
        "figures": read_figures(folder),
        "notes": list(result.notes),
    }


def read_figures(folder: Path) -> Mapping[str, Mapping[str, Any]]:
    """``figures.json`` of a run; empty where it has none.

    Raises:
        DataError: it is damaged.
    """
    path = folder / "figures.json"
    if not path.exists():
        return {}
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
        return {name: {"mean": entry["mean"], "seeds": list(entry["seeds"])} for name, entry in read.items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path} is damaged", "run it again with --fresh") from error


def _figure(name: str, value: float | None) -> str:
    """An amount as it is, megabytes, or a share in percent."""
    if value is None:
        return "–"
    if name.endswith("_bytes"):
        return f"{table.text(table.Column('', '', '', 1e-6), value)[0]} MB"
    if name == "break_even_inputs" and value >= NEVER:
        return "never"
    if name in _AMOUNTS:
        return table.text(table.Column("", "", "", 1, 0), value)[0]
    drawn = table.text(table.Column("", "", "", 100, 2), value)[0]
    return drawn if drawn == "–" else f"{drawn} %"


def _letters() -> Iterable[str]:
    return map(chr, range(ord("A"), ord("Z") + 1))
