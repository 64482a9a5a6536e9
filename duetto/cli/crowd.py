"""``duetto crowd``: many devices in one process, against a cloud that runs."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from duetto.cli import console, real
from duetto.errors import ConfigError

EXAMPLES = console.examples(
    (
        "duetto cloud --large digits.large --teach digits.small --admin 8080",
        "a cloud, in a terminal of its own, with the console at http://127.0.0.1:8080",
    ),
    ("duetto crowd --count 200", "two hundred devices that ask it, for as long as you look"),
    ("duetto crowd --count 20 --every 0.5 --seconds 60", "fewer and busier ones, for a minute"),
    ("duetto crowd --count 20 --every 0.5 --learning", "that learn together, with `duetto cloud --together fedavg`"),
)


def crowd(
    count: Annotated[int, typer.Option(min=1, help="Of devices.")] = 200,
    every: Annotated[float, typer.Option(min=0.001, help="Seconds between two answers of a device, on average.")] = 5.0,
    corrected: Annotated[
        float, typer.Option(min=0, max=1, help="The share of answers of which users say what was right.")
    ] = 0.1,
    seconds: Annotated[float, typer.Option(min=0.1, help="For how long; Ctrl-C ends it before.")] = 86400.0,
    task: Annotated[str, typer.Option(help="Whose users and models they have.")] = "digits",
    cloud: Annotated[str, typer.Option(help="Where devices connect.")] = "localhost:8443",
    enrol: Annotated[str, typer.Option(help="Where they enrol.")] = "localhost:8444",
    cloud_state: Annotated[
        Path, typer.Option(help="The cloud's folder, on this machine: tokens are made there.", envvar="DUETTO_CLOUD")
    ] = Path(".duetto/cloud"),
    state: Annotated[Path, typer.Option(help="A folder for the devices, which is kept.")] = Path(".duetto/crowd"),
    seed: Annotated[int, typer.Option(min=0, help="Of who is what, and of the order of inputs.")] = 0,
    learning: Annotated[
        bool, typer.Option("--learning", help="Train when the cloud asks (`duetto cloud --together`).")
    ] = False,
    insecure: real.Insecure = False,
) -> None:
    """Run many whole devices in this process, against a cloud: to see a fleet before there is one."""
    real.quiet()
    from duetto.device.crowd import Crowd, live
    from duetto.programs.equipped import equipped
    from duetto.tasks import load

    made = Crowd(count, every, corrected, learning=learning, seed=seed)
    if not insecure and not (cloud_state / "authority" / "authority.pem").exists():
        raise ConfigError(f"no cloud in {cloud_state}", "start one there, or name its folder with --cloud-state")
    state.mkdir(parents=True, exist_ok=True)
    with console.stoppable("stopped"), console.Progressing() as progress:
        equipment = equipped(load(task, seed), state)
        began = time.monotonic()
        answers = asyncio.run(
            live(
                made,
                state / "devices",
                cloud,
                small=equipment.small,
                policy=equipment.policy,
                users=equipment.users,
                enrol=None if insecure else _enrolling(cloud_state, enrol),
                seconds=seconds,
                on_answer=lambda n: progress(f"{count:,} devices answer", time.monotonic() - began, seconds),
            )
        )
    console.line(f"{answers:,} answers of {count:,} devices")


def _enrolling(cloud_state: Path, address: str) -> Any:
    """From a device's folder and name, makes it one of the fleet."""
    from duetto.cloud.site import Site
    from duetto.device.enrolling import enrolled

    site = Site(cloud_state)
    authority = (cloud_state / "authority" / "authority.pem").read_bytes()

    async def enrol(state: Path, name: str) -> None:
        token = await asyncio.to_thread(site.enrolment.token, name, issuer="crowd")
        await enrolled(state, cloud=address, token=token, name=name, authority=authority)

    return enrol
