"""``duetto cloud``: the service that devices ask, and who may ask it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, Any

import typer

from duetto.cli import console, real, running, teach
from duetto.errors import ConfigError

app = typer.Typer(
    rich_markup_mode="rich",
    epilog=console.examples(
        ("duetto cloud --large large.onnx", "serve a model; makes .duetto/cloud with an authority of its own"),
        ("duetto cloud enroll phone-1", "print a token, by which one device can come"),
        ("duetto cloud devices", "who has come"),
        ("duetto cloud revoke phone-1 --why stolen", "and who may not any longer"),
        ("duetto cloud publish small.onnx --version 2", "sign a model, and offer it to devices"),
        ("duetto cloud --large digits.large --teach digits.small", "and teach the small one from what devices tell"),
        ("duetto cloud models", "what it has learned, and who has it"),
        (
            "duetto cloud --program closed-loop --users 8 --rehearse --insecure --listen 127.0.0.1:7700",
            "the cloud's role of a program, with eight `duetto device`",
        ),
    ),
)
State = Annotated[Path, typer.Option(help="The cloud's folder.", envvar="DUETTO_CLOUD")]
HOME = Path(".duetto/cloud")


@app.callback(invoke_without_command=True)
def cloud(
    ctx: typer.Context,
    large: Annotated[
        str | None,
        typer.Option(
            help="The large model: an ONNX file, a network of the zoo, TASK.large, MODULE:NAME, or an engine "
            "elsewhere: oip+URL#MODEL (Open Inference Protocol), openai+URL#MODEL."
        ),
    ] = None,
    key_variable: Annotated[
        str, typer.Option(help="The environment variable with the key for an engine elsewhere.")
    ] = "",
    state: State = HOME,
    listen: Annotated[str, typer.Option(help="Where devices connect.")] = "0.0.0.0:8443",
    enrol: Annotated[str, typer.Option(help="Where devices enrol; empty for nowhere.")] = "0.0.0.0:8444",
    name: Annotated[
        list[str] | None,
        typer.Option(help="By which devices reach this server; may be repeated. [dim]\\[default: localhost][/]"),
    ] = None,
    database: Annotated[
        str | None, typer.Option(help="Such as postgresql://...; else SQLite in the folder.", envvar="DUETTO_DB")
    ] = None,
    blobs: Annotated[
        str | None, typer.Option(help="Such as s3://bucket; else the folder's.", envvar="DUETTO_BLOBS")
    ] = None,
    small: teach.Small = None,
    params: teach.Params = None,
    model: teach.Named = "small",
    every: teach.Every = 60.0,
    share: teach.Share = 0.1,
    rule: teach.Rule = None,
    lesson: teach.Lesson = None,
    together: teach.Together = None,
    insecure: real.Insecure = False,
    program: real.Program = None,
    task: real.Task = "digits",
    settings: real.Set = None,
    users: real.Users = 0,
    wait: Annotated[int, typer.Option(min=0, help="Begin the program once so many devices are here.")] = 0,
    rehearse: real.Rehearse = False,
    records: real.Records = None,
    memory: Annotated[
        Path | None, typer.Option(help="With a program: the file in which its memory outlives this process.")
    ] = None,
) -> None:
    """Serve the large model, keep what devices tell, and offer them signed models.

    The first start makes a folder with an authority, a certificate for this server, and keys for releases.
    """
    if ctx.invoked_subcommand is not None:
        return
    real.quiet()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    if program is not None:
        _program(program, task, settings, users, listen, insecure, wait, rehearse, records, memory, state, name)
        return
    from duetto.cloud.app import App

    if large is None:
        raise ConfigError("a cloud without a large model", "name one with --large, or a --program")
    site = _site(state, database, blobs).begin(name or ("localhost", "127.0.0.1"))
    answers, beside = _model(large, key_variable), []
    if small is not None:
        beside.append(teach.teaching(site, answers, small, params, model, every, share, rule, lesson, together))
    made = App(site, answers, listen, enrol or None, insecure, more=beside)

    def listening(port: int, enrolling: int) -> None:
        where = f"enrolment at port {enrolling}, " if enrolling else ""
        console.line(f"listening at {listen.rpartition(':')[0]}:{port}, {where}folder {state}")

    made.run(listening)


@app.command(
    epilog=console.examples(
        ("duetto cloud enroll phone-1", "for the device of that name"),
        ("duetto cloud enroll 'phone-*' --hours 1", "for any device of such a name, within the hour"),
    )
)
def enroll(
    device: Annotated[str, typer.Argument(help="The device's name, or a pattern such as 'phone-*'.")],
    state: State = HOME,
    hours: Annotated[float, typer.Option(min=0.01, help="For which the token holds.")] = 24.0,
    by: Annotated[str, typer.Option(help="Who issues it, for the record.")] = "operator",
    as_json: running.Json = False,
) -> None:
    """Print a token with which one device can enrol, once."""
    site = _site(state).begin()
    token = site.enrolment.token(device, issuer=by, hours=hours)
    authority = state / "authority" / "authority.pem"
    if as_json:
        console.emit({"token": token, "device": device, "hours": hours, "authority": str(authority)})
        return
    console.line(f"for {device}, once, within {hours:g} hours; the device also needs {authority}", "dim")
    print(token)


@app.command(epilog=console.examples(("duetto cloud devices --json", "for a script")))
def devices(state: State = HOME, as_json: running.Json = False) -> None:
    """List the devices that were enrolled."""
    from datetime import UTC, datetime

    def when(seconds: float | None) -> str:
        return "" if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")

    known = _site(state).begin().enrolment.devices()
    if as_json:
        console.emit([vars(each) for each in known])
        return
    from rich.table import Table

    table = Table("device", "key", "enrolled", "seen", "revoked", "why", box=None, header_style="bold")
    for each in known:
        table.add_row(
            each.name,
            each.fingerprint[:12],
            when(each.enrolled),
            when(each.seen),
            when(each.revoked),
            each.reason or "",
        )
    console.out().print(table if known else "no device has been enrolled")


@app.command(epilog=console.examples(("duetto cloud revoke phone-1 --why stolen", "its key stays out for ever")))
def revoke(
    device: Annotated[str, typer.Argument(help="The device's name.")],
    state: State = HOME,
    why: Annotated[str, typer.Option(help="For the record.")] = "revoked by the operator",
) -> None:
    """Let a device come no longer; a running service heeds it within seconds."""
    gone = _site(state).begin().enrolment.revoke(device, why)
    console.line(f"{gone.name} (key {gone.fingerprint[:12]}) is revoked: {why}")


@app.command(epilog=console.examples(("duetto cloud publish small.onnx --version 2 --channel canary", "to a few")))
def publish(
    model: Annotated[Path, typer.Argument(help="An ONNX file that duetto.models.export wrote.")],
    version: Annotated[int, typer.Option(min=1, help="Above the one that is offered now.")],
    state: State = HOME,
    name: Annotated[str, typer.Option(help="What devices know it by.")] = "small",
    channel: Annotated[str, typer.Option(help="stable, or canary.")] = "stable",
    inputs: Annotated[
        Path | None, typer.Option(help="A .npy file of inputs; devices test that they get the same logits.")
    ] = None,
    tolerance: Annotated[float, typer.Option(min=0, help="By which these may differ.")] = 1e-3,
) -> None:
    """Sign a model, and offer it to the devices of a channel."""
    import numpy as np

    from duetto import tree as trees
    from duetto.cloud.onnx import Whole

    site, loaded = _site(state).begin(), Whole(model, 1)
    vector = None
    if inputs is not None:
        x = np.load(inputs, allow_pickle=False)[:8].astype(np.float32)
        vector = trees.encode({"x": x, "logits": loaded({"x": x})["logits"]})
    olds = [each.sha256 for each in site.releases.releases() if each.model == name]
    made = site.releases.publish(name, version, channel, model, vector=vector, tolerance=tolerance, olds=olds)
    console.line(f"{name} {made.version} is offered to {channel}: {made.length:,} bytes, {made.sha256[:12]}")


@app.command(epilog=console.examples(("duetto cloud rotate canary", "after its key may have been seen")))
def rotate(
    role: Annotated[str, typer.Argument(help="root, targets, snapshot, timestamp, or a channel.")],
    state: State = HOME,
) -> None:
    """Give a role of the releases a new key; devices follow by themselves."""
    _site(state).begin().releases.rotate(role)
    console.line(f"{role} has a new key")


@app.command(epilog=console.examples(("duetto cloud resign", "once a year, with the keys of root and targets here")))
def resign(state: State = HOME) -> None:
    """Sign root and targets of the releases anew, before their time is over."""
    _site(state).begin().releases.resign()
    console.line("root and targets are signed anew")


@app.command(epilog=console.examples(("duetto cloud refresh", "where no service runs: the time stamp holds two days")))
def refresh(state: State = HOME) -> None:
    """Sign anew what would soon be out of date; a running service does so by itself."""
    wanting = _site(state).begin().releases.refresh()
    console.line("signed anew" + (f"; {', '.join(wanting)} need keys that are elsewhere" if wanting else ""))


teach.register(app)


def _site(state: Path, database: str | None = None, blobs: str | None = None) -> Any:
    from duetto.cloud.site import Site

    return Site(state, database, blobs)


def _model(text: str, variable: str) -> Any:
    from duetto.cloud.elsewhere import elsewhere

    engine = elsewhere(text, variable)
    if engine is not None:
        return engine
    if text.endswith(".onnx"):
        from duetto.cloud.onnx import Whole

        return Whole(text)
    from duetto.cli import model
    from duetto.models import stage

    found = model.named(text)
    return stage(found.module, found.inputs[:1], proof="stages")


def _program(
    program: str,
    task: str,
    settings: list[str] | None,
    users: int,
    listen: str,
    insecure: bool,
    wait: int,
    rehearse: bool,
    records: Path | None,
    memory: Path | None,
    state: Path,
    names: list[str] | None,
) -> None:
    from duetto.cloud.service import serve
    from duetto.transport.kept import Kept

    made = real.program(program, task, settings, users)
    credentials = None if insecure else _site(state).begin(names or ("localhost", "127.0.0.1")).credentials
    with real.written(records) as write:
        left = serve(
            made.cloud,
            listen=listen,
            credentials=credentials,
            devices=made.users,
            wait=wait or len(made.users),
            keep=None if memory is None else Kept(memory),
            stay=False,
            rehearsal=rehearse,
            on_listening=lambda port: console.line(f"listening at {listen.rpartition(':')[0]}:{port}"),
            on_record=write,
        )
    console.line(f"{program} is over: {len(left.records)} records")
