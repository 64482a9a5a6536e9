"""A peer over sessions that come and go: asked again, answered once, and always in time."""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from duetto import tree as trees
from duetto.errors import ConfigError
from duetto.transport.channel import Lost, Memory, pair
from duetto.transport.envelope import Limits
from duetto.transport.party import Running
from duetto.transport.remote import WRITING, Remote, Remotes
from duetto.transport.session import Greeting, Question, Said, Serve, Session
from duetto.tree import Tree
from duetto.types import GIVEN_UP, Cost, Key, Local, Party, Skill

TREE = {"x": np.arange(4.0)}
NBYTES = len(trees.encode(TREE))


def run(main: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(main, 60))


@dataclass(frozen=True)
class Twice(Skill):
    """Doubles."""

    def __call__(self, local: Local, tree: Tree, key: Key, sender: str) -> tuple[Local, Tree]:
        return local, trees.scale(tree, 2.0)


@dataclass(frozen=True)
class Count(Skill):
    """Counts in the memory how often it was used."""

    hashable: Any = None

    @property
    def writes(self) -> bool:
        return True

    def __call__(self, local: Local, tree: Tree, key: Key, sender: str) -> tuple[Local, Tree]:
        count = np.int64(int(local.memory.get("count", 0)) + 1)
        return local.remembering(count=count), {"count": count}


class Line:
    """A remote peer, and what it is connected to."""

    def __init__(self, serve: Serve, limits: Limits = Limits(), **about: Any) -> None:
        self.serve, self.limits = serve, limits
        self.peer = Remote("ben", device=True, **about)
        self.channels: tuple[Memory, Memory] | None = None
        self.tasks: list[asyncio.Task[Any]] = []

    async def connect(self) -> None:
        self.channels = pair()
        ann = Session(self.channels[0], Greeting("ann"), self.serve, self.limits)
        ben = Session(self.channels[1], Greeting("ben", {"examples": 5}), self.serve, self.limits)
        await asyncio.gather(ann.open(), ben.open())
        self.tasks += [asyncio.ensure_future(self.keep(ann)), asyncio.ensure_future(ben.run())]
        self.peer.attach(ann)

    async def keep(self, session: Session) -> None:
        self.peer.detach(session, await session.run())

    async def cut(self) -> None:
        assert self.channels is not None
        await self.channels[1].close()


def test_a_peer_answers_and_tells_its_cost() -> None:
    async def main() -> None:
        running = Running(Party(skills=(Twice,)), "ben")
        line = Line(running.answer)
        await line.connect()
        reply = await line.peer.ask(Twice(), TREE, key=(1,), deadline=5)
        assert reply.failure is None
        np.testing.assert_array_equal(reply.tree["x"], TREE["x"] * 2)
        assert (reply.cost.up_bytes, reply.cost.down_bytes) == (NBYTES, NBYTES)
        assert reply.metrics["compute_seconds"] >= 0
        assert line.peer.traits == {"examples": 5, "online": True}
        other = await line.peer.ask(Count(), TREE, key=(1,), deadline=5)
        assert other.failure is not None
        assert "does not know that skill" in other.failure
        assert line.peer.pending == 0

    run(main())


def test_without_a_connection_a_peer_is_offline_at_once() -> None:
    async def main() -> None:
        for peer in (Remote("ben", device=True), Remote("ben", device=True, patient=True)):
            reply = await peer.ask(Twice(), TREE, key=(1,), deadline=50)
            assert (reply.failure, reply.cost.up_bytes) == ("ben is offline", 0)
        refused = Remote("ben", device=True, patient=True)
        refused.refuse("revoked")
        assert (await refused.ask(Twice(), TREE, key=(1,))).failure == "revoked"

    run(main())


def test_a_patient_ask_without_a_deadline_waits_for_the_first_connection() -> None:
    async def main() -> None:
        running = Running(Party(skills=(Twice,)), "ben")
        line = Line(running.answer, patient=True)
        asking = asyncio.ensure_future(line.peer.ask(Twice(), TREE, key=(1,)))
        await asyncio.sleep(0.01)
        assert not asking.done()
        await line.connect()
        assert (await asking).failure is None

    run(main())


def test_a_lost_ask_is_asked_again_and_what_writes_is_done_once() -> None:
    async def main() -> None:
        running = Running(Party(skills=(Count,)), "ben")
        losses = 3

        async def serve(sender: str, question: Question) -> Said:
            nonlocal losses
            said = await running.answer(sender, question)
            if losses:  # it was done, and the answer is lost
                losses -= 1
                await line.cut()
            return said

        line = Line(serve)
        await line.connect()

        async def again() -> None:
            while True:
                if not line.peer.connected:
                    await line.connect()
                await asyncio.sleep(0.001)

        connecting = asyncio.ensure_future(again())
        reply = await line.peer.ask(Count(), TREE, key=(1,), deadline=30)
        assert (reply.failure, losses) == (None, 0)
        assert int(reply.tree["count"]) == 1
        assert int(running.local.memory["count"]) == 1
        assert reply.cost.up_bytes == 4 * NBYTES  # it was sent four times
        other = await line.peer.ask(Count(), TREE, key=(2,), deadline=30)  # another ask
        assert int(other.tree["count"]) == 2
        connecting.cancel()
        running.close()

    run(main())


def test_who_does_not_come_back_is_waited_for_so_long() -> None:
    async def never(sender: str, question: Question) -> Said:
        await line.cut()
        await asyncio.sleep(60)
        return Said()

    line = Line(never, grace=0.02)

    async def main() -> None:
        await line.connect()
        reply = await line.peer.ask(Twice(), TREE, key=(1,))
        assert reply.failure == "ben was lost, and did not come back"

    run(main())


@pytest.mark.parametrize("patient", [True, False])
@pytest.mark.parametrize("lost", [True, False])
def test_the_deadline_holds_whatever_happens(lost: bool, patient: bool) -> None:
    async def never(sender: str, question: Question) -> Said:
        if lost:
            await line.cut()
        await asyncio.sleep(60)
        return Said()

    line = Line(never, patient=patient)

    async def main() -> None:
        await line.connect()
        begin = asyncio.get_running_loop().time()
        reply = await line.peer.ask(Twice(), TREE, key=(1,), deadline=0.05)
        assert asyncio.get_running_loop().time() - begin < 5
        assert reply.failure == "no answer within 0.05 s"
        assert (reply.cost.up_bytes, line.peer.pending) == (NBYTES, 0)

    run(main())


def test_an_ask_that_is_given_up_tells_its_cost_and_any_other_cancelling_does_not() -> None:
    async def never(sender: str, question: Question) -> Said:
        await asyncio.sleep(60)
        return Said()

    async def main() -> None:
        line = Line(never)
        await line.connect()
        for words in (GIVEN_UP, "other"):
            asking = asyncio.ensure_future(line.peer.ask(Twice(), TREE, key=(1,), deadline=50))
            await asyncio.sleep(0.01)
            asking.cancel(words)
            if words == GIVEN_UP:
                reply = await asking
                assert (reply.failure, reply.cost.up_bytes) == (GIVEN_UP, NBYTES)
            else:
                with pytest.raises(asyncio.CancelledError):
                    await asking
            assert line.peer.pending == 0

    run(main())


@pytest.mark.parametrize(
    ("skill", "tree", "key"),
    [
        (Count([1]), TREE, (1,)),
        (Count({1}), TREE, (1,)),
        (Twice(), {"x": "text"}, (1,)),
        (Twice(), {"": TREE}, (1,)),
        (Twice(), TREE, (np.int64(1),)),
    ],
)
def test_what_cannot_be_sent_is_a_failure(skill: Skill, tree: Tree, key: Any) -> None:
    async def main() -> None:
        line = Line(Running(Party(), "ben").answer)
        await line.connect()
        reply = await line.peer.ask(skill, tree, key=key)
        assert reply.failure is not None
        assert reply.failure.startswith("not sent: ")
        assert (reply.cost.up_bytes, line.peer.connected) == (0, True)

    run(main())


def test_an_ask_that_ends_every_connection_fails_in_the_end() -> None:
    """Both sides' limits differ: what one sends the other will never take."""

    async def echo(sender: str, question: Question) -> Said:
        return Said(question.body)

    async def main() -> None:
        line = Line(echo)
        connections = 0

        async def again() -> None:
            nonlocal connections
            while True:
                if not line.peer.connected:
                    connections += 1
                    channels = pair()
                    ann = Session(channels[0], Greeting("ann"), echo)
                    ben = Session(channels[1], Greeting("ben"), echo, Limits(body_bytes=10))
                    await asyncio.gather(ann.open(), ben.open())
                    line.tasks += [asyncio.ensure_future(line.keep(ann)), asyncio.ensure_future(ben.run())]
                    line.peer.attach(ann)
                await asyncio.sleep(0.001)

        connecting = asyncio.ensure_future(again())
        while not line.peer.connected:
            await asyncio.sleep(0.001)
        reply = await line.peer.ask(Twice(), TREE, key=(1,))
        assert reply.failure is not None
        assert "ended 3 times" in reply.failure
        assert "at most 10 are taken" in reply.failure
        assert connections <= 4
        connecting.cancel()

    run(main())


def test_an_answer_that_is_no_tree_is_a_failure() -> None:
    async def odd(sender: str, question: Question) -> Said:
        return Said(b"no tree")

    async def main() -> None:
        line = Line(odd)
        await line.connect()
        reply = await line.peer.ask(Twice(), TREE, key=(1,))
        assert reply.failure is not None
        assert reply.failure.startswith("ben answered with not an encoded tree")
        assert line.peer.connected

    run(main())


def test_so_many_asks_that_write_at_once_as_are_remembered() -> None:
    most, now = 0, 0

    async def slow(sender: str, question: Question) -> Said:
        nonlocal most, now
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.001)
        now -= 1
        return Said(question.body)

    async def main() -> None:
        line = Line(slow)
        await line.connect()
        replies = await asyncio.gather(*(line.peer.ask(Count(), TREE, key=(i,)) for i in range(50)))
        assert all(reply.failure is None for reply in replies)
        assert most == WRITING

    run(main())


def test_an_old_session_that_ends_takes_nothing_from_the_new_one() -> None:
    async def echo(sender: str, question: Question) -> Said:
        return Said(question.body)

    async def main() -> None:
        line = Line(echo)
        await line.connect()
        old = line.peer._session
        await line.connect()
        assert old is not None
        line.peer.detach(old, Lost("gone"))
        assert line.peer.connected
        assert (await line.peer.ask(Twice(), TREE, key=(1,))).failure is None

    run(main())


def test_remotes_are_columns_of_what_all_tell() -> None:
    async def main() -> None:
        peers = [Remote(name, device=False) for name in ("a", "b")]
        for number, peer in enumerate(peers):
            session = Session(pair()[0], Greeting("cloud"), Running(Party(), "c").answer)
            session.other = Greeting(peer.name, {"examples": number + 1.0, peer.name: 0.0})
            peer.attach(session)
        group = Remotes(peers)
        assert {name: list(each) for name, each in group.traits.items()} == {"examples": [1, 2]}
        assert (len(group), group.names, group.online, group.pending) == (2, ("a", "b"), ["a", "b"], 0)
        peers[1].detach(session, Lost("gone"))
        assert list(group.traits["online"]) == [True, False]
        assert group.peer("b") is peers[1]
        with pytest.raises(ConfigError, match="no device is called 'c'"):
            group.peer("c")
        assert Remotes().traits.keys() == set()

    run(main())


def test_costs_of_a_device_go_up_and_of_a_cloud_down() -> None:
    async def main() -> None:
        assert Remote("a", device=False)._cost(0, 3, 5).up_bytes == 5
        assert Remote("a", device=True)._cost(0, 3, 5).lasting(0) == Cost(0, 3, 5)

    run(main())
