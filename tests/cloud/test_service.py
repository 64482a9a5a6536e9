"""A cloud and its devices, for real: who may come, who is refused, and what one of them does to the others."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from duetto import tree as trees
from duetto.cloud.service import Service, named
from duetto.device import runner
from duetto.device.runner import Connection
from duetto.errors import ConfigError, WireError
from duetto.transport import envelope as envelopes
from duetto.transport import vocabulary
from duetto.transport import wire_pb2 as wire
from duetto.transport.channel import OVER, Channel, Lost, pair
from duetto.transport.envelope import PIECE, Limits
from duetto.transport.grpc import Calls, Client, Server
from duetto.transport.identity import Authority, Credentials, made_key, name_of, requested
from duetto.transport.kept import Kept
from duetto.transport.party import Running
from duetto.transport.session import Greeting, Session
from duetto.tree import Tree
from duetto.types import Key, Local, Party, Skill

SOON = 20.0
TREE = {"x": np.arange(3.0)}


def run(main: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(main, 60))


@dataclass(frozen=True)
class Big(Skill):
    """So many bytes."""

    def __call__(self, local: Local, tree: Tree, key: Key, sender: str) -> tuple[Local, Tree]:
        return local, {"x": np.zeros(int(tree["x"][-1]), np.uint8)}


@dataclass(frozen=True)
class Count(Skill):
    """Counts in the memory, for each who asks."""

    @property
    def writes(self) -> bool:
        return True

    def __call__(self, local: Local, tree: Tree, key: Key, sender: str) -> tuple[Local, Tree]:
        count = np.int64(int(local.memory.get(sender, 0)) + 1)
        return local.remembering(**{sender: count}), {"count": count}


class Cloud:
    """A service, and devices that are connected in memory."""

    def __init__(self, **about: Any) -> None:
        self.service = Service(Party(skills=(Big, Count)), **about)
        self.tasks: list[asyncio.Task[Any]] = []

    def dial(self, certificate: bytes | None = None) -> Channel:
        here, there = pair()
        self.tasks.append(asyncio.ensure_future(self.service.accept(there, certificate)))
        return here

    def device(self, name: str, certificate: bytes | None = None) -> Connection:
        running = Running(Party(skills=(Count,)), name)
        connection = Connection(Greeting(name, {"examples": 2}), running, base=1e-3, most=2e-3)

        async def dial() -> Channel:
            return self.dial(certificate)

        connection.dial = dial
        self.tasks.append(asyncio.ensure_future(connection.keep()))
        return connection

    async def __aenter__(self) -> "Cloud":
        return self

    async def __aexit__(self, *fault: object) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


async def until(true: Any) -> None:
    async with asyncio.timeout(SOON):
        while not true():
            await asyncio.sleep(0.002)


def test_devices_ask_and_are_asked() -> None:
    async def main() -> None:
        async with Cloud() as cloud:
            ann, ben = cloud.device("ann"), cloud.device("ben")
            fleet = cloud.service.fleet
            await asyncio.wait_for(fleet.arrived(2), SOON)
            replies = await fleet.ask(["ben", "ann"], Count(), lambda peer: TREE, key=(1,), deadline=SOON)
            assert [(each.sender, int(each.tree["count"])) for each in replies] == [("ben", 1), ("ann", 1)]
            await until(lambda: ann.cloud.connected and ben.cloud.connected)
            for _ in range(2):
                assert int((await ann.cloud.ask(Count(), TREE, key=(1,), deadline=SOON)).tree["count"]) == 1
            assert int(cloud.service.running.local.memory["ann"]) == 1
            assert fleet.traits["examples"].tolist() == [2, 2]
            with pytest.raises(ConfigError, match="no device is called 'eve'"):
                fleet.peer("eve")

    run(main())


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.make(tmp_path_factory.mktemp("authority"))


def certificate(authority: Authority, name: str) -> bytes:
    return authority.sign(requested(made_key(), name), name)


def test_a_device_goes_by_the_name_in_its_certificate(authority: Authority) -> None:
    revoked = {"mallory"}

    def admit(shown: bytes | None) -> str:
        name = named(shown)
        if name in revoked:
            raise ConfigError(f"{name} was revoked", "enrol it anew")
        return name

    async def main() -> None:
        async with Cloud(admit=admit, devices=("ann", "mallory")) as cloud:
            refused = {
                cloud.device("ann", certificate(authority, "ben")): "ben says that it is ann",
                cloud.device("ben", certificate(authority, "ben")): "no device called ben is expected",
                cloud.device("mallory", certificate(authority, "mallory")): "mallory was revoked",
                cloud.device("ann", None): "a device without a certificate",
            }
            for connection, why in refused.items():
                reply = await asyncio.wait_for(connection.cloud.ask(Count(), TREE, key=(1,)), SOON)
                assert why in str(reply.failure)
            ann = cloud.device("ann", certificate(authority, "ann"))
            reply = await asyncio.wait_for(ann.cloud.ask(Count(), TREE, key=(1,)), SOON)
            assert int(reply.tree["count"]) == 1
            revoked.add("ann")
            watching = asyncio.ensure_future(cloud.service.watch(0.01))
            await until(lambda: not cloud.service.fleet.online)
            assert "ann was revoked" in str((await ann.cloud.ask(Count(), TREE, key=(2,))).failure)
            watching.cancel()

    run(main())


def test_without_certificates_anybody_is_believed_unless_named() -> None:
    service = Service(Party())
    assert (service.admitted(None, "ann"), service.admitted(None)) == ("ann", "somebody")
    with pytest.raises(ConfigError, match="no device called eve is expected"):
        Service(Party(), devices=("ann",)).admitted(None, "eve")


def test_a_device_that_comes_again_takes_its_own_place() -> None:
    """Three connections of one device at once: the last one is the one that is asked."""

    async def main() -> None:
        async with Cloud() as cloud:
            sessions = []
            for _ in range(3):
                session = Session(cloud.dial(), Greeting("ann"), Running(Party(skills=(Count,)), "ann").answer)
                await session.open()
                sessions.append(asyncio.ensure_future(session.run()))
            for each in sessions[:2]:
                assert (await asyncio.wait_for(each, SOON)).why == "this device has connected again"
            assert cloud.service.fleet.online == ["ann"]
            reply = await cloud.service.fleet.peer("ann").ask(Count(), TREE, key=(1,), deadline=SOON)
            assert reply.failure is None
            sessions[2].cancel()
            await until(lambda: not cloud.service.fleet.online)
            assert cloud.service.sessions == {}

    run(main())


class Stuck:
    """A channel that takes a hello and nothing more: the network behind it is gone, and nobody knows yet."""

    def __init__(self, channel: Channel) -> None:
        self.channel, self.taken = channel, 0
        self.receive, self.close = channel.receive, channel.close

    async def send(self, data: bytes) -> None:
        self.taken += 1
        if self.taken > 1:
            await asyncio.sleep(60)
        await self.channel.send(data)


def test_two_that_come_while_an_old_one_is_let_go_are_told_apart() -> None:
    async def main() -> None:
        async with Cloud() as cloud:
            answer = Running(Party(skills=(Count,)), "ann").answer
            here, there = pair()
            cloud.tasks.append(asyncio.ensure_future(cloud.service.accept(Stuck(there), None)))
            await Session(here, Greeting("ann"), answer).open()
            second, third = (Session(cloud.dial(), Greeting("ann"), answer) for _ in range(2))
            await second.open()
            await asyncio.sleep(0.01)
            await third.open()
            running = [asyncio.ensure_future(each.run()) for each in (second, third)]
            assert (await asyncio.wait_for(running[0], SOON)).why == "this device has connected again"
            await asyncio.sleep(1.1)  # the old one is let go by now
            reply = await cloud.service.fleet.peer("ann").ask(Count(), TREE, key=(1,), deadline=SOON)
            assert reply.failure is None
            assert not running[1].done()
            assert cloud.service.fleet.online == ["ann"]
            running[1].cancel()

    run(main())


def test_a_device_whose_stream_is_cancelled_is_offline() -> None:
    async def main() -> None:
        async with Cloud(rehearsal=True) as cloud:
            session = Session(cloud.dial(), Greeting("ann"), Running(Party(), "ann").answer)
            await session.open()
            running = asyncio.ensure_future(session.run())
            session.rest(5.0)
            await until(lambda: cloud.service.rests == {"ann": 5.0})
            cloud.tasks[0].cancel()  # as gRPC does
            await asyncio.wait_for(running, SOON)
            assert (cloud.service.fleet.online, cloud.service.sessions) == ([], {})
            assert cloud.service.rests == {}  # time does not go on without it

    run(main())


def test_who_talks_nonsense_leaves_the_others_alone() -> None:
    async def main() -> None:
        async with Cloud() as cloud:
            ann = cloud.device("ann")
            for first in (b"\xff", envelopes.said(wire.Envelope(hello=wire.Hello(name="eve")))):
                channel = cloud.dial()
                await channel.send(first)
                await channel.send(b"\xff")
                said = [wire.Envelope()]
                while said[-1].WhichOneof("what") != "bye":
                    said.append(wire.Envelope.FromString(await asyncio.wait_for(channel.receive(), SOON)))
                assert said[-1].bye.why.startswith("bytes that are no envelope")
            reply = await asyncio.wait_for(ann.cloud.ask(Count(), TREE, key=(1,)), SOON)
            assert int(reply.tree["count"]) == 1
            await until(lambda: cloud.service.fleet.online == ["ann"])

    run(main())


def test_when_it_is_over_everybody_is_told() -> None:
    async def main() -> None:
        async with Cloud() as cloud:
            ann = cloud.device("ann")
            await cloud.service.fleet.arrived(1)
            await cloud.service.end()
            await until(lambda: not ann.cloud.connected)
            late = cloud.device("late")
            for each in (ann, late):
                assert (await asyncio.wait_for(each.cloud.ask(Count(), TREE, key=(1,)), SOON)).failure == OVER

    run(main())


# ----------------------------------------------------------------------------------------------------- one ask


def one(skill: Skill, tree: Tree, **about: Any) -> bytes:
    number, description = vocabulary.written(skill)
    asked = {"part": number, "description": description, "key": "[1]", **about}
    made = wire.Envelope(id=5, mine=True, ask=wire.Ask(**asked))
    return next(envelopes.pieces(made, trees.encode(tree)))


def test_one_ask_without_a_stream_is_answered_or_refused(authority: Authority) -> None:
    shown = certificate(authority, "ann")

    async def main() -> None:
        service = Service(Party(skills=(Big, Count)), admit=named)
        for _ in range(2):
            reply = envelopes.heard(await service.once(one(Count(), TREE), shown))
            assert (reply.id, int(trees.decode(reply.body)["count"])) == (5, 1)
        long = envelopes.heard(await service.once(one(Big(), {"x": np.array([PIECE])}), shown))
        assert long.reply.failure.endswith("ask for it over a stream")
        short = envelopes.heard(await service.once(one(Big(), {"x": np.array([100])}), shown))
        assert len(trees.decode(short.body)["x"]) == 100
        for data in (
            b"\xff",
            one(Count(), TREE, description=""),
            one(Count(), TREE, part=1),
            one(Count(), TREE, key="{}"),
            one(Big(), {"x": np.zeros(PIECE)}),  # the first piece of several
            envelopes.said(wire.Envelope(hello=wire.Hello(name="ann"))),
        ):
            with pytest.raises(WireError):
                await service.once(data, shown)
        with pytest.raises(Lost, match="a device without a certificate") as lost:
            await service.once(one(Count(), TREE), None)
        assert lost.value.final
        service.running.close()

    run(main())


# ----------------------------------------------------------------------------------------------- for real


@contextlib.asynccontextmanager
async def served(service: Service, credentials: Credentials | None) -> AsyncIterator[tuple[Server, str]]:
    server = Server("127.0.0.1:0", service.accept, Calls(once=service.once), credentials=credentials)
    address = f"127.0.0.1:{await server.start()}"
    try:
        yield server, address
    finally:
        await server.stop(0)


@pytest.mark.parametrize("tls", [False, True])
def test_over_grpc_what_is_lost_is_asked_again_and_done_once(tls: bool, authority: Authority, tmp_path: Path) -> None:
    """The cloud is killed while it answers, and comes back at the same address with what it has kept."""
    key = made_key()
    own = Credentials(key, authority.sign(requested(key, "ann"), "ann"), authority.certificate) if tls else None
    server = authority.server(["127.0.0.1"]) if tls else None
    admit = named if tls else None

    async def main() -> None:
        party = Party(skills=(Count,))
        first = Service(party, admit=admit, keep=Kept(tmp_path / "memory"))
        cut = asyncio.Event()
        answer = first.running.answer

        async def answered(*asked: Any) -> Any:
            said = await answer(*asked)
            cut.set()
            await asyncio.sleep(SOON)  # done and kept; the answer never leaves
            return said

        first.running.answer = answered  # type: ignore[method-assign]
        connection = Connection(Greeting("ann"), Running(Party(), "ann"), base=0.01, most=0.02)
        async with served(first, server) as (_, address):
            client = Client(address, credentials=own)
            connection.dial = client.talk
            keeping = asyncio.ensure_future(connection.keep())
            asking = asyncio.ensure_future(connection.cloud.ask(Count(), TREE, key=(1,)))
            await asyncio.wait_for(cut.wait(), SOON)
        await asyncio.sleep(0.05)  # nobody is there for a while
        assert not asking.done()
        second = Service(party, admit=admit, keep=Kept(tmp_path / "memory"))
        again = Server(address, second.accept, credentials=server)
        await again.start()
        reply = await asyncio.wait_for(asking, SOON)
        assert (reply.failure, int(reply.tree["count"])) == (None, 1)
        assert int(second.running.local.memory["ann"]) == 1
        assert int((await connection.cloud.ask(Count(), TREE, key=(2,), deadline=SOON)).tree["count"]) == 2
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
        await client.close()
        await again.stop(0)
        for each in (first, second):
            each.running.close()

    run(main())


def test_over_tls_another_name_is_refused_and_the_right_one_is_not(authority: Authority) -> None:
    key = made_key()
    own = Credentials(key, authority.sign(requested(key, "ann"), "ann"), authority.certificate)

    async def main() -> None:
        service = Service(Party(skills=(Count,)), admit=named)
        async with served(service, authority.server(["127.0.0.1"])) as (_, address):
            client = Client(address, credentials=own)
            session = Session(await client.talk(), Greeting("ben"), Running(Party(), "ben").answer)
            with contextlib.suppress(Lost):
                await session.open()
            ended = await asyncio.wait_for(session.run(), SOON)
            assert (ended.why.split(":")[0], ended.final) == ("ann says that it is ben", True)
            reply = envelopes.heard(await client.once(one(Count(), TREE), SOON))
            assert int(trees.decode(reply.body)["count"]) == 1
            assert service.running.local.memory.keys() == {name_of(own.certificate)}
            with pytest.raises(Lost, match="no whole ask") as lost:
                await client.once(one(Count(), TREE, description=""), SOON)
            assert not lost.value.final
            await client.close()
            service.running.close()

    run(main())


# ----------------------------------------------------------------------------------------------- staying connected


def test_a_connection_that_ends_at_once_is_tried_ever_more_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[int] = []

    async def really(seconds: float) -> None:
        await asyncio.sleep(0)

    def back_off(attempt: int, *about: Any) -> float:
        pauses.append(attempt)
        if len(pauses) == 6:
            raise KeyboardInterrupt
        return 0.0

    monkeypatch.setattr(runner, "really", really)
    monkeypatch.setattr(runner, "back_off", back_off)

    async def main() -> None:
        async with Cloud() as cloud:
            connection = Connection(Greeting("ann"), Running(Party(), "ann"))

            async def dial() -> Channel:
                async def one() -> None:  # says hello, and breaks
                    session = Session(there, Greeting("cloud"), connection.running.answer)
                    await session.open()
                    await there.close()

                here, there = pair()
                cloud.tasks.append(asyncio.ensure_future(one()))
                return here

            connection.dial = dial
            with pytest.raises(KeyboardInterrupt):
                await connection.keep()

    with contextlib.suppress(KeyboardInterrupt):
        run(main())
    assert pauses == [0, 1, 2, 3, 4, 5]


def test_limits_of_a_device_are_its_own() -> None:
    async def main() -> None:
        async with Cloud(limits=Limits(body_bytes=10)) as cloud:
            ann = cloud.device("ann")
            reply = await asyncio.wait_for(ann.cloud.ask(Count(), TREE, key=(1,)), SOON)
            assert "ended 3 times: a body of" in str(reply.failure)

    run(main())
