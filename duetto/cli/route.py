"""``duetto route``: a router for two models, learned from a log: fit, calibrate, eval, serve, check."""

from __future__ import annotations

import io
import json
import math
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from duetto.cli import console, running

if TYPE_CHECKING:
    from duetto.evaluation.routing import Interval, Routed
    from duetto.policies.router import Router
    from duetto.programs.route import Finding
    from duetto.types import Outcomes

app = typer.Typer(
    cls=console.Commands,
    rich_markup_mode="rich",
    epilog=console.examples(
        ("duetto route fit log.csv --out router --rate 0.3", "learn from a log; ask for 30 % of the prompts"),
        ("duetto route eval router new.csv", "beside random, prompt length and the oracles"),
        ("duetto route serve router < prompts.jsonl", "a decision a line"),
        ("duetto route check router fresh.csv", "exit code 3 when the promise no longer holds"),
        ("duetto route calibrate answers.safetensors --promise confident --target 0.01 --out threshold", "classifiers"),
    ),
)

BROKEN = 3  # the exit code of a promise that no longer holds

_LOG = typer.Argument(
    metavar="LOG",
    help="CSV or JSON lines (or .gz): prompt, small, large, and perhaps answer and user; or a folder of RouteLLM's.",
    show_default=False,
)
Log = Annotated[Path, _LOG]
Folder = Annotated[
    Path, typer.Argument(metavar="ARTEFACT", help="The folder of a router or threshold.", show_default=False)
]
Named = Annotated[
    str,
    typer.Option(
        "--columns",
        metavar="NAME=COLUMN,...",
        help="What columns are called where not prompt, small, large, answer, user; answer= leaves one out.",
    ),
]


@app.callback(invoke_without_command=True)
def route(ctx: typer.Context) -> None:
    """Route between two models: prompts by a learned router, classifiers by a threshold with a promise."""
    console.help_alone(ctx)


@app.command(
    epilog=console.examples(
        ("duetto route fit log.csv --out router --rate 0.3", "ask for 30 % of the prompts"),
        ("duetto route fit log.jsonl.gz --out router --price 0.1", "ask where quality rises by more than 0.1"),
        ("duetto route fit log.csv --out router --columns small=ok_7b,large=ok_70b", ""),
    )
)
def fit(
    log: Log,
    out: Annotated[Path, typer.Option(metavar="ARTEFACT", help="Folder of the router; replaced if it is there.")],
    rate: Annotated[
        float | None, typer.Option(min=0, max=1, help="Share of prompts to ask. [dim]\\[default: by the price][/]")
    ] = None,
    price: Annotated[float, typer.Option(help="Of a call, in units of quality; asked where the gain is above.")] = 0.0,
    explore: Annotated[
        float, typer.Option(min=0, max=1, help="Share of decisions left to a coin, to evaluate other routers by.")
    ] = 0.0,
    by: Annotated[
        Literal["user", "item"], typer.Option(help="Hold out whole users, or item by item, to see what to expect.")
    ] = "user",
    embed: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Sentence embeddings too: an ONNX file, or a folder.")
    ] = None,
    columns: Named = "",
    as_json: running.Json = False,
) -> None:
    """Learn from a log of prompts and how well both models answered, and write the router with its promise."""
    from duetto.policies import router as artefacts
    from duetto.policies.embeddings import embedding
    from duetto.policies.text_gain import TextGain
    from duetto.programs import route as program

    policy = TextGain(
        offload_rate=rate,
        price=price,
        explore=explore,
        by=by,
        embed=None if embed is None else embedding(str(embed)),
    )
    with console.stoppable("stopped; nothing was written"), console.Progressing() as progress:
        progress("reading the log", 0, 1)
        outcomes = _log(log, columns)
        progress(f"fitting on {len(outcomes):,} prompts", 0, 1)
        fitted = program.fit(policy, outcomes)
        artefacts.save(fitted, out)
    if as_json:
        console.emit({"artefact": str(out), "fitted_on": fitted.fitted_on, "promise": fitted.promise})
        return
    shown = console.out()
    about = fitted.fitted_on
    users = "" if about["users"] is None else f" of {about['users']:,} users"
    shown.print(
        f"{about['items']:,} prompts{users}; small {about['small']:.3f}, large {about['large']:.3f}"
        f"{', with answers' if about['answers'] else ''}",
        soft_wrap=True,
    )
    shown.print("What it promises for prompts like these, held out, with 95 % intervals:\n")
    for name, says in program.FIGURES.items():
        if (stored := fitted.promise[name]) is not None:
            shown.print(f"  {name:<13} {_stored(stored):<27} [dim]{says}[/]", soft_wrap=True)
    shown.print(f"\nRouter: {out}", soft_wrap=True, markup=False)


@app.command(
    epilog=console.examples(
        ("duetto route calibrate answers.safetensors --promise expected --target 0.01 --out threshold", ""),
        ("duetto route check threshold fresh.safetensors", "does it hold for these users, or this model?"),
    )
)
def calibrate(
    log: Annotated[
        Path,
        typer.Argument(
            metavar="ANSWERS",
            help="safetensors: small [n, classes] logits, and large, labels, users (integers) where they are known.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="ARTEFACT", help="Folder of the threshold; replaced if it is there.")],
    target: Annotated[float, typer.Option(help="The largest loss against asking always: 0.01 is a point of accuracy.")],
    promise: Annotated[
        Literal["approximate", "confident", "expected", "quantile"], typer.Option(help="What is promised.")
    ] = "approximate",
    delta: Annotated[float, typer.Option(help="With which probability the promise may be wrong.")] = 0.05,
    worst_user: Annotated[
        float | None, typer.Option(help="What no user loses more of, an assumption. [dim]\\[default: none][/]")
    ] = None,
    score: Annotated[str, typer.Option(help="max_softmax, margin, entropy or energy.")] = "margin",
    as_json: running.Json = False,
) -> None:
    """Choose a threshold for a classifier that keeps a promise about new users, and write it down."""
    from duetto.policies import RiskControlled, Threshold, artefact
    from duetto.programs import route as program

    policy = RiskControlled(Threshold(math.inf, score), promise, target, delta, worst_user)
    made = program.calibrate(policy, program.answers(log))
    artefact.save(made, out)
    if as_json:
        console.emit({"artefact": str(out), "fitted_on": made.fitted_on, "promise": made.promise})
        return
    shown, about = console.out(), made.fitted_on
    of = "" if about["users"] is None else f" of {about['users']:,} users"
    shown.print(
        f"{about['items']:,} items{of}; small {about['small']:.3f}, large {about['large']:.3f}; "
        f"asks {about['offload_rate']:.1%}",
        soft_wrap=True,
    )
    shown.print(made.promise["says"], soft_wrap=True, markup=False)
    shown.print(f"\nThreshold: {out}", soft_wrap=True, markup=False)


@app.command(
    "eval",
    epilog=console.examples(
        ("duetto route eval router new.csv", "a table with intervals"),
        ("duetto route eval router new.csv --json", "for machines"),
    ),
)
def evaluate(folder: Folder, log: Log, columns: Named = "", as_json: running.Json = False) -> None:
    """How good a router is on a log that it has not seen, beside all baselines."""
    from duetto.policies import router as artefacts
    from duetto.programs import route as program

    with console.stoppable("stopped"), console.Progressing() as progress:
        progress("reading", 0, 1)
        router, outcomes = _router(folder), _log(log, columns)
        progress(f"judging on {len(outcomes):,} prompts", 0, 1)
        lines, figures = program.judge(router, outcomes)
    seen = router.fitted_on.get("sha256") == artefacts.digest(outcomes)
    if seen:
        console.line("these are the prompts that the router was fitted on: it looks better than it is", "yellow")
    if as_json:
        console.emit(
            {
                "fitted_on_these": seen,
                "items": len(outcomes),
                "small": float(outcomes.small.mean()),
                "large": float(outcomes.large.mean()),
                "routers": [asdict(line) for line in lines],
                "at_threshold": {name: asdict(found) for name, found in figures.items()},
            }
        )
        return
    _table(lines, figures, outcomes)


@app.command(
    epilog=console.examples(
        ("duetto route serve router < prompts.jsonl", 'lines such as {"prompt": "Why is the sky blue?"}'),
        ("""echo '"What is 2+2?"' | duetto route serve router""", "a JSON string is a prompt, too"),
    )
)
def serve(
    folder: Folder,
    prompt: Annotated[str, typer.Option(help="What the prompt is called in a line.")] = "prompt",
    answer: Annotated[str, typer.Option(help="What the small model's answer is called.")] = "answer",
) -> None:
    """Answer each JSON line of the input with a decision: ask, score, propensity, why.

    A line that cannot be read is answered with its error, and with asking, which is always safe. From Python:
    `duetto.policies.router.load(folder).decide(prompt)`.
    """
    from duetto.errors import Error
    from duetto.tasks.queries import Columns, prompts

    router = _router(folder)
    columns, start = Columns(prompt=prompt, answer=answer), time.time_ns()
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(encoding="utf-8", errors="replace")  # one bad byte must not end the service
    with console.stoppable("stopped"):
        for number, line in enumerate(sys.stdin, 1):
            try:
                for asked, answered in prompts([line], columns, "input", number):
                    _say(asdict(router.decide(asked, answered, ("serve", start, number))))
            except Error as error:
                _say({"ask": True, "propensity": 1.0, "why": "an error, so asked", "line": number, "error": str(error)})


@app.command(
    epilog=console.examples(
        ("duetto route check router fresh.csv", "in your own CI, after a model or the prompts have changed"),
    )
)
def check(folder: Folder, log: Log, columns: Named = "", as_json: running.Json = False) -> None:
    """Whether a router or threshold still keeps its promise on fresh data; exit code 3 when it does not."""
    from duetto.policies import artefact, sealed
    from duetto.programs import route as program

    if sealed.form_of(folder) == artefact.FORMAT:
        outcomes = program.answers(log)
        findings = program.check_threshold(artefact.load(folder), outcomes)
    else:
        outcomes = _log(log, columns)
        findings = program.check(_router(folder), outcomes)
    holds = all(each.holds for each in findings)
    if as_json:
        console.emit({"holds": holds, "items": len(outcomes), "findings": [asdict(each) for each in findings]})
    else:
        _findings(findings, len(outcomes))
        console.out().print("[green]the promise holds[/]" if holds else "[bold red]the promise no longer holds[/]")
    if not holds:
        raise typer.Exit(BROKEN)


# ---------------------------------------------------------------------------------------------------------- reading


def _log(path: Path, named: str) -> Outcomes:
    from duetto.errors import ConfigError
    from duetto.programs import route as program
    from duetto.tasks.queries import Columns

    names: dict[str, str] = {}
    for each in filter(None, named.split(",")):
        name, sign, column = each.partition("=")
        if not sign or name not in Columns.__dataclass_fields__:
            raise ConfigError(f"--columns {each!r}", f"write NAME=COLUMN, of {', '.join(Columns.__dataclass_fields__)}")
        names[name] = column
    return program.log(path, Columns(**names))


def _router(folder: Path) -> Router:
    from duetto.policies import router as artefacts

    return artefacts.load(folder)


# ---------------------------------------------------------------------------------------------------------- showing


def _say(decision: Mapping[str, Any]) -> None:
    print(json.dumps(console.plain(decision)), flush=True)


def _stored(stored: Mapping[str, Any]) -> str:
    from duetto.evaluation.routing import Interval

    return str(Interval(**stored))


def _table(lines: list[Routed], figures: Mapping[str, Interval], outcomes: Outcomes) -> None:
    from rich import box
    from rich.table import Table

    title = f"{len(outcomes):,} prompts; small {outcomes.small.mean():.3f}, large {outcomes.large.mean():.3f}"
    drawn = Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, title_justify="left")
    drawn.add_column("", no_wrap=True)
    for head in ("APGR (95 %)", "calls for 50 %", "for 80 %", "area"):
        drawn.add_column(head, justify="right")
    for line in lines:
        cells = (str(line.apgr), f"{line.cpt50.value:.1%}", f"{line.cpt80.value:.1%}", f"{line.area.value:.3f}")
        drawn.add_row(line.name, *cells, style="bold" if line.name == "router" else None)
    out = console.out()
    out.print(drawn)
    out.print()
    for name, found in figures.items():
        out.print(f"{name:<23} {found}", soft_wrap=True)


def _findings(findings: list[Finding], items: int) -> None:
    from rich import box
    from rich.table import Table

    drawn = Table(title=f"{items:,} fresh items", box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for i, head in enumerate(("", "promised", "found", "worse by", "allowed", "")):
        drawn.add_column(head, justify="right" if 0 < i < 5 else "left", no_wrap=True)
    for each in findings:
        mark = "[green]holds[/]" if each.holds else "[bold red]broken[/]"
        numbers = (each.promised.value, each.found.value, each.worse_by, each.allowed)
        drawn.add_row(each.name, *(f"{number:.3f}" for number in numbers), mark)
    console.out().print(drawn)
