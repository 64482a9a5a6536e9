"""What ``duetto compress`` found, as one page that opens from disk and fetches nothing."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from html import escape
from importlib import resources
from pathlib import Path
from string import Template

from duetto.evaluation import front, table, users
from duetto.programs.compress import ORIGINAL, Found, Line, nearest, per_user

_EMPTY = base64.b64encode(hashlib.sha256(b"").digest()).decode()  # the page runs no script
_HEADS = (
    ("file, kB", "% of original"),
    ("zstd, kB", ""),
    ("latency, us", "95 %"),
    ("% of original", "95 %"),
    ("accuracy, %", "mean of users"),
    ("points lost", "mean of users"),
    ("points lost", "worst 10 %"),
    ("lost", "calibration users"),
)


def write(found: Found, path: Path) -> Path:
    """The page, there completely or not at all."""
    part = path.with_name(f"{path.name}.part")
    part.write_text(page(found), encoding="utf-8")
    part.replace(path)
    return path


def headline(found: Found) -> str:
    """What was chosen and what it gives, in one sentence."""
    settings = found.settings
    what = f"{settings.task}.{settings.role}"
    line = next((line for line in found.lines if line.outcome.name == found.chosen), None)
    if line is None:
        return f"{what}: nothing keeps all limits; {nearest(found)}"
    return (
        f"{what}: {line.outcome.name} – {percent(line.share)} % of the bytes, {percent(line.latency.value)} % of the "
        f"latency; unseen users {_said(line.loss.value)}, the worst 10 % {_said(line.worst.value)}"
    )


def _said(points: float) -> str:
    return f"{'gain' if points < 0 else 'lose'} {abs(points):.2f} points"


def percent(share: float) -> str:
    """A share in percent: whole from ten on, else with two digits."""
    return f"{100 * share:.0f}" if share >= 0.0995 else f"{100 * share:.2g}"


def notes(found: Found) -> list[str]:
    """What speaks against it."""
    said = []
    line = next((line for line in found.lines if line.outcome.name == found.chosen), None)
    limits = found.limits
    if line is not None:
        for name, value, limit in (
            ("on average", line.loss.value, limits.max_loss),
            ("in the worst tenth", line.worst.value, limits.max_worst_loss),
        ):
            if value > limit:
                said.append(f"unseen users lose {value:.2f} points {name}: more than the limit of {limit:g}")
        if line.loss.high > limits.max_loss:
            said.append(f"the interval of the loss reaches {line.loss.high:.2f} points, beyond the limit")
    slower = [each.outcome.name for each in found.lines if each.outcome.name != ORIGINAL and each.latency.low > 1.02]
    if slower:
        said.append(f"slower than the original on this machine: {', '.join(slower)}")
    said.append(
        "8-bit weights and sparse files answer in float32: they take fewer bytes on disk, not in memory; "
        "latencies are this machine's, and another one orders them otherwise"
    )
    return said


def page(found: Found) -> str:
    """The page as HTML."""
    accuracy = {line.outcome.name: _accuracy(line, found.settings.seed) for line in found.lines}
    settings = found.settings
    people = (
        f"{len(found.lines[0].outcome.unseen):,} unseen users, {len(found.lines[0].outcome.calibration):,} to choose by"
    )
    over = "".join(
        f"<span>{escape(fact)}</span>" for fact in (f"{settings.task}.{settings.role}", f"seed {settings.seed}", people)
    )
    body = [f'<header><p class="over">{over}</p><h1>{escape(headline(found))}</h1></header>']
    body.append(
        "<section><h2>What each way gives and costs</h2>"
        '<p class="lead">Small figures are 95 % intervals, over users or rounds. Bold is chosen; a dot marks the '
        "front, which nothing beats at bytes, latency and calibration accuracy at once.</p>"
        f"{_table(found, accuracy)}</section>"
    )
    for price, across in ((_latency, "latency"), (_share, "bytes of the file")):
        points = [
            front.Priced(
                line.outcome.name,
                price(line),
                accuracy[line.outcome.name].value,
                accuracy[line.outcome.name].low,
                accuracy[line.outcome.name].high,
                "base"
                if line.outcome.baseline
                else "own"
                if line.front or line.outcome.name == found.chosen
                else "other",
            )
            for line in found.lines
        ]
        least = accuracy[ORIGINAL].value - found.limits.max_loss / 100
        limit = found.limits.max_latency if across == "latency" else found.limits.max_bytes
        drawn = "".join(
            f'<div class="{style}"{hidden}>{front.picture(points, across, width, (limit / 100, least))}</div>'
            for style, hidden, width in (("desk", "", 1064.0), ("phone", ' aria-hidden="true"', 354.0))
        )
        body.append(
            f"<section><h2>Accuracy against {across}</h2>"
            '<p class="lead">Unseen users; up and to the left is better. Blue is chosen or on the front, a diamond a '
            f'baseline; a bar is the 95 % interval over users.</p><figure class="full">{drawn}</figure></section>'
        )
    listed = "".join(f"<li>{escape(note)}</li>" for note in notes(found))
    body.append(f'<section class="notes"><h2>What speaks against it</h2><ul>{listed}</ul></section>')
    body.append(_steps(found.lines))
    body.append("<footer>Written by duetto. This file is complete: it fetches nothing and sends nothing.</footer>")
    template = Template(resources.files("duetto.evaluation").joinpath("report.html").read_text(encoding="utf-8"))
    title = f"{escape(settings.task)}.{settings.role}, compressed – Duetto"
    return template.substitute(allowed=f"sha256-{_EMPTY}", title=title, body="\n".join(body), script="")


def _table(found: Found, accuracy: dict[str, table.Interval]) -> str:
    heads = "".join(f'<th class="measure" scope="col">{head}<br>{below}</th>' for head, below in _HEADS)
    lines = []
    for line in found.lines:
        made, own = line.outcome, accuracy[line.outcome.name]
        cells = [
            (f"{made.nbytes / 1e3:,.1f}", f"{percent(line.share)} %"),
            (f"{made.sent_bytes / 1e3:,.1f}", ""),
            (f"{1e6 * line.seconds.value:,.1f}", _between(line.seconds, 1e6, 1)),
            (f"{100 * line.latency.value:.0f}", _between(line.latency, 100, 0)),
            (f"{100 * own.value:.2f}", _between(own, 100, 1)),
            (_lost(line.loss.value), _between(line.loss, 1, 2)),
            (_lost(line.worst.value), _between(line.worst, 1, 2)),
            (_lost(line.expected_loss), f"{_lost(line.expected_worst)} worst 10 %"),
        ]
        drawn = "".join(f"<td>{value}{f'<small>{small}</small>' if small else ''}</td>" for value, small in cells)
        name = escape(made.name)
        name = f"<b>{name}</b>" if made.name == found.chosen else name
        lines.append(f'<tr><th scope="row">{name}{" •" if line.front else ""}</th>{drawn}</tr>')
    return (
        f'<div class="scroll"><table class="wide"><thead><tr><th scope="col">way</th>{heads}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _steps(lines: Sequence[Line]) -> str:
    rows = "".join(
        f'<tr><th scope="row">{escape(line.outcome.name)}</th><td>{line.outcome.parameters:,}</td>'
        f"<td>{line.outcome.flops / 1e6:.3g}</td><td>{escape(line.outcome.steps)}</td></tr>"
        for line in lines
    )
    return (
        "<section><h2>How each was made</h2><details><summary>Steps</summary>"
        '<div class="scroll"><table><thead><tr><th></th><th>parameters</th><th>MFLOP</th><th>steps</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div></details></section>"
    )


def _accuracy(line: Line, seed: int) -> table.Interval:
    told = per_user(line.outcome.unseen)
    low, high = users.bootstrap(users.user_mean, told, key=("compress", seed))
    return table.Interval(float(users.user_mean(told)), low, high)


def _latency(line: Line) -> float:
    return line.latency.value


def _share(line: Line) -> float:
    return line.share


def _lost(points: float) -> str:
    return f"{round(points, 2) + 0.0:.2f}".replace("-", "−")


def _between(value: table.Interval, scale: float, digits: int) -> str:
    low, high = (
        f"{round(scale * each, digits) + 0.0:.{digits}f}".replace("-", "−") for each in (value.low, value.high)
    )
    return f"{low} to {high}"
