"""A crowd of devices in one process, against a cloud that runs: to see a fleet in the console before there is one.

Each is a whole device (:class:`duetto.device.agent.Device`), with a folder, an outbox, a connection and a user
whose inputs it answers; the network between them and the cloud is whatever there is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from duetto.device.agent import Device, Timing
from duetto.device.settings import Settings
from duetto.errors import ConfigError
from duetto.types import Held, Rows, rng

PROFILES = {"low-end-phone": 0.4, "mid-phone": 0.35, "flagship-phone": 0.15, "raspberry-pi-4": 0.1}
"""Of which kinds they say they are; all of them run on this machine."""
_AT_ONCE = 16  # devices that enrol, and come, at the same time


@dataclass(frozen=True)
class Crowd:
    """What the devices do.

    Attributes:
        count: of devices.
        every: seconds between two answers of a device, on average.
        corrected: the share of answers of which the user says what was right.
        deliver: seconds between deliveries of what a device has kept.
        learning: whether they train when the cloud asks; needs the extra ``train``.
        seed: of who is what, and of the order of inputs.

    Raises:
        ConfigError: a number that cannot be.
    """

    count: int = 200
    every: float = 5.0
    corrected: float = 0.1
    deliver: float = 5.0
    learning: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.count < 1 or not (self.every > 0 and self.deliver > 0 and 0 <= self.corrected <= 1):
            raise ConfigError(f"{self}", "count >= 1, every and deliver > 0, corrected from 0 to 1")

    @property
    def names(self) -> list[str]:
        """What the devices are called."""
        width = len(str(self.count - 1))
        return [f"phone-{number:0{width}d}" for number in range(self.count)]

    def profile(self, number: int) -> str:
        """What kind of device it says that it is."""
        shares = np.cumsum(list(PROFILES.values()))
        return list(PROFILES)[int(np.searchsorted(shares, rng((self.seed, "profile", number)).random()))]


async def live(
    crowd: Crowd,
    folder: Path,
    cloud: str,
    *,
    small: Path,
    policy: Held[Any],
    users: Sequence[Rows],
    enrol: Callable[[Path, str], Awaitable[Any]] | None,
    seconds: float,
    on_answer: Callable[[int], None] = lambda answers: None,
) -> int:
    """Let the devices answer for a time; returns how many answers they gave.

    Args:
        crowd: what they do.
        folder: a folder for each, which is kept: who has a certificate there comes with it.
        cloud: its address.
        small: the model of all of them, as ONNX.
        policy: of all of them.
        users: what they answer; where there are fewer than devices, several hold the same, in another order.
        enrol: from a device's folder and name, makes it one of the fleet; None speaks plain text.
        seconds: how long, from when all have come.
        on_answer: called with how many answers there were.
    """
    answers = 0
    gate = asyncio.Semaphore(_AT_ONCE)

    here: list[Device] = []

    async def come(number: int, name: str) -> Device:
        async with gate:
            state = folder / name
            if enrol is not None and not (state / "certificate.pem").exists():
                await enrol(state, name)
            made = Device(
                state,
                cloud=cloud,
                name=name,
                small=small,
                policy=policy,
                settings=Settings("raw"),
                insecure=enrol is None,
                timing=Timing(crowd.deliver, 10.0),
                learning=crowd.learning,
                profile=crowd.profile(number),
            )
            here.append(await made.__aenter__())
            return made

    async def answering(device: Device, number: int) -> None:
        nonlocal answers
        rows = users[number % len(users)]
        draw = rng((crowd.seed, "crowd", number))
        while True:
            await asyncio.sleep(draw.exponential(crowd.every))
            i = draw.integers(len(rows.y))
            given = await device.answer(rows.x[i])
            if draw.random() < crowd.corrected:
                device.correct(given, int(rows.y[i]))
            answers += 1
            on_answer(answers)

    try:
        devices = await asyncio.gather(*(come(i, name) for i, name in enumerate(crowd.names)))
        tasks = [asyncio.ensure_future(answering(device, i)) for i, device in enumerate(devices)]
        ended, _ = await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for task in ended:
            task.result()  # a device ends by a fault only
    finally:  # all at once: one after the other, two hundred take a minute to say goodbye
        await asyncio.gather(*(each.__aexit__(None, None, None) for each in here))
    return answers
