"""The circuit breaker: a pure machine, and a peer that is asked through it."""

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from duetto.device.breaker import Breaker, Guarded, State
from duetto.errors import ConfigError
from duetto.protocols.probe import Echo
from duetto.simulation.clock import Clock
from duetto.tree import Tree
from duetto.types import GIVEN_UP, Cost, Key, Peer, Reply, Skill

BREAKER = Breaker(failures=3, window=60.0, seconds=8.0, most=100.0)
KEY = ("ann",)


def virtual(test: Coroutine[Any, Any, None]) -> None:
    """Run it on a clock that jumps."""
    Clock().run(test)


class Machine(RuleBasedStateMachine):
    """Questions that start, are heard, fail or are forgotten, in any order, while time goes by."""

    def __init__(self) -> None:
        super().__init__()
        self.state, self.now = BREAKER.init(), 0.0
        self.asked: list[State] = []
        self.in_a_row: list[float] = []  # failures since it was last heard, as long as it is closed

    @rule(seconds=st.one_of(st.floats(0.1, 30), st.floats(60, 300)))
    def time_goes_by(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def ask(self) -> None:
        phase, trial = self.state.phase(self.now), self.state.trial
        after, why = BREAKER.ask(self.state, self.now)
        assert (why is None) == (phase == "closed" or (phase == "half-open" and not trial))
        assert after.trial == (phase == "half-open" or trial)
        self.state = after
        if why is None:
            self.asked.append(after)
        else:
            assert why.startswith(f"{self.state.failures} failure")

    @precondition(lambda self: self.asked)
    @rule(data=st.data())
    def hear(self, data: st.DataObject) -> None:
        self.asked.remove(data.draw(st.sampled_from(self.asked)))
        self.state = BREAKER.heard(self.state, self.now)
        self.in_a_row = []
        assert self.state.phase(self.now) == "closed"

    @precondition(lambda self: self.asked)
    @rule(data=st.data(), least=st.sampled_from([0.0, 50.0]))
    def fail(self, data: st.DataObject, least: float) -> None:
        asked = data.draw(st.sampled_from(self.asked))
        self.asked.remove(asked)
        before, self.state = self.state, BREAKER.failed(self.state, self.now, KEY, asked, least)
        self.in_a_row.append(self.now)
        assert self.state.failures == before.failures + 1
        if not before.opened:
            recent = [then for then in self.in_a_row if self.now - then <= BREAKER.window]
            assert (self.state.opened == 1) == (len(recent) >= BREAKER.failures or least > 0)
        elif before.trial and asked.trial and asked.until == before.until:
            assert (self.state.opened, self.state.trial) == (before.opened + 1, False)
        else:
            assert replace(self.state, failures=before.failures) == before
        if self.state.opened > before.opened:
            bound = min(BREAKER.most, BREAKER.seconds * 2.0**before.opened)
            assert bound / 2 <= self.state.until - self.now + 1e-6
            assert self.state.until - self.now <= max(bound, least) + 1e-6

    @precondition(lambda self: self.asked)
    @rule(data=st.data())
    def forget(self, data: st.DataObject) -> None:
        asked = data.draw(st.sampled_from(self.asked))
        self.asked.remove(asked)
        before, self.state = self.state, BREAKER.unknown(self.state, asked)
        assert replace(self.state, trial=before.trial) == before

    @invariant()
    def a_trial_is_somebody_s(self) -> None:
        trials = [asked for asked in self.asked if asked.trial and asked.until == self.state.until]
        assert self.state.trial == (len(trials) == 1)
        assert len(trials) <= 1

    @invariant()
    def it_is_open_only_for_a_time(self) -> None:
        assert self.state.until - self.now <= BREAKER.most + 1e-6
        assert self.state.opened or not self.state.trial


TestMachine = Machine.TestCase


def test_a_fleet_does_not_come_back_at_once() -> None:
    until = set()
    for name in range(20):
        state = BREAKER.init()
        for _ in range(3):
            state = BREAKER.failed(state, 0.0, (name,), state)
        until.add(state.until)
    assert len(until) == 20
    assert all(4 <= time <= 8 for time in until)


@pytest.mark.parametrize(
    "wrong", [{"failures": 0}, {"window": 0.0}, {"seconds": 0.0}, {"seconds": 9.0, "most": 8.0}, {"most": math.inf}]
)
def test_numbers_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Breaker(**wrong)


# -------------------------------------------------------------------------------------------------- the guarded peer


class Cloud(Peer):
    """Does what it is told to."""

    name = "cloud"

    def __init__(self, behave: Callable[[float | None], Awaitable[Reply]]) -> None:
        self.traits = {"online": True, "examples": 3}
        self.behave = behave
        self.deadlines: list[float | None] = []

    async def ask(self, skill: Skill, tree: Tree, *, key: Key, deadline: float | None = None) -> Reply:
        self.deadlines.append(deadline)
        return await self.behave(deadline)


async def well(deadline: float | None) -> Reply:
    return Reply("cloud", {})


async def down(deadline: float | None) -> Reply:
    return Reply("cloud", failure="gone")


async def refuses(deadline: float | None) -> Reply:
    return Reply("cloud", failure="bad rows", cost=Cost(down_bytes=30))


async def overloaded(deadline: float | None) -> Reply:
    return Reply("cloud", failure="too many", metrics={"retry_after": 40.0}, cost=Cost(down_bytes=30))


async def hangs(deadline: float | None) -> Reply:
    await asyncio.sleep(1e6)
    raise AssertionError


async def raises(deadline: float | None) -> Reply:
    raise OSError("secret")


async def ask(peer: Peer, deadline: float | None = None) -> str | None:
    """The failure."""
    return (await peer.ask(Echo(), {}, key=(0,), deadline=deadline)).failure


def guarded(behave: Callable[[float | None], Awaitable[Reply]]) -> tuple[Cloud, Guarded]:
    cloud = Cloud(behave)
    return cloud, Guarded(cloud, BREAKER, deadline=2.0, key=KEY)


def test_an_outage_is_not_waited_for_again_and_again() -> None:
    async def test() -> None:
        cloud, peer = guarded(down)
        assert [await ask(peer) for _ in range(3)] == ["gone"] * 3
        wait = peer.state.until - asyncio.get_running_loop().time()
        assert await ask(peer) == f"cloud is not asked: 3 failures, again in {wait:.2g} s"
        assert (len(cloud.deadlines), peer.traits) == (3, {"online": False, "examples": 3})
        await asyncio.sleep(wait)
        assert peer.traits["online"]
        assert await ask(peer) == "gone"  # the trial
        assert "4 failures" in (await ask(peer) or "")
        await asyncio.sleep(peer.state.until - asyncio.get_running_loop().time())
        cloud.behave = well
        assert await ask(peer) is None
        assert peer.state == BREAKER.init()

    virtual(test())


def test_one_trial_at_a_time() -> None:
    async def test() -> None:
        cloud, peer = guarded(down)
        for _ in range(3):
            await ask(peer)
        await asyncio.sleep(10)
        cloud.behave = hangs
        trial = asyncio.ensure_future(ask(peer))
        await asyncio.sleep(0)
        assert await ask(peer) == "cloud is not asked: 3 failures, a trial is under way"
        trial.cancel()
        await asyncio.sleep(0)
        cloud.behave = well
        assert await ask(peer) is None, "a trial that nobody waits for is no trial any longer"

    virtual(test())


def test_there_is_always_a_deadline() -> None:
    async def test() -> None:
        cloud, peer = guarded(well)
        for deadline in (None, 0.5, math.inf):
            await ask(peer, deadline)
        assert cloud.deadlines == [2.0, 0.5, 2.0]
        cloud.behave = hangs  # against its promise
        begun = asyncio.get_running_loop().time()
        assert await ask(peer, 0.5) == "cloud did not keep its deadline of 0.5 s"
        assert asyncio.get_running_loop().time() - begun <= 0.55

    virtual(test())


def test_a_refusal_is_an_answer() -> None:
    async def test() -> None:
        _, peer = guarded(refuses)
        assert [await ask(peer) for _ in range(9)] == ["bad rows"] * 9

    virtual(test())


def test_a_cloud_that_says_when_to_come_back_is_left_alone_until_then() -> None:
    async def test() -> None:
        cloud, peer = guarded(overloaded)
        assert await ask(peer) == "too many"
        assert await ask(peer) == "cloud is not asked: 1 failure, again in 40 s"
        await asyncio.sleep(40)
        cloud.behave = well
        assert await ask(peer) is None

    virtual(test())


def test_what_was_given_up_says_nothing() -> None:
    async def given_up(deadline: float | None) -> Reply:
        return Reply("cloud", failure=GIVEN_UP)

    async def test() -> None:
        _, peer = guarded(given_up)
        assert [await ask(peer) for _ in range(9)] == [GIVEN_UP] * 9

    virtual(test())


def test_a_peer_that_raises_is_a_failure(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        _, peer = guarded(raises)
        assert await ask(peer) == "cloud could not be asked (OSError)"

    with caplog.at_level(logging.ERROR):
        virtual(test())
    assert "secret" in (caplog.records[0].exc_text or "")


class Teller(Cloud):
    """Answers in parts."""

    async def stream(
        self, skill: Skill, tree: Tree, *, key: Key, deadline: float | None = None
    ) -> AsyncIterator[Reply]:
        for _ in range(3):
            yield await self.ask(skill, tree, key=key, deadline=deadline)


def test_parts_come_through_as_well() -> None:
    async def test() -> None:
        cloud = Teller(well)
        peer = Guarded(cloud, BREAKER, deadline=2.0, key=KEY)

        async def parts() -> list[str | None]:
            return [part.failure async for part in peer.stream(Echo(), {}, key=(0,))]

        assert await parts() == [None] * 3
        cloud.behave = hangs
        assert await parts() == ["cloud did not keep its deadline of 2 s"]
        cloud.behave = down
        assert [await parts() for _ in range(2)] == [["gone"]] * 2
        assert "not asked: 3 failures" in ((await parts())[0] or "")
        await asyncio.sleep(10)
        cloud.behave = well
        async for part in peer.stream(Echo(), {}, key=(0,)):
            assert part.failure is None
        assert peer.state == BREAKER.init()

    virtual(test())


def test_a_deadline_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError):
        Guarded(Cloud(well), deadline=0.0, key=KEY)
