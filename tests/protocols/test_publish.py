"""A new version reaches who can be reached; the others keep what they have, and nothing else is written."""

from collections.abc import AsyncIterator, Mapping
from typing import Any

import numpy as np
import pytest

from duetto import tree as trees
from duetto.codecs import Quantise, Zstd
from duetto.protocols import Coded
from duetto.protocols.publish import Adopt, publish
from duetto.simulation.engine import Log, simulate
from duetto.simulation.fleet import fleet
from duetto.simulation.link import Link, Network, offline
from duetto.simulation.traces import constant
from duetto.tree import Tree
from duetto.types import Chain, Codec, Group, Local, Party, Record, Replies, Skill

USERS = ("ann", "bob", "cem")
FIRST = {"params": {"w": np.zeros(4)}, "version": np.int64(1), "diary": np.arange(3)}
NEWS = {"params": {"w": np.array([1.0, -2.0, 3.0, 0.5])}, "version": np.int64(2)}


class Reaching(Network):
    """Bob is out of reach."""

    def link(self, key: Any) -> Link:
        return offline(self.links[0], 0.0) if key[-1] == "bob" else self.links[0]


NETWORK = Reaching("reaching", (Link(constant(5), constant(5), 0.1),), "4g")


def published(
    message: Mapping[str, Tree], network: Network | str = "constant-10", skills: Any = (Adopt,), **more: Any
) -> tuple[Replies, Log]:
    heard: list[Replies] = []

    async def cloud(fleet: Group) -> AsyncIterator[Record]:
        heard.append(await publish([fleet.peer(name) for name in fleet.names], message, key=(1,), **more))
        yield Record("publish")

    everyone = fleet("phones", USERS, memory=FIRST)
    log = simulate(fleet=everyone, device=Party(skills=skills), cloud=cloud, network=network)
    return heard[0], log


def test_everybody_adopts_what_is_new_and_keeps_the_rest():
    replies, log = published(NEWS)
    assert [(reply.sender, reply.failure) for reply in replies] == [(name, None) for name in USERS]
    for name in USERS:
        assert trees.encode(log.memory[name]) == trees.encode({**FIRST, **NEWS})
    sent = len(trees.encode(NEWS))
    assert [reply.cost.down_bytes for reply in replies] == [sent] * 3


def test_who_cannot_be_reached_keeps_what_it_has():
    replies, log = published(NEWS, NETWORK, deadline=4.0)
    assert [reply.failure for reply in replies] == [None, "no answer within 4 s", None]
    assert set(log.memory) == {"ann", "cem"}
    assert log.seconds == 4.0


@pytest.mark.parametrize("codec", [Zstd(), Chain((Quantise(8), Zstd()))])
def test_a_message_is_encoded_once_and_adopted_as_decoded(codec: Codec[Any]):
    coded = codec.encode(codec.init(), NEWS, (1,))[1]
    replies, log = published(NEWS, codec=codec)
    assert [reply.cost.down_bytes for reply in replies] == [len(trees.encode(coded))] * 3
    expected = codec.decode(coded)
    for name in USERS:
        assert trees.encode(log.memory[name]["params"]) == trees.encode(expected["params"])
        assert int(log.memory[name]["version"]) == 2


def test_who_does_not_offer_it_is_not_written_to():
    replies, log = published(NEWS, skills=())
    assert [reply.failure for reply in replies] == [f"{name} does not offer Adopt" for name in USERS]
    assert log.memory == {}


@pytest.mark.parametrize("wrap", [lambda skill: skill, Coded])
def test_a_slot_that_the_skill_does_not_name_is_refused_and_nothing_is_written(wrap: Any):
    skill: Skill = wrap(Adopt(("params", "version")))
    failures: list[str | None] = []

    async def cloud(fleet: Group) -> AsyncIterator[Record]:
        reply = await fleet.peer("ann").ask(skill, {**NEWS, "diary": np.zeros(1), "zeal": np.zeros(1)}, key=())
        failures.append(reply.failure)
        yield Record("publish")

    log = simulate(fleet=fleet("phones", USERS, memory=FIRST), device=Party(skills=(Adopt,)), cloud=cloud)
    assert failures == ["cloud published diary, zeal: this skill adopts params, version"]
    assert log.memory == {}


def test_adopting_changes_no_memory_in_place():
    before = Local(None, FIRST)
    after, said = Adopt(("version",))(before, {"version": np.int64(5)}, (), "cloud")
    assert (int(after.memory["version"]), int(before.memory["version"]), said) == (5, 1, {})
    assert after.memory["params"] is FIRST["params"]


def test_nobody_to_publish_to_is_no_error():
    async def cloud(local: Local) -> AsyncIterator[Record]:
        replies = await publish([], NEWS, key=(1,))
        yield Record("publish", metrics={"devices": len(replies)})

    assert simulate(fleet=fleet("phones", 1), cloud=cloud).records[0].metrics == {"devices": 0}
