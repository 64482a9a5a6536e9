"""stop + resume == uninterrupted, bit for bit, at every moment at which a run can be saved."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pytest

from duetto import tree as trees
from duetto.aggregation import Gate, Mean
from duetto.policies import Uniform
from duetto.protocols import Plain, rounds
from duetto.simulation.engine import Log, Saved, simulate
from duetto.simulation.fleet import fleet
from duetto.simulation.link import Link, Network
from duetto.simulation.traces import constant
from duetto.tree import Tree
from duetto.types import Algorithm, Group, Key, Local, Party, Peer, Record, ServerUpdate, Skill, Work, rng

USERS = tuple(f"n{i}/~é" for i in range(6))  # names that a path must escape
Run = Callable[..., Log]


@dataclass(frozen=True)
class Train(Skill):
    """A delta drawn by key; remembers how often it was asked, as an error feedback would."""

    @property
    def writes(self) -> bool:
        return True

    def __call__(self, local: Local, tree: Tree, key: Key, sender: str) -> tuple[Local, Tree]:
        times = local.memory["times"] + 1
        delta = {"w": (local.data - tree["params"]["w"]) / (2 + times) + 0.1 * rng(key).normal(size=3)}
        said = {"delta": delta, "weight": np.float64(1 + times), "metrics": {"times": np.float64(times)}}
        return local.remembering(times=times), said

    def work(self, local: Local, tree: Tree) -> Work:
        return Work(5e9)


@dataclass(frozen=True)
class Momentum(ServerUpdate[Any]):
    """A server that remembers a tree between rounds."""

    def init(self, params: Tree) -> Any:
        return {"speed": trees.zeros(params)}

    def step(
        self, state: Any, params: Tree, collected: Tree | None, *, cohort_size: int, fleet_size: int, key: Key
    ) -> tuple[Any, Tree]:
        assert collected is not None
        speed = trees.add(trees.scale(state["speed"], 0.5), collected)
        return {"speed": speed}, trees.add(params, speed)


@dataclass(frozen=True)
class Tell(Skill):
    """What the cloud is told by devices, in order; says how much it knew."""

    @property
    def writes(self) -> bool:
        return True

    def __call__(self, local: Local, tree: Tree, key: Key, sender: str) -> tuple[Local, Tree]:
        before = local.memory.get("told", np.zeros(0, np.int64))
        after = np.append(before, USERS.index(sender) + 10 * tree["x"].sum())
        return local.remembering(told=after), {"n": np.int64(len(before))}

    def work(self, local: Local, tree: Tree) -> Work:
        return Work(1e12)


@dataclass(frozen=True)
class Write(Tell):
    """A diary of the device's own."""

    def __call__(self, local: Local, tree: Tree, key: Key, sender: str) -> tuple[Local, Tree]:
        return local.remembering(diary=np.append(local.memory["diary"], tree["x"])), {}

    def work(self, local: Local, tree: Tree) -> Work:
        return Work(1e9)


ALGORITHM = Algorithm(
    client=Train(),
    params={"w": np.zeros(3)},
    server=Momentum(),
    aggregator=Mean(),
    cohort=Uniform(3),
    gate=Gate(norm=None),
    collect=Plain(),
)


async def until(time: float) -> None:
    """Sleep to this very time, whenever one starts."""
    loop = asyncio.get_running_loop()
    moment = loop.create_future()
    timer = loop.call_at(max(time, loop.time()), moment.set_result, None)
    try:
        await moment
    finally:
        timer.cancel()


def world(**more: Any) -> dict[str, Any]:
    memory = {"times": np.int64(0), "day": np.int64(0), "diary": np.zeros(0)}
    everyone = fleet("phones", USERS, memory=memory, data=lambda name: np.full(3, float(USERS.index(name))), seed=2)
    return {"fleet": everyone, "network": "synthetic", "seed": 5, **more}


def learning(**more: Any) -> Log:
    """The cloud's rounds over devices that run no role."""
    return simulate(**world(**more), device=Party(skills=(Train,)), cloud=rounds(ALGORITHM, steps=6, seed=1))


def days(times: Callable[[str, int], float], network: Network | str = "synthetic", servers: int = 8) -> Run:
    """Devices with a role that keeps its place, by day, and a cloud that teaches by night."""

    async def device(me: Peer, cloud: Peer, local: Local) -> AsyncIterator[Record]:
        for day in range(int(local.memory["day"]), 4):
            await until(100 * day + times(me.name, day))
            told = await cloud.ask(Tell(), {"x": np.array([day])}, key=(me.name, day))
            await me.ask(Write(), {"x": np.array([told.cost.seconds])}, key=(me.name, day, "diary"))
            local.memory = {**local.memory, "day": np.int64(day + 1)}
            yield Record("day", day, {"n": int(told.tree["n"])}, told.cost)

    async def cloud(fleet: Group, local: Local) -> AsyncIterator[Record]:
        for night in range(int(local.memory["night"]), 4):
            await until(100 * night + 80)
            asked = [fleet.peer(name) for name in fleet.names[night % 2 :: 2]]
            sent = {"params": {"w": np.full(3, float(night))}}
            replies = await asyncio.gather(*(peer.ask(Train(), sent, key=(night, peer.name)) for peer in asked))
            local.memory = {**local.memory, "night": np.int64(night + 1), f"sum-{night}": replies[0].tree["delta"]["w"]}
            yield Record("night", night, {"seconds": max(reply.cost.seconds for reply in replies)})

    def run(**more: Any) -> Log:
        return simulate(
            **world(network=network, servers=servers, **more),
            device=Party((device,), (Train, Write)),
            cloud=Party((cloud,), (Tell,), Local(None, {"night": np.int64(0)})),
        )

    return run


SAME = Network("same", (Link(constant(5), constant(5), 0.1),), "4g")


def scattered(name: str, day: int) -> float:
    return float(rng((name, day)).uniform(0, 60))


def at_once(name: str, day: int) -> float:
    """Every second day all devices wake at the same moment, after days on which they woke in other orders."""
    return 20.0 if day % 2 else scattered(name, day)


RUNS: dict[str, tuple[Run, int]] = {
    "rounds": (learning, 6),
    "days": (days(scattered), 4),
    "days on which all wake at once and queue for one server": (days(at_once, SAME, servers=1), 4),
}


def lines(records: Sequence[Record]) -> list[str]:
    return [json.dumps(asdict(record), sort_keys=True) for record in records]


def disk(saved: Saved) -> Saved:
    """As it is after it was written and read."""
    return Saved(trees.decode(trees.encode(saved.state)), saved.records)


def same_memories(one: Log, other: Log) -> None:
    assert sorted(one.memory) == sorted(other.memory)
    for name in one.memory:
        assert trees.encode(one.memory[name]) == trees.encode(other.memory[name]), name


@pytest.mark.parametrize("name", RUNS)
def test_stopping_anywhere_changes_nothing(name: str) -> None:
    run, points = RUNS[name]
    saves: list[Saved] = []
    whole = run(on_save=saves.append)
    assert len(saves) == points
    for save in saves:
        again: list[Saved] = []
        rest = run(resume=disk(save), on_save=again.append)
        assert lines(whole.records[: save.records]) + lines(rest.records) == lines(whole.records)
        assert rest.seconds == (whole.seconds if rest.records else float(save.state["time"]))
        same_memories(whole, rest)
        # And what is saved after that is what was saved then: one can stop again, and again.
        later = saves[saves.index(save) + 1 :]
        assert [(each.records, trees.encode(each.state)) for each in again] == [
            (each.records, trees.encode(each.state)) for each in later
        ]


@pytest.mark.parametrize("name", RUNS)
def test_saving_changes_nothing(name: str) -> None:
    run, _ = RUNS[name]
    saved, not_saved = run(on_save=lambda saved: None), run()
    assert lines(saved.records) == lines(not_saved.records)
    same_memories(saved, not_saved)


@pytest.mark.parametrize("name", RUNS)
def test_stopping_at_every_point_in_one_run(name: str) -> None:
    """As a machine that dies after every save."""
    run, points = RUNS[name]

    class Died(Exception):
        pass

    whole, kept, resume, saves = run(), [], None, 0
    while True:
        last: list[Saved] = []
        fresh: list[Record] = []

        def die(saved: Saved, last: list[Saved] = last) -> None:
            last.append(disk(saved))
            raise Died

        try:
            log = run(resume=resume, on_save=die, on_record=fresh.append)
        except Died:
            kept, resume, saves = kept + lines(fresh), last[0], saves + 1
            assert len(kept) == resume.records
            continue
        break
    assert saves == points
    assert kept + lines(fresh) == lines(whole.records)
    same_memories(whole, log)


def test_nothing_is_saved_while_anything_is_in_flight() -> None:
    """A device's training that outlives its asker, and a device that asks while the cloud logs."""
    states: list[tuple[float, int]] = []

    async def cloud(fleet: Group) -> AsyncIterator[Record]:
        await fleet.peer(USERS[0]).ask(Train(), {"params": {"w": np.zeros(3)}}, key=(), deadline=0.0625)
        yield Record("too early", 0)
        await asyncio.sleep(100)
        yield Record("quiet", 1)
        await asyncio.sleep(100)
        yield Record("a device asks", 2)
        await asyncio.sleep(100)
        yield Record("quiet", 3)
        await until(400.0)
        yield Record("a device is about to go on", 4)

    async def device(me: Peer, cloud: Peer) -> AsyncIterator[Record]:
        await until(200.0)
        await cloud.ask(Tell(), {"x": np.array([1])}, key=(me.name,))
        yield Record("told")
        await until(400.0)

    log = simulate(
        **world(network=SAME),
        device=Party((device,), (Train,)),
        cloud=Party((cloud,), (Tell,)),
        on_save=lambda saved: states.append((float(saved.state["time"]), saved.records)),
    )
    assert states == [(100.0625, 2), (300.0625, len(log.records) - 1)]


def test_a_resumed_state_of_devices_at_rest_wakes_nobody() -> None:
    loads: list[str] = []
    saves: list[Saved] = []
    learning(on_save=saves.append)

    def data(name: str) -> Any:
        loads.append(name)
        return np.zeros(3)

    everyone = fleet("phones", USERS, memory={"times": np.int64(0)}, data=data)
    simulate(fleet=everyone, device=Party(skills=(Train,)), network="synthetic", resume=disk(saves[-1]))
    assert len(saves[-1].state["parties"]) > 1
    assert loads == []
