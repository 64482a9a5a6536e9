"""``duetto demo``: the closed loop on data that is always there."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from duetto.cli import console, running

EXAMPLES = console.examples(
    ("duetto demo", "a minute or two; at once when it was done before"),
    ("duetto demo --seed 1 --open", "other users, and the page in a browser"),
    ("duetto demo --json | jq .headline", "for machines"),
)


SEEDS = 3  # the users are few: one draw of them says little


def demo(
    seed: Annotated[
        int, typer.Option(min=0, help="The first of three; each draws its own users, models and links.")
    ] = 0,
    name: Annotated[str | None, typer.Option(help="Of the run. [dim]\\[default: demo][/]")] = None,
    network: Annotated[str, running.Network] = "synthetic",
    runs_dir: running.RunsDir = Path("runs"),
    opened: Annotated[bool, typer.Option("--open/--no-open", help="Show the report in a browser.")] = False,
    fresh: running.Fresh = False,
    as_json: running.Json = False,
) -> None:
    """Watch a small and a large model answer and learn together: offline, in a minute or two.

    It is the program `closed-loop` on scikit-learn's digits, dealt to 40 invented users.
    """
    unlike = [f"seed-{seed}"] * (seed != 0) + [network] * (network != "synthetic")
    into = running.place(runs_dir, "-".join(["demo", *unlike]) if name is None else name)

    from duetto.programs.closed_loop import Settings
    from duetto.programs.runs import Experiment
    from duetto.tasks import load

    experiment = Experiment("digits", tuple(range(seed, seed + SEEDS)), network, Settings())
    if not as_json:
        task, days = load("digits", seed), experiment.settings.days
        devices, new, known = (len(task.users[group]) for group in ("device", "unseen", "calibration"))
        console.out().print(
            f"[bold]Duetto's closed loop[/] on scikit-learn's digits (8x8 pixels), dealt to invented users.\n\n"
            f"{devices} devices hold a small model ({task.small.parameters:,} parameters), the cloud a large one "
            f"({task.large.parameters:,}). A device answers by itself when it is sure, and asks the cloud when it is "
            f"not. By night the devices learn from what the cloud answered; they share updates, never inputs, and get "
            f"back the mean and a new threshold of being sure. {days} such days are simulated over the network "
            f"{network!r}. Then all systems answer inputs that nobody learned from: those that the devices' users "
            f"held back, and those of {new} new users. ({known} others, whose labels the cloud knows, set the "
            f"threshold.) All of it {SEEDS} times, with other users each time.\n"
        )
    running.carry_out(experiment, into, fresh=fresh, as_json=as_json, figures=False, opened=opened)
    if not as_json:
        console.out().print(
            "\n[bold]Next[/]\n"
            "  [dim]# the same with curves, rounds and every user[/]\n"
            f"  [cyan]duetto report {into.name} --open[/]\n"
            "  [dim]# what the two models cost on a phone[/]\n"
            "  [cyan]duetto info --task digits[/]\n"
            "  [dim]# real people's handwriting: fetch it (12 MB), then learn with it[/]\n"
            "  [cyan]duetto data get handwriting[/]\n"
            "  [cyan]duetto simulate closed-loop --task handwriting[/]",
            soft_wrap=True,
        )
