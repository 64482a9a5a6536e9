"""``duetto device``: a device that answers, by itself or with its cloud."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from duetto.cli import console, real
from duetto.errors import ConfigError, Error

app = typer.Typer(
    rich_markup_mode="rich",
    epilog=console.examples(
        (
            "duetto device enrol --cloud cloud.example:8444 --token TOKEN --authority authority.pem --name phone-1",
            "make a key here, and have the cloud sign it",
        ),
        ("duetto device --cloud cloud.example:8443 --small small.onnx < inputs.jsonl", "answer inputs, line by line"),
        (
            "duetto device --program closed-loop --name user-00 --cloud 127.0.0.1:7700 --rehearse --insecure",
            "a device's role of a program",
        ),
    ),
)
State = Annotated[Path, typer.Option(help="The device's folder.", envvar="DUETTO_DEVICE")]
HOME = Path(".duetto/device")
FIRST_SECONDS = 10.0  # that a device without a model waits for its cloud before it takes inputs


@app.callback(invoke_without_command=True)
def device(
    ctx: typer.Context,
    cloud: Annotated[str | None, typer.Option(help="The cloud's address; without it, nobody is asked.")] = None,
    small: Annotated[Path | None, typer.Option(help="The small model, an ONNX file, to begin with.")] = None,
    policy: Annotated[Path | None, typer.Option(help="The folder of a fitted policy.")] = None,
    state: State = HOME,
    name: Annotated[str, typer.Option(help="What it is called; over TLS its certificate says so.")] = "device",
    deadline: Annotated[float, typer.Option(min=0.001, help="Seconds that the cloud may take.")] = 2.0,
    leaves: Annotated[
        str | None, typer.Option(help="What may leave: nothing, features, redacted or raw; else settings.toml says.")
    ] = None,
    deliver_every: Annotated[float, typer.Option(min=0.01, help="Seconds between deliveries of what it keeps.")] = 5.0,
    update_every: Annotated[float, typer.Option(min=0.01, help="Seconds between looks for a new model.")] = 3600.0,
    profile: Annotated[
        str, typer.Option(help="What kind of device it is, such as pixel-7, for those who look at the fleet.")
    ] = "",
    personal: Annotated[
        bool, typer.Option("--personal", help="Fit a head of this user's own while idle; it never leaves the device.")
    ] = False,
    learning: Annotated[
        bool, typer.Option("--learning", help="Train with others when the cloud asks; needs the extra train.")
    ] = False,
    insecure: real.Insecure = False,
    program: real.Program = None,
    task: real.Task = "digits",
    settings: real.Set = None,
    users: real.Users = 0,
    rehearse: real.Rehearse = False,
    records: real.Records = None,
    memory: Annotated[
        Path | None, typer.Option(help="With a program: the file in which its memory outlives this process.")
    ] = None,
) -> None:
    """Answer: inputs come as lines of JSON (an array, or {"x": array}), and so do answers.

    A line {"correct": label} tells what the last answer should have been.
    """
    if ctx.invoked_subcommand is not None:
        return
    real.quiet()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(message)s")
    if program is not None:
        _program(program, task, settings, users, cloud, name, state, insecure, rehearse, records, memory)
        return
    from duetto.device.agent import Device, Timing
    from duetto.device.settings import Settings
    from duetto.transport import tracing

    tracing.started("duetto device")
    decided = None if leaves is None else Settings(leaves)  # type: ignore[arg-type]  # checked there
    made = Device(
        state,
        cloud=cloud,
        name=name,
        small=small,
        policy=policy,
        settings=decided,
        insecure=insecure,
        deadline=deadline,
        timing=Timing(deliver_every, update_every),
        personal=personal,
        learning=learning,
        profile=profile,
    )
    asyncio.run(_answering(made))


@app.command(epilog=console.examples(("duetto device forget", "what it has learned about its user")))
def forget(state: State = HOME) -> None:
    """Delete what this device has learned about its user; the service must not run."""
    from duetto.device.lessons import Lessons

    Lessons(state / "lessons.db").forget()
    for name in ("head.tree", "learning.tree"):
        (state / name).unlink(missing_ok=True)
    console.line(f"{state} remembers nothing of what it was taught")


@app.command(
    epilog=console.examples(
        (
            "duetto device enrol --cloud cloud.example:8444 --token TOKEN --authority authority.pem --name phone-1",
            "the token is from `duetto cloud enroll phone-1`",
        ),
    )
)
def enrol(
    cloud: Annotated[str, typer.Option(help="Where the cloud enrols, such as cloud.example:8444.")],
    token: Annotated[str, typer.Option(help="What `duetto cloud enroll` printed.", envvar="DUETTO_TOKEN")],
    authority: Annotated[Path, typer.Option(help="The fleet's authority.pem, by which the cloud is known.")],
    name: Annotated[str, typer.Option(help="The device's name.")],
    state: State = HOME,
) -> None:
    """Make a key on this device, and have the cloud sign whose it is."""
    from duetto.device.enrolling import enrolled

    try:
        known = authority.read_bytes()
    except OSError as fault:
        raise ConfigError(
            f"{authority} cannot be read ({fault.strerror})", "copy it from the cloud's folder"
        ) from fault
    asyncio.run(enrolled(state, cloud=cloud, token=token, name=name, authority=known))
    console.line(f"{name} is enrolled; its key and certificate are in {state}")


async def _answering(made: Any) -> None:
    """Answer each line of the standard input on the standard output."""
    loop = asyncio.get_running_loop()
    last: Any = None
    async with made as device:
        if not device.answers_alone and not await device.wait_connected(FIRST_SECONDS):
            console.line("no model here, and no cloud that answers: going on all the same", "yellow")
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            if not line.strip():
                continue
            try:
                told = json.loads(line)
                if isinstance(told, dict) and "correct" in told:
                    if last is None:
                        raise ConfigError("nothing was answered yet", "ask first, then correct")
                    ticket = device.correct(last, int(told["correct"]))
                    found: dict[str, Any] = {"corrected": True}
                    if ticket is not None:
                        found["sequence"] = await device.outbox.committed(ticket)
                else:
                    last = await device.answer(_input(told))
                    found = _shown(last)
            except (ValueError, TypeError) as fault:
                found = {"error": f"a line that cannot be read ({fault})"}
            except Error as fault:
                found = {"error": str(fault)}
            print(json.dumps(found), flush=True)
        if device.connected:
            await device.deliver()


def _input(told: Any) -> Any:
    import numpy as np

    return np.asarray(told["x"] if isinstance(told, dict) else told, np.float32)


def _shown(answered: Any) -> dict[str, Any]:
    given = answered.answer
    return {
        "label": answered.label,
        "by": given.party,
        "why": given.why,
        "asked": given.asked,
        "version": given.version,
        "model": answered.model,
        "seconds": round(given.cost.seconds, 6),
        "up_bytes": given.cost.up_bytes,
        "down_bytes": given.cost.down_bytes,
    }


def _program(
    program: str,
    task: str,
    settings: list[str] | None,
    users: int,
    cloud: str | None,
    name: str,
    state: Path,
    insecure: bool,
    rehearse: bool,
    records: Path | None,
    memory: Path | None,
) -> None:
    from duetto.device.runner import connect
    from duetto.transport.identity import Credentials
    from duetto.transport.kept import Kept

    if cloud is None:
        raise ConfigError("a program's role without a cloud", "name its address with --cloud")
    made = real.program(program, task, settings, users)
    kept = None if memory is None else Kept(memory)
    with real.written(records) as write:
        left = connect(
            made.device,
            cloud=cloud,
            name=name,
            local=made.local(name),
            credentials=None if insecure else Credentials.load(state),
            keep=kept,
            began=None if kept is None else kept.began,
            stay=True,
            rehearsal=rehearse,
            on_record=write,
        )
    console.line(f"{name}: {len(left.records)} records; {left.why}")
