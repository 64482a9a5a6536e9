"""Edges in between change the traffic and the time, not the result."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from duetto import tree as trees
from duetto.aggregation import Gate, Krum, Mean, Median
from duetto.errors import ConfigError, DataError
from duetto.policies import Everyone
from duetto.protocols import Plain, rounds
from duetto.protocols.tiers import Tiers, by_tier
from duetto.simulation.clock import Clock
from duetto.simulation.engine import Log, simulate
from duetto.simulation.fleet import fleet
from duetto.tree import Tree
from duetto.types import Algorithm, Cost, Group, Key, Local, Party, Peer, Reply, ServerUpdate, Skill

USERS = [f"u{i}" for i in range(9)]
START = {"w": np.array([10.0, -10.0, 0.0])}
POINTS = {name: np.random.default_rng(i).normal(i, 1, (2 + i, 3)) for i, name in enumerate(USERS)}
EDGES = (("u0", "u4", "u5"), ("u1", "u2", "u7", "nobody"), ())


@dataclass(frozen=True)
class Pull(Skill):
    """One step towards the mean of the data."""

    bad: tuple[str, ...] = ()

    def __call__(self, local: Local, tree: Tree, key: Key, sender: str) -> tuple[Local, Tree]:
        if any(local.data is POINTS[name] for name in self.bad):
            raise DataError("no data today", "wait")
        delta = {"w": 0.5 * (local.data.mean(axis=0) - tree["params"]["w"])}
        return local, {"delta": delta, "weight": np.float64(len(local.data)), "metrics": {}}


@dataclass(frozen=True)
class Step(ServerUpdate[Any]):
    """Adds what was collected."""

    def step(
        self, state: Any, params: Tree, collected: Tree | None, *, cohort_size: int, fleet_size: int, key: Key
    ) -> tuple[Any, Tree]:
        return state, params if collected is None else trees.add(params, collected)


MEAN, PULL = Mean(), Pull()


def learned(collect: Any, aggregator: Any = MEAN, client: Skill = PULL, **more: Any) -> Log:
    algorithm = Algorithm(client, START, Step(), aggregator, Everyone(), Gate(norm=None), collect)
    everyone = fleet("phones", USERS, data=POINTS.__getitem__)
    return simulate(fleet=everyone, device=Party(skills=(Pull,)), cloud=rounds(algorithm, steps=3, **more))


@pytest.mark.parametrize("aggregator", [Mean(), Median(), Krum(1)], ids=["mean", "median", "krum"])
@pytest.mark.parametrize("bad", [(), ("u0", "u4", "u5"), ("u3",)], ids=["all", "an edge fails", "one fails"])
def test_tiers_give_what_plain_gives(aggregator: Any, bad: tuple[str, ...]) -> None:
    plain, tiered = (learned(each, aggregator, Pull(bad)) for each in (Plain(), Tiers(EDGES)))
    ends = [log.memory["cloud"]["params"]["w"] for log in (plain, tiered)]
    np.testing.assert_allclose(*ends, rtol=1e-12)
    for one, other in zip(plain.records, tiered.records, strict=True):
        assert one.metrics["failed"] == other.metrics["failed"] == len(bad)
        assert one.metrics.get("failures") == other.metrics.get("failures")


def test_an_edge_forwards_one_message_and_one_state_however_many_devices_it_has() -> None:
    plain, tiered = learned(Plain()), learned(Tiers(EDGES, mbps=8.0, rtt_seconds=2.0))
    state = {"sum": {"w": np.zeros(3)}, "weight": {"w": np.float64(0)}, "like": {"w": np.zeros(0)}}
    up, down = 2 * trees.size(trees.spec(state)), 2 * trees.size(trees.spec({"params": START}))
    for one, other in zip(plain.records, tiered.records, strict=True):
        assert other.cost.up_bytes - one.cost.up_bytes == up
        assert other.cost.down_bytes - one.cost.down_bytes == down
        assert other.metrics["edge_up_bytes"] == up / 2
        assert other.cost.seconds - one.cost.seconds == pytest.approx(2 + (up + down) / 2 * 8e-6 / 8, abs=0.2)
    assert tiered.seconds == pytest.approx(sum(record.cost.seconds for record in tiered.records), abs=1e-6)


def test_without_edges_it_is_plain_bit_for_bit() -> None:
    plain, direct = learned(Plain()), learned(Tiers(()))
    assert plain.records == direct.records
    assert trees.encode(plain.memory["cloud"]["params"]) == trees.encode(direct.memory["cloud"]["params"])


@dataclass(eq=False)
class Ready(Peer):
    """Answers after ``seconds``."""

    name: str
    seconds: float
    traits: Mapping[str, Any] = ()  # type: ignore[assignment]

    async def ask(self, skill: Skill, tree: Tree, *, key: Key, deadline: float | None = None) -> Reply:
        await asyncio.sleep(self.seconds)
        told = {"delta": {"w": np.ones(1) * self.seconds}, "weight": 1.0}
        return Reply(self.name, told, cost=Cost(self.seconds, 10, 20))


@dataclass(eq=False)
class Few(Group):
    """Peers by name."""

    peers: Mapping[str, Ready]

    def __len__(self) -> int:
        return len(self.peers)

    def peer(self, name: str) -> Peer:
        return self.peers[name]


def gathered(collect: Any, aggregator: Any = MEAN, **more: Any) -> Any:
    group = Few({name: Ready(name, float(i + 1)) for i, name in enumerate("abcdef")})
    return Clock().run(
        collect.gather(
            group,
            list("abcdef"),
            Pull(),
            lambda peer: START,
            gate=Gate(norm=None),
            aggregator=aggregator,
            decode=lambda tree: tree,
            like={"w": np.zeros(1)},
            key=(0,),
            deadline=None,
            **more,
        )
    )


def test_costs_are_told_by_tier() -> None:
    _, replies = gathered(Tiers((("a", "b"), ("c", "d", "e"))))
    near, far = by_tier(replies)
    assert (near.up_bytes, near.down_bytes) == (60, 120)
    assert far.down_bytes == 2 * trees.size(trees.spec(START))
    assert far.up_bytes > 0
    assert [reply.sender for reply in replies] == list("abcdef")


def test_each_edge_waits_for_its_share_of_enough() -> None:
    found, replies = gathered(Tiers((("a", "b", "c"),)), enough=2)
    assert [reply.failure is None for reply in replies] == [True, False, False, True, False, False]
    np.testing.assert_allclose(found["w"], [2.5])


def test_too_few_for_the_aggregator_is_a_round_without_result() -> None:
    found, replies = gathered(Tiers((("a", "b"),)), Krum(4))
    assert found is None
    assert all(str(reply.failure).startswith("not aggregated: ") for reply in replies)


def test_edges_that_cannot_be_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"^a is at two edges: give each device to one$"):
        Tiers((("a", "b"), ("c", "a")))
    with pytest.raises(ConfigError, match=r"^a backhaul of 0.0 Mbit/s and 0.02 s: "):
        replace(Tiers(()), mbps=0.0)
