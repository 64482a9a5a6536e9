"""Figures as SVG text: axes, curves, points, and labels that stand beside what they name and not on each other.

Colours are classes (``s0``, ``s1`` … a series, ``ref`` a reference), so that the page's style sheet sets them for
light and dark. Widths are in pixels of the page; a page that must fit a phone draws a figure twice. A ``<title>``
inside a mark is what it says when pointed at.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from importlib import resources

import numpy as np

from duetto.evaluation import pareto
from duetto.evaluation.result import Curve, Result, Users
from duetto.evaluation.table import Interval
from duetto.tree import Array

FONT = 13.0  # pixels; a label's height is 1.25 of it
SERIES = 6  # colours in the palette
MANY = 120  # users from which on they are drawn as two curves
_AROUND = [(1, 0), (0, -1), (0, 1), (-1, 0), (1, -1), (1, 1), (-1, -1), (-1, 1)]

_ALONE = (  # of a picture without a page
    "<style>svg{background:#fbfbf9}text{font:12px system-ui,sans-serif;fill:#5d6670}"
    ".head{font-size:14px;font-weight:600;fill:#1b1f24}.cell{fill:#0067a3}.bar{fill:#9aa3ab}"
    "@media(prefers-color-scheme:dark){svg{background:#14171b}text{fill:#a0a9b3}.head{fill:#e8eaed}"
    ".cell{fill:#63b5ee}.bar{fill:#5d6670}}</style>"
)
_ACCURACY = re.compile("accuracy(_low|_high)?$")

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Axes:
    """A plane of ``width`` x ``height`` pixels that shows x and y between two values each."""

    width: float
    height: float
    x: tuple[float, float]
    y: tuple[float, float]
    left: float = 44
    right: float = 14
    top: float = 34
    bottom: float = 46

    def at(self, x: Array, y: Array) -> tuple[Array, Array]:
        """Pixels of values."""
        across = self.left + (np.asarray(x) - self.x[0]) / (self.x[1] - self.x[0]) * (
            self.width - self.left - self.right
        )
        down = self.top + (self.y[1] - np.asarray(y)) / (self.y[1] - self.y[0]) * (self.height - self.top - self.bottom)
        return across, down


@dataclass
class Label:
    """Words to be placed near one of some anchors [k, 2], in pixels; ``away`` keeps clear of a mark's edge."""

    words: str
    anchors: Array
    style: str
    away: float = 7
    wrap: int = 26
    lines: list[str] = field(init=False)

    def __post_init__(self) -> None:
        self.lines = wrapped(self.words, self.wrap)


# ------------------------------------------------------------------------------------------------------- the figures


def tradeoff(result: Result, width: float, y: tuple[float, float] | None = None) -> str:
    """Accuracy against the share of inputs asked: curves, operating points, and where each reaches the target.

    ``y`` is the range of accuracies to show; by default that of the result (see :func:`accuracies`).
    """
    low, high = y or accuracies([result])
    wide = width > 600
    axes = Axes(width, 470 if wide else 410, (0, 1), (low, high))
    wrap = 26 if width > 400 else 20
    body = [_grid(axes, _ticks(0, 1, 10 if wide else 4), _ticks(low, high, 7), 100, 100)]
    body.append(_titles(axes, "share of inputs sent to the cloud, %", "accuracy, %"))
    labels, marks, paths = [], [], []
    colours = _colours(result.curves)
    if result.target is not None and low <= result.target.accuracy <= high:
        x, level = axes.at([0, 1], [result.target.accuracy] * 2)
        body.append(_path(x, level, "target"))
        paths.append((x, level))
        labels.append(Label(result.target.label, _along(x, level), "target", wrap=40))
    for curve in sorted(result.curves, key=lambda each: not each.reference):
        x, down = axes.at(curve.ask_share, curve.accuracy)
        style = colours[curve.label]
        body.append(_path(x, down, f"line {style}"))
        paths.append((x, down))
        labels.append(Label(curve.label, _along(x, down), style, wrap=wrap))
        if curve.reference:
            continue
        for i in _spread(x, down, 12):
            says = f"{curve.label}: {_percent(curve.accuracy[i])} asking {_percent(curve.ask_share[i])}"
            body.append(_dot(x[i], down[i], 6, "reach", says))
        if result.target is not None:
            share = pareto.reached(np.asarray(curve.ask_share), np.asarray(curve.accuracy), result.target.accuracy)
            if not math.isnan(share):
                (x0,), (top,) = axes.at([share], [result.target.accuracy])
                body.append(_path(np.array([x0, x0]), np.array([top, axes.height - axes.bottom]), f"drop {style}"))
                body.append(_dot(x0, top, 3.5, f"ring {style}", f"{curve.label}: reached asking {_percent(share)}"))
                foot = np.array([[x0, axes.height - axes.bottom - 12]])
                labels.insert(0, Label(_percent(share), foot, f"{style} strong", away=4))
                marks.append((x0 - 1, top, x0 + 1, axes.height - axes.bottom))
    named = []
    for point in result.points:
        (x0,), (down0,) = axes.at([point.ask_share], [min(max(point.accuracy, low), high)])
        style = colours.get(point.curve, "base")
        says = f"{point.label}: {_percent(point.accuracy)} asking {_percent(point.ask_share)}"
        body.append((_dot if point.curve in colours else _diamond)(x0, down0, 5.5, f"dot {style}", says))
        marks.append((x0 - 6, down0 - 6, x0 + 6, down0 + 6))
        named.append(Label(point.label, np.array([[x0, down0]]), style, away=9, wrap=wrap))
    shares = [label for label in labels if label.style.endswith("strong")]
    rest = [label for label in labels if not label.style.endswith("strong")]
    body.append(_placed([*shares, *named, *rest], axes, marks, paths))
    return _svg(axes, "Accuracy against the share of inputs asked", body)


def learning(rounds: Sequence[Mapping[str, float]], width: float, y: tuple[float, float] | None = None) -> str:
    """The learning curve: every key of the rounds that ends in ``accuracy``, with its band where there is one."""
    keys = [key for key in dict.fromkeys(key for each in rounds for key in each) if key.endswith("accuracy")]
    return _over_rounds(rounds, keys, width, 320, y or learned([rounds]), "accuracy, %", 100)


def others(rounds: Sequence[Mapping[str, float]], width: float) -> list[str]:
    """A small chart of every other key of the rounds, its unit read off the name's end."""
    keys = [key for key in dict.fromkeys(key for each in rounds for key in each) if key != "round"]
    figures = []
    for key in keys:
        if _ACCURACY.search(key) or key.endswith(("_low", "_high")):
            continue
        title, scale = _unit(key, [each[key] for each in rounds if key in each])
        y = span([each[key] * scale for each in rounds if key in each], floor=0)
        scaled = [{**each, key: each[key] * scale} if key in each else each for each in rounds]
        figures.append(_over_rounds(scaled, [key], width, 190, y, title, 1, named=False))
    return figures


def people(users: Users, width: float, y: tuple[float, float] | None = None) -> str:
    """Every user's accuracy before and after, the worst before on the left; many users become two curves."""
    before, after = np.asarray(users.before, float), np.asarray(users.after, float)
    low, high = y or span([*before, *after], ceiling=1)
    n = len(before)
    axes = Axes(width, 320, (0, 1), (low, high), top=44, bottom=30)
    body = [_grid(axes, [], _ticks(low, high, 6), 100, 100)]
    order = np.lexsort((after, before))
    place = (np.arange(n) + 0.5) / n
    worst = max(1, math.ceil(0.1 * n - 1e-9)) / n
    (x0, x1), (y0, y1) = axes.at([0, worst], [high, low])
    body.insert(0, f'<rect class="band" x="{x0:.1f}" y="{y0:.1f}" width="{x1 - x0:.1f}" height="{y1 - y0:.1f}"/>')
    body.append(f'<text class="tick" x="{x0:.1f}" y="{y0 - 5:.1f}">worst 10 %</text>')
    labels = []
    marks: list[Box] = []
    paths = []
    if n > MANY:
        title = "users, the worst on the left (sorted before and after apart)"
        lines = [np.sort(before), np.sort(after)]
        edge = np.append(np.arange(n) / n, 1)
        tops = [axes.at(np.repeat(edge, 2)[1:-1], np.repeat(line, 2)) for line in lines]
        outline = np.append(tops[0][0], tops[1][0][::-1]), np.append(tops[0][1], tops[1][1][::-1])
        body.append(_path(*outline, "between"))
        for i, (x, down) in enumerate(tops):
            body.append(_path(x, down, f"line s{i}"))
            paths.append((x, down))
            labels.append(Label(("before", "after")[i], _along(x, down), f"s{i}"))
            for j in _spread(x, down, 14):
                says = f"{('before', 'after')[i]}: {_percent(lines[i][j // 2])} at user {j // 2 + 1} of {n}"
                body.append(_dot(x[j], down[j], 7, "reach", says))
    else:
        title = "users, the worst before on the left"
        x, first = axes.at(place, before[order])
        _, then = axes.at(place, after[order])
        radius = float(np.clip(0.32 * (x[-1] - x[0]) / n, 1.6, 5)) if n > 1 else 5.0
        for i, j in enumerate(order):
            rising = "s1" if after[j] >= before[j] else "s0"
            says = f"user {users.names_hashed[j]}: {_percent(before[j])} before, {_percent(after[j])} after"
            body.append(
                f'<g class="user">{_path(x[[i, i]], np.array([first[i], then[i]]), f"stem {rising}")}'
                f"{_dot(x[i], first[i], radius, 'ring s0')}{_dot(x[i], then[i], radius, 'dot s1')}"
                f'<rect class="reach" x="{x[i] - max(3, radius):.1f}" y="{min(first[i], then[i]) - 8:.1f}" '
                f'width="{2 * max(3, radius):.1f}" height="{abs(first[i] - then[i]) + 16:.1f}">'
                f"<title>{escape(says)}</title></rect></g>"
            )
            marks += [(x[i] - radius, d - radius, x[i] + radius, d + radius) for d in (first[i], then[i])]
            paths.append((x[[i, i]], np.array([first[i], then[i]])))
        labels.append(Label("before", np.stack([x, first], 1), "s0"))
        labels.append(Label("after", np.stack([x, then], 1), "s1"))
    body.append(_titles(axes, title, "accuracy, %"))
    body.append(_placed(labels, axes, marks, paths))
    return _svg(axes, "Accuracy per user before and after learning", body)


def partition(rows: Array, users: Sequence[str], classes: Sequence[str], title: str, width: float = 900) -> str:
    """Who has which rows, as a picture of its own with its own colours: a column a user, a line a class.

    Args:
        rows: [users, classes] of each.
        users: their names, from left to right.
        classes: their names, from top to bottom.
        title: stands above.
        width: in pixels.
    """
    n, k = rows.shape
    total = rows.sum(1)
    left, high, line = max(map(extent, [*classes, "rows 0"])) + 16, 70.0, max(10.0, min(24.0, 480 / k))
    top, gap = 46.0, 14.0
    foot = top + high + gap + k * line
    step = (width - left - 16) / n
    wide = max(1.0, step - (1 if step > 4 else 0))
    body = [f'<text class="head" x="{left:.1f}" y="22">{escape(title)}</text>']
    body.append(f'<text x="{left - 8:.1f}" y="{top + 9:.1f}" text-anchor="end">{total.max():,}</text>')
    body.append(f'<text x="{left - 8:.1f}" y="{top + high:.1f}" text-anchor="end">rows 0</text>')
    for j, name in enumerate(classes):
        middle = top + high + gap + (j + 0.5) * line + 4
        body.append(f'<text x="{left - 8:.1f}" y="{middle:.1f}" text-anchor="end">{escape(name)}</text>')
    for i, user in enumerate(users):
        x, tall = left + i * step, high * total[i] / total.max()
        body.append(_rect(x, top + high - tall, wide, tall, "bar", f"{user}: {total[i]:,} rows"))
        for j, own in enumerate(rows[i].tolist()):
            if own:
                says = f"{user}: {own:,} of {total[i]:,} rows are {classes[j]}"
                y = top + high + gap + j * line
                body.append(_rect(x, y, wide, line - 1, "cell", says, _shade(own / total[i])))
    for place, share in enumerate((0.01, 0.25, 0.5, 0.75, 1.0)):
        x = left + 64 * place
        body.append(_rect(x, foot + 14, 16, 12, "cell", "", _shade(share)))
        body.append(f'<text x="{x + 21:.1f}" y="{foot + 24:.1f}">{share:.0%}</text>')
    body.append(f'<text x="{left + 324:.1f}" y="{foot + 24:.1f}">of the user\'s rows; a column is a user</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {foot + 38:.0f}" width="{width:.0f}" '
        f'role="img" aria-label="{escape(title)}">{_ALONE}{"".join(body)}</svg>\n'
    )


def ways(bars: Sequence[tuple[str, tuple[float, float, float], bool]], title: str, width: float = 900) -> str:
    """Ways to answer as bars: seconds on the device, on the link and in the cloud, as a picture of its own.

    Args:
        bars: what a way is called, its three parts in seconds, and whether it is the one to take.
        title: stands above.
        width: in pixels.
    """
    words = wrapped(title, 110)
    left, line, top = 1.2 * max(extent(name) for name, _, _ in bars) + 24, 22.0, 30.0 + 18 * len(words)
    longest = max(sum(parts) for _, parts, _ in bars) or 1.0
    scale = (width - left - 90) / longest
    body = [f'<text class="head" x="12" y="{22 + 18 * i}">{escape(each)}</text>' for i, each in enumerate(words)]
    for i, (name, parts, taken) in enumerate(bars):
        x, y = left, top + i * line
        style = ' class="head"' if taken else ""
        body.append(f'<text{style} x="{left - 8:.1f}" y="{y + 13:.1f}" text-anchor="end">{escape(name)}</text>')
        for part, kind, opacity in zip(parts, ("device", "link", "cloud"), (1.0, 0.4, 0.7), strict=True):
            colour = "bar" if kind == "link" else "cell"
            body.append(_rect(x, y, part * scale, line - 6, colour, f"{kind}: {part * 1e3:.4g} ms", opacity))
            x += part * scale
        body.append(f'<text{style} x="{x + 6:.1f}" y="{y + 13:.1f}">{sum(parts) * 1e3:.4g} ms</text>')
    foot = top + len(bars) * line + 14
    legend = (("device", "cell", 1.0), ("link", "bar", 0.4), ("cloud", "cell", 0.7))
    for i, (kind, colour, opacity) in enumerate(legend):
        body.append(_rect(left + 90 * i, foot, 16, 12, colour, "", opacity))
        body.append(f'<text x="{left + 90 * i + 21:.1f}" y="{foot + 10:.1f}">{kind}</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {foot + 26:.0f}" width="{width:.0f}" '
        f'role="img" aria-label="{escape(title)}">{_ALONE}{"".join(body)}</svg>\n'
    )


def depth(
    curves: Mapping[str, Sequence[tuple[float, float, float]]],
    references: Mapping[str, float],
    places: Sequence[str],
    width: float,
    title: str,
    dashed: Sequence[str] = (),
) -> str:
    """What is known of an input at each of some places that follow each other, and what is known without looking.

    Args:
        curves: name -> value, low and high at each place.
        references: name -> one value for all places.
        places: what they are called.
        width: in pixels.
        title: of the values.
        dashed: curves that are drawn so, each in the colour of the one whose name it begins with.
    """
    values = [each for curve in curves.values() for point in curve for each in point]
    low, high = span([*values, *references.values()])
    axes = Axes(width, 430, (0, max(1, len(places) - 1)), (low, high), left=52, right=30)
    body = [_grid(axes, [], _ticks(low, high, 7), 1, 1), _titles(axes, "cut: stages on the device", title)]
    across = np.arange(len(places))
    for at, name in zip(axes.at(across, across)[0], places, strict=True):
        foot = axes.height - axes.bottom
        body.append(f'<text class="tick" x="{at:.1f}" y="{foot + 18:.1f}" text-anchor="middle">{escape(name)}</text>')
    labels, paths = [], []
    for i, (name, value) in enumerate(references.items()):
        x, down = axes.at([0, len(places) - 1], [value, value])
        body.append(_path(x, down, f"line ref ref{i % 3}"))
        paths.append((x, down))
        labels.append(Label(name, _along(x, down), "ref", wrap=40))
    styles = {name: f"s{i % SERIES}" for i, name in enumerate(name for name in curves if name not in dashed)}
    for name, curve in curves.items():
        style = next((styles[own] for own in styles if name.startswith(own)), "s5")
        x, down = axes.at(np.arange(len(curve)), [point[0] for point in curve])
        if name not in dashed:
            edge = [point[1] for point in curve] + [point[2] for point in curve][::-1]
            span_x = [*range(len(curve)), *reversed(range(len(curve)))]
            body.append(_path(*axes.at(span_x, edge), f"area {style}"))
        body.append(_path(x, down, f"line {style}{' ref0' if name in dashed else ''}"))
        paths.append((x, down))
        for place, point, right, below in zip(places, curve, x, down, strict=True):
            says = f"{name}, cut {place}: {point[0]:.3f} ({point[1]:.3f} to {point[2]:.3f})"
            body.append(_dot(right, below, 3, f"dot {style}") + _dot(right, below, 8, "reach", says))
        labels.append(Label(name, _along(x, down), style))
    body.append(_placed(labels[::-1], axes, [], paths))
    return _svg(axes, title, body)


def images(rows: Mapping[str, Array], side: float = 84) -> str:
    """Rows of pictures, each named: ``[k, channels, height, width]`` from 0 to 1, drawn in eight greys."""
    left, gap = 24 + max(map(extent, rows)), 8.0
    count = max(len(row) for row in rows.values())
    axes = Axes(left + count * (side + gap), len(rows) * (side + gap), (0, 1), (0, 1))
    body = []
    for i, (name, row) in enumerate(rows.items()):
        top = i * (side + gap)
        body.append(
            f'<text class="tick" x="{left - 10:.1f}" y="{top + side / 2:.1f}" text-anchor="end">{escape(name)}</text>'
        )
        for j, image in enumerate(row):
            levels = np.rint(np.clip(np.asarray(image).mean(0), 0, 1) * 7).astype(int)
            place = f"translate({left + j * (side + gap):.1f} {top:.1f}) scale({side / max(levels.shape):.4f})"
            parts = [f'<rect width="{levels.shape[1]}" height="{levels.shape[0]}" fill="#000"/>']
            for level in range(1, 8):
                pixels = "".join(f"M{x} {y}h1v1h-1z" for y, x in zip(*np.nonzero(levels == level), strict=True))
                if pixels:
                    parts.append(f'<path fill="#{f"{round(255 * level / 7):02x}" * 3}" d="{pixels}"/>')
            body.append(f'<g transform="{place}" shape-rendering="crispEdges">{"".join(parts)}</g>')
    return _svg(axes, "pictures: " + ", ".join(rows), body)


def spreads(
    panels: Sequence[tuple[str, Sequence[tuple[str, Array, bool]]]],
    title: str,
    axis: str,
    x: tuple[float, float],
    width: float = 900,
) -> str:
    """What several methods brought in each of many cells: a dot a cell, and the middle half, as a picture of its own.

    Args:
        panels: what stands above a panel, and its methods: name, shares ``[cells]``, whether it is the one meant.
        title: stands above all.
        axis: what the shares are, shown in percent.
        x: the shares to show; how many cells lie beyond is said.
        width: in pixels.
    """
    words, line = wrapped(title, 110), 26.0
    left = 1.2 * max(extent(name) for _, methods in panels for name, _, _ in methods) + 24
    right, y = width - 220.0, 30.0 + 18 * len(words)
    columns = [right + 70, right + 136, right + 206]
    axes = Axes(width, 1, x, (0, 1), left, width - right)
    body = [f'<text class="head" x="12" y="{22 + 18 * i}">{escape(each)}</text>' for i, each in enumerate(words)]

    def said(told: str, at: float, down: float, anchor: str = "end", style: str = "") -> None:
        name = f' class="{style}"' if style else ""
        body.append(f'<text{name} x="{at:.1f}" y="{down:.1f}" text-anchor="{anchor}">{escape(told)}</text>')

    for heading, methods in panels:
        foot = y + 28 + line * len(methods)
        said(heading, left, y + 14, "start", "head")
        for told, at in zip(("median, %", "mean, %", "not shown"), columns, strict=True):
            said(told, at, y + 14)
        for tick in _ticks(*x, 8):
            (across,), _ = axes.at([tick], [0])
            body.append(_rect(across - 0.5, y + 22, 1, foot - y - 22, "bar", "", 0.7 if abs(tick) < 1e-9 else 0.25))
            said(f"{100 * tick:.0f}", across, foot + 14, "middle")
        for i, (name, values, meant) in enumerate(methods):
            shares, middle = np.asarray(values, float), y + 24 + line * (i + 0.5)
            within, style = (shares >= x[0]) & (shares <= x[1]), "head" if meant else ""
            first, half, third = np.percentile(shares, (25, 50, 75))
            (low, high, median, mean), _ = axes.at(np.clip([first, third, half, shares.mean()], *x), [0] * 4)
            says = f"{name}: the middle half from {100 * first:.1f} to {100 * third:.1f} %"
            body.append(_rect(low, middle - 9, high - low, 18, "cell", says, 0.35 if meant else 0.18))
            across, _ = axes.at(shares, shares)
            for j in np.flatnonzero(within).tolist():
                aside = middle + 14 * ((j * 0.618034) % 1 - 0.5)  # so that equal cells do not hide each other
                body.append(_dot(across[j], aside, 1.6, "cell" if meant else "bar", f"{100 * shares[j]:.1f} %"))
            if x[0] <= half <= x[1]:
                body.append(_rect(median - 1.25, middle - 10, 2.5, 20, "cell", "median"))
            if x[0] <= shares.mean() <= x[1]:
                body.append(_diamond(mean, middle, 5, "cell", "mean"))
            beyond = f"{(~within).sum()} of {len(shares)}" if not within.all() else ""
            said(name, left - 10, middle + 4, "end", style)
            for told, at in zip((f"{100 * half:,.1f}", f"{100 * shares.mean():,.1f}", beyond), columns, strict=True):
                said(told, at, middle + 4, "end", style)
        y = foot + 24
    said(axis, left, y + 16, "start")
    said("dot: a cell; bar: the middle half; line: median; diamond: mean", width - 12, y + 16)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {y + 30:.0f}" width="{width:.0f}" '
        f'role="img" aria-label="{escape(title)}">{_ALONE}{"".join(body)}</svg>\n'
    )


def sizes(
    points: Sequence[tuple[str, float, Interval, bool, bool]], title: str, across: str, width: float = 900
) -> str:
    """Accuracy against a cost, a point a size, as a picture of its own; a line joins those that no other beats.

    Args:
        points: what a size is called, what it costs, its accuracy, whether it is on the line, whether it is taken.
        title: what the picture shows, for who cannot see it.
        across: what the cost is, with a unit in which it is some tens at least.
        width: in pixels.
    """
    left, right = span(cost for _, cost, _, _, _ in points)
    low, high = span((bound for _, _, each, _, _ in points for bound in (each.low, each.high)), ceiling=1.0)
    axes = Axes(width, 420, (left, right), (low, high))
    body = [_grid(axes, _ticks(left, right, 8), _ticks(low, high, 7), 1, 100), _titles(axes, across, "accuracy, %")]
    line = sorted((cost, each.value) for _, cost, each, kept, _ in points if kept)
    x, y = axes.at([cost for cost, _ in line], [value for _, value in line])
    body.append(_path(x, y, "line s0"))
    labels, marks = [], []
    for name, cost, each, kept, taken in points:
        (x0, _, _), (down, top, foot) = axes.at([cost] * 3, [each.value, each.low, each.high])
        style = "s0" if kept else "base"
        body.append(_path(np.array([x0, x0]), np.array([top, foot]), "axis"))
        says = f"{name}: {_percent(each.value)} ({_percent(each.low)} to {_percent(each.high)})"
        body.append((_diamond if taken else _dot)(x0, down, 8 if taken else 5, f"dot {style}", says))
        marks += [(x0 - 7, down - 7, x0 + 7, down + 7), (x0 - 1, foot, x0 + 1, top)]
        labels.append(Label(f"{name}, taken" if taken else name, np.array([[x0, down]]), style, away=10))
    body.append(_placed(labels, axes, marks, [(x, y)]))
    return alone(_svg(axes, title, body))


def alone(figure: str) -> str:
    """A figure of a page as a picture of its own, in the page's styles."""
    page = resources.files("duetto.evaluation").joinpath("report.html").read_text(encoding="utf-8")
    style = page[page.index("<style>") + 7 : page.index("</style>")]
    own = "svg { background: var(--ground); padding: 16px; font-family: system-ui, sans-serif; }"
    head, body = figure.split(">", 1)
    return (
        head.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"', 1)
        + f"><style><![CDATA[{style}{own}]]></style>{body}\n"
    )


def accuracies(results: Iterable[Result]) -> tuple[float, float]:
    """The range of accuracies that shows every curve and point of these results."""
    values: list[float] = []
    for result in results:
        values += [value for curve in result.curves for value in curve.accuracy]
        values += [point.accuracy for point in result.points]
        values += [result.target.accuracy] if result.target else []
    return span(values, ceiling=1)


def learned(runs: Iterable[Sequence[Mapping[str, float]]]) -> tuple[float, float]:
    """The range of accuracies that shows the learning curves, and their bands, of these runs."""
    return span([each[key] for rounds in runs for each in rounds for key in each if _ACCURACY.search(key)])


# --------------------------------------------------------------------------------------------------------- their parts


def _over_rounds(
    rounds: Sequence[Mapping[str, float]],
    keys: Sequence[str],
    width: float,
    height: float,
    y: tuple[float, float],
    title: str,
    scale: float,
    named: bool = True,
) -> str:
    """``keys`` against the round; ``y`` in the unit of the values, shown times ``scale``."""
    numbers = [each["round"] for each in rounds]
    first, last = min(numbers), max(numbers)
    axes = Axes(width, height, (first, last if last > first else first + 1), y, left=52)
    ticks = [tick for tick in _ticks(first, last, 8 if width > 400 else 5) if tick == round(tick)] or [first]
    body = [_grid(axes, ticks, _ticks(*y, 6 if named else 4), 1, scale)]
    body.append(_titles(axes, "round", title))
    labels, paths = [], []
    for i, key in enumerate(keys):
        known = [each for each in rounds if key in each]
        style = f"s{(1, 0, 2, 3, 4, 5)[i % SERIES]}"
        band = [each for each in known if f"{key}_low" in each and f"{key}_high" in each]
        if band:
            span = [each["round"] for each in band]
            edge = [each[f"{key}_low"] for each in band] + [each[f"{key}_high"] for each in band][::-1]
            body.append(_path(*axes.at(span + span[::-1], edge), f"area {style}"))
        x, down = axes.at([each["round"] for each in known], [each[key] for each in known])
        body.append(_path(x, down, f"line {style}"))
        paths.append((x, down))
        for each, across, along in zip(known, x, down, strict=True):
            value = _percent(each[key]) if scale == 100 else f"{each[key]:.4g}"
            body.append(_dot(across, along, 2.5, f"dot {style}"))
            body.append(_dot(across, along, 8, "reach", f"round {each['round']:.0f}, {_spoken(key)}: {value}"))
        if named and len(keys) > 1:
            labels.append(Label(_spoken(key), _along(x, down), style))
    body.append(_placed(labels, axes, [], paths))
    return _svg(axes, title, body)


def _colours(curves: Sequence[Curve]) -> dict[str, str]:
    """The class of every curve by label: systems by their order, references grey and told apart by their dashes."""
    systems = [curve.label for curve in curves if not curve.reference]
    rest = [curve.label for curve in curves if curve.reference]
    named = {label: f"s{i % SERIES}" for i, label in enumerate(systems)}
    return named | {label: f"ref ref{i % 3}" for i, label in enumerate(rest)}


def _grid(axes: Axes, across: Sequence[float], up: Sequence[float], x_scale: float, y_scale: float) -> str:
    """Hairlines and the numbers beside them, which are the values times the scales."""
    parts = []
    right, foot = axes.width - axes.right, axes.height - axes.bottom
    step = (up[1] - up[0]) * y_scale if len(up) > 1 else 1.0
    digits = next((d for d in range(6) if abs(round(step, d) - step) < 1e-9 * step), 6)
    for tick in up:
        _, (y,) = axes.at([0], [tick])
        value = f"{tick * y_scale:,.{digits}f}"
        parts.append(f'<line class="grid" x1="{axes.left:.1f}" x2="{right:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{axes.left - 8:.1f}" y="{y + 4:.1f}" text-anchor="end">{value}</text>')
    parts.append(f'<line class="axis" x1="{axes.left:.1f}" x2="{right:.1f}" y1="{foot:.1f}" y2="{foot:.1f}"/>')
    for tick in across:
        (x,), _ = axes.at([tick], [axes.y[0]])
        value = f"{tick * x_scale:.0f}"
        parts.append(f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{foot:.1f}" y2="{foot + 4:.1f}"/>')
        parts.append(f'<text class="tick" x="{x:.1f}" y="{foot + 18:.1f}" text-anchor="middle">{value}</text>')
    return "".join(parts)


def _titles(axes: Axes, across: str, up: str) -> str:
    """What the axes show, with the unit: y above its numbers, x below at the right."""
    return (
        f'<text class="title" x="2" y="14">{escape(up)}</text>'
        f'<text class="title" x="{axes.width - axes.right:.1f}" y="{axes.height - 8:.1f}" text-anchor="end">'
        f"{escape(across)}</text>"
    )


def _placed(labels: Sequence[Label], axes: Axes, marks: Sequence[Box], paths: Sequence[tuple[Array, Array]]) -> str:
    """The labels where they cover least: greedy, in order; each place is rated by what it would hide.

    A label may stand in eight directions at growing distances from any of its anchors; one that had to go far gets
    a line to what it names.
    """
    taken = list(marks)
    traces = [np.stack(_filled(x, y), 1) for x, y in paths]
    line = np.concatenate([*traces, np.empty((0, 2))])
    parts: list[str] = []
    leaders: list[str] = []
    for label in labels:
        width = max(extent(words) for words in label.lines)
        height = FONT * 1.25 * len(label.lines)
        places = []
        for j, (x, y) in enumerate(label.anchors):
            aside = 12 * abs(j / len(label.anchors) - 0.4) if len(label.anchors) > 1 else 0.0
            for i, (right, down) in enumerate(_AROUND):
                for far in (0.0, 8.0, 20.0, 36.0, 56.0, 80.0, 110.0):
                    reach = (label.away + far) * (0.75 if right and down else 1)
                    box_x = x + reach * right - width * (0.5 - 0.5 * right)
                    box_y = y + reach * down - height * (0.5 - 0.5 * down)
                    places.append((box_x, box_y, x, y, far + 0.3 * i + aside))
        rated = np.array(places)
        left, top = rated[:, 0], rated[:, 1]
        right_edge, foot = left + width, top + height
        cost = rated[:, 4] * 0.5
        cost += 40 * (np.maximum(0, axes.left + 2 - left) + np.maximum(0, right_edge - axes.width + 2))
        cost += 40 * (np.maximum(0, 18 - top) + np.maximum(0, foot - (axes.height - axes.bottom - 2)))
        for box in taken:
            over_x = np.minimum(right_edge + 9, box[2]) - np.maximum(left - 9, box[0])
            over_y = np.minimum(foot + 1, box[3]) - np.maximum(top - 1, box[1])
            cost += np.where((over_x > 0) & (over_y > 0), 60 + np.maximum(over_x, 0) * np.maximum(over_y, 0), 0)
        if len(line):
            inside = (
                (line[:, 0] > left[:, None] - 2)
                & (line[:, 0] < right_edge[:, None] + 2)
                & (line[:, 1] > top[:, None])
                & (line[:, 1] < foot[:, None])
            )
            cost += 6.0 * inside.sum(1)
        x0, y0, x, y, _ = places[int(cost.argmin())]
        taken.append((x0, y0, x0 + width, y0 + height))
        near_x, near_y = min(max(x, x0), x0 + width), min(max(y, y0 + 2), y0 + height - 2)
        if math.hypot(near_x - x, near_y - y) >= label.away + 12:
            leaders.append(_path(np.array([x, near_x]), np.array([y, near_y]), "leader"))
        anchor, at = ("end", x0 + width) if x0 + width / 2 < x - width / 2 else ("start", x0)
        spans = "".join(
            f'<tspan x="{at:.1f}" y="{y0 + FONT * (0.95 + 1.25 * i):.1f}">{escape(words)}</tspan>'
            for i, words in enumerate(label.lines)
        )
        parts.append(f'<text class="label {label.style}" text-anchor="{anchor}">{spans}</text>')
    return "".join(leaders + parts)


def _svg(axes: Axes, title: str, body: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {axes.width:.0f} {axes.height:.0f}" role="img" aria-label="{escape(title)}">'
        f"{''.join(body)}</svg>"
    )


def _path(x: Array, y: Array, style: str) -> str:
    """A line through the points; those closer than half a pixel to the one before are not drawn."""
    kept = [0]
    for i in range(1, len(x)):
        last = kept[-1]
        if i == len(x) - 1 or abs(x[i] - x[last]) + abs(y[i] - y[last]) >= 0.5:
            kept.append(i)
    drawn = "L".join(f"{x[i]:.1f} {y[i]:.1f}" for i in kept)
    return f'<path class="{style}" d="M{drawn}"/>'


def _dot(x: float, y: float, radius: float, style: str, says: str = "") -> str:
    title = f"<title>{escape(says)}</title>" if says else ""
    return f'<circle class="{style}" cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}">{title}</circle>'


def _shade(share: float) -> float:
    return 0.06 + 0.94 * share  # so that a single row can be told from none


def _rect(x: float, y: float, width: float, height: float, style: str, says: str, opacity: float = 1) -> str:
    title = f"<title>{escape(says)}</title>" if says else ""
    place = f'x="{x:.2f}" y="{y:.2f}" width="{width:.2f}" height="{height:.2f}"'
    return f'<rect class="{style}" {place} fill-opacity="{opacity:.3f}">{title}</rect>'


def _diamond(x: float, y: float, radius: float, style: str, says: str) -> str:
    d = f"M{x:.1f} {y - radius:.1f}L{x + radius:.1f} {y:.1f}L{x:.1f} {y + radius:.1f}L{x - radius:.1f} {y:.1f}Z"
    return f'<path class="{style}" d="{d}"><title>{escape(says)}</title></path>'


def _along(x: Array, y: Array) -> Array:
    """[k, 2] places on a curve, in pixels, where its label could stand."""
    across, down = _filled(np.asarray(x), np.asarray(y))
    chosen = np.unique(np.linspace(0, len(across) - 1, 40).round().astype(int))
    return np.stack([across[chosen], down[chosen]], 1)


def _filled(x: Array, y: Array, gap: float = 4.0) -> tuple[Array, Array]:
    """The points of a curve at most ``gap`` pixels apart along it."""
    length = np.append(0, np.cumsum(np.hypot(np.diff(x), np.diff(y))))
    at = np.linspace(0, length[-1], max(2, int(length[-1] / gap)))
    return np.interp(at, length, x), np.interp(at, length, y)


def _spread(x: Array, y: Array, gap: float) -> list[int]:
    """Indices of points at least ``gap`` pixels apart."""
    chosen: list[int] = []
    for i in range(len(x)):
        if not chosen or math.hypot(x[i] - x[chosen[-1]], y[i] - y[chosen[-1]]) >= gap:
            chosen.append(i)
    return chosen


def _ticks(low: float, high: float, about: int) -> list[float]:
    """Round numbers within low..high, roughly that many."""
    if high <= low:
        return [low]
    rough = (high - low) / about
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(size * factor for factor in (1, 2, 2.5, 5, 10) if size * factor >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


def span(values: Iterable[float], floor: float | None = None, ceiling: float | None = None) -> tuple[float, float]:
    """A range a little wider than the values; it starts at the floor, if there is one, and keeps to the ceiling."""
    values = list(values)
    if not values:
        return 0.0, 1.0
    low, high = min(values), max(values)
    slack = 0.06 * (high - low) or abs(high) * 0.1 or 1.0
    low, high = low - slack, high + slack
    if floor is not None:
        low = floor if min(values) >= floor else low
    return low, high if ceiling is None else min(high, ceiling + 0.3 * slack)


def _unit(key: str, values: Sequence[float]) -> tuple[str, float]:
    """What a chart of this key is called, with its unit, and the scale to that unit."""
    most = max(map(abs, values), default=0.0)
    for ending, scale, unit in (
        ("_share", 100.0, "%"),
        ("_rate", 100.0, "%"),
        ("_bytes", *((1e-6, "MB") if most >= 1e6 else (1e-3, "kB"))),
        ("_seconds", 1.0, "s"),
        ("_joules", 1.0, "J"),
        ("_dollars", 1.0, "$"),
    ):
        if key.endswith(ending) or key == ending[1:]:
            name = {"up_bytes": "sent up", "down_bytes": "sent down", "bytes": "sent", "seconds": "time"}.get(key)
            name = name or (key if ending in ("_share", "_rate") else key.removesuffix(ending))
            return f"{_spoken(name)}, {unit}", scale
    return _spoken(key), 1.0


def _spoken(key: str) -> str:
    return key.replace("_", " ")


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def wrapped(words: str, most: int) -> list[str]:
    """Lines of at most ``most`` letters, three at the most; what does not fit ends in an ellipsis."""
    lines = [""]
    for word in words.split():
        joined = f"{lines[-1]} {word}".strip()
        if len(joined) <= most or not lines[-1]:
            lines[-1] = joined
        else:
            lines.append(word)
    short = [line if len(line) <= most else line[: most - 1] + "…" for line in lines[:3]]
    if len(lines) > 3 and not short[-1].endswith("…"):
        short[-1] = short[-1][: most - 1] + "…"
    return short


def extent(words: str) -> float:
    """Pixels that words take at :data:`FONT`, a little more than most sans-serif fonts need."""
    narrow, wide = set("iljtfr.,:;'|!()[] 1"), set("mwMW%@—→")
    return FONT * sum(0.34 if c in narrow else 0.92 if c in wide else 0.7 if c.isupper() else 0.58 for c in words)
