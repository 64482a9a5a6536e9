"""A planner's maps: which plan is best over bandwidth and round trip, and what it gains over not splitting.

Both axes are logarithmic. Plans are regions in colours that are the same in all maps of a page, named where they lie
or by their number; a table says the same in words. What is gained is shaded by powers of ten.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from duetto.evaluation import plot, table
from duetto.evaluation.result import Map
from duetto.tree import Array

_SPLITS = ("s0", "s4", "s2")
_TINTS = (0.38, 0.62, 0.2)
_SCALES = {"s": ((1.0, "s"), (1e-3, "ms")), "J": ((1.0, "J"), (1e-3, "mJ")), "$": ((1.0, "$"), (1e-6, "u$"))}
_SHADES = (0.12, 0.3, 0.52, 0.78)  # of what is gained, from little to most


@dataclass(frozen=True)
class Style:
    """How a plan is drawn: its number, its class of colour, and how much of that is laid on."""

    number: int
    colour: str
    tint: float


def styles(maps: Iterable[Map]) -> dict[str, Style]:
    """One style a plan in all these maps: those that do not split have colours of their own."""
    kinds = {name: kind for each in maps for name, kind in zip(each.plans, each.kinds, strict=True)}
    found: dict[str, Style] = {}
    for kind, colours in (("device", ("s5",)), ("cloud", ("s1", "s3")), ("split", _SPLITS)):
        for i, name in enumerate(name for name in kinds if kinds[name] == kind):
            tint = _TINTS[i // len(colours) % len(_TINTS)]
            found[name] = Style(len(found) + 1, colours[i % len(colours)], tint)
    return found


def steps(maps: Sequence[Map]) -> list[float]:
    """The edges of the shades, for maps of one unit: powers of ten up to the most that is gained; empty for nothing."""
    most = max((float(np.max(each.gain)) for each in maps), default=0.0)
    if most <= 0:
        return []
    top = math.ceil(math.log10(most) - 1e-9)
    return [10.0**power for power in range(top - len(_SHADES) + 1, top)]


# ------------------------------------------------------------------------------------------------------- the pictures


def plans(drawn: Map, looks: Mapping[str, Style], width: float) -> str:
    """The best plan over links: a region each, its name where there is room, and the link that was asked about."""
    axes, across, down = _plane(drawn, width)
    best = np.asarray(drawn.best)
    body = []
    for i, name in enumerate(drawn.plans):
        look = looks[name]
        says = f"{name}: best over {_share(best == i)} of the map"
        body.append(_region(best == i, across, down, look.colour, look.tint, says))
    body.append(_edges(best, across, down))
    body.append(_frame(drawn, axes))
    here = _here(drawn, axes)
    for i, name in enumerate(drawn.plans):
        body.append(_name(best == i, across, down, f"{looks[name].number}  {name}", str(looks[name].number), here))
    return _picture(axes, f"{drawn.title}: the best plan over links; the table below says the same", [*body, here.mark])


def gained(drawn: Map, edges: Sequence[float], width: float) -> str:
    """What the best plan gains over not splitting; ``edges`` as of :func:`steps`."""
    axes, across, down = _plane(drawn, width)
    level = _levels(drawn, edges)
    body = []
    for i in np.unique(level[level > 0]).tolist():
        says = f"{_range(i, edges, drawn.unit)} gained over {_share(level == i)} of the map"
        body.append(_region(level == i, across, down, "s2", _SHADES[i - 1], says))
    body.append(_edges(level, across, down))
    body.append(_frame(drawn, axes))
    here = _here(drawn, axes)
    body.append(_name(level == 0, across, down, "no split gains", "", here))
    return _picture(axes, f"{drawn.title}: what splitting gains over links", [*body, here.mark])


# ---------------------------------------------------------------------------------------------------------- the words


def legend(drawn: Map, looks: Mapping[str, Style]) -> str:
    """The table of a map: each plan, how much of the map is its, from where to where, and what it gains at most."""
    best, more = np.asarray(drawn.best), np.asarray(drawn.gain)
    row = int(np.abs(np.log(np.asarray(drawn.rtt_seconds) / drawn.at[1])).argmin())
    lines = []
    for i, name in enumerate(drawn.plans):
        mine = best == i
        most = float(more[mine].max())
        gain = _amount(most, drawn.unit) if drawn.kinds[i] == "split" and most > 0 else "–"
        lines.append(
            f'<tr><th scope="row">{_swatch(looks[name])}{escape(name)}</th><td>{_share(mine)}</td>'
            f"<td>{_spans(mine[row], drawn.up_mbps)}</td><td>{gain}</td></tr>"
        )
    at = 1000 * drawn.rtt_seconds[row]
    titles = ("plan", "of the map", f"Mbit/s at {_number(at)} ms", "gains at most")
    heads = "".join(f'<th scope="col">{title}</th>' for title in titles)
    return (
        '<div class="scroll" tabindex="0" role="group" aria-label="The map as a table"><table class="map">'
        f"<thead><tr>{heads}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def scale(drawn: Map, edges: Sequence[float]) -> str:
    """The shades of what is gained, each with its amounts and how much of the map it is."""
    level = _levels(drawn, edges)
    if not edges:
        return '<p class="lead">No split gains anything on this map.</p>'
    items = [f"<li>nothing <span>{_share(level == 0)}</span></li>"] if (level == 0).any() else []
    for i in np.unique(level[level > 0]).tolist():
        swatch = f'<i class="swatch" style="--tint:{100 * _SHADES[i - 1]:.0f}%;--c:var(--c2)"></i>'
        items.append(f"<li>{swatch}{_range(i, edges, drawn.unit)} <span>{_share(level == i)}</span></li>")
    return f'<ul class="scale">{"".join(items)}</ul>'


# ---------------------------------------------------------------------------------------------------------- its parts


def _plane(drawn: Map, width: float) -> tuple[plot.Axes, Array, Array]:
    """The axes (of logarithms), and the edges of the columns [m + 1] and of the rows [n + 1], in pixels."""
    x, y = (_borders(np.log10(axis)) for axis in (drawn.up_mbps, drawn.rtt_seconds))
    axes = plot.Axes(width, 330, (x[0], x[-1]), (y[0], y[-1]), left=52, right=24)
    return axes, axes.at(x, np.zeros_like(x))[0], axes.at(np.zeros_like(y), y)[1]


def _borders(values: Array) -> Array:
    """Halfway between neighbours, and at both ends."""
    middle = (values[1:] + values[:-1]) / 2
    return np.concatenate([values[:1], middle, values[-1:]])


def _levels(drawn: Map, edges: Sequence[float]) -> Array:
    """[n, m] 0 where nothing is gained, else one more than the edges that are reached."""
    more = np.asarray(drawn.gain)
    return np.where(more > 0, 1 + np.searchsorted(edges, more, side="right"), 0)


def _runs(row: Array) -> list[tuple[int, int]]:
    """Where a row of bool is true: from, to (beyond)."""
    turns = np.flatnonzero(np.diff(np.concatenate([[False], row, [False]]).astype(int)))
    return list(zip(turns[::2].tolist(), turns[1::2].tolist(), strict=True))


def _region(mask: Array, across: Array, down: Array, colour: str, tint: float, says: str) -> str:
    d = "".join(
        f"M{across[a]:.1f} {down[i + 1]:.1f}H{across[b]:.1f}V{down[i]:.1f}H{across[a]:.1f}Z"
        for i, row in enumerate(mask)
        for a, b in _runs(row)
    )
    return f'<path class="region {colour}" fill-opacity="{tint}" d="{d}"><title>{escape(says)}</title></path>'


def _edges(codes: Array, across: Array, down: Array) -> str:
    """Lines where neighbours differ."""
    upright = codes[:, 1:] != codes[:, :-1]
    level = codes[1:] != codes[:-1]
    d = "".join(
        f"M{across[j + 1]:.1f} {down[a]:.1f}V{down[b]:.1f}"
        for j in range(upright.shape[1])
        for a, b in _runs(upright[:, j])
    )
    d += "".join(
        f"M{across[a]:.1f} {down[i + 1]:.1f}H{across[b]:.1f}" for i in range(level.shape[0]) for a, b in _runs(level[i])
    )
    return f'<path class="border" d="{d}"/>' if d else ""


def _frame(drawn: Map, axes: plot.Axes) -> str:
    """The axes: decades with their numbers."""
    parts = []
    right, foot = axes.width - axes.right, axes.height - axes.bottom
    for power in range(math.ceil(axes.x[0] - 1e-9), math.floor(axes.x[1] + 1e-9) + 1):
        (x,), _ = axes.at([power], [axes.y[0]])
        parts.append(f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{foot:.1f}" y2="{foot + 4:.1f}"/>')
        parts.append(f'<text class="tick" x="{x:.1f}" y="{foot + 18:.1f}" text-anchor="middle">{10.0**power:,g}</text>')
    for power in range(math.ceil(axes.y[0] - 1e-9), math.floor(axes.y[1] + 1e-9) + 1):
        _, (y,) = axes.at([axes.x[0]], [power])
        words = f"{1000 * 10.0**power:,g}"
        parts.append(f'<line class="axis" x1="{axes.left - 4:.1f}" x2="{axes.left:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{axes.left - 8:.1f}" y="{y + 4:.1f}" text-anchor="end">{words}</text>')
    place = f'x="{axes.left:.1f}" y="{axes.top:.1f}" width="{right - axes.left:.1f}" height="{foot - axes.top:.1f}"'
    parts.append(f'<rect class="outline" {place}/>')
    parts.append('<text class="title" x="2" y="14">round trip, ms</text>')
    parts.append(
        f'<text class="title" x="{right:.1f}" y="{axes.height - 8:.1f}" text-anchor="end">bandwidth up, Mbit/s</text>'
    )
    return "".join(parts)


@dataclass(frozen=True)
class _Mark:
    """The link that was asked about, drawn, and the box that it takes."""

    mark: str
    box: plot.Box


def _here(drawn: Map, axes: plot.Axes) -> _Mark:
    right, foot = axes.width - axes.right, axes.height - axes.bottom
    (x,), (y,) = axes.at([math.log10(drawn.at[0])], [math.log10(max(drawn.at[1], 1e-12))])
    x, y = min(max(float(x), axes.left), right), min(max(float(y), axes.top), foot)
    words = "this link"
    wide = plot.extent(words)
    left = x > right - wide - 20
    at, anchor = (x - 11, "end") if left else (x + 11, "start")
    says = f"the link asked about: {drawn.at[0]:.3g} Mbit/s up, {1000 * drawn.at[1]:.3g} ms"
    d = f"M{x:.1f} {y - 7:.1f}L{x + 7:.1f} {y:.1f}L{x:.1f} {y + 7:.1f}L{x - 7:.1f} {y:.1f}Z"
    mark = (
        f'<path class="dot base" d="{d}"><title>{escape(says)}</title></path>'
        f'<text class="label base" x="{at:.1f}" y="{y + 4:.1f}" text-anchor="{anchor}">{words}</text>'
    )
    box = (x - wide - 14, y - 12, x + 10, y + 12) if left else (x - 10, y - 12, x + wide + 14, y + 12)
    return _Mark(mark, box)


def _name(mask: Array, across: Array, down: Array, words: str, short: str, here: _Mark) -> str:
    """The region's name where it has most room around it, else its number, else nothing."""
    for said in filter(None, (words, short)):
        wide, high = plot.extent(said) + 12, 1.5 * plot.FONT
        best: tuple[float, float, float] | None = None
        for i in range(len(mask)):
            y = (down[i] + down[i + 1]) / 2
            rows = mask[(down[1:] < y + high / 2) & (down[:-1] > y - high / 2)]
            if y - high / 2 < down[-1] or y + high / 2 > down[0]:
                continue
            for a, b in _runs(rows.all(0)):
                for x0, x1 in _free(across[a], across[b], y, high, here.box):
                    spare = min(x1 - x0 - wide, 120) + min(abs(y - down[0]), abs(y - down[-1]), 60)
                    if x1 - x0 >= wide and (best is None or spare > best[0]):
                        best = spare, (x0 + x1) / 2, y
        if best is not None:
            _, x, y = best
            return f'<text class="place" x="{x:.1f}" y="{y + 4:.1f}" text-anchor="middle">{escape(said)}</text>'
    return ""


def _free(x0: float, x1: float, y: float, high: float, box: plot.Box) -> list[tuple[float, float]]:
    """What of a span at this height the mark leaves."""
    if y + high / 2 < box[1] or y - high / 2 > box[3] or x1 < box[0] or x0 > box[2]:
        return [(x0, x1)]
    return [(a, b) for a, b in ((x0, box[0]), (box[2], x1)) if b > a]


def _picture(axes: plot.Axes, title: str, body: Sequence[str]) -> str:
    size = f"0 0 {axes.width:.0f} {axes.height:.0f}"
    return f'<svg viewBox="{size}" role="img" aria-label="{escape(title)}">{"".join(body)}</svg>'


def _swatch(look: Style) -> str:
    colour = look.colour.replace("s", "--c")
    return f'<i class="swatch" style="--tint:{100 * look.tint:.0f}%;--c:var({colour})">{look.number}</i>'


def _share(mask: Array) -> str:
    share = 100 * float(np.mean(mask))
    return f"{share:.0f} %" if share >= 1 or not share else "&lt; 1 %"


def _spans(row: Array, up_mbps: Sequence[float]) -> str:
    """From which bandwidth to which, in words."""
    spans = [(up_mbps[a], up_mbps[b - 1]) for a, b in _runs(row)]
    return "; ".join(f"{_number(low)}–{_number(high)}" for low, high in spans) or "–"


def _amount(value: float, unit: str) -> str:
    scales = _SCALES.get(unit, ((1.0, unit),))
    size, shown = next(((size, name) for size, name in scales if value >= size), scales[-1])
    return f"{_number(value / size)} {shown}"


def _number(value: float) -> str:
    """Three significant digits, without an exponent."""
    return f"{value:.3g}" if 1e-4 <= value < 999.5 else table.text(table.Column("", "", ""), value)[0]


def _range(level: int, edges: Sequence[float], unit: str) -> str:
    if level == 1:
        return f"up to {_amount(edges[0], unit)}"
    top = 10 * edges[-1] if level > len(edges) else edges[level - 1]
    return f"{_amount(edges[level - 2], unit)} to {_amount(top, unit)}"
