"""Skills through codecs: the skill's name, rights, work and group; what a codec remembers stays with who answers."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest

from duetto import tree as trees
from duetto.codecs import Quantise, Zstd
from duetto.errors import ConfigError, DataError
from duetto.protocols import Coded
from duetto.simulation.engine import Log, simulate
from duetto.simulation.fleet import fleet
from duetto.tree import Spec, Tree
from duetto.types import Chain, Codec, Domain, Group, Key, Local, Party, Peer, Record, Reply, Skill, Work


@dataclass(frozen=True)
class Double(Skill):
    """Twice ``x``."""

    def __call__(self, local: Local, tree: Tree, key: Key, sender: str) -> tuple[Local, Tree]:
        if (tree["x"] > 1e6).any():
            raise DataError("too large")
        return local, {"x": 2 * tree["x"]}

    def work(self, local: Local, tree: Tree) -> Work:
        return Work(float(tree["x"].size))

    def group(self, local: Local, tree: Tree) -> Any:
        return tree["x"].shape


@dataclass(frozen=True)
class Triple(Double):
    """Thrice ``x``."""

    def __call__(self, local: Local, tree: Tree, key: Key, sender: str) -> tuple[Local, Tree]:
        return local, {"x": 3 * tree["x"]}


@dataclass(frozen=True)
class Keep(Double):
    """Twice ``x``, and remembers it."""

    @property
    def writes(self) -> bool:
        return True

    def __call__(self, local: Local, tree: Tree, key: Key, sender: str) -> tuple[Local, Tree]:
        return local.remembering(kept=tree["x"]), {"x": 2 * tree["x"]}


@dataclass(frozen=True)
class Feedback(Codec[Tree]):
    """Rounds to whole numbers and adds what was rounded away to the next message (error feedback)."""

    takes: ClassVar[frozenset[Domain]] = frozenset({Domain.FLOATS})
    gives: ClassVar[Domain] = Domain.FLOATS
    remembers: ClassVar[bool] = True

    def encode(self, state: Tree, tree: Tree, key: Key) -> tuple[Tree, Tree]:
        whole = trees.add(tree, state["left"]) if state.get("left") else tree
        sent = trees.map(np.round, whole)
        return {"left": trees.subtract(whole, sent)}, sent

    def decode(self, tree: Tree) -> Tree:
        return tree

    def becomes(self, spec: Spec) -> Spec | None:
        return spec


SKILLS = (Double, Triple, Keep)
X = np.array([0.2, 0.7, -1.4])


def asked(
    *asks: tuple[str, Skill, Any],
    users: tuple[str, ...] = ("ann", "bob"),
    skills: tuple[type[Skill], ...] = SKILLS,
    **more: Any,
) -> tuple[list[Reply], Log]:
    """The replies where the cloud asks (who, what, with what), one after the other."""
    replies: list[Reply] = []

    async def cloud(fleet: Group) -> AsyncIterator[Record]:
        for i, (name, skill, x) in enumerate(asks):
            replies.append(await skill.asked_of(fleet.peer(name), {"x": x}, key=(i,), **more))
        yield Record("asked")

    log = simulate(fleet=fleet("mid-phone", users), device=Party(skills=skills), cloud=cloud, network="constant-10")
    return replies, log


@pytest.mark.parametrize("there", [Chain(), Chain((Zstd(),)), Zstd()])
@pytest.mark.parametrize("back", [Chain(), Chain((Zstd(),)), Zstd()])
def test_lossless_codecs_change_nothing_but_the_bytes(there: Codec[Any], back: Codec[Any]):
    (plain, coded), _ = asked(("ann", Double(), np.zeros(500)), ("bob", Coded(Double(), there, back), np.zeros(500)))
    assert coded.failure is None
    assert (coded.tree["x"] == plain.tree["x"]).all()
    sent = len(trees.encode(there.encode(there.init(), {"x": np.zeros(500)}, (1,))[1]))
    said = len(trees.encode(back.encode(back.init(), {"x": np.zeros(500)}, (1,))[1]))
    assert (coded.cost.down_bytes, coded.cost.up_bytes) == (sent, said)


def test_both_ways_lose_what_each_codec_loses():
    there, back = Quantise(8), Chain((Quantise(4), Zstd()))
    (reply,), _ = asked(("ann", Coded(Double(), there, back), X))
    arrived = there.decode(there.encode(there.init(), {"x": X}, (0,))[1])
    expected = back.decode(back.encode(back.init(), {"x": 2 * arrived["x"]}, (0,))[1])
    assert (reply.tree["x"] == expected["x"]).all()
    assert 0 < np.abs(expected["x"] - 2 * X).max() < 0.5


def test_work_group_name_and_writes_are_the_skill_s():
    coded, local = Coded(Double(), Zstd(), Quantise(8)), Local()
    sent = Zstd().encode({}, {"x": np.zeros((4, 5))}, ())[1]
    assert coded.name == "Double"
    assert coded.work(local, sent) == Work(20.0)
    assert coded.group(local, sent) == (4, 5)
    assert not coded.writes
    assert Coded(Keep()).writes
    assert Coded(Double(), back=Feedback()).writes
    assert Coded(Double(), back=Chain((Feedback(), Zstd()))).writes
    assert not Coded(Double(), back=Chain((Chain(), Zstd()))).writes


def test_codecs_give_no_right():
    (reply, direct), _ = asked(("ann", Coded(Triple()), X), ("ann", Double(), X), skills=(Double, Coded))
    assert reply.failure == "ann does not offer Triple"
    assert direct.failure is None


def test_many_are_as_one_by_one():
    coded = Coded(Double(), Quantise(8), Chain((Feedback(), Zstd())))
    locals_ = [
        Local(None, {"codec": {"Double": {"0": {"left": {"x": np.full(3, i / 10)}}, "1": {}}}}) for i in range(3)
    ]
    sent = [Quantise(8).encode({}, {"x": X * i}, (i,))[1] for i in range(3)]
    together = coded.many(locals_, sent, [(i,) for i in range(3)], ["a", "b", "c"])
    for i, (local, tree) in enumerate(together):
        alone, expected = coded(locals_[i], sent[i], (i,), "abc"[i])
        assert trees.encode(tree) == trees.encode(expected)
        assert trees.encode(local.memory) == trees.encode(alone.memory)


@pytest.mark.parametrize("back", [Feedback(), Chain((Feedback(),)), Chain((Feedback(), Zstd()))])
def test_what_a_codec_remembers_stays_with_each_party(back: Codec[Any]):
    skill = Coded(Double(), back=back)
    steps = [("ann", X), ("bob", 10 * X), ("ann", X), ("ann", X), ("bob", X)]
    replies, log = asked(*((name, skill, x) for name, x in steps))
    left = {"ann": np.zeros(3), "bob": np.zeros(3)}
    for reply, (name, x) in zip(replies, steps, strict=True):
        whole = 2 * x + left[name]
        assert reply.tree["x"].tolist() == np.round(whole).tolist()
        left[name] = whole - np.round(whole)
    for name, rest in left.items():
        state = log.memory[name]["codec"]["Double"]
        state = state if isinstance(back, Feedback) else state["0"]
        assert state["left"]["x"].tolist() == rest.tolist()


def test_what_is_remembered_is_a_tree_and_is_read_back_as_it_was():
    skill = Coded(Double(), back=Chain((Feedback(), Zstd())))
    local, first = skill(Local(), {"x": X}, (0,), "cloud")
    read = Local(None, trees.decode(trees.encode(local.memory)))
    (_, ours), (_, theirs) = skill(local, {"x": X}, (1,), "cloud"), skill(read, {"x": X}, (1,), "cloud")
    assert trees.encode(ours) == trees.encode(theirs)
    assert trees.encode(ours) != trees.encode(first)  # it does matter


def test_two_skills_do_not_share_what_their_codecs_remember():
    double, triple = Coded(Double(), back=Feedback()), Coded(Triple(), back=Feedback())
    replies, _ = asked(("ann", double, X), ("ann", triple, X), ("ann", double, X), ("ann", triple, X))
    for factor, mine in ((2, replies[::2]), (3, replies[1::2])):
        left = factor * X - np.round(factor * X)
        assert mine[0].tree["x"].tolist() == np.round(factor * X).tolist()
        assert mine[1].tree["x"].tolist() == np.round(factor * X + left).tolist()


def test_what_the_skill_wrote_is_kept_beside_what_the_codec_remembers():
    _, log = asked(("ann", Coded(Keep(), back=Feedback()), X))
    assert set(log.memory["ann"]) == {"kept", "codec"}
    assert log.memory["ann"]["kept"].tolist() == X.tolist()


def test_on_the_way_there_nothing_is_remembered_unless_the_asker_keeps_it():
    for there in (Feedback(), Chain((Feedback(), Zstd()))):
        with pytest.raises(ConfigError, match="remembers"):
            Coded(Double(), there=there)


def test_what_is_owed_to_each_peer_is_made_good_with_the_next_message():
    skill, owed = Coded(Double(), there=Feedback(), owing=True), dict[str, Any]()
    steps = [("ann", X), ("bob", 10 * X), ("ann", X), ("ann", X), ("bob", X)]
    replies, _ = asked(*((name, skill, x) for name, x in steps), owed=owed)
    left = {"ann": np.zeros(3), "bob": np.zeros(3)}
    for reply, (name, x) in zip(replies, steps, strict=True):
        whole = x + left[name]
        assert reply.tree["x"].tolist() == (2 * np.round(whole)).tolist()
        left[name] = whole - np.round(whole)
    assert {name: state["left"]["x"].tolist() for name, state in owed.items()} == {
        name: rest.tolist() for name, rest in left.items()
    }


@dataclass(frozen=True)
class Rude(Codec[Tree]):
    """Encodes to what its own decoder refuses."""

    takes: ClassVar[frozenset[Domain]] = frozenset(Domain)
    gives: ClassVar[Domain] = Domain.BYTES

    def encode(self, state: Tree, tree: Tree, key: Key) -> tuple[Tree, Tree]:
        return state, {"junk": np.zeros(3, np.uint8)}

    def decode(self, tree: Tree) -> Tree:
        return Zstd().decode(tree)

    def becomes(self, spec: Spec) -> Spec | None:
        return None


def test_what_cannot_be_decoded_is_a_failure_on_either_side():
    (question, reply, refused), _ = asked(
        ("ann", Coded(Double(), there=Rude()), X),
        ("ann", Coded(Double(), back=Rude()), X),
        ("ann", Coded(Double()), np.array([1e7])),
    )
    assert question.tree is None
    assert question.failure
    assert reply.tree is None
    assert (reply.failure or "").startswith("ann answered with ")
    assert reply.cost.up_bytes > 0  # it was paid for all the same
    assert refused.failure == "too large"


def test_one_message_that_cannot_be_decoded_spoils_no_other_of_its_batch():
    replies: dict[str, Reply] = {}
    skill = Coded(Double(), there=Zstd())

    async def device(me: Peer, cloud: Peer) -> AsyncIterator[Record]:
        sent = {"junk": np.zeros(3, np.uint8)} if me.name == "user-1" else Zstd().encode({}, {"x": X}, ())[1]
        replies[me.name] = skill.heard(await cloud.ask(skill, sent, key=(me.name,)))
        yield Record("asked")

    simulate(fleet=fleet("mid-phone", 4), device=device, cloud=Party(skills=(Double,)), network="constant-10")
    assert [name for name, reply in sorted(replies.items()) if reply.failure] == ["user-1"]
    assert all((reply.tree["x"] == 2 * X).all() for reply in replies.values() if reply.tree)
