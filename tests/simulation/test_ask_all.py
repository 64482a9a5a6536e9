"""Asking many at once costs no event on the clock, and gives what asking each gives, bit for bit."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from duetto.errors import DataError
from duetto.simulation import engine
from duetto.simulation.engine import Log, simulate
from duetto.simulation.fleet import fleet
from duetto.tree import Tree
from duetto.types import LATE, Cost, Group, Key, Local, Party, Peer, Record, Reply, Skill, Work

USERS = ("ann", "bob", "cyd", "dee")


@dataclass(frozen=True)
class Count(Skill):
    """Remembers how often it was used; the work and the answer depend on who is asked."""

    @property
    def writes(self) -> bool:
        return True

    def __call__(self, local: Local, tree: Tree, key: Key, sender: str) -> tuple[Local, Tree]:
        if local.data == "cyd" and int(tree["round"]) == 1:
            raise DataError("cyd refuses")
        uses = int(local.memory.get("uses", 0)) + 1
        return local.remembering(uses=np.int64(uses), version=np.int64(uses)), {"x": np.zeros(100 * uses + len(key))}

    def work(self, local: Local, tree: Tree) -> Work:
        if local.data == "dee" and int(tree["round"]) == 2:
            raise DataError("dee cannot tell how long it takes")
        return Work(flops=1e9 * (1 + ord(local.data[0])))


def send(peer: Peer, step: int) -> Tree:
    """A message that differs in size."""
    return {"round": np.int64(step), "pad": np.zeros(50 * len(peer.name) * (1 + ord(peer.name[0]) % 3))}


def asking(rounds: int, heard: list[Reply], **limits: Any) -> Any:
    """Asks everybody, several times."""

    async def role(fleet: Group) -> AsyncIterator[Record]:
        for step in range(rounds):
            replies = await fleet.ask(fleet.names, Count(), lambda peer, s=step: send(peer, s), key=(step,), **limits)
            heard.extend(replies)
            yield Record("asked", step, {"failed": sum(reply.failure is not None for reply in replies)})

    return role


def asked(network: str, rounds: int = 4, **limits: Any) -> tuple[list[Reply], Log]:
    heard: list[Reply] = []
    phones = fleet("phones", USERS, data=lambda name: name)
    log = simulate(fleet=phones, device=Party(skills=(Count,)), cloud=asking(rounds, heard, **limits), network=network)
    return heard, log


def facts(replies: Sequence[Reply]) -> list[Any]:
    def shape(reply: Reply) -> Any:
        return None if reply.tree is None else reply.tree["x"].shape

    return [(r.sender, shape(r), r.version, dict(r.metrics), r.cost, r.failure) for r in replies]


@pytest.mark.parametrize("network", ["constant-10", "wifi", "synthetic"])
def test_it_is_as_if_each_was_asked(network: str, monkeypatch: pytest.MonkeyPatch) -> None:
    quick, log = asked(network)
    monkeypatch.setattr(engine._World, "alone", lambda *args: False)
    slow, reference = asked(network)
    assert facts(quick) == facts(slow)
    assert log.records == reference.records
    assert log.seconds == reference.seconds
    assert {name: dict(m) for name, m in log.memory.items()} == {name: dict(m) for name, m in reference.memory.items()}
    assert [reply.failure for reply in quick if reply.failure] == ["cyd refuses", "dee cannot tell how long it takes"]
    assert quick[0].cost.up_bytes > 0 < quick[0].cost.joules


def test_what_is_not_offered_is_not_asked_for() -> None:
    heard: list[Reply] = []
    log = simulate(fleet=fleet("phones", USERS), device=Party(), cloud=asking(1, heard))
    assert [reply.failure for reply in heard] == [f"{name} does not offer Count" for name in USERS]
    assert log.seconds == 0


def test_whoever_else_asks_such_a_device_waits_for_it() -> None:
    heard: list[Reply] = []

    async def twice(fleet: Group) -> AsyncIterator[Record]:
        first = asyncio.ensure_future(fleet.ask(USERS[:2], Count(), lambda p: send(p, 0), key=(0,)))
        second = asyncio.ensure_future(fleet.ask(USERS[1:], Count(), lambda p: send(p, 0), key=(1,)))
        heard.extend([*await first, *await second])
        yield Record("asked")

    log = simulate(fleet=fleet("phones", USERS, data=lambda name: name), device=Party(skills=(Count,)), cloud=twice)
    assert [reply.failure for reply in heard] == [None] * 5
    assert int(log.memory["bob"]["uses"]) == 2


def test_enough_is_enough() -> None:
    everybody, _ = asked("constant-10", rounds=1)
    fastest = sorted(everybody, key=lambda reply: reply.cost.seconds)
    heard, log = asked("constant-10", rounds=1, enough=2)
    assert {r.sender for r in heard if r.failure is None} == {r.sender for r in fastest[:2]}
    assert {r.failure for r in heard if r.failure is not None} == {LATE}
    assert log.seconds == fastest[1].cost.seconds < fastest[2].cost.seconds
    late = [r for r in heard if r.failure is not None]
    assert all(Cost().down_bytes < r.cost.down_bytes and r.cost.seconds == log.seconds for r in late), "they cost"
    assert all(r.cost.up_bytes < everybody[USERS.index(r.sender)].cost.up_bytes for r in late)


def test_nobody_is_asked() -> None:
    async def role(fleet: Group) -> AsyncIterator[Record]:
        assert await fleet.ask([], Count(), lambda peer: {}, key=()) == []
        yield Record("asked")

    simulate(fleet=fleet("phones", USERS), device=Party(skills=(Count,)), cloud=role)


def test_who_is_offline_is_not_reached_and_who_goes_drops_out() -> None:
    heard: list[Reply] = []
    away = np.array([True, False, False, False])

    def online(time: float) -> np.ndarray:
        return ~away if time < 0.08 else ~away & np.array([True, True, False, True])

    phones = fleet("phones", USERS, data=lambda name: name, online=online)
    simulate(fleet=phones, device=Party(skills=(Count,)), cloud=asking(1, heard))
    assert [r.failure for r in heard] == ["ann is offline", None, "cyd dropped out", None]
    assert heard[0].cost == Cost()
    assert heard[2].cost.down_bytes > 0 == heard[2].cost.up_bytes
