"""The table of results as data: one row a system, one column a measure, shown in four ways.

Values keep the units of the records (shares 0..1, seconds, bytes); what a reader sees (percent, milliseconds,
megabytes) is made when the table is shown. Sums are per 1,000 answers, so that rows of any length compare.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from duetto.errors import DataError
from duetto.evaluation import users
from duetto.evaluation.records import columns
from duetto.tree import Array
from duetto.types import Key, Record

if TYPE_CHECKING:
    from rich.table import Table

ANSWERS = 1000  # what sums are stated per


@dataclass(frozen=True)
class Interval:
    """A value and the 95 % interval it lies in, in the same unit."""

    value: float
    low: float
    high: float


Value: TypeAlias = Interval | float


@dataclass(frozen=True)
class Row:
    """One system and its measures by name; a measure that is not there was not taken."""

    name: str
    values: Mapping[str, Value]


@dataclass(frozen=True)
class Column:
    """How a measure is shown.

    Attributes:
        measure: its name in a row.
        group, label: the two lines of its header.
        scale: from the record's unit to the shown one.
        digits: behind the point; None is three significant digits.
        signed: show a plus.
        better: 1 where more is better, -1 where less is, 0 where neither.
    """

    measure: str
    group: str
    label: str
    scale: float = 1.0
    digits: int | None = None
    signed: bool = False
    better: int = 0


COLUMNS = (
    Column("accuracy", "accuracy, %", "mean of users", 100, 1, better=1),
    Column("example_accuracy", "accuracy, %", "of answers", 100, 1, better=1),
    Column("worst_accuracy", "accuracy, %", "worst 10 % users", 100, 1, better=1),
    Column("gain", "accuracy, %", "over device only", 100, 1, signed=True, better=1),
    Column("offload_rate", "asked", "% of inputs", 100, 1, better=-1),
    Column("calls", "asked", "calls in all", 1, 0, better=-1),
    Column("break_even_inputs", "asked", "inputs per user to break even", 1, 0, better=-1),
    Column("mean_seconds", "latency, ms", "mean", 1000, better=-1),
    Column("p50_seconds", "latency, ms", "p50", 1000, better=-1),
    Column("p95_seconds", "latency, ms", "p95", 1000, better=-1),
    Column("up_bytes", "per 1,000 answers", "MB up", 1e-6, better=-1),
    Column("down_bytes", "per 1,000 answers", "MB down", 1e-6, better=-1),
    Column("joules", "per 1,000 answers", "J", better=-1),
    Column("dollars", "per 1,000 answers", "$", better=-1),
)


# ------------------------------------------------------------------------------------------------------ what it says


def row(
    name: str, records: Sequence[Record], *, key: Key, device_only: Sequence[Record] | None = None, n: int = 2000
) -> Row:
    """The row of a system from the records of its answers (protocol "answer", scored: with ``truth``).

    ``device_only`` are the answers of the small model alone for the same users; with them the row has a ``gain``.
    Runs of several seeds are one list: a user is redrawn with all answers of all seeds.

    Raises:
        DataError: no scored answers, or ``device_only`` of other users.
    """
    answers = _scored(name, records)
    accuracy = users.by(answers["correct"], answers["user"])
    p50, p95 = users.percentiles(answers["seconds"])
    values: dict[str, Value] = {
        "accuracy": _measured(users.user_mean, accuracy, key, n),
        "example_accuracy": _measured(users.example_weighted, accuracy, key, n),
        "worst_accuracy": _measured(users.worst, accuracy, key, n),
    }
    if device_only is not None:
        alone = _scored(f"{name}, device only", device_only)
        before = users.by(alone["correct"], alone["user"])
        low, high = users.paired(users.user_mean, before, accuracy, key=key, n=n)
        values["gain"] = Interval(float(users.gain(accuracy, before).mean()), low, high)
    values |= {"offload_rate": float(answers["asked"].mean()), "p50_seconds": p50, "p95_seconds": p95}
    for cost in ("up_bytes", "down_bytes", "joules", "dollars"):
        values[cost] = float(answers[cost].mean() * ANSWERS)
    return Row(name, values)


def teaching(name: str, *, calls: int, devices: int, calls_saved_per_input: float) -> Row:
    """The row of the calls that learning itself made (teaching and audit), and when they are paid back.

    ``calls`` of all ``devices`` together; ``calls_saved_per_input`` is the ask share before minus after.
    """
    return Row(name, {"calls": float(calls), "break_even_inputs": break_even(calls / devices, calls_saved_per_input)})


def break_even(teaching_calls: float, calls_saved_per_input: float) -> float:
    """After how many inputs the calls saved equal the calls that teaching took; infinite where none are saved."""
    if teaching_calls <= 0:
        return 0.0
    return teaching_calls / calls_saved_per_input if calls_saved_per_input > 0 else math.inf


# --------------------------------------------------------------------------------------------------- how it is shown


def shown(rows: Sequence[Row]) -> list[Column]:
    """The columns that at least one row has a value for, the known ones first, then others by their own names."""
    present = {measure for each in rows for measure in each.values}
    known = [column for column in COLUMNS if column.measure in present]
    rest = sorted(present - {column.measure for column in known})
    return known + [Column(measure, "", measure.replace("_", " ")) for measure in rest]


def text(column: Column, value: Value | None) -> tuple[str, str]:
    """A value as a reader sees it, and its interval (empty where it has none), in the column's unit."""
    if value is None:
        return "–", ""
    if isinstance(value, Interval):
        low, high = _number(column, value.low), _number(column, value.high)
        return _number(column, value.value), f"{low} to {high}" if column.signed or value.low < 0 else f"{low}–{high}"
    return _number(column, value), ""


def blocks(rows: Sequence[Row]) -> list[list[Row]]:
    """The rows in groups that share measures: a row with other measures than those before it starts a table."""
    found: list[list[Row]] = []
    for each in rows:
        block = next((block for block in found if any(other.values.keys() & each.values for other in block)), None)
        if block is None:
            found.append([each])
        else:
            block.append(each)
    return found


def render(rows: Sequence[Row], title: str = "") -> Table:
    """The table for a terminal (rich), on its side, because a terminal is narrow: systems across, measures down."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title) if title else None, box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("", no_wrap=True)
    for each in rows:
        table.add_column(Text(each.name), justify="right")
    for block in blocks(rows):
        group = ""
        for column in shown(block):
            if column.group != group:
                table.add_row(Text(column.group, style="bold"))
                group = column.group
            cells = [text(column, each.values.get(column.measure)) if each in block else ("", "") for each in rows]
            drawn = [Text.assemble(value, (f"\n{interval}" if interval else "", "dim")) for value, interval in cells]
            table.add_row(Text(f"  {column.label}" if group else column.label), *drawn)
    return table


@dataclass(frozen=True)
class _Told:
    """A column of the compact table: two lines of header, a measure (or several, added), and what is shown of it."""

    head: str
    below: str
    measures: tuple[str, ...]
    scale: float = 1.0
    digits: int | None = None
    interval: bool = False


_TELLING = (
    _Told("", "%", ("accuracy",), 100, 1),
    _Told("accuracy", "95 %", ("accuracy",), 100, 1, interval=True),
    _Told("worst", "10 %", ("worst_accuracy",), 100, 1),
    _Told("asked", "%", ("offload_rate",), 100, 1),
    _Told("p50", "ms", ("p50_seconds",), 1000),
    _Told("p95", "ms", ("p95_seconds",), 1000),
    _Told("MB", "/1,000", ("up_bytes", "down_bytes"), 1e-6),
    _Told("J", "/1,000", ("joules",)),
    _Told("$", "/1 M", ("dollars",), 1000),
)
COSTS = "MB, J per 1,000 answers, $ per million."
LEGEND = (
    "accuracy: mean of users, 95 % interval over users; worst: mean of the worst tenth of users; asked: inputs sent "
    f"to the cloud; {COSTS}"
)
"""What the columns of :func:`compact` mean."""


def compact(*runs: Sequence[Row], width: int = 80) -> list[Table]:
    """The most telling measures for a narrow terminal: systems down, a table for each group of people.

    A row's name is ``system`` or ``people: system``; ``system + more`` stands below its ``system`` as ``+ more``.
    Several runs stand below each other as A, B, ... Rows without an accuracy are left out. Columns move together
    where ``width`` characters ask for it.
    """
    from rich.console import Console

    every = [{row.name: row for row in rows if "accuracy" in row.values} for rows in runs]
    names = list(dict.fromkeys(name for rows in every for name in rows))
    tables = []
    for people in dict.fromkeys(_people(name) for name in names):
        lines = _indented([name for name in names if _people(name) == people])
        table = _compact(people, lines, every, 1)
        wide = Console(width=1000).measure(table).maximum
        tables.append(table if wide <= width else _compact(people, lines, every, 0))
    return tables


def _compact(people: str, lines: Sequence[tuple[str, str]], runs: Sequence[Mapping[str, Row]], gap: int) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    several = len(runs) > 1
    table = Table(box=box.SIMPLE_HEAD, padding=(0, gap), pad_edge=False, collapse_padding=True, show_edge=False)
    table.add_column(Text(f"{people}\n", style="bold"), no_wrap=True)
    if several:
        table.add_column("", style="dim")
    for told in _TELLING:
        style = "dim" if told.interval else ""
        table.add_column(Text(f"{told.head}\n{told.below}"), justify="right", no_wrap=True, style=style)
    for name, label in lines:
        for i, rows in enumerate(runs):
            cells = [_told(told, rows.get(name, Row(name, {}))) for told in _TELLING]
            table.add_row(Text("" if i else label), *([chr(ord("A") + i)] if several else []), *map(Text, cells))
    return table


def _people(name: str) -> str:
    return name.rpartition(": ")[0]


def _indented(names: Sequence[str]) -> list[tuple[str, str]]:
    """(name, label): what was added to a system stands below it."""
    found = []
    for name in names:
        if not any(name.startswith(f"{other} + ") for other in names):
            found.append((name, name.rpartition(": ")[2]))
            more = [each for each in names if each.startswith(f"{name} + ")]
            found += [(each, f"  + {each.removeprefix(f'{name} + ')}") for each in more]
    return found


def _told(told: _Told, row: Row) -> str:
    values = [row.values.get(measure) for measure in told.measures]
    column = Column("", "", "", told.scale, told.digits)
    if told.interval:
        return text(column, values[0])[1]
    numbers = [value.value if isinstance(value, Interval) else value for value in values if value is not None]
    return text(column, sum(numbers) if len(numbers) == len(values) else None)[0]


def markdown(rows: Sequence[Row]) -> str:
    """The table in Markdown, for a README, one for each of :func:`blocks`; intervals in brackets."""
    return "\n".join(_markdown(block) for block in blocks(rows))


def _markdown(rows: Sequence[Row]) -> str:
    chosen = shown(rows)
    lines = ["| system | " + " | ".join(_cell(f"{c.label}, {c.group}" if c.group else c.label) for c in chosen) + " |"]
    lines.append("|:--|" + "--:|" * len(chosen))
    for each in rows:
        cells = [text(column, each.values.get(column.measure)) for column in chosen]
        drawn = [value + (f" ({interval})" if interval else "") for value, interval in cells]
        lines.append(f"| {_cell(each.name)} | " + " | ".join(drawn) + " |")
    return "\n".join(lines) + "\n"


def to_json(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The rows as plain JSON: a number, or ``{"value", "low", "high"}``; not finite ones as texts ("inf", "nan")."""
    return [
        {
            "name": each.name,
            "values": {
                measure: {part: _plain(getattr(value, part)) for part in ("value", "low", "high")}
                if isinstance(value, Interval)
                else _plain(value)
                for measure, value in each.values.items()
            },
        }
        for each in rows
    ]


def from_json(entries: Any) -> tuple[Row, ...]:
    """The rows that :func:`to_json` wrote.

    Raises:
        DataError: something else.
    """
    try:
        return tuple(
            Row(
                _text(entry["name"]),
                {
                    measure: Interval(*(float(value[part]) for part in ("value", "low", "high")))
                    if isinstance(value, Mapping)
                    else float(value)
                    for measure, value in entry["values"].items()
                },
            )
            for entry in entries
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"no rows of a table ({error!r})", "each is {'name': ..., 'values': {...}}") from error


def _scored(name: str, records: Sequence[Record]) -> dict[str, Array]:
    answers = columns(records, "answer")
    if "correct" not in answers or not np.isfinite(answers["correct"]).all():
        raise DataError(f"{name!r} has no scored answers", "log them with Record.of(answer, truth=...)")
    if "asked" not in answers or not np.isfinite(answers["asked"]).all():
        raise DataError(f"{name!r} does not say which answers asked the cloud", "log them with Record.of(answer)")
    return answers


def _measured(statistic: users.Statistic, accuracy: users.PerUser, key: Key, n: int) -> Interval:
    low, high = users.bootstrap(statistic, accuracy, key=key, n=n)
    return Interval(float(statistic(accuracy)), low, high)


def _number(column: Column, value: float) -> str:
    value *= column.scale
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "never"
    digits = column.digits
    if digits is None:  # three significant digits, never an exponent
        digits = max(0, 2 - math.floor(math.log10(abs(value)))) if value else 0
    value = round(value, digits) or 0.0  # no minus before a zero
    return f"{value:{'+' if column.signed and value else ''},.{digits}f}".replace("-", "−")


def _plain(value: float) -> float | str:
    return float(value) if math.isfinite(value) else str(float(value))


def _cell(words: str) -> str:
    return words.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value
