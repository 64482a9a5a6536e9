"""A program that learns, killed while it does: in the end everything must be as if nobody had been.

The closed loop runs as one ``duetto cloud`` and some ``duetto device`` in rehearsal, each with its memory in a file. At
records drawn from the seed the cloud or a device is killed (kill -9) and started again with the same words. A party's
memory and records in the end must be those of a run that nobody disturbed, bit for bit. Seconds of computing are not
compared; nor are bytes where a message had to be sent again, which then count twice, as they did cross twice.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from world import HANG, Process, Violated, port

from duetto import tree as trees

SETTINGS = {"days": "1", "rounds": "3", "cohort": "2"}
USERS = 2
LONGEST = 400.0  # seconds of a run, on a loaded machine


class Rehearsed:
    """One run of the program in a folder.

    Args:
        folder: for records, memories and logs.
        names: of the devices.
    """

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self.folder, self.names = folder, tuple(names)
        listen = f"127.0.0.1:{port()}"
        program = ["--program", "closed-loop", "--task", "digits", "--users", str(len(names))]
        program += ["--rehearse", "--insecure"]
        program += [word for name, value in SETTINGS.items() for word in ("--set", f"{name}={value}")]
        words = {"cloud": ["cloud", *program, "--listen", listen]}
        words |= {name: ["device", *program, "--cloud", listen, "--name", name] for name in names}
        self.parties = {
            name: Process(
                [*said, "--records", str(folder / f"{name}.jsonl"), "--memory", str(folder / f"{name}.safetensors")],
                folder / f"{name}.log",
                {},
            )
            for name, said in words.items()
        }

    async def run(self, kills: Sequence[tuple[int, str]] = ()) -> None:
        """Run it to its end; each time so many records have been written, kill that party and start it again.

        Raises:
            Violated: it does not end, or not in order.
        """
        for each in self.parties.values():
            await each.start()
        left, end = list(kills), asyncio.get_running_loop().time() + LONGEST
        try:
            while any(each.running for each in self.parties.values()):
                if asyncio.get_running_loop().time() > end:
                    raise Violated(f"it does not end: {self._state()}")
                if left and self.written >= left[0][0]:
                    victim = self.parties[left.pop(0)[1]]
                    if victim.running:
                        await victim.kill()
                        await victim.start()
                await asyncio.sleep(0.01)
            for name, each in self.parties.items():
                await each.ended(name, HANG)
        finally:
            for each in self.parties.values():
                await each.kill()

    @property
    def written(self) -> int:
        """Records so far, of all parties."""
        return sum(path.read_bytes().count(b"\n") for path in self.folder.glob("*.jsonl"))

    def records(self) -> dict[str, list[Mapping[str, Any]]]:
        """Each party's, in the order of its file."""
        files = {name: self.folder / f"{name}.jsonl" for name in self.parties}
        return {name: [json.loads(line) for line in file.read_text().splitlines()] for name, file in files.items()}

    def memories(self) -> dict[str, dict[str, np.ndarray]]:
        """What each party remembers, leaf by leaf."""
        files = {name: self.folder / f"{name}.safetensors" for name in self.parties}
        return {name: dict(trees.leaves(trees.decode(file.read_bytes())["memory"])) for name, file in files.items()}

    def _state(self) -> str:
        said = [
            f"{name}: {'runs' if each.running else 'ended'}\n{each.tail[-800:]}" for name, each in self.parties.items()
        ]
        return f"{self.written} records\n" + "\n".join(said)


def kills(seed: int, calm: Rehearsed) -> list[tuple[int, str]]:
    """Who is killed, and after how many records: half of them in the nights; the cloud as often as devices."""
    draw = random.Random(seed)
    order = sorted((each for own in calm.records().values() for each in own), key=lambda record: record["time"])
    night = [at for at, record in enumerate(order[:-1]) if record["protocol"] in ("teach", "rounds", "publish")]
    times = [draw.choice([draw.randrange(len(order) - 1), draw.choice(night)]) for _ in range(draw.randint(1, 4))]
    return [(at, draw.choice(["cloud", draw.choice(calm.names)])) for at in sorted(times)]


def same(found: Rehearsed, wanted: Rehearsed) -> None:
    """Whether both have come to the same end.

    Raises:
        Violated: they have not.
    """
    for name in wanted.parties:
        here, there = found.memories()[name], wanted.memories()[name]
        if here.keys() != there.keys():
            raise Violated(f"{name} remembers other things: {sorted(here.keys() ^ there.keys())}")
        if apart := [leaf for leaf in there if not np.array_equal(here[leaf], there[leaf], equal_nan=True)]:
            raise Violated(f"{name} remembers something else in {apart[:9]}")
        mine, theirs = _decided(found.records()[name]), _decided(wanted.records()[name])
        if mine != theirs:
            more = [line for line in mine if line not in theirs], [line for line in theirs if line not in mine]
            raise Violated(
                f"{name} has {len(mine)} records, not {len(theirs)}; only here {more[0][:2]}, there {more[1][:2]}"
            )
        for one, other in zip(_sorted(found.records()[name]), _sorted(wanted.records()[name]), strict=True):
            for way in ("up_bytes", "down_bytes"):
                if one["cost"][way] < other["cost"][way]:
                    raise Violated(f"{name} counts fewer bytes: {one}, not {other}")


def _sorted(records: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return sorted(records, key=lambda record: (record["protocol"], record["step"]))


def _decided(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """What was decided and measured, without what a clock or a second try says."""
    return sorted(
        json.dumps(
            [
                record["protocol"],
                record["party"],
                record["step"],
                {name: value for name, value in record["metrics"].items() if name != "compute_seconds"},
            ],
            sort_keys=True,
        )
        for record in records
    )


async def disturbed(seed: int, calm: Rehearsed, folder: Path) -> list[tuple[int, str]]:
    """Run it again with the kills of a seed, and compare; tells who was killed when.

    Raises:
        Violated: it did not come to the same end.
    """
    chosen = kills(seed, calm)
    again = Rehearsed(folder, calm.names)
    await again.run(chosen)
    same(again, calm)
    return chosen
