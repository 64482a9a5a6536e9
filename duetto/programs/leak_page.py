"""What an attack on a model's features found, as one page that opens from disk and fetches nothing."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources
from string import Template

import numpy as np

from duetto.evaluation import plot
from duetto.evaluation.leakage import CEILING
from duetto.programs.leak import PLAIN
from duetto.programs.leaked import MEASURES, Told

_HEADS = ("cut", "codec", "of the work", "kB up", "accuracy, %", "naive", "adaptive", "worst tenth", "PSNR, dB", "kept")
_EMPTY = "<td></td>"
_LEAD = (
    "Adaptive: the better of the decoder that learned from what this codec leaves and the one that did not. Worst "
    "tenth: the users of whom most is known; a plan's limit reads this column. Kept: of what the undefended features "
    "of the cut tell beyond the answer."
)


def page(what: Told, title: str, pictures: Mapping[str, np.ndarray] | None = None) -> str:
    """One self-contained HTML page.

    Args:
        what: was found.
        title: stands above.
        pictures: name of a row -> images ``[k, channels, height, width]``, 0 to 1, of people who may be shown.
    """
    measure = what.lines[0].measure
    over = f'<p class="over"><b>{escape(title)}</b></p>'
    body = [f"<header>{over}<h1>{escape(_headline(what))}</h1></header>"]
    body.append(f'<div class="notes"><h2>What speaks against it</h2><ul>{_items(what.notes)}</ul></div>')
    body.append(
        _section(
            "Reconstruction against depth",
            f"Mean of users, {MEASURES[measure]}; 95 % intervals over users. Dashed: what is known without features.",
            f'<figure class="full">{_depth(what)}</figure>',
        )
    )
    if pictures:
        lead = "Inputs of people of the calibration group, and what the decoder that knows the codec makes of them."
        body.append(_section("What that looks like", lead, f'<figure class="full">{plot.images(pictures)}</figure>'))
    body.append(_section("Every cut and codec", _LEAD, _table(what)))
    body.append("<footer>Written by duetto. This file is complete: it fetches nothing and sends nothing.</footer>")
    template = Template(resources.files("duetto.evaluation").joinpath("report.html").read_text(encoding="utf-8"))
    allowed = "sha256-" + base64.b64encode(hashlib.sha256(b"").digest()).decode()
    return template.substitute(allowed=allowed, title=f"{escape(title)} – Duetto", body="\n".join(body), script="")


def _headline(what: Told) -> str:
    codecs = [line for line in what.lines if line.codec != PLAIN and line.kept is not None]
    failed = [line for line in codecs if line.verdict == "fails"]
    first, last = what.lines[0], [line for line in what.lines if line.codec == PLAIN][-1]
    words = f"From {first.nearness.value:.2f} at the first cut to {last.nearness.value:.2f} at the last"
    return f"{words}; codecs fail as a defence at {len(failed)} of {len(codecs)} points" if codecs else words


def _depth(what: Told) -> str:
    """Each codec's curve, and dashed that of who does not know it, where the two are told apart."""
    curves: dict[str, list[tuple[float, float, float]]] = {}
    dashed = []
    for codec in dict.fromkeys(line.codec for line in what.lines):
        own = [line for line in what.lines if line.codec == codec]
        curves[codec] = [(each.nearness.value, each.nearness.low, each.nearness.high) for each in own]
        if max(each.nearness.value - each.naive.value for each in own) > 0.05 * own[0].nearness.value:
            dashed.append(f"{codec}, not known")
            curves[dashed[-1]] = [(each.naive.value, each.naive.low, each.naive.high) for each in own]
    guesses = {name: each.value for name, each in what.guesses.items()}
    places = list(dict.fromkeys(str(line.cut) for line in what.lines))
    return plot.depth(curves, guesses, places, 1000, what.lines[0].measure.upper(), dashed)


def _table(what: Told) -> str:
    whole = "1.000" if what.lines[0].measure == "ssim" else f"{CEILING:.0f}"
    rows = [f'<tr><th scope="row">0 the input itself</th>{5 * _EMPTY}<td>{whole}</td>{4 * _EMPTY}</tr>']
    for line in what.lines:
        low, high = line.nearness.low, line.nearness.high
        cells = (
            f"{line.share:.1%}",
            f"{line.up_bytes / 1000:.2f}",
            f"{100 * line.accuracy.value:.1f}",
            f"{line.naive.value:.3f}",
            f"{line.nearness.value:.3f}<small>{low:.3f}–{high:.3f}</small>",
            f"{line.most.value:.3f}",
            f"{line.psnr:.1f}",
            "" if line.kept is None else f"{line.kept:.0%}",
        )
        style = {"fails": "bad", "hides most": "good"}.get(line.verdict, "")
        rows.append(
            f'<tr><th scope="row">{line.cut} {escape(line.stage)}</th><td>{escape(line.codec)}</td>'
            f'{"".join(f"<td>{cell}</td>" for cell in cells)}<td class="{style}">{escape(line.verdict)}</td></tr>'
        )
    for name, each in what.guesses.items():
        value = f"<td>{each.value:.3f}</td>"
        rows.append(f'<tr><th scope="row">{escape(name)}</th>{5 * _EMPTY}{value}{4 * _EMPTY}</tr>')
    top = "".join(f'<th scope="col">{head}</th>' for head in (*_HEADS, ""))
    whole = f'<table class="wide"><thead><tr>{top}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
    return f'<div class="scroll">{whole}</div>'


def _items(notes: Sequence[str]) -> str:
    return "".join(f"<li>{escape(note)}</li>" for note in notes)


def _section(title: str, lead: str, content: str) -> str:
    return f'<section><h2>{escape(title)}</h2><p class="lead">{escape(lead)}</p>{content}</section>'
