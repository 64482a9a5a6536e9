"""Who is beaten by nobody: the Pareto front over any number of measures; and a picture of a price and what it buys."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from duetto.errors import DataError
from duetto.evaluation import plot
from duetto.tree import Array


@dataclass(frozen=True)
class Priced:
    """One system on the picture.

    Attributes:
        name: beside its mark.
        price: what it costs, as a share of the original's; above 0.
        value, low, high: what it gives and the interval of that, 0..1.
        style: "own" for what is on the front, "other" for what is not, "base" for a baseline.
    """

    name: str
    price: float
    value: float
    low: float
    high: float
    style: str = "other"


def front(values: Array) -> Array:
    """Who is beaten by nobody, ``[n]`` bool; of ``values [n, k]`` more is better, equals do not beat each other.

    Raises:
        DataError: values that are no finite table.
    """
    values = np.asarray(values, float)
    if values.ndim != 2 or not np.isfinite(values).all():
        raise DataError(f"values of shape {values.shape}", "give finite numbers [systems, measures]")
    least = (values[:, None] >= values[None]).all(2)
    more = (values[:, None] > values[None]).any(2)
    return ~(least & more).any(0)


def picture(points: Sequence[Priced], across: str, width: float, limits: tuple[float, float] | None = None) -> str:
    """What systems give against what they cost, the price on a logarithmic scale, as SVG text for a page.

    Args:
        points: the systems.
        across: what the price is, for the axis.
        width: in pixels.
        limits: the largest price allowed and the least value; a box up to there is shaded.
    """
    prices = [math.log10(point.price) for point in points]
    low, high = plot.span([each for point in points for each in (point.low, point.high)], ceiling=1)
    left, right = plot.span([*prices, 0.0])
    axes = plot.Axes(width, 430, (left, right), (low, high))
    body = [plot._grid(axes, [], plot._ticks(low, high, 7), 1, 100)]
    foot = axes.height - axes.bottom
    for share in (share for decade in range(-4, 1) for share in (a * 10.0**decade for a in (1, 2, 3, 5, 7))):
        if left <= math.log10(share) <= right:
            (x,), _ = axes.at([math.log10(share)], [low])
            body.append(f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{foot:.1f}" y2="{foot + 4:.1f}"/>')
            body.append(
                f'<text class="tick" x="{x:.1f}" y="{foot + 18:.1f}" text-anchor="middle">{100 * share:g}</text>'
            )
    if limits is not None and math.log10(limits[0]) > left:
        (x0, x1), (y0, y1) = axes.at([left, min(math.log10(limits[0]), right)], [high, max(limits[1], low)])
        body.insert(0, f'<rect class="band" x="{x0:.1f}" y="{y0:.1f}" width="{x1 - x0:.1f}" height="{y1 - y0:.1f}"/>')
        body.append(f'<text class="tick" x="{x0 + 4:.1f}" y="{y0 - 4:.1f}">within the limits</text>')
    body.append(plot._titles(axes, f"{across}, % of the original", "accuracy, mean of users, %"))
    marks: list[plot.Box] = []
    labels = []
    for point, price in zip(points, prices, strict=True):
        (x,), (y,) = axes.at([price], [point.value])
        _, (top, bottom) = axes.at([price, price], [point.high, point.low])
        style = {"own": "s1", "base": "base"}.get(point.style, "s0")
        says = f"{point.name}: {100 * point.value:.2f} %, {across} {100 * point.price:.1f} % of the original"
        body.append(plot._path(np.array([x, x]), np.array([top, bottom]), f"stem {style}"))
        draw = plot._diamond if point.style == "base" else plot._dot
        body.append(draw(x, y, 5.5, f"dot {style}", says))
        marks.append((x - 6, y - 6, x + 6, y + 6))
        labels.append(plot.Label(point.name, np.array([[x, y]]), style, away=9, wrap=24))
    body.append(plot._placed(labels, axes, marks, []))
    return plot._svg(axes, f"Accuracy against {across}", body)
