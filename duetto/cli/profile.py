"""``duetto profile``: what operations take on this machine, to plan with instead of a table's estimate."""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Annotated, Any

import typer

from duetto.cli import console, model, running
from duetto.errors import DataError

EXAMPLES = console.examples(
    ("duetto profile", "measure a few networks here, and write profile.json"),
    ("duetto profile --out pi.json", "on the device; then, anywhere: duetto plan resnet18 --device pi.json"),
    ("duetto profile --check vit-s16", "and how well it predicts another network"),
)


def profile(
    out: Annotated[Path, typer.Option(help="The file to write.")] = Path("profile.json"),
    check: Annotated[
        str | None,
        typer.Option(
            help="A model to predict and then measure, as in `duetto plan`.", autocompletion=lambda: list(model.zoo())
        ),
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Times that every stage is measured; the median counts.")] = 7,
    as_json: running.Json = False,
) -> None:
    """Measure what operations take on this machine, and fit a regression for each kind of them."""
    from duetto.models import costs, stage

    with console.stoppable("stopped; nothing was written"), console.Progressing() as progress:
        here = costs.profiled(repeats, lambda done, of: progress("measuring", done, of))
        found: dict[str, Any] = {
            "format": 1,
            "machine": f"{platform.node()}, {platform.machine()}",
            "torch": here.torch,
            "threads": here.threads,
            "stages": here.stages,
            "seconds": {name: list(each) for name, each in here.regression.seconds.items()},
            "median_error": here.error,
        }
        if check:
            progress(f"measuring {check}", 0, 1)
            named = model.named(check)
            staged = stage(named.module, named.inputs[:1], proof="stages")
            (entry,) = staged.graph.inputs
            found["check"] = {
                "model": check,
                "measured_seconds": float(costs.measured(staged, {entry: named.inputs[:1]}, repeats).sum()),
                "predicted_seconds": float(here.regression.predicted(staged.stages).sum()),
            }
    out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if as_json:
        console.emit(found | {"file": str(out)})
        return
    _show(found, out)


def _show(found: dict[str, Any], out: Path) -> None:
    shown = console.out()
    shown.print(
        f"{found['machine']}, torch {found['torch']}, {found['threads']} thread(s); {found['stages']} stages measured"
    )
    for name, (call, flop, byte) in found["seconds"].items():
        rate = f"{1e-9 / flop:,.1f} GFLOP/s" if flop else "–"
        moved = f"{1e-9 / byte:,.1f} GB/s" if byte else "–"
        shown.print(f"  {name:<12} {call * 1e6:8.1f} us a call  {rate:>16}  {moved:>12}", highlight=False)
    shown.print(f"median error of a stage's prediction: {found['median_error']:.0%}")
    if told := found.get("check"):
        measured, predicted = told["measured_seconds"], told["predicted_seconds"]
        shown.print(
            f"{told['model']}: measured {measured * 1e3:.1f} ms, predicted {predicted * 1e3:.1f} ms "
            f"({predicted / measured - 1:+.0%})"
        )
    shown.print(f"written: {out}")


def read(path: Path) -> Any:
    """The regression in a file of ``duetto profile``.

    Raises:
        DataError: no such file.
    """
    from duetto.models.costs import OTHER, Regression

    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        seconds = {name: (float(a), float(b), float(c)) for name, (a, b, c) in told["seconds"].items()}
        if told["format"] != 1 or OTHER not in seconds:
            raise ValueError("another format")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is no profile ({error})", "write it with `duetto profile --out FILE`") from error
    return Regression(seconds)
