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
        ("duetto cloud admin-token anna --role operator", "print a token, by which Anna may administer"),
        ("duetto cloud --large large.onnx --admin 127.0.0.1:8080", "with the administration over HTTP, and /metrics"),
        ("duetto cloud --large large.onnx --page 127.0.0.1:8090", "with a device in the browser"),
        ("duetto cloud certify", "a new certificate for this server, before the old one has expired"),
        ("duetto cloud backup backups/today", "copy the folder, while the cloud runs on"),
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
Database = Annotated[
    str | None, typer.Option(help="Such as postgresql://...; else SQLite in the folder.", envvar="DUETTO_DB")
]
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
    database: Database = None,
    blobs: Annotated[
        str | None, typer.Option(help="Such as s3://bucket; else the folder's.", envvar="DUETTO_BLOBS")
    ] = None,
    admin: Annotated[
        str | None,
        typer.Option(
            help="The console, the administration over HTTP and /metrics at HOST:PORT, or at a port of this machine "
            "alone; elsewhere over TLS."
        ),
    ] = None,
    page: Annotated[
        str | None,
        typer.Option(
            help="Serve the device in the browser at HOST:PORT, or at a port of this machine alone; elsewhere over TLS."
        ),
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
    real.serving()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    if program is not None:
        if admin is not None:
            raise ConfigError("--admin beside a --program", "it administers a cloud that serves a --large model")
        if page is not None:
            raise ConfigError("--page beside a --program", "it is a device of a cloud that serves a --large model")
        _program(program, task, settings, users, listen, insecure, wait, rehearse, records, memory, state, name)
        return
    from duetto.cloud.app import App
    from duetto.transport import tracing

    if large is None:
        raise ConfigError("a cloud without a large model", "name one with --large, or a --program")
    site = _site(state, database, blobs).begin(name or ("localhost", "127.0.0.1"))
    tracing.started("duetto cloud")
    shown: list[str] = []
    answers, beside = large_model(large, key_variable), []
    if small is not None:
        beside.append(teach.teaching(site, answers, small, params, model, every, share, rule, lesson, together))
    if admin is not None:
        from duetto.cloud.admin.app import serving

        beside.append(serving(site, admin, lambda url: shown.append(f"console at {url}, "), teach.ruled(rule)))
    if page is not None:
        from duetto.cloud import browser

        beside.append(browser.serving(site, page, lambda url: shown.append(f"page at {url}, ")))
    made = App(site, answers, listen, enrol or None, insecure, more=beside)

    def listening(port: int, enrolling: int) -> None:
        real.loaded()
        where = f"enrolment at port {enrolling}, " if enrolling else ""
        console.line(f"listening at {listen.rpartition(':')[0]}:{port}, {where}{''.join(shown)}folder {state}")

    made.run(listening)


@app.command(
    name="admin-token",
    epilog=console.examples(
        ("duetto cloud admin-token prometheus", "to look, and to read /metrics"),
        ("duetto cloud admin-token anna --role operator --days 365", "to act as well, for a year"),
        ("duetto cloud admin-token anna --revoke", "take all of Anna's back"),
    ),
)
def admin_token(
    name: Annotated[str, typer.Argument(help="Whose token; what it does is told under this name.")],
    state: State = HOME,
    role: Annotated[str, typer.Option(help="viewer (looks), or operator (acts as well).")] = "viewer",
    days: Annotated[float, typer.Option(min=0.01, help="For which it holds.")] = 90.0,
    revoke: Annotated[bool, typer.Option("--revoke", help="Take all tokens of this name back instead.")] = False,
    database: Database = None,
    as_json: running.Json = False,
) -> None:
    """Print a token for the administration over HTTP; only its hash is kept."""
    site = _site(state, database).begin()
    if revoke:
        with site.audit.doing(real.me(), "revoke operator", {"name": name}):
            count = site.operators.revoke(name)
        console.line(f"{count} of {name} taken back; a running service heeds it at once")
        return
    with site.audit.doing(real.me(), "admin token", {"name": name, "role": role, "days": days}):
        token = site.operators.add(name, role, days)
    if as_json:
        console.emit({"token": token, "name": name, "role": role, "days": days})
        return
    console.line(f"for {name}, a {role}, for {days:g} days; it is shown this once", "dim")
    print(token)


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
    with site.audit.doing(real.me(), "enroll", {"device": device, "hours": hours}):
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
    site = _site(state).begin()
    with site.audit.doing(real.me(), "revoke", {"device": device, "why": why}):
        gone = site.enrolment.revoke(device, why)
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
    policy: Annotated[
        Path | None, typer.Option(help="The folder of a fitted policy, which is signed and told beside the model.")
    ] = None,
) -> None:
    """Sign a model, and offer it to the devices of a channel."""
    import numpy as np

    from duetto import tree as trees
    from duetto.cloud.onnx import Whole
    from duetto.policies import artefact
    from duetto.protocols.channels import POLICY

    site, loaded = _site(state).begin(), Whole(model, 1)
    vector = None
    if inputs is not None:
        x = np.load(inputs, allow_pickle=False)[:8].astype(np.float32)
        vector = trees.encode({"x": x, "logits": loaded({"x": x})["logits"]})
    told = None if policy is None else {POLICY: artefact.told(artefact.load(policy).held)}
    olds = [each.sha256 for each in site.releases.releases() if each.model == name]
    with site.audit.doing(real.me(), "publish", {"model": name, "version": version, "channel": channel}):
        made = site.releases.publish(
            name, version, channel, model, vector=vector, tolerance=tolerance, olds=olds, told=told
        )
    console.line(f"{name} {made.version} is offered to {channel}: {made.length:,} bytes, {made.sha256[:12]}")


@app.command(epilog=console.examples(("duetto cloud resign", "once a year, with the keys of root and targets here")))
def resign(state: State = HOME) -> None:
    """Sign root and targets of the releases anew, before their time is over."""
    site = _site(state).begin()
    with site.audit.doing(real.me(), "resign", {}):
        site.releases.resign()
    console.line("root and targets are signed anew")


@app.command(epilog=console.examples(("duetto cloud refresh", "where no service runs: the time stamp holds two days")))
def refresh(state: State = HOME) -> None:
    """Sign anew what would soon be out of date; a running service does so by itself."""
    wanting = _site(state).begin().releases.refresh()
    console.line("signed anew" + (f"; {', '.join(wanting)} need keys that are elsewhere" if wanting else ""))


@app.command(
    epilog=console.examples(
        ("duetto cloud certify", "each two months: a new certificate, for the names that it had"),
        ("duetto cloud certify --name cloud.example --name 192.0.2.1", "for other names"),
    )
)
def certify(
    state: State = HOME,
    name: Annotated[
        list[str] | None,
        typer.Option(help="By which devices reach this server; may be repeated. [dim]\\[default: as before][/]"),
    ] = None,
    days: Annotated[float, typer.Option(min=0.01, help="For which it holds.")] = 90.0,
) -> None:
    """Make a new key and certificate for this server; processes use them once they are started again."""
    from duetto.cloud.succession import names

    site = _site(state).begin(name or ("localhost", "127.0.0.1"))
    called = tuple(name or names(site.credentials.certificate))
    with site.audit.doing(real.me(), "certify", {"names": list(called), "days": days}):
        site.certify(called, days)
    console.line(f"a certificate for {', '.join(called)}, for {days:g} days; start the processes again")


@app.command(
    epilog=console.examples(
        ("duetto cloud rotate canary", "after its key may have been seen; devices follow by themselves"),
        ("duetto cloud rotate authority --phase announce", "the first of three steps, see docs/operate.md"),
    )
)
def rotate(
    key: Annotated[str, typer.Argument(help="root, targets, snapshot, timestamp, a channel, or authority.")],
    state: State = HOME,
    phase: Annotated[
        str | None, typer.Option(help="Of the authority: announce, switch (later), retire (later still).")
    ] = None,
) -> None:
    """Put a new key in the place of another."""
    from duetto.cloud.succession import PHASES, names

    site = _site(state).begin()
    if key != "authority":
        with site.audit.doing(real.me(), "rotate", {"key": key}):
            site.releases.rotate(key)
        console.line(f"{key} has a new key; devices follow by themselves")
        return
    if phase is None or phase not in PHASES:
        raise ConfigError("an authority without its phase", f"name one with --phase: {', '.join(PHASES)}")
    called = names(site.credentials.certificate)
    with site.audit.doing(real.me(), "rotate", {"key": key, "phase": phase}):
        PHASES[phase](state / "authority")
        site.certify(called)
    console.line(f"{phase}: done; start the processes again")


@app.command(epilog=console.examples(("duetto cloud backup backups/2026-11-21", "while the cloud runs on")))
def backup(
    target: Annotated[Path, typer.Argument(help="A folder that is not there yet; it will hold secret keys.")],
    state: State = HOME,
) -> None:
    """Copy the cloud's folder as it is at one moment.

    A PostgreSQL and a bucket have back-ups of their own.
    """
    from duetto.cloud.backup import back_up

    copied = back_up(state, target)
    console.line(f"{', '.join(copied)} copied to {target}; keep it where you would keep a key")
    if "duetto.db" not in copied:
        console.line("the database is elsewhere: back it up there, before the bucket", "yellow")


teach.register(app)


def _site(state: Path, database: str | None = None, blobs: str | None = None) -> Any:
    from duetto.cloud.site import Site

    return Site(state, database, blobs)


def large_model(text: str, variable: str) -> Any:
    """The large model that ``--large`` names."""
    from duetto.cloud.elsewhere import elsewhere

    engine = elsewhere(text, variable)
    if engine is not None:
        return engine
    if text.endswith(".onnx"):
        from duetto.cloud.onnx import Whole

        return Whole(text)
    from duetto.cli import model
    from duetto.models import stage

    found = model.named(text, trained=True)
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
    kept = None if memory is None else Kept(memory)
    real.loaded()
    with real.written(records) as write:
        left = serve(
            made.cloud,
            listen=listen,
            credentials=credentials,
            devices=made.users,
            wait=wait or len(made.users),
            keep=kept,
            began=None if kept is None else kept.began,
            stay=False,
            rehearsal=rehearse,
            on_listening=lambda port: console.line(f"listening at {listen.rpartition(':')[0]}:{port}"),
            on_record=write,
        )
    console.line(f"{program} is over: {len(left.records)} records")
