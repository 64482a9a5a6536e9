"""Progressive asking: the first part often does, all parts are the quantiser, and nothing is sent twice."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch

from duetto import tree as trees
from duetto.codecs import Feedback, Progressive, Quantise, Ranged, TopK, Zstd, counts, ranges
from duetto.errors import ConfigError, DataError, WireError
from duetto.models import Conv, stage
from duetto.protocols import Advance, Coded, Finish, Refined, answer
from duetto.protocols.refined import GONE, through
from duetto.simulation.engine import simulate
from duetto.simulation.fleet import fleet
from duetto.simulation.link import Link, Network
from duetto.simulation.traces import constant
from duetto.tree import Tree
from duetto.types import (
    GIVEN_UP,
    Action,
    Answer,
    Chain,
    Cost,
    Held,
    Key,
    Local,
    Move,
    Party,
    Peer,
    Plan,
    Policy,
    Record,
    Reply,
    Seen,
    Skill,
    Work,
)

NET = stage(Conv((1, 8, 8), 3, (4, 6)).module(), torch.zeros(1, 1, 8, 8))
CUT, END = NET.cuts()[2], len(NET)
X = np.random.default_rng(0).normal(size=(1, 8, 8)).astype(np.float32)
CARRIED = {"cut": np.int64(CUT), "features": NET[:CUT]({"x": X[None]})}
RANGED = Ranged(8, ranges([CARRIED]))
PARTS = Progressive(RANGED, (4, 4), counts(RANGED, [CARRIED]))
FINE = Progressive(RANGED, (2, 2, 4))
KEY: Key = (1, "ask", CUT)
LINK = Link(constant(8), constant(8), 0.1)


def rest(carried: Tree) -> np.ndarray:
    """What the cloud makes of features."""
    return np.asarray(NET[CUT:](carried["features"])["logits"])


def coded(codec: Any, tree: Tree = CARRIED) -> Tree:
    """Encoded."""
    return codec.encode(codec.init(), tree, KEY)[1]


def sureness(logits: np.ndarray) -> float:
    """The probability of the likeliest class."""
    odds = np.exp(logits.astype(np.float64) - logits.max())
    return float(odds.max() / odds.sum())


COARSE = rest(PARTS.decode(PARTS.parts(coded(PARTS))[0]))
EXACT = rest(RANGED.decode(coded(RANGED)))


def messages(codec: Any, zip_: Any = Chain()) -> list[Tree]:
    """What is sent, made by hand."""
    parts = codec.parts(coded(codec))
    sent = [zip_.encode(zip_.init(), part, (*KEY, i))[1] for i, part in enumerate(parts)]
    named = [{f"{i + 1}-of-{len(sent)}": part} for i, part in enumerate(sent)]
    return [each | ({"question": np.uint64(0)} if i else {}) for i, each in enumerate(named)]


def asked(skill: Skill, *, forgets: bool = False, outages: Any = (), **more: Any) -> tuple[Reply, Mapping[str, Any]]:
    """The cloud's reply to a question about X, and what it remembers afterwards."""
    replies: list[Reply] = []

    async def device(cloud: Peer) -> AsyncIterator[Record]:
        peer = Forgetful(cloud) if forgets else cloud
        replies.append(await skill.asked_of(peer, CARRIED, key=KEY, **more))
        yield Record("asked")

    log = simulate(
        fleet=fleet("mid-phone", ["ann"]),
        device=device,
        cloud=Party((), (Finish, Forget), Local(None, {"net": NET})),
        network=Network("link", (replace(LINK, outages=outages),), "4g"),
    )
    return replies[0], log.memory.get("cloud", {}).get("parts", {}).get("Finish", {})


@dataclass(frozen=True)
class Forget(Skill):
    """Everything that has come."""

    writes = True

    def __call__(self, local: Local, tree: Tree, key: Key, sender: str) -> tuple[Local, Tree]:
        return local.remembering(parts={}), {}


class Forgetful(Peer):
    """A cloud that is started again after every answer."""

    def __init__(self, peer: Peer) -> None:
        self.peer, self.name, self.traits = peer, peer.name, peer.traits

    async def ask(self, skill: Skill, tree: Tree, *, key: Key, deadline: float | None = None) -> Reply:
        reply = await self.peer.ask(skill, tree, key=key, deadline=deadline)
        await self.peer.ask(Forget(), {}, key=key)
        return reply


@pytest.mark.parametrize("codec", [PARTS, FINE])
@pytest.mark.parametrize("zip_", [Chain(), Zstd(1), Chain((Zstd(1),))])
def test_once_all_parts_have_come_it_is_the_quantiser(codec: Progressive, zip_: Any) -> None:
    reply, kept = asked(Refined(Finish(), codec, 2.0, zip_))
    whole, _ = asked(Coded(Finish(), RANGED))
    assert reply.tree["logits"].tobytes() == whole.tree["logits"].tobytes() == EXACT.tobytes()
    assert kept == {}, "what is complete is forgotten"
    assert reply.metrics["asks"] == len(codec.steps)
    assert reply.cost.up_bytes == sum(trees.size(trees.spec(each)) for each in messages(codec, zip_))
    assert reply.cost.down_bytes == len(codec.steps) * trees.size(trees.spec({"logits": EXACT}))


def test_where_the_first_part_makes_it_sure_no_more_is_sent() -> None:
    assert COARSE.tobytes() != EXACT.tobytes()
    for sure, exact in ((0.0, False), (sureness(COARSE) - 1e-9, False), (sureness(COARSE) + 1e-9, True)):
        reply, kept = asked(Refined(Finish(), PARTS, sure))
        assert reply.tree["logits"].tobytes() == (EXACT if exact else COARSE).tobytes()
        assert reply.metrics["asks"] == 1 + exact
        assert len(kept) == 1 - exact
    first = trees.size(trees.spec(messages(PARTS)[0]))
    assert asked(Refined(Finish(), PARTS, 0.0))[0].cost.up_bytes == first < len(trees.encode(coded(RANGED)))


def test_every_row_must_be_sure() -> None:
    refined = Refined(Finish(), PARTS, 0.9)
    sure, unsure = np.array([9.0, 0.0, 0.0]), np.array([1.0, 1.0, 1.0])
    assert refined._is_sure({"logits": sure})
    assert refined._is_sure({"logits": np.stack([sure, sure + 1000])})
    bad = np.full((1, 3), np.nan), np.array([[np.inf, 0.0]]), np.zeros((1, 0)), np.array(["a"])
    for logits in (np.stack([sure, unsure]), *bad):
        assert not refined._is_sure({"logits": logits})
    assert not refined._is_sure({"scores": sure})
    assert not refined._is_sure(sure)


def test_costs_and_metrics_are_of_all_parts() -> None:
    reply, _ = asked(Refined(Finish(), PARTS, 2.0))
    sizes = [trees.size(trees.spec(each)) for each in messages(PARTS)]
    sending = sum(size * 8 / 8e6 for size in sizes)
    assert reply.metrics["up_seconds"] == pytest.approx(sending)
    back = 2 * trees.size(trees.spec({"logits": EXACT})) * 8 / 8e6
    assert reply.cost.seconds == pytest.approx(sending + reply.metrics["compute_seconds"] + 2 * 0.1 + back)
    once, _ = asked(Coded(Finish(), RANGED))
    assert reply.metrics["compute_seconds"] == pytest.approx(2 * once.metrics["compute_seconds"])
    assert reply.cost.dollars > once.cost.dollars


def test_a_party_that_has_forgotten_says_so_and_gets_all_parts() -> None:
    reply, kept = asked(Refined(Finish(), PARTS, 2.0), forgets=True)
    assert reply.tree["logits"].tobytes() == EXACT.tobytes()
    first, second = messages(PARTS)
    together = {**first, "2-of-2": second["2-of-2"]}
    assert reply.cost.up_bytes == sum(trees.size(trees.spec(each)) for each in (first, second, together))
    assert (reply.metrics["asks"], kept) == (2, {})
    three, _ = asked(Refined(Finish(), FINE, 2.0), forgets=True)
    assert three.tree["logits"].tobytes() == EXACT.tobytes()
    assert three.metrics["asks"] == 2


class Scripted(Peer):
    """Says what is written down, after so many seconds each, and keeps what it was sent and until when."""

    def __init__(self, *says: Reply) -> None:
        self.name, self.traits, self.says = "cloud", {}, list(says)
        self.heard: list[tuple[Tree, Key, float | None]] = []

    async def ask(self, skill: Skill, tree: Tree, *, key: Key, deadline: float | None = None) -> Reply:
        self.heard.append((tree, key, deadline))
        reply = self.says.pop(0)
        await asyncio.sleep(reply.cost.seconds)
        return reply


UNSURE, SURE = {"logits": np.zeros((1, 2))}, {"logits": np.array([[9.0, 0.0]])}


def says(tree: Tree | None, failure: str | None = None, **metrics: float) -> Reply:
    """A reply that took 10 ms, a byte up and a dollar."""
    return Reply("cloud", tree, failure=failure, metrics=metrics, cost=Cost(0.01, up_bytes=1, dollars=1.0))


def conversed(skill: Skill, *replies: Reply, key: Key = KEY, deadline: float | None = None) -> tuple[Reply, Scripted]:
    """What comes of a scripted conversation."""
    peer = Scripted(*replies)
    return asyncio.run(skill.asked_of(peer, CARRIED, key=key, deadline=deadline)), peer


ALL = Refined(Finish(), FINE, 0.9)


def test_each_part_is_sent_once_under_one_key_until_it_is_sure() -> None:
    reply, peer = conversed(ALL, says(UNSURE), says(SURE), says(UNSURE))
    assert reply.tree is SURE
    assert (reply.cost.up_bytes, reply.cost.dollars) == (2, 2.0)
    assert [set(tree) for tree, _, _ in peer.heard] == [{"1-of-3"}, {"2-of-3", "question"}]
    assert {key for _, key, _ in peer.heard} == {KEY}


def test_where_a_later_part_fails_the_answer_before_it_stands() -> None:
    reply, _ = conversed(ALL, says(UNSURE, up_seconds=0.004, compute_seconds=0.001), says(None, "no answer"))
    assert (reply.tree, reply.failure, reply.cost.up_bytes) == (UNSURE, None, 2)
    assert reply.metrics == pytest.approx({"asks": 1, "compute_seconds": 0.001, "up_seconds": 0.004 + 0.01})
    reply, _ = conversed(ALL, says(None, "is offline"))
    assert (reply.tree, reply.failure, reply.metrics) == (None, "is offline", {})
    reply, _ = conversed(ALL, says(UNSURE), says(None, GIVEN_UP))
    assert (reply.tree, reply.failure, reply.cost.up_bytes) == (None, GIVEN_UP, 2), "another answer came first"


def test_one_deadline_covers_all_parts() -> None:
    reply, peer = conversed(ALL, *[says(UNSURE)] * 3, deadline=1.0)
    first, second, third = (deadline for _, _, deadline in peer.heard)
    assert first == 1.0
    assert second is not None
    assert third is not None
    assert third < second < 1.0
    reply, peer = conversed(ALL, *[says(UNSURE)] * 3, deadline=0.005)
    assert (len(peer.heard), reply.tree) == (1, UNSURE), "no time is left for a second part"
    reply, peer = conversed(ALL, says(None, "no answer within 0 s"), deadline=0.0)
    assert (len(peer.heard), reply.failure) == (1, "no answer within 0 s")


def test_all_parts_are_sent_to_a_party_that_has_forgotten_and_nothing_after_them() -> None:
    reply, peer = conversed(ALL, says(UNSURE), says(UNSURE), says(None, f"cloud: {GONE}"), says(UNSURE))
    assert (reply.tree, reply.metrics["asks"], reply.cost.up_bytes) == (UNSURE, 3, 4)
    assert set(peer.heard[-1][0]) == {"1-of-3", "2-of-3", "3-of-3"}
    reply, peer = conversed(ALL, says(None, GONE))
    assert (len(peer.heard), reply.failure) == (1, GONE), "the first part needs none before it"


def test_what_cannot_be_coded_is_not_sent() -> None:
    peer = Scripted()
    bad = {**CARRIED, "features": {name: leaf * np.nan for name, leaf in CARRIED["features"].items()}}
    reply = asyncio.run(ALL.asked_of(peer, bad, key=KEY))
    assert (reply.failure or "").startswith("not sent: ")
    assert peer.heard == []


def test_what_is_kept_is_bounded_and_belongs_to_its_sender() -> None:
    skill = Refined(Finish(), PARTS, 0.9, keeps=2)

    def sent(key: Key) -> list[Tree]:
        return [tree for tree, _, _ in conversed(skill, says(UNSURE), says(SURE), key=key)[1].heard]

    local = Local(None, {"net": NET})
    for key in ((0,), (1,), (2,), (1,)):  # the one that comes again is the youngest
        local, _ = skill(local, sent(key)[0], key, "ann")
    kept = local.memory["parts"]
    assert len(kept["Finish"]) == 2
    local = Local(None, {"net": NET, "parts": trees.decode(trees.encode(kept))})
    for key, sender in (((0,), "ann"), ((1,), "bob"), ((1,), "an"), ((1, ""), "ann"), (("1",), "ann")):
        with pytest.raises(DataError, match=GONE):
            skill(local, sent(key)[1], key, sender)
    third, _ = skill(local, sent((3,))[0], (3,), "ann")
    assert third.memory["parts"]["Finish"].keys() & kept["Finish"].keys() == {
        max(kept["Finish"], key=lambda name: kept["Finish"][name]["since"])
    }
    after, said = skill(local, sent((1,))[1], (1,), "ann")
    assert said["logits"].tobytes() == EXACT.tobytes()
    assert len(after.memory["parts"]["Finish"]) == 1
    with pytest.raises(DataError, match=GONE):
        skill(after, sent((1,))[1], (1,), "ann")


def test_work_and_group_are_the_skill_s_for_any_part() -> None:
    skill, plain = Refined(Finish(), PARTS, 0.9, Zstd(1)), Finish()
    local = Local(None, {"net": NET})
    first, second = (tree for tree, _, _ in conversed(skill, says(UNSURE), says(SURE))[1].heard)
    with pytest.raises(DataError, match=GONE):
        skill.work(local, second)
    after, _ = skill(local, first, KEY, "ann")
    for where, part in ((local, first), (after, second)):
        assert skill.work(where, part) == plain.work(local, CARRIED)
        assert skill.group(where, part) == plain.group(local, CARRIED)
    assert (skill.name, skill.writes) == ("Finish", True)
    assert hash(skill) == hash(replace(skill))


def test_many_are_as_one_by_one() -> None:
    skill = Refined(Finish(), PARTS, 0.9)
    local = Local(None, {"net": NET})
    first, second = (tree for tree, _, _ in conversed(skill, says(UNSURE), says(SURE))[1].heard)
    after, _ = skill(local, first, KEY, "ann")
    together = skill.many([local, after], [first, second], [KEY, KEY], ["bob", "ann"])
    alone = [skill(local, first, KEY, "bob"), skill(after, second, KEY, "ann")]
    for (one, said), (other, expected) in zip(together, alone, strict=True):
        np.testing.assert_allclose(said["logits"], expected["logits"], rtol=1e-5)
        assert trees.encode(one.memory["parts"]) == trees.encode(other.memory["parts"])


@pytest.mark.parametrize(
    "change",
    [
        lambda first, second: {},
        lambda first, second: np.zeros(3),
        lambda first, second: {"1-of-1": first["1-of-2"], "0-of-1": first["1-of-2"]},
        lambda first, second: {"3-of-2": first["1-of-2"]},
        lambda first, second: {"1-of-2": first["1-of-2"], "2-of-3": second["2-of-2"]},
        lambda first, second: {"1-of-3": first["1-of-2"], "3-of-3": second["2-of-2"]},
        lambda first, second: {**first, "x": np.zeros(2)},
        lambda first, second: {**first, "question": second["question"]},
        lambda first, second: {"2-of-2": second["2-of-2"]},
        lambda first, second: {**second, "question": np.zeros(2, np.uint64)},
        lambda first, second: {**second, "question": np.float64(3)},
        lambda first, second: {**second, "question": {"x": np.uint64(3)}},
        lambda first, second: {"1-of-2": {"cut": np.int64(CUT), **second["2-of-2"]}},
    ],
)
def test_a_message_that_is_no_part_is_a_wire_error(change: Any) -> None:
    skill, local = Refined(Finish(), PARTS, 0.9), Local(None, {"net": NET})
    first, second = (tree for tree, _, _ in conversed(skill, says(UNSURE), says(SURE))[1].heard)
    bad = change(first, second)
    for use in (lambda: skill(local, bad, KEY, "ann"), lambda: skill.work(local, bad)):
        with pytest.raises(WireError):
            use()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"codec": Quantise(8)}, "no parts"),
        ({"bytes": Quantise(8)}, "cannot take"),
        ({"bytes": Feedback(TopK(0.5))}, "cannot take"),
        ({"sure": -0.1}, "sure"),
        ({"sure": float("nan")}, "sure"),
        ({"keeps": 0}, "keeps"),
    ],
)
def test_settings_that_cannot_be_met(change: Any, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        replace(ALL, **change)


def test_a_question_through_a_plan_s_codec() -> None:
    chain = Chain((PARTS, Zstd(1)))
    assert through(ALL, PARTS) == replace(ALL, codec=PARTS)
    assert through(ALL, chain) == Coded(Finish(), chain)
    assert through(Finish(), PARTS) == Coded(Finish(), PARTS)


@dataclass(frozen=True)
class Asks(Policy[Any]):
    """Asks at the cut, and goes on before it."""

    plan: Plan

    def choose(self, state: Any, seen: Seen, key: Any) -> tuple[Any, Move]:
        return state, Move.sure(Action.ASK if seen.stage == CUT else Action.GO, "the cut", plan=self.plan)

    def learn(self, state: Any, seen: Seen, move: Move, reward: Any) -> Any:
        assert seen.traits is not None
        return {name: float(column[0]) for name, column in seen.traits.items()}


@dataclass(frozen=True)
class Slow(Advance):
    """The rest of the stages, in 0.2 s or so."""

    def work(self, local: Local, tree: Tree) -> Work:
        return Work(6e9)


def walked(question: Skill, plan: Plan = Plan(), link: Link = LINK, **more: Any) -> tuple[Answer, Any]:
    """The answer of a device that holds the whole net, as the cloud does, and what the policy learnt."""
    given: list[Any] = []

    async def device(me: Peer, cloud: Peer) -> AsyncIterator[Record]:
        held, exits = Held.of(Asks(plan)), {CUT - 1: Advance(0, CUT), END - 1: Slow(CUT, END)}
        peers = {"cloud": cloud}
        asks = {"question": question, "policy": held, "key": (1,), "reward": lambda own, said: 1.0, **more}
        given.extend([await answer(X, me=me, exits=exits, peers=peers, **asks), held.state])
        yield Record("answer")

    simulate(
        fleet=fleet("mid-phone", ["ann"], memory={"net": NET}),
        device=Party((device,), (Advance, Slow)),
        cloud=Party((), (Finish,), Local(None, {"net": NET})),
        network=Network("link", (link,), "4g"),
    )
    return given[0], given[1]


def test_the_walk_asks_in_parts_and_learns_the_link_from_all() -> None:
    whole, told = walked(Finish(), Plan(CUT, RANGED))
    for question, plan in (
        (Refined(Finish(), PARTS, 2.0), Plan(CUT)),
        (Refined(Finish(), FINE, 2.0), Plan(CUT, PARTS)),
    ):
        said, learnt = walked(question, plan)
        assert said.tree["logits"].tobytes() == whole.tree["logits"].tobytes() == EXACT[0].tobytes()
        assert said.cost.up_bytes == sum(trees.size(trees.spec(each)) for each in messages(PARTS))
        assert learnt["up_mbps"] == pytest.approx(told["up_mbps"]) == pytest.approx(8)
        assert learnt["rtt_seconds"] == pytest.approx(told["rtt_seconds"], rel=0.01), "of one round trip, not of two"
    said, _ = walked(Refined(Finish(), PARTS, 0.0), Plan(CUT))
    assert said.tree["logits"].tobytes() == COARSE[0].tobytes()


def test_out_of_time_between_two_parts_the_walk_still_answers() -> None:
    refined = Refined(Finish(), PARTS, 2.0)
    coarse, _ = walked(refined, deadline=0.15)
    assert (coarse.party, coarse.tree["logits"].tobytes()) == ("cloud", COARSE[0].tobytes())
    own, _ = walked(refined, Plan(CUT, patience=0.001), link=replace(LINK, outages=((0.12, 5.0),)))
    assert (own.party, own.tree["logits"].tobytes()) == ("ann", NET({"x": X[None]})["logits"][0].tobytes())
    assert own.cost.up_bytes >= trees.size(trees.spec(messages(PARTS)[0])), "what was sent in vain is charged"
