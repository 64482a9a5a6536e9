"""Teaching on the command line: the flags of ``duetto cloud`` that teach, and the commands that look at models."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from duetto.cli import console, real, running
from duetto.errors import ConfigError, DataError

_PANEL = "Teaching"
Small = Annotated[
    str | None,
    typer.Option(
        "--teach",
        help="Teach this small model from what devices tell: TASK.small, or MODULE:NAME of a duetto.models.Net, or of "
        "the duetto.training.Client that trains one.",
        rich_help_panel=_PANEL,
    ),
]
Params = Annotated[
    Path | None,
    typer.Option(help="Its first parameters (.safetensors); else the task's trained ones.", rich_help_panel=_PANEL),
]
Named = Annotated[str, typer.Option("--model", help="What devices know it by.", rich_help_panel=_PANEL)]
Every = Annotated[float, typer.Option(min=0.01, help="Seconds between two looks.", rich_help_panel=_PANEL)]
Share = Annotated[
    float, typer.Option(min=0, max=1, help="The share of devices that try a model first.", rich_help_panel=_PANEL)
]
Rule = Annotated[
    list[str] | None,
    typer.Option(
        help="Of the rule of promotion, as NAME=VALUE: window, margin, asking, failing, confidence, looks, devices, "
        "patience; may be repeated.",
        rich_help_panel=_PANEL,
    ),
]
Lesson = Annotated[
    list[str] | None,
    typer.Option(
        help="Of a lesson, as NAME=VALUE: least, held, most, replay, fitting, loss, seed; may be repeated.",
        rich_help_panel=_PANEL,
    ),
]
Together = Annotated[
    str | None,
    typer.Option(
        help="Learn together over the devices that offer it, too, by an algorithm such as fedavg; its numbers behind a "
        "colon: fedavg:lr=0.05,epochs=1,rounds=10.",
        rich_help_panel=_PANEL,
    ),
]
State = Annotated[Path, typer.Option(help="The cloud's folder.", envvar="DUETTO_CLOUD")]
HOME = Path(".duetto/cloud")
T = TypeVar("T")


def teaching(
    site: Any,
    large: Any,
    small: str,
    params: Path | None,
    model: str,
    every: float,
    share: float,
    rule: Sequence[str] | None,
    lesson: Sequence[str] | None,
    together: str | None,
) -> Any:
    """A teacher for ``App.more``, of what the flags say.

    Raises:
        ConfigError: a flag that cannot be.
        DataError: parameters that cannot be read, or are another network's.
    """
    from duetto import tree as trees
    from duetto.cli.model import named
    from duetto.cloud.teacher import Lesson as Taught
    from duetto.cloud.teacher import Teacher
    from duetto.errors import WireError
    from duetto.models.net import fitting, to_tree

    client = _client(small)
    if client is not None:
        net, first = client.net, client.net.init(0)
    if client is None or small.endswith(".small"):
        found = named(small, trained=params is None and small.endswith(".small"))
        if found.net is None:
            raise ConfigError(f"{small} has no description", "name TASK.small, or MODULE:NAME of a duetto.models.Net")
        net, first = found.net, to_tree(dict(found.module.named_parameters()))
    if params is not None:
        try:
            first = trees.decode(params.read_bytes())
        except (OSError, WireError) as fault:
            raise DataError(f"{params} cannot be read ({fault})", "write it with duetto.tree.encode") from fault
    fitting(net, first)
    rounds, algorithm = 10, None
    if together is not None:
        name, _, text = together.partition(":")
        numbers = {key: float(value) for key, value in _pairs([each for each in text.split(",") if each]).items()}
        rounds = int(numbers.pop("rounds", rounds))
        algorithm = _algorithm(name, numbers)
    return Teacher(
        site,
        large,
        net,
        first,
        model,
        lesson=_set(Taught(client), lesson),
        rule=ruled(rule),
        share=share,
        every=every,
        algorithm=algorithm,
        rounds=rounds,
    )


def ruled(texts: Sequence[str] | None) -> Any:
    """The rule of promotion that the flags say.

    Raises:
        ConfigError: a number that cannot be.
    """
    from duetto.cloud.promotion import Promotion

    return _set(Promotion(), texts)


def _client(small: str) -> Any:
    """How the small model learns, where what was named says so: a task's own way, or a client; else None."""
    from importlib import import_module

    from duetto.tasks import load
    from duetto.training import Client

    module, colon, attribute = small.partition(":")
    if not colon:
        task, _, role = small.rpartition(".")
        return load(task).teach_small if task and role == "small" else None
    if "" not in sys.path:
        sys.path.insert(0, "")  # a module beside where the command is given, as `python -m` finds it
    try:
        found = getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as fault:
        raise ConfigError(f"{small!r} cannot be imported ({fault})", "name it as MODULE:NAME") from fault
    return found if isinstance(found, Client) else None


def _algorithm(name: str, numbers: Mapping[str, float]) -> Any:
    from duetto import algorithms

    if name not in algorithms.__all__:
        raise ConfigError(f"no algorithm is called {name!r}", f"use one of {', '.join(algorithms.__all__)}")
    build = getattr(algorithms, name)
    given: dict[str, Any] = {"lr": 0.05, "epochs": 1, **numbers}
    given |= {word: int(given[word]) for word in ("epochs", "batch_size") if word in given}

    def made(net: Any, params: Any) -> Any:
        try:
            return build(net, params, **given)
        except TypeError as fault:
            raise ConfigError(f"{name} with {', '.join(given)} ({fault})", "see its signature") from fault

    return made


def _pairs(texts: Sequence[str]) -> dict[str, str]:
    pairs = [text.partition("=") for text in texts]
    if wrong := [text for text, (_, sign, _) in zip(texts, pairs, strict=True) if not sign]:
        raise ConfigError(f"the setting {wrong[0]!r}", "write it as NAME=VALUE")
    return {word.strip(): value for word, _, value in pairs}


def _set(part: T, texts: Sequence[str] | None) -> T:
    """A frozen part with some of its numbers read from texts."""
    from dataclasses import replace

    known = {each.name: getattr(part, each.name) for each in fields(part)}  # type: ignore[arg-type]  # it is one
    numbers = {name: value for name, value in known.items() if isinstance(value, int | float)}
    values = {}
    for name, text in _pairs(texts or []).items():
        if name not in numbers:
            raise ConfigError(f"no setting {name!r}", f"there are {', '.join(numbers)}")
        try:
            values[name] = type(numbers[name])(text)
        except ValueError as fault:
            raise ConfigError(f"{name} = {text!r}", f"give a number such as {numbers[name]!r}") from fault
    return replace(part, **values)  # type: ignore[type-var]


# ------------------------------------------------------------------------------------------------------- commands


def models(
    model: Annotated[str | None, typer.Argument(help="One model; all by default.")] = None,
    state: State = HOME,
    as_json: running.Json = False,
) -> None:
    """List the versions of models."""
    registry = _site(state).registry
    names = [model] if model else registry.models()
    found = [_shown(registry, name, each) for name in names for each in registry.versions(name)]
    if as_json:
        console.emit(found)
        return
    from rich.table import Table

    table = Table("model", "version", "channels", "from", "mean", "worst tenth", "by", box=None)
    for each in found:
        scores = each["metrics"].get("small", {})
        table.add_row(
            each["model"],
            str(each["version"]),
            ", ".join(each["channels"]),
            ", ".join(f"{name} {number}" for name, number in each["parents"]),
            *(f"{100 * scores[name]:.1f} %" if name in scores else "" for name in ("user_mean", "worst_tenth")),
            each["by"],
        )
    console.out().print(table if found else "there are no models yet")


def promote(
    version: Annotated[int, typer.Argument(min=1, help="The version, as `duetto cloud models` counts.")],
    state: State = HOME,
    model: Annotated[str, typer.Option(help="The model.")] = "small",
    channel: Annotated[str, typer.Option(help="stable, or canary.")] = "stable",
    why: Annotated[str, typer.Option(help="For the record.")] = "promoted by the operator",
    by: Annotated[str, typer.Option(help="Who does it, for the record.")] = "operator",
    as_json: running.Json = False,
) -> None:
    """Point a channel to a version of a model, and offer it."""
    site = _site(state)
    with site.audit.doing(real.me(), "promote", {"model": model, "version": version, "channel": channel, "why": why}):
        move = site.registry.promote(model, version, channel, by=by, why=why)
    _told(site, move, as_json)


def rollback(
    state: State = HOME,
    model: Annotated[str, typer.Option(help="The model.")] = "small",
    channel: Annotated[str, typer.Option(help="stable, or canary.")] = "stable",
    why: Annotated[str, typer.Option(help="For the record.")] = "rolled back by the operator",
    by: Annotated[str, typer.Option(help="Who does it, for the record.")] = "operator",
    as_json: running.Json = False,
) -> None:
    """Point a channel to where it pointed before, and offer that again under a higher number."""
    site = _site(state)
    with site.audit.doing(real.me(), "roll back", {"model": model, "channel": channel, "why": why}):
        move = site.registry.roll_back(model, channel, by=by, why=why)
    _told(site, move, as_json)


def register(app: typer.Typer) -> None:
    """Add the commands to those of ``duetto cloud``."""
    app.command(
        epilog=console.examples(
            ("duetto cloud models", "all versions, where they come from, how good they are, and who has which"),
            ("duetto cloud models small --json", "for a script"),
        )
    )(models)
    app.command(
        epilog=console.examples(
            ("duetto cloud promote 3", "give version 3 to all, whatever the rule would say"),
            ("duetto cloud promote 3 --channel canary", "let the canary try it"),
        )
    )(promote)
    app.command(
        epilog=console.examples(("duetto cloud rollback --why 'complaints'", "all get the model before this one"))
    )(rollback)


def _told(site: Any, move: Any, as_json: bool) -> None:
    from duetto.cloud.channels import offered

    made = offered(site, move.model)
    if as_json:
        releases = [{"channel": each.channel, "release": each.version, "sha256": each.sha256} for each in made]
        console.emit({**vars(move), "releases": releases})
        return
    console.line(f"{move.channel} of {move.model} is at version {move.version}, before {move.before or 'nowhere'}")
    for each in made:
        console.line(f"release {each.version} is offered to {each.channel}: {each.length:,} bytes")


def _shown(registry: Any, name: str, version: Any) -> dict[str, Any]:
    from duetto.cloud.registry import CHANNELS

    at = {channel: registry.channel(name, channel) for channel in CHANNELS}
    return {
        "model": name,
        "version": version.number,
        "channels": [channel for channel, there in at.items() if there and there.number == version.number],
        "parents": list(version.parents),
        "by": version.by,
        "unix_seconds": version.unix_seconds,
        "trained_from": {word: told for word, told in version.trained_from.items() if word != "metrics"},
        "metrics": registry.metrics(name, version.number),
        "artefacts": {kind: vars(each) for kind, each in version.artefacts.items()},
    }


def _site(state: Path) -> Any:
    from duetto.cloud.site import Site

    return Site(state).begin()
