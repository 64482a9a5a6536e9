"""``duetto adopt``: somebody's own pair of models, judged on their own data before anything is deployed."""

from __future__ import annotations

import shlex
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from duetto.cli import cloud, console, running, shown
from duetto.errors import ConfigError

if TYPE_CHECKING:
    from duetto.programs.adopt import Adopted

EXAMPLES = console.examples(
    (
        "duetto adopt --small small.onnx --large large.onnx --data my.csv --user-column id",
        "both models are files: what would Duetto save?",
    ),
    (
        "duetto adopt --small small.onnx --large https://models.example#big --data my.npz --price-per-call 0.002",
        "the large one behind the Open Inference Protocol, each answer paid for once",
    ),
    (
        "duetto adopt --small small.onnx --large large.onnx --data my.csv --network 4g-commute --device low-end-phone",
        "on another network and device; nothing is asked again",
    ),
    (
        "duetto adopt --small s.onnx --large l.onnx --data my.csv --target-loss 0.5 --policy risk --json",
        "half a point may be lost, with a promise about new users",
    ),
)


def _devices() -> list[str]:
    from duetto.simulation import energy

    return ["here", *energy.profiles()]


def adopt(
    small: Annotated[
        Path, typer.Option(help="The small model: an ONNX file, from rows to logits.", show_default=False)
    ],
    large: Annotated[
        str,
        typer.Option(
            help="The large model: an ONNX file, or an engine of the Open Inference Protocol, https://HOST#MODEL "
            "(also oip+URL#MODEL, TASK.large, MODULE:NAME).",
            show_default=False,
        ),
    ],
    data: Annotated[
        Path,
        typer.Option(help="CSV: feature columns, a label, a user. NPZ: x, y, user.", show_default=False),
    ],
    user_column: Annotated[str, typer.Option(help="Whose a row is.")] = "user",
    label_column: Annotated[
        str | None,
        typer.Option(
            help="The right class; empty takes the large model's answers for the truth. "
            "[dim]\\[default: label; y in an NPZ][/]"
        ),
    ] = None,
    feature_columns: Annotated[
        str, typer.Option(help="NAME,NAME,... in the model's order. [dim]\\[default: all others][/]")
    ] = "",
    classes: Annotated[
        str, typer.Option(help="What labels are called, in the order of the outputs. [dim]\\[default: 0, 1, ...][/]")
    ] = "",
    key_variable: Annotated[
        str, typer.Option(help="The environment variable with the key for an engine elsewhere.")
    ] = "",
    target_loss: Annotated[
        float, typer.Option(help="Points of accuracy that may be lost against always asking.")
    ] = 1.0,
    policy: Annotated[
        Literal["calibrated", "risk", "gain"],
        typer.Option(help="That is recommended and saved; all three are shown. risk promises it of new users."),
    ] = "calibrated",
    network: Annotated[str, running.Network] = "wifi",
    device: Annotated[
        str,
        typer.Option(help="here, or a device of `duetto info --devices`: its seconds.", autocompletion=_devices),
    ] = "here",
    every: Annotated[
        float | None,
        typer.Option(min=0, help="Seconds between questions, with the radio on. [dim]\\[default: a whole tail][/]"),
    ] = None,
    price_per_call: Annotated[
        float | None, typer.Option(help="Dollars of a question, all in all. [dim]\\[default: duetto/profiles.toml][/]")
    ] = None,
    calibration: Annotated[float, typer.Option(help="Share of the users to calibrate on; others judge.")] = 0.5,
    timed: Annotated[int, typer.Option(help="Questions of one row, timed.")] = 20,
    batch: Annotated[int, typer.Option(help="Rows in a question after these.")] = 32,
    seed: Annotated[int, typer.Option(help="Draws the users.")] = 0,
    name: Annotated[str, typer.Option(help="Of the run.")] = "adopt",
    runs_dir: running.RunsDir = Path("runs"),
    opened: Annotated[bool, typer.Option("--open/--no-open", help="Show the report in a browser.")] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Forget the run of this name, and the answers that were paid for.")
    ] = False,
    as_json: running.Json = False,
) -> None:
    """What Duetto would save with your own two models, on your own users, before anything is deployed.

    Asks the large model once about each row, calibrates on some of the users, judges on the others. Answers are
    kept: after a stop, or with other settings, nothing is asked again.
    """
    from duetto.evaluation import report
    from duetto.programs import adopt as program
    from duetto.programs.renamed import renamed
    from duetto.tasks import own

    into, began = running.place(runs_dir, name), time.monotonic()
    settings = program.Settings(
        target_loss, policy, calibration, network, device, every, price_per_call, timed, batch, seed
    )
    with console.stoppable(running.STOPPED), console.Progressing() as progress:
        progress("reading models and data", 0, 1)
        if fresh:
            program.forget(into)
        small = renamed(small, into / "models" / "small.onnx")
        mine = program.small_of(small)
        rows = own.read(
            data, user=user_column, label=label_column, features=_names(feature_columns), classes=_names(classes)
        )
        rows = rows.fitting(mine.shape).within(mine.classes)  # before anybody is asked
        name_of_large, asked = program.known_as(large), _engine(large)
        if asked.endswith(".onnx"):
            asked = str(renamed(asked, into / "models" / "large.onnx"))
        pair = program.Pair(mine, cloud.large_model(asked, key_variable)[0:], name_of_large)
        made = program.adopt(pair, rows, settings, into, progress)
        progress("writing the report", 0, 1)
        page = report.write(into, into / "report.html")
    steps = _steps(made, small, asked, key_variable, into)
    if as_json:
        console.emit(_told(made, into) | {"report": str(page), "next": steps})
    else:
        _show(made, into, page, steps, time.monotonic() - began)
    if opened:
        typer.launch(page.resolve().as_uri())


def _names(text: str) -> tuple[str, ...]:
    return tuple(each.strip() for each in text.split(",") if each.strip())


def _engine(text: str) -> str:
    """A plain address is one of the Open Inference Protocol."""
    if text.startswith("openai+"):
        raise ConfigError(
            "a large model that takes prompts, beside a small one that takes numbers",
            "name a classifier of the same inputs; for prompts see duetto route fit",
        )
    if text.startswith(("http://", "https://")):
        return f"oip+{text}"
    return text


def _steps(made: Adopted, small: Path, large: str, variable: str, into: Path) -> list[str]:
    """What to type next."""
    small_file = shlex.quote(str(small))
    if made.verdict.kind == "small":
        return [f"duetto device --small {small_file} < inputs.jsonl"]
    key = f" --key-variable {shlex.quote(variable)}" if variable else ""
    return [
        f"duetto cloud --large {shlex.quote(large)}{key}",
        "duetto cloud enroll phone-1 > token",
        'duetto device enrol --cloud localhost:8444 --token "$(cat token)" '
        "--authority .duetto/cloud/authority/authority.pem --name phone-1",
        f"duetto device --cloud localhost:8443 --small {small_file} --policy {shlex.quote(str(into / 'policy'))} "
        "--leaves raw < inputs.jsonl",
    ]


def _told(made: Adopted, into: Path) -> dict[str, Any]:
    profile = made.profile
    return shown.summary(into, made.result) | {
        "verdict": {"kind": made.verdict.kind, "words": made.verdict.words},
        "users": {group: len(names) for group, names in made.groups.items()},
        "splits": asdict(made.splits),
        "profile": {
            "small_p50_seconds": _median(profile.small_seconds),
            "large_p50_seconds": _median(profile.large_seconds),
            "up_bytes": profile.up_bytes,
            "down_bytes": profile.down_bytes,
            "flops": profile.work.flops,
            "calls": profile.calls,
            "rows": profile.rows,
        },
        "policy": str(into / "policy"),
        "policies": {name: str(into / "policies" / name) for name in made.fitted},
    }


def _median(seconds: tuple[float, ...]) -> float:
    import numpy as np

    return float(np.median(seconds))


def _show(made: Adopted, into: Path, page: Path, steps: list[str], seconds: float) -> None:
    from rich.text import Text

    out, profile = console.out(), made.profile
    here, there = (1e3 * _median(each) for each in (profile.small_seconds, profile.large_seconds))
    out.print(
        f"small {here:.3g} ms here, large {there:.3g} ms a call; a question is {profile.up_bytes:,} bytes, its answer "
        f"{profile.down_bytes:,}",
        soft_wrap=True,
    )
    groups = ", ".join(f"{len(names)} {group}" for group, names in made.groups.items())
    out.print(f"{profile.rows:,} rows; users: {groups}", soft_wrap=True)
    shown.show(into, made.result, figures=False)
    good = made.verdict.kind in ("duetto", "small")
    out.print(Text("\nNext" if good else "\nTo try it all the same", "bold"))
    for step in steps:
        out.print(f"  {step}", soft_wrap=True, markup=False)
    out.print(f"\nPolicy: {into / 'policy'}\nReport: {page} [dim]({seconds:.0f} s)[/]", soft_wrap=True)
