"""How a fleet looks from its cloud, over channels in memory, and when a device is let go of."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest

from duetto.cloud.service import Fleet, Service
from duetto.errors import ConfigError
from duetto.protocols.probe import Echo
from duetto.protocols.publish import Adopt
from duetto.transport.channel import CLOUD, Lost, pair
from duetto.transport.party import Running
from duetto.transport.remote import Remote
from duetto.transport.session import Greeting, Session
from duetto.types import Local, Party


class Connected:
    """A device's end of a session."""

    def __init__(self, session: Session, running: Running, talking: asyncio.Task[Lost]) -> None:
        self.session, self.running, self.talking = session, running, talking
        self.cloud = Remote(CLOUD, device=True)
        self.cloud.attach(session)


@asynccontextmanager
async def device(service: Service, name: str, certificate: bytes | None = None) -> AsyncIterator[Connected]:
    """A device that can be asked to adopt, connected to the service."""
    here, there = pair()
    accepted = asyncio.ensure_future(service.accept(there, certificate))
    running = Running(Party(skills=(Adopt,), local=Local(None, {"version": np.int64(3)})), name)
    session = Session(here, Greeting(name, {"examples": 5.0}), running.answer)
    talking: asyncio.Task[Lost] | None = None
    try:
        await session.open()
        talking = asyncio.ensure_future(session.run())
        yield Connected(session, running, talking)
    finally:
        await session.end("done")
        for task in (talking, accepted):
            if task is not None:
                await asyncio.wait_for(asyncio.wait({task}), 5)
        running.close()


async def settled(condition: Callable[[], bool]) -> None:
    """Let the loop run until something is so."""
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("it did not come to be")


def run(body: Any) -> None:
    """Run a test's coroutine."""
    asyncio.run(asyncio.wait_for(body, 30))


def test_a_fleet_is_the_named_ones_in_their_order_or_whoever_came() -> None:
    async def body() -> None:
        named = Service(Party(), devices=("b", "a"))
        assert named.fleet.names == ("b", "a")
        assert named.fleet.traits["online"].tolist() == [False, False]
        async with device(named, "a"):
            await settled(lambda: named.fleet.online == ["a"])
            assert named.fleet.traits["online"].tolist() == [False, True]
            assert (await named.fleet.peer("b").ask(Adopt(()), {}, key=())).failure == "b is offline"
            async with device(named, "b"):
                await settled(lambda: len(named.fleet.online) == 2)
                assert named.fleet.traits["examples"].tolist() == [5.0, 5.0]
                assert "online" not in named.fleet.traits, "as in simulation, where everybody is there"
            with pytest.raises(Lost, match="no device called c is expected"):
                async with device(named, "c") as other:
                    raise await other.talking
        anyone = Service(Party())
        assert len(anyone.fleet) == 0
        async with device(anyone, "z"), device(anyone, "y"):
            await anyone.fleet.arrived(2)
            assert anyone.fleet.names == ("z", "y")
        with pytest.raises(ConfigError, match="no device is called 'q'"):
            anyone.fleet.peer("q")

    run(body())


def test_a_device_goes_by_the_name_that_it_was_admitted_with_and_is_let_go_of_when_that_ends() -> None:
    known = {b"certificate": "a"}

    def admit(certificate: bytes | None) -> str:
        if certificate not in known:
            raise ConfigError("an unknown certificate", "enrol")
        return known[certificate]

    async def body() -> None:
        service = Service(Party(skills=(Echo,)), admit=admit)
        for name, certificate, why in (("b", b"certificate", "says that it is b"), ("a", b"other", "unknown")):
            with pytest.raises(Lost, match=why) as lost:
                async with device(service, name, certificate) as other:
                    raise await other.talking
            assert lost.value.final
        async with device(service, "a", b"certificate") as one:
            watching = asyncio.ensure_future(service.watch(0.001))
            assert (await one.cloud.ask(Echo(), {}, key=("x",))).failure is None
            known.clear()
            ended = await one.talking
            assert ended.final
            assert "an unknown certificate" in ended.why
            watching.cancel()

    run(body())


def test_a_fleet_counts_what_is_asked_of_it() -> None:
    told: list[str] = []
    fleet = Fleet(("a",), limit=10, told=told.append, steady=False)

    async def body() -> None:
        assert (await fleet.peer("a").ask(Echo(), {}, key=())).failure == "a is offline"
        assert (fleet.pending, told) == (0, ["a"])

    run(body())
