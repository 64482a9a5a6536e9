"""One self-contained HTML page for one run, or for several side by side. It opens from disk and fetches nothing.

A run's folder holds ``result.json`` (what it found; the schema is :mod:`duetto.evaluation.result`), ``config.json``
(any JSON object; ``settings``, ``seed``, ``task``, ``versions``) and ``records.jsonl`` (the log, of which the page
shows what each protocol cost, and what each user got: :mod:`duetto.evaluation.people`). The page's policy lets no
script run but its own, and all text is escaped, so a hostile name stays a name. User names are shown as hashes: those
of the log are replaced wherever the settings hold one.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from html import escape
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from duetto.errors import ConfigError, DataError
from duetto.evaluation import maps, people, plot, records, table, users
from duetto.evaluation.result import Curve, Point, Result, Target, Users, hashed
from duetto.types import Cost

__all__ = ["Curve", "Point", "Result", "Run", "Target", "Users", "compare", "hashed", "load", "write"]
_WALKED = ' tabindex="0" role="group" aria-label="A table, which may be wider than the page"'


@dataclass(frozen=True)
class Spent:
    """What all records of one protocol cost together."""

    protocol: str
    records: int
    cost: Cost


@dataclass(frozen=True)
class Run:
    """A run's folder, read: what it found, its settings as (name, text), what it spent, and what each user got."""

    result: Result
    settings: Mapping[str, str]
    spent: Sequence[Spent]
    people: people.People


def load(folder: str | Path) -> Run:
    """Read a run's folder.

    Raises:
        DataError: a file of it is missing or malformed.
    """
    folder = Path(folder)
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"no settings in {folder} ({error.strerror})", "name the folder of a run") from error
    except ValueError as error:
        raise DataError(f"{folder / 'config.json'} is no JSON ({error})", "run it again") from error
    if not isinstance(config, Mapping):
        raise DataError(f"{folder / 'config.json'} is no JSON object", "run it again")
    result = Result.load(folder / "result.json")
    log = records.read(folder / "records.jsonl")
    names = {record.user for record in log} - {""}
    spent: dict[str, tuple[int, Cost]] = {}
    for record in log:
        count, cost = spent.get(record.protocol, (0, Cost()))
        spent[record.protocol] = count + 1, cost + record.cost
    totals = [Spent(name, *spent[name]) for name in sorted(spent)]
    return Run(result, dict(_flat(config, names)), totals, people.of(log, result))


def write(runs: str | Path | Sequence[str | Path], out: str | Path) -> Path:
    """Write the page of one run's folder, or of several side by side; returns ``out``.

    Raises:
        DataError: a folder without a finished run.
        ConfigError: no folder at all.
    """
    folders = [runs] if isinstance(runs, str | Path) else list(runs)
    if not folders:
        raise ConfigError("a report of no run", "name at least one folder")
    loaded = [load(folder) for folder in folders]
    out = Path(out)
    part = out.with_name(f"{out.name}.part")
    part.write_text(page(loaded), encoding="utf-8")
    part.replace(out)
    return out


def compare(runs: Sequence[str | Path], out: str | Path) -> Path:
    """Write the page of at least two runs: columns side by side, differences from the first, paired by user.

    Raises:
        ConfigError: fewer than two.
        DataError: a folder without a finished run.
    """
    if len(runs) < 2:
        raise ConfigError("a comparison of fewer than two runs", "name another folder")
    return write(runs, out)


def page(runs: Sequence[Run]) -> str:
    """The page as HTML; the first run is the one others are compared with."""
    several = len(runs) > 1
    body = [_several(runs) if several else _one(runs[0])]
    chooser, embedded = _chooser(runs)
    body += [
        _maps(runs),
        _tradeoffs(runs),
        _learning_and_people(runs),
        chooser,
        _notes(runs),
        _costs(runs),
        _settings(runs),
    ]
    body = ["<main>", *body, "</main>"]
    body.append("<footer>Written by duetto. This file is complete: it fetches nothing and sends nothing.</footer>")
    here = resources.files("duetto.evaluation")
    script = here.joinpath("report.js").read_text(encoding="utf-8")
    allowed = "' '".join(f"sha256-{_digest(text)}" for text in (script, embedded) if text)
    title = " and ".join(run.result.name for run in runs)
    if embedded:
        body.append(f'<script type="application/json" id="data">{embedded}</script>')
    return Template(here.joinpath("report.html").read_text(encoding="utf-8")).substitute(
        allowed=allowed, title=f"{escape(title)} – Duetto", body="\n".join(filter(None, body)), script=script
    )


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


# ------------------------------------------------------------------------------------------------------------ the top


def _one(run: Run) -> str:
    rows = run.result.rows
    head = f"<header>{_over(run)}<h1>{escape(run.result.headline)}</h1></header>"
    return head + (
        _section("What each system gives and costs", _caption(rows), "".join(map(_table, table.blocks(rows))))
        if rows
        else ""
    )


def _over(run: Run, named: bool = True) -> str:
    result = run.result
    seeds = ", ".join(str(seed) for seed in result.seeds)
    facts = [f"<b>{escape(result.name)}</b>"] if named else []
    facts.append(f"task {escape(result.task)}")
    if seeds:
        facts.append(f"seed{'s' if len(result.seeds) > 1 else ''} {escape(seeds)}")
    if result.users:
        facts.append(f"{len(result.users.before):,} users")
    return f'<p class="over">{"".join(f"<span>{fact}</span>" for fact in facts)}</p>'


def _caption(rows: Sequence[table.Row]) -> str:
    intervals = any(isinstance(value, table.Interval) for row in rows for value in row.values.values())
    words = "Bold is best in its column. Press a column’s name to sort."
    return ("Small figures are 95 % intervals over users. " if intervals else "") + words


def _table(rows: Sequence[table.Row]) -> str:
    chosen = table.shown(rows)
    names = "".join(
        f'<th class="measure" scope="col"><button type="button">{escape(column.label)}</button></th>'
        for column in chosen
    )
    best = {column.measure: _best(column, [row.values.get(column.measure) for row in rows]) for column in chosen}
    lines = []
    for row in rows:
        cells = []
        for column in chosen:
            value = row.values.get(column.measure)
            number = math.nan if value is None else _value(value)
            words, interval = table.text(column, value)
            mark = ' class="best"' if number == best[column.measure] else ""
            sort = "" if math.isnan(number) else f' data-v="{"Infinity" if math.isinf(number) else repr(number)}"'
            small = f"<small>{escape(interval)}</small>" if interval else ""
            cells.append(f"<td{mark}{sort}>{escape(words)}{small}</td>")
        lines.append(f'<tr><th scope="row">{escape(row.name)}</th>{"".join(cells)}</tr>')
    return _framed(chosen, names, f"<tbody>{''.join(lines)}</tbody>")


def _framed(chosen: Sequence[table.Column], names: str, bodies: str, style: str = "") -> str:
    """A table of these columns with its two lines of header; ``names`` is the second."""
    groups: list[tuple[str, int]] = []
    for column in chosen:
        if groups and groups[-1][0] == column.group:
            groups[-1] = (column.group, groups[-1][1] + 1)
        else:
            groups.append((column.group, 1))
    heads = "".join(
        f'<th colspan="{span}" scope="colgroup">{f"<span>{escape(group)}</span>" if group else ""}</th>'
        for group, span in groups
    )
    width = "wide" if len(chosen) > 5 else "narrow"
    return (
        f'<div class="scroll"{_WALKED}><table class="{width} {style}"><thead><tr class="groups"><td></td>{heads}</tr>'
        f'<tr><th scope="col">system</th>{names}</tr></thead>{bodies}</table></div>'
    )


def _several(runs: Sequence[Run]) -> str:
    cards = "".join(
        f"<div><h2>{_key(i)}{escape(run.result.name)}</h2>{_over(run, named=False)}"
        f"<p>{escape(run.result.headline)}</p></div>"
        for i, run in enumerate(runs)
    )
    names = " and ".join(run.result.name for run in runs)
    body = [f'<header><h1>{escape(names)}, side by side</h1></header><div class="runs">{cards}</div>']
    paired = [words for i, run in enumerate(runs[1:], 1) if (words := _paired(runs[0], run, i))]
    caption = "Small figures are 95 % intervals over users; below them, in colour, the difference from A."
    content = "".join(f'<p class="lead paired">{words}</p>' for words in paired) + _beneath(runs)
    if any(run.result.rows for run in runs):
        body.append(_section("What each system gives and costs", caption, content))
    return "".join(body)


def _paired(first: Run, other: Run, i: int) -> str:
    """The paired difference after learning over the users that both runs have, in words; empty where none is."""
    if first.result.users is None or other.result.users is None:
        return ""
    left = dict(zip(first.result.users.names_hashed, first.result.users.after, strict=True))
    right = dict(zip(other.result.users.names_hashed, other.result.users.after, strict=True))
    both = sorted(left.keys() & right.keys())
    if not both:
        return f"<b>A and {_letter(i)}</b> have no user in common, so no difference is paired."
    before = users.by(np.array([left[name] for name in both]), np.array(both))
    after = users.by(np.array([right[name] for name in both]), np.array(both))
    low, high = users.paired(users.user_mean, before, after, key=("report", "paired"))
    shift = float(users.gain(after, before).mean())
    return (
        f"User by user after learning, <b>{_letter(i)} − A: {_points(shift)} points</b>, 95 % interval "
        f"{_points(low)} to {_points(high)}, paired over the {len(both):,} users that both have."
    )


def _beneath(runs: Sequence[Run]) -> str:
    """The table with a line for each run under every system, and in it the difference from the first."""
    blocks = table.blocks([row for run in runs for row in run.result.rows])
    return "".join(_compared(runs, list(dict.fromkeys(row.name for row in block)), block) for block in blocks)


def _compared(runs: Sequence[Run], names: Sequence[str], block: Sequence[table.Row]) -> str:
    chosen = table.shown(block)
    bodies = []
    for name in names:
        rows = [next((row for row in run.result.rows if row.name == name), table.Row(name, {})) for run in runs]
        lines = []
        for i, row in enumerate(rows):
            head = f'<th scope="row">{_key(i)}{escape(name) if not i else ""}</th>'
            cells = [
                _versus(column, row.values.get(column.measure), rows[0].values.get(column.measure) if i else None)
                for column in chosen
            ]
            lines.append(f"<tr>{head}{''.join(cells)}</tr>")
        bodies.append(f"<tbody>{''.join(lines)}</tbody>")
    names_row = "".join(f'<th class="measure" scope="col">{escape(column.label)}</th>' for column in chosen)
    return _framed(chosen, names_row, "".join(bodies), "runs-table")


def _versus(column: table.Column, value: table.Value | None, first: table.Value | None) -> str:
    words, interval = table.text(column, value)
    small = f"<small>{escape(interval)}</small>" if interval else ""
    if value is not None and first is not None:
        shift = _value(value) - _value(first)
        signed = table.Column(column.measure, "", "", column.scale, column.digits, signed=True)
        if math.isfinite(shift) and (drawn := table.text(signed, shift)[0]).strip("0."):
            style = {1: "good", -1: "bad"}.get(column.better * (1 if shift > 0 else -1), "")
            small += f'<small class="{style}">{escape(drawn)}</small>'
    return f"<td>{escape(words)}{small}</td>"


# -------------------------------------------------------------------------------------------------------- the figures


def _maps(runs: Sequence[Run]) -> str:
    every = [each for run in runs for each in run.result.maps]
    if not every:
        return ""
    looks = maps.styles(every)
    edges = {unit: maps.steps([each for each in every if each.unit == unit]) for unit in {each.unit for each in every}}

    head = "<h3>{}</h3>" if len(runs) == 1 else "<h4>{}</h4>"

    def drawn(run: Run) -> str:
        parts = []
        for each in run.result.maps:
            own = edges[each.unit]
            best = _figure(partial(maps.plans, each, looks), 516, "half")
            gain = _figure(partial(maps.gained, each, own), 516, "half")
            parts.append(
                f'<div class="map"><div>{head.format(escape(each.title))}{best}{maps.legend(each, looks)}</div>'
                f"<div>{head.format('What it gains over not splitting')}{gain}{maps.scale(each, own)}</div></div>"
            )
        return "".join(parts)

    caption = (
        "Which plan is best over bandwidth and round trip, and what it gains over the better of the device alone and "
        "the cloud with a compressed input, as far as they are allowed. Both axes are logarithmic; the diamond is the "
        "link that was asked about."
    )
    return _section("Where to cut", caption, _beside(runs, drawn))


def _tradeoffs(runs: Sequence[Run]) -> str:
    drawn = [run for run in runs if run.result.curves or run.result.points]
    if not drawn:
        return ""
    y = plot.accuracies(run.result for run in drawn)
    caption = "Up and to the left is better: more right answers, fewer calls."
    if any(run.result.target for run in drawn):
        caption += " A ring marks where a curve reaches the target; the figure below it is the share of inputs asked."
    if any(run.result.points for run in drawn):
        caption += " A filled point is what a user gets, with its threshold chosen beforehand; a diamond a baseline."
    width, style = (1064.0, "full") if len(runs) == 1 else (516.0, "half")
    return _section(
        "Accuracy against asking",
        caption,
        _beside(
            runs,
            lambda run: (
                _figure(lambda w: plot.tradeoff(run.result, w, y), width, style)
                if run.result.curves or run.result.points
                else ""
            ),
        ),
    )


def _learning_and_people(runs: Sequence[Run]) -> str:
    sections = []
    if any(_learns(run.result.rounds) for run in runs):
        y_rounds = plot.learned(run.result.rounds for run in runs)

        def drawn(run: Run) -> str:
            rounds = run.result.rounds
            if not rounds:
                return ""
            return _figure(lambda w: plot.learning(rounds, w, y_rounds), 516, "half") if _learns(rounds) else ""

        banded = any(key.endswith("_low") for run in runs for each in run.result.rounds for key in each)
        caption = f"Accuracy after each round{'; a shaded band is its interval' if banded else ''}."
        sections.append(_section("Learning, round by round", caption, _beside(runs, drawn)))
    if any(run.result.users for run in runs):
        y = plot.span(
            [
                value
                for run in runs
                if run.result.users
                for value in (*run.result.users.before, *run.result.users.after)
            ],
            ceiling=1,
        )

        def shown(run: Run) -> str:
            result = run.result
            if result.users is None:
                return ""
            told = result.users
            words = f'<p class="lead">{_changes(told)}</p>'
            return words + _figure(lambda w: plot.people(told, w, y), 516, "half")

        sections.append(_section("User by user", "", _beside(runs, shown)))
    if len(runs) == 1 and len(sections) == 2:
        sections = [f'<div class="two">{"".join(sections)}</div>']
    if any(plot.others(run.result.rounds, 256) for run in runs):
        sections.append(_section("What else the rounds show", "", _beside(runs, _smalls)))
    return "".join(sections)


def _smalls(run: Run) -> str:
    figures = "".join(f"<figure>{figure}</figure>" for figure in plot.others(run.result.rounds, 256))
    return f'<div class="smalls">{figures}</div>' if figures else ""


def _learns(rounds: Sequence[Mapping[str, float]]) -> bool:
    return any(key.endswith("accuracy") for each in rounds for key in each)


def _changes(told: Users) -> str:
    before, after = np.asarray(told.before), np.asarray(told.after)
    up, down = int((after > before).sum()), int((after < before).sum())
    same = len(before) - up - down
    words = [f"<b>{up:,} of {len(before):,} users gain</b>", f"{down:,} lose"] + ([f"{same:,} stay"] if same else [])
    return f"{', '.join(words)}. Median {100 * np.median(before):.1f} % before, {100 * np.median(after):.1f} % after."


def _beside(runs: Sequence[Run], draw: Callable[[Run], str]) -> str:
    """One figure, or those of several runs in columns under their letters."""
    if len(runs) == 1:
        return draw(runs[0])
    missing = '<p class="lead">Not measured.</p>'
    columns = "".join(
        f"<div><h3>{_key(i)}{escape(run.result.name)}</h3>{draw(run) or missing}</div>" for i, run in enumerate(runs)
    )
    return f'<div class="side">{columns}</div>'


def _figure(draw: Callable[[float], str], width: float, style: str) -> str:
    """The figure twice: at its width, and for a phone."""
    return (
        f'<figure class="{style}"><div class="desk">{draw(width)}</div>'
        f'<div class="phone" aria-hidden="true">{draw(354)}</div></figure>'
    )


def _chooser(runs: Sequence[Run]) -> tuple[str, str]:
    """The section in which one chooses a user, and the JSON that its script reads; both empty where there are none."""
    users_shown, words = people.chosen([run.people for run in runs])
    if not users_shown:
        return "", ""
    several = len(runs) > 1
    caption = f"What one user got, beside the 10, 50 and 90 % of all users. {words}"
    if several:
        caption += " The same user is shown in every run that has it."
    if left := sum(run.people.left_out for run in runs):
        caption += f" {left:,} further kinds of answers are left out."
    told = people.data([run.result.name for run in runs], [run.people for run in runs], users_shown)
    return _section("One user", caption, people.CHOOSER), people.embedded(told)


# ---------------------------------------------------------------------------------------- notes, costs and settings


def _notes(runs: Sequence[Run]) -> str:
    lists = []
    for i, run in enumerate(runs):
        if run.result.notes:
            head = f"<h3>{_key(i)}{escape(run.result.name)}</h3>" if len(runs) > 1 else ""
            lists.append(head + f"<ul>{''.join(f'<li>{escape(note)}</li>' for note in run.result.notes)}</ul>")
    return f'<section class="notes"><h2>What speaks against it</h2>{"".join(lists)}</section>' if lists else ""


def _costs(runs: Sequence[Run]) -> str:
    content = _beside(runs, lambda run: _bars(run.result.rows) + _spent(run.spent))
    if not any(run.spent or _bars(run.result.rows) for run in runs):
        return ""
    caption = "Bars compare the systems, each measure on its own scale from zero."
    caption += " The table adds up every record." if any(run.spent for run in runs) else ""
    return _section("What it costs", caption, content)


def _bars(rows: Sequence[table.Row]) -> str:
    charts = []
    for column in table.COLUMNS:
        if column.measure not in ("p95_seconds", "up_bytes", "down_bytes", "joules", "dollars"):
            continue
        known = [(row.name, row.values[column.measure]) for row in rows if column.measure in row.values]
        most = max((_value(value) for _, value in known), default=0.0)
        if most <= 0 or not math.isfinite(most):
            continue
        lines = "".join(
            f"<dt><span>{escape(name)}</span><span>{escape(table.text(column, value)[0])}</span></dt>"
            f'<dd><i style="width:{100 * _value(value) / most:.1f}%"></i></dd>'
            for name, value in known
        )
        title = f"{escape(column.label)} <span>{escape(column.group)}</span>"
        charts.append(f"<div><h3>{title}</h3><dl>{lines}</dl></div>")
    return f'<div class="bars">{"".join(charts)}</div>' if charts else ""


def _spent(spent: Sequence[Spent]) -> str:
    if not spent:
        return ""
    plain = table.Column("", "", "")
    lines = []
    for each in spent:
        cost = each.cost
        values = [cost.seconds, cost.up_bytes / 1e6, cost.down_bytes / 1e6, cost.joules, cost.dollars]
        cells = "".join(f"<td>{table.text(plain, float(value))[0]}</td>" for value in values)
        lines.append(f'<tr><th scope="row">{escape(each.protocol)}</th><td>{each.records:,}</td>{cells}</tr>')
    heads = "".join(f'<th scope="col">{head}</th>' for head in ("records", "s", "MB up", "MB down", "J", "$"))
    return (
        f'<div class="scroll"{_WALKED}><table><thead><tr><th scope="col">protocol</th>{heads}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _settings(runs: Sequence[Run]) -> str:
    names = list(dict.fromkeys(name for run in runs for name in run.settings))
    versions = [name for name in names if name.split(".")[0] == "versions"]
    heads = f"<thead><tr><td></td>{''.join(f'<th>{_key(i)}</th>' for i in range(len(runs)))}</tr></thead>"
    parts = []
    for title, chosen in (("Settings", [n for n in names if n not in versions]), ("Versions", versions)):
        if not chosen:
            continue
        lines = []
        for name in chosen:
            values = [run.settings.get(name, "–") for run in runs]
            mark = ' class="differs"' if len(set(values)) > 1 else ""
            cells = "".join(f"<td>{escape(value)}</td>" for value in values)
            lines.append(f'<tr{mark}><th scope="row">{escape(name.removeprefix("versions."))}</th>{cells}</tr>')
        inside = f"<table>{heads if len(runs) > 1 else ''}<tbody>{''.join(lines)}</tbody></table>"
        parts.append(f'<details><summary>{title}</summary><div class="scroll"{_WALKED}>{inside}</div></details>')
    return _section("How it was run", "", "".join(parts)) if parts else ""


def _flat(value: Any, users_named: set[str], name: str = "") -> Iterable[tuple[str, str]]:
    """Settings as (dotted name, text); a user's name as its hash."""
    if isinstance(value, Mapping) and (value or not name):
        for part in value:
            safe = hashed(part) if part in users_named else str(part)
            yield from _flat(value[part], users_named, f"{name}.{safe}" if name else safe)
    elif isinstance(value, list) and any(isinstance(part, Mapping | list) for part in value):
        for i, part in enumerate(value):
            yield from _flat(part, users_named, f"{name}.{i}")
    elif isinstance(value, list):
        yield name, ", ".join(text for part in value for _, text in _flat(part, users_named))
    else:
        known = isinstance(value, str) and value in users_named
        yield name, hashed(value) if known else value if isinstance(value, str) else json.dumps(value)


def _section(title: str, caption: str, content: str) -> str:
    lead = f'<p class="lead">{escape(caption)}</p>' if caption else ""
    return f"<section><h2>{escape(title)}</h2>{lead}{content}</section>"


def _best(column: table.Column, values: Sequence[table.Value | None]) -> float:
    """The best of at least two; NaN, which equals nothing, where there is none."""
    numbers = [_value(value) for value in values if value is not None and math.isfinite(_value(value))]
    if not column.better or len(set(numbers)) < 2:
        return math.nan
    return max(numbers) if column.better > 0 else min(numbers)


def _value(value: table.Value) -> float:
    return value.value if isinstance(value, table.Interval) else float(value)


def _points(share: float) -> str:
    return f"{100 * share:+.1f}".replace("-", "−")


def _letter(i: int) -> str:
    return chr(ord("A") + i) if i < 26 else str(i + 1)


def _key(i: int) -> str:
    return f'<span class="key">{_letter(i)}</span>'
