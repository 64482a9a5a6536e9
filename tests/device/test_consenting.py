"""Nothing leaves a device that its user does not let go, whoever asks."""

import asyncio
from dataclasses import dataclass
from datetime import time
from typing import Any

import numpy as np
import pytest

from duetto import tree as trees
from duetto.codecs import Quantise, Zstd
from duetto.device.consenting import Consenting, shown
from duetto.device.settings import Leaves, Settings, Situation
from duetto.protocols.coded import Coded
from duetto.protocols.probe import Echo
from duetto.protocols.stages import Finish
from duetto.tree import Tree
from duetto.types import Chain, Key, Peer, Reply, Skill

DRAW = np.random.default_rng(0)
X = {"x": DRAW.normal(size=(1, 4, 4)).astype(np.float32)}
FEATURES = {"cut": np.int64(3), "features": {"conv": DRAW.normal(size=(1, 8)).astype(np.float32)}}
FINISH = Finish()
CODEC = Chain((Quantise(8), Zstd(1)))


class Cloud(Peer):
    """Remembers what reached it."""

    name = "cloud"

    def __init__(self) -> None:
        self.traits = {"examples": 3}
        self.got: list[Tree] = []

    async def ask(self, skill: Skill, tree: Tree, *, key: Key, deadline: float | None = None) -> Reply:
        self.got.append(tree)
        return Reply(self.name, {"logits": np.zeros((1, 2), np.float32)})


def asked(tree: Tree, leaves: Any, skill: Skill = FINISH, stream: bool = False, **more: Any) -> tuple[Any, list[Tree]]:
    """The failure, and what reached the cloud."""
    cloud = Cloud()
    peer = Consenting(cloud, lambda: Settings(leaves), **more)

    async def ask() -> str | None:
        if stream:
            (reply,) = [reply async for reply in peer.stream(skill, tree, key=(0,))]
            return reply.failure
        return (await skill.asked_of(peer, tree, key=(0,))).failure

    return asyncio.run(ask()), cloud.got


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("tree", "least"),
    [
        (X, "raw"),
        ({"prompt": np.frombuffer(b"I am ill", np.uint8)}, "raw"),
        (X["x"], "raw"),
        (FEATURES, "features"),
        ({"cut": np.int64(0), "features": X}, "raw"),
        ({"cut": np.int64(0), "features": {"a": X["x"]}}, "raw"),
        ({"cut": np.int64(3), "features": {"conv": X["x"], **X}}, "raw"),  # a skip from the input crosses the cut
        ({**FEATURES, **X}, "raw"),
        ({"features": X["x"]}, "raw"),
        ({"cut": np.ones(2, np.int64), "features": FEATURES["features"]}, "raw"),
        ({"cut": np.float32(2), "features": FEATURES["features"]}, "raw"),
        ({"cut": np.int64(2), "features": X["x"]}, "raw"),
        ({"redacted": X["x"]}, "raw"),
    ],
)
def test_no_more_leaves_than_is_allowed(tree: Tree, least: str, stream: bool) -> None:
    for leaves in ("nothing", "features", "redacted", "raw"):
        failure, got = asked(tree, leaves, stream=stream)
        if Settings(leaves).most >= Settings(least).most:  # type: ignore[arg-type]
            assert (failure, len(got)) == (None, 1)
        elif leaves == "nothing":
            assert (failure, got) == ("not sent: nothing may leave this device", [])
        else:
            assert (failure, got) == (f"not sent: it holds the input, and {leaves} may leave at most", [])


def test_inputs_have_the_names_that_the_model_gives_them() -> None:
    tree = {"cut": np.int64(3), "features": {"conv": X["x"], "audio": X["x"]}}
    assert asked(tree, "features")[0] is None
    assert asked(tree, "features", inputs=("audio", "video"))[1] == []


@pytest.mark.parametrize("codec", [Chain(), Quantise(8), Zstd(1), CODEC])
def test_codecs_hide_nothing(codec: Any) -> None:
    skill = Coded(Coded(Finish(), codec), Zstd(1))
    failure, got = asked(X, "features", Coded(Finish(), codec))
    assert (failure, got) == ("not sent: it holds the input, and features may leave at most", [])
    failure, got = asked(FEATURES, "features", Coded(Finish(), codec))
    assert (failure, len(got)) == (None, 1)

    async def twice(tree: Tree) -> str | None:
        inner = codec.encode(codec.init(), tree, (0,))[1]
        coded = Zstd(1).encode({}, inner, (0,))[1]
        return (await Consenting(Cloud(), lambda: Settings("features")).ask(skill, coded, key=(0,))).failure

    assert asyncio.run(twice(FEATURES)) is None
    assert "holds the input" in (asyncio.run(twice(X)) or "")


def test_a_message_that_cannot_be_read_is_not_sent() -> None:
    cloud = Cloud()
    peer = Consenting(cloud, lambda: Settings("features"))
    for tree in ({"x": np.zeros(3, np.uint8) + 1}, {"junk": np.ones(3)}, 3.0, None):
        failure = asyncio.run(peer.ask(Coded(Finish(), Zstd(1)), tree, key=(0,))).failure
        assert (failure or "").startswith("not sent: what it shows is not known")
        assert "\n" not in (failure or "")
    assert not cloud.got


def test_inputs_are_redacted_here_or_not_sent() -> None:
    def redact(tree: Tree) -> Tree:
        return trees.map(np.zeros_like, tree)

    blank = {"x": np.zeros_like(X["x"])}
    failure, got = asked(X, "redacted", redact=redact)
    assert failure is None
    np.testing.assert_array_equal(got[0]["x"], blank["x"])
    failure, got = asked(X, "redacted", Coded(Finish(), CODEC), redact=redact)
    assert failure is None
    np.testing.assert_array_equal(CODEC.decode(got[0])["x"], blank["x"])
    assert asked(X, "raw", redact=redact)[1] == [X], "who lets everything go needs no redaction"
    assert asked(X, "features", redact=redact)[1] == []

    def broken(tree: Tree) -> Tree:
        raise ZeroDivisionError

    assert asked(X, "redacted", redact=broken) == ("not sent: what it shows is not known (ZeroDivisionError)", [])


def test_consent_can_be_withdrawn() -> None:
    cloud, now = Cloud(), [Settings("raw")]
    peer = Consenting(cloud, lambda: now[0])
    assert (peer.name, peer.traits) == ("cloud", {"examples": 3})
    assert asyncio.run(peer.ask(Finish(), X, key=(0,))).failure is None
    now[0] = Settings("nothing")
    assert asyncio.run(peer.ask(Finish(), X, key=(0,))).failure == "not sent: nothing may leave this device"


def test_the_situation_counts_as_well() -> None:
    low = Situation(metered=False, battery=0.1, charging=False, time=time(12))
    assert asked(X, "raw", situation=lambda: low) == ("not sent: the battery is at 10%, below 20%", [])


def test_a_probe_shows_nothing() -> None:
    assert shown({}) == shown({"x": np.zeros(2000, np.uint8)}) == Leaves.NOTHING
    assert asked({"x": np.zeros(2000, np.uint8)}, "features", Echo())[0] is None


def test_a_skill_that_only_looks_coded_is_none() -> None:
    @dataclass(frozen=True)
    class Sly(Skill):
        there: Any

        def __call__(self, local: Any, tree: Tree, key: Key, sender: str) -> Any:
            return local, tree

    assert asked(X, "features", Sly(Zstd(1)))[1] == []
