"""``duetto flower``: an algorithm as an ordinary Flower app."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated

import typer

from duetto.cli import console
from duetto.errors import ConfigError

app = typer.Typer(
    cls=console.Commands,
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Any algorithm on Flower's SuperLink and SuperNodes, unchanged.",
    epilog=console.examples(("duetto flower new clinic", "write the app clinic; its README.md tells how to run it")),
)

_GIVEN = {"net", "params", "lr", "epochs", "batch_size", "cohort"}  # that the app's own numbers are


@app.callback()
def root() -> None:
    """Keep ``new`` a command of its own."""


@app.command(
    epilog=console.examples(
        ("duetto flower new clinic", "federated averaging over digits, in the folder clinic"),
        ("duetto flower new clinic --task activity --algorithm scaffold", "another task, another algorithm"),
        ("duetto flower new clinic --algorithm ditto --set lam=0.1", "one that has a number of its own"),
        ("flwr run clinic", "run it; clinic/README.md tells what must be there"),
    )
)
def new(
    folder: Annotated[Path, typer.Argument(help="Where the app is to be; its name is the app's.")],
    task: Annotated[str, typer.Option(help="What is learned; see [bold]duetto data[/].")] = "digits",
    algorithm: Annotated[str, typer.Option(help="Of duetto.algorithms.")] = "fedavg",
    own: Annotated[
        list[str] | None,
        typer.Option("--set", help="A number of the algorithm's own, as NAME=VALUE; may be repeated."),
    ] = None,
    publisher: Annotated[str, typer.Option(help="Who you are, on Flower's side.")] = "duetto",
) -> None:
    """Write an app that runs an algorithm on Flower."""
    import duetto.algorithms
    from duetto.tasks.task import NAMES

    name = folder.resolve().name
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        raise ConfigError(f"an app called {name!r}", "use small letters, digits and single hyphens")
    if algorithm not in duetto.algorithms.__all__:
        raise ConfigError(f"no algorithm is called {algorithm!r}", f"use one of {', '.join(duetto.algorithms.__all__)}")
    if task not in NAMES:
        raise ConfigError(f"no task is called {task!r}", f"use one of {', '.join(NAMES)}")
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"{folder} is not empty", "name a new folder")
    numbers = _numbers(algorithm, own or [])
    package = name.replace("-", "_")
    words = {"NAME": name, "PACKAGE": package, "PUBLISHER": publisher, "TASK": task, "ALGORITHM": algorithm}
    words["OWN\n"] = "".join(f'        {word}=run["{word}"],\n' for word in numbers)
    words["NUMBERS\n"] = "".join(f"{word} = {value}\n" for word, value in numbers.items())
    (folder / package).mkdir(parents=True)
    (folder / package / "__init__.py").write_text(f'"""{name}: {algorithm} on {task}."""\n')
    for text in ("pyproject.toml", "README.md", "program.py", "client_app.py", "server_app.py"):
        written = resources.files("duetto.worlds.starter").joinpath(f"{text}.txt").read_text()
        for word, value in words.items():
            written = re.sub(rf"\b{word}", value, written)
        (folder / (package if text.endswith(".py") else "") / text).write_text(written)
    console.line(f"{folder} is a Flower app now: change {folder / package / 'program.py'}, then see README.md there")


def _numbers(algorithm: str, texts: Sequence[str]) -> dict[str, float]:
    """An algorithm's own numbers.

    Raises:
        ConfigError: no number, none of its own, or one is missing.
    """
    import duetto.algorithms

    settings = inspect.signature(getattr(duetto.algorithms, algorithm)).parameters
    required = {name for name, each in settings.items() if each.default is each.empty} - _GIVEN
    if odd := sorted(name for name in required if settings[name].annotation not in (float, int)):
        raise ConfigError(
            f"{algorithm} needs {', '.join(odd)}, which is no number",
            "take fedavg, and write what it needs into program.py",
        )
    found: dict[str, float] = {}
    for text in texts:
        name, _, value = text.partition("=")
        if name not in settings or name in _GIVEN:
            raise ConfigError(f"{algorithm} has no number of its own called {name!r}", "see docs/algorithms.md")
        try:
            found[name] = (int if settings[name].annotation is int else float)(value)
        except ValueError as fault:
            raise ConfigError(f"{text!r} gives no number", "write it as NAME=VALUE") from fault
    if missing := sorted(required - found.keys()):
        raise ConfigError(f"{algorithm} needs {', '.join(missing)}", f"give it: --set {missing[0]}=0.1")
    return found
