"""What the schedules have found, each as small as it could be made."""

import asyncio
import math
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from duetto import tree as trees
from duetto.cli import real
from duetto.cloud.releases import Releases
from duetto.cloud.service import Service
from duetto.device import slots as slots_of
from duetto.device.agent import Device
from duetto.device.settings import Settings
from duetto.device.slots import Slot, Slots
from duetto.errors import ConfigError, DataError
from duetto.evaluation import records as log
from duetto.protocols.deliver import Delivered
from duetto.protocols.probe import Echo
from duetto.transport.channel import pair
from duetto.transport.identity import Authority, Credentials, made_key, requested
from duetto.transport.kept import Kept
from duetto.transport.loops import Rehearsal, really
from duetto.transport.party import Running
from duetto.transport.remote import Remote, Remotes
from duetto.transport.session import Greeting, Session
from duetto.types import Local, Party, Record, Skill


def test_a_device_ends_while_it_waits_for_a_piece_of_a_model(tmp_path: Path) -> None:
    (tmp_path / "root.json").write_bytes(Releases(tmp_path / "releases", tmp_path / "keys").begin())
    asked = asyncio.Event()

    class Silent:
        async def fetch(self, path: str, start: int, length: int) -> AsyncIterator[bytes]:
            asked.set()
            await asyncio.Event().wait()
            yield b""

    async def ending() -> None:
        device = Device(tmp_path, settings=Settings("raw"))
        device._client = Silent()  # type: ignore[assignment]
        updating = asyncio.ensure_future(device.update())
        await asked.wait()
        updating.cancel()
        async with asyncio.timeout(10):
            with pytest.raises(asyncio.CancelledError):
                await updating

    asyncio.run(ending())


def test_a_device_whose_clock_is_wrong_starts_all_the_same(tmp_path: Path) -> None:
    key = made_key()
    authority = Authority.make(tmp_path / "authority")
    signed = authority.sign(requested(key, "phone"), "phone", now=datetime.now(UTC) + timedelta(days=400))
    Credentials(key, signed, authority.certificate).save(tmp_path / "state")
    with pytest.raises(ConfigError, match="mend the clock"):
        Credentials.load(tmp_path / "state")
    assert Device(tmp_path / "state", cloud="127.0.0.1:1", settings=Settings("raw")).name == "phone"
    with pytest.raises(ConfigError):
        Device(tmp_path / "nobody", cloud="127.0.0.1:1", settings=Settings("raw"))


def test_a_disk_that_is_full_does_not_end_delivering(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def failing(*given: Any, **more: Any) -> Delivered:
        raise DataError("the outbox cannot be used", "free space on the disk")

    monkeypatch.setattr("duetto.device.agent.delivering", failing)
    assert asyncio.run(Device(tmp_path, settings=Settings("raw")).deliver()) == 0


def test_a_disk_that_is_full_keeps_no_device_from_starting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slots = Slots(tmp_path)
    assert slots.begin() is None
    names = {version: f"{version}" * 64 for version in (1, 2)}
    for version in (1, 2):
        path = slots.path(names[version])
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"model")
        monkeypatch.setattr(Slots, "_intact", lambda self, slot: True)
        slots.switch(version, names[version], 5)
        if version == 1:
            assert slots.begin() is not None
            slots.confirm(1)

    def full(*given: Any, **more: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(slots_of, "put", full)
        began = slots.begin()
        assert isinstance(began, Slot)
        assert began.version == 1  # the start of 2, which is on trial, could not be counted
    began = slots.begin()
    assert isinstance(began, Slot)
    assert (began.version, began.starts) == (2, 1)


@pytest.mark.parametrize("virtual", [False, True])
def test_waiting_in_earnest_can_be_cancelled_at_once(virtual: bool) -> None:
    async def waiting() -> None:
        task = asyncio.ensure_future(really(3600.0))
        await really(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    begin = time.monotonic()
    loop = Rehearsal(lambda until: False) if virtual else asyncio.SelectorEventLoop()
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(waiting())
    assert time.monotonic() - begin < 60


def test_a_record_that_is_logged_again_stands_there_once(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    first = [Record("answer", step, {"label": step}).at(float(step), "ann") for step in range(3)]
    with real.written(path) as write:
        for record in first:
            write(record)
    with path.open("ab") as file:
        file.write(b'{"protocol": "answ')  # cut by a kill
    again = [*first[1:], Record("answer", 3).at(3.0, "ann"), Record("answer", 3).at(3.0, "ann")]
    with real.written(path) as write:
        for record in again:
            write(record)
    assert [record.step for record in log.read(path)] == [0, 1, 2, 3, 3]


@dataclass(frozen=True)
class More(Skill):
    """Counts how often it is used."""

    @property
    def writes(self) -> bool:
        return True

    def __call__(self, local: Local, tree: Any, key: Any, sender: str) -> tuple[Local, Any]:
        times = np.int64(local.memory["times"] + 1)
        return local.remembering(times=times), {"times": times}


def test_what_a_killed_role_had_done_to_itself_is_not_done_again(tmp_path: Path) -> None:
    async def used(*keys: Any) -> list[int]:
        party = Party(skills=(More,), local=Local(None, {"times": np.int64(0)}))
        running = Running(party, "ann", keep=Kept(tmp_path / "memory"))
        replies = [await running.me.ask(More(), {}, key=key) for key in keys]
        running.close()
        return [int(reply.tree["times"]) for reply in replies if reply.tree is not None]

    assert asyncio.run(used((1,))) == [1]  # killed before the role noted it
    assert asyncio.run(used((1,), (2,), (2,))) == [1, 2, 3]  # the role asks again; in one process nothing is left out
    assert asyncio.run(used((3,))) == [4]


def test_a_program_s_time_goes_on_over_restarts(tmp_path: Path) -> None:
    first = Kept(tmp_path / "memory")
    began = first.began
    first.save({"day": np.int64(1)}, {})
    assert Kept(tmp_path / "memory").began == began
    kept = Kept(tmp_path / "memory").load()
    assert kept is not None
    assert kept[0]["day"] == 1
    old = trees.encode({"memory": {}, "answered": {}})  # written before there was a time
    (tmp_path / "old").write_bytes(old)
    assert Kept(tmp_path / "old").began == pytest.approx(time.time(), abs=60)


def test_in_a_rehearsal_whoever_is_gone_is_waited_for() -> None:
    async def asking() -> None:
        steady, other = (Remote("ann", device=False, steady=steady) for steady in (True, False))
        assert Remotes([steady]).traits == {}  # nobody is offline
        assert Remotes([other]).traits["online"].tolist() == [False]
        coming = asyncio.ensure_future(steady.ask(Echo(), {"x": np.zeros(2)}, key=(), deadline=60.0))
        await asyncio.sleep(0)
        assert not coming.done()
        assert (await other.ask(Echo(), {"x": np.zeros(2)}, key=(), deadline=60.0)).failure == "ann is offline"
        here, there = pair()
        running = Running(Party(skills=(Echo,), local=Local(None, {})), "ann")
        mine = Session(here, Greeting("cloud"), Running(Party(), "cloud").answer)
        theirs = Session(there, Greeting("ann"), running.answer)
        await asyncio.gather(mine.open(), theirs.open())
        runs = [asyncio.ensure_future(each.run()) for each in (mine, theirs)]
        steady.attach(mine)
        assert (await coming).failure is None
        await mine.end("done")
        await asyncio.gather(*runs)

    asyncio.run(asking())


def test_a_rehearsal_s_cloud_sees_nobody_offline() -> None:
    assert "online" in Service(Party(), devices=["ann"]).fleet.traits
    service = Service(Party(), devices=["ann"], rehearsal=True)
    assert "online" not in service.fleet.traits
    assert service.fleet.peer("ann").traits["online"]


def test_what_was_said_of_rest_in_an_old_session_does_not_count() -> None:
    service = Service(Party(), devices=["ann"], rehearsal=True)
    old, new = (Session(channel, Greeting("cloud"), service.running.answer) for channel in pair())
    service.sessions["ann"] = new
    service._rests("ann", old, 7.0)
    assert service.rests == {}
    service._rests("ann", new, math.inf)
    assert service.rests == {"ann": math.inf}
