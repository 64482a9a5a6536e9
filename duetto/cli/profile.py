"""``duetto profile``: what operations take on this machine, to plan with instead of a table's estimate."""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Annotated, Any

import numpy as np
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
    import torch

    from duetto.models import costs, stage

    stages: list[Any] = []
    seconds: list[float] = []
    with console.stoppable("stopped; nothing was written"), console.Progressing() as progress:
        nets = _nets()
        for i, (net, rows) in enumerate(nets):
            progress("measuring", i, len(nets))
            staged = stage(net, rows, proof="stages")
            stages += staged.stages
            seconds += costs.measured(staged, {"x": rows.numpy()}, repeats).tolist()
        fitted = costs.fitted(stages, np.maximum(seconds, 1e-9).tolist())
        found: dict[str, Any] = {
            "format": 1,
            "machine": f"{platform.node()}, {platform.machine()}, torch {torch.__version__}",
            "threads": torch.get_num_threads(),
            "stages": len(stages),
            "seconds": {name: list(each) for name, each in fitted.seconds.items()},
        }
        shares = np.abs(fitted.predicted(stages) - seconds) / np.maximum(seconds, 1e-9)
        found["median_error"] = float(np.median(shares))
        if check:
            progress(f"measuring {check}", 0, 1)
            named = model.named(check)
            rows = torch.as_tensor(named.inputs[:1])
            staged = stage(named.module, rows, proof="stages")
            took = costs.measured(staged, {"x": rows.numpy()}, repeats).sum()
            found["check"] = {
                "model": check,
                "measured_seconds": float(took),
                "predicted_seconds": float(fitted.predicted(staged.stages).sum()),
            }
    out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if as_json:
        console.emit(found | {"file": str(out)})
        return
    shown = console.out()
    shown.print(f"{found['machine']}, {found['threads']} thread(s); {len(stages)} stages measured")
    for name, (call, flop, byte) in fitted.seconds.items():
        rate = f"{1e-9 / flop:,.1f} GFLOP/s" if flop else "–"
        moved = f"{1e-9 / byte:,.1f} GB/s" if byte else "–"
        shown.print(f"  {name:<12} {call * 1e6:8.1f} us a call  {rate:>16}  {moved:>12}", highlight=False)
    shown.print(f"median error of a stage's prediction: {found['median_error']:.0%}")
    if check:
        told = found["check"]
        measured, predicted = told["measured_seconds"], told["predicted_seconds"]
        shown.print(
            f"{check}: measured {measured * 1e3:.1f} ms, "
            f"predicted {predicted * 1e3:.1f} ms ({predicted / measured - 1:+.0%})"
        )
    shown.print(f"written: {out}")


def _nets() -> list[tuple[Any, Any]]:
    """Modules and an input of each: what the regression is fitted to."""
    import torch

    from duetto.models import Chained, Conv, Inception, Mlp, Mobile, Net, Residual, Text, Vit
    from duetto.models.net import built

    nets: list[Net] = [
        Conv((3, 32, 32), 10, (16, 32, 64)),
        Chained((3, 96, 96), 100, ((48, 7, 2, 3), (3, 2), (96, 3, 1, 1), (3, 2)), (1024, 512)),
        Residual((3, 64, 64), 10, (16, 32, 64), 2),
        Residual((3, 128, 128), 100, (32, 64, 128), 2, 7),
        Mobile((3, 96, 96), 100, ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 2, 2), (6, 64, 2, 2))),
        Inception((3, 64, 64), 10, 32, (16, 32, 48)),
        Vit((3, 96, 96), 100, 8, 128, 4, 4),
        Vit((3, 160, 160), 100, 16, 384, 2, 6),  # weights that fill no cache
        Text((64,), 2, 2_000, 256, 4, 4),
        Mlp((784,), 10, (1024, 256)),
    ]
    torch.manual_seed(0)
    rows = [torch.randint(0, 2_000, (1, 64)) if isinstance(net, Text) else torch.randn(1, *net.shape) for net in nets]
    return [(built(net), x) for net, x in zip(nets, rows, strict=True)]


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
