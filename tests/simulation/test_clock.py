"""The virtual clock: time jumps exactly, ties keep their order, nobody waits for ever, and nothing is left behind."""

import asyncio
import gc
import logging
import math
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from duetto.errors import Deadlock
from duetto.simulation.clock import RANK, Clock

times = st.one_of(st.floats(0, 1e9), st.sampled_from([0.0, 0.1, 0.2, 0.1 + 0.2, 1 / 3, 86400.0]))


@pytest.fixture(autouse=True)
def _nothing_is_left_behind(caplog: pytest.LogCaptureFixture):
    """No task whose exception nobody read, no coroutine that never ran, no loop that is still open."""
    yield
    gc.collect()  # a leftover warns when it is collected, and warnings are errors
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []


@given(st.lists(times, max_size=30), times)
def test_timers_fire_at_their_very_time_and_ties_in_order_of_creation(offsets: list[float], start: float):
    clock = Clock(start)
    fired: list[tuple[float, float, int]] = []

    async def main() -> None:
        for i, offset in enumerate(offsets):
            clock.call_at(start + offset, lambda i=i, when=start + offset: fired.append((clock.time(), when, i)))
        done = clock.create_future()
        clock.call_at(start + 2e9, done.set_result, None)
        await done

    clock.run(main())
    assert [now for now, _, _ in fired] == [when for _, when, _ in fired]
    assert [(when, i) for _, when, i in fired] == sorted((start + offset, i) for i, offset in enumerate(offsets))
    assert clock.time() == start + 2e9


@given(st.permutations(range(8)), st.sets(st.integers(0, 7), max_size=4))
def test_ties_keep_their_order_whatever_was_cancelled_and_rank_comes_first(ranks: list[int], gone: set[int]):
    clock, fired = Clock(), []

    async def one(rank: int) -> None:
        RANK.set(rank)
        timers = [clock.call_at(5.0, fired.append, (rank, n)) for n in range(3)]
        if rank in gone:
            timers[1].cancel()

    async def main() -> None:
        await asyncio.gather(*map(one, ranks))
        await asyncio.sleep(6)

    clock.run(main())
    assert fired == [(rank, n) for rank in range(8) for n in range(3) if not (n == 1 and rank in gone)]


def test_sleeps_cost_no_time_and_a_day_is_a_day():
    clock, woken = Clock(100.0), []

    async def sleeper(name: str, seconds: float) -> None:
        await asyncio.sleep(seconds)
        woken.append((name, clock.time()))

    async def main() -> str:
        await asyncio.gather(sleeper("late", 86400), sleeper("soon", 0.25), sleeper("never waits", 0))
        return "done"

    assert clock.run(main()) == "done"
    assert woken == [("never waits", 100.0), ("soon", 100.25), ("late", 86500.0)]
    assert clock.is_closed()


@given(st.floats(0.001, 1e6), st.floats(0.001, 1e6))
def test_timeouts_are_virtual(limit: float, needed: float):
    clock = Clock(3.0)

    async def main() -> bool:
        try:
            async with asyncio.timeout(limit):
                await asyncio.sleep(needed)
        except TimeoutError:
            return False
        return True

    in_time = clock.run(main())
    assert clock.time() == (3.0 + needed if in_time else 3.0 + limit)
    assert in_time == (3.0 + needed < 3.0 + limit)  # at the very moment of the limit it is too late


def test_a_deadlock_names_who_waits_and_when():
    clock = Clock(waiting=lambda: "user-1 waits for cloud to Predict")

    async def main() -> None:
        await asyncio.sleep(12.5)
        await clock.create_future()

    with pytest.raises(Deadlock, match=r"deadlock at 12\.5 s: user-1 waits for cloud to Predict"):
        clock.run(main())
    assert clock.is_closed()


def test_a_timer_at_infinity_is_no_way_out():
    with pytest.raises(Deadlock, match="deadlock at 0 s: somebody"):
        Clock().run(asyncio.sleep(math.inf))


def test_a_hundred_thousand_timers():
    clock = Clock()

    async def main() -> int:
        done = await asyncio.gather(*(asyncio.sleep((i * 7919) % 1000, i) for i in range(100_000)))
        return sum(done)

    assert clock.run(main()) == sum(range(100_000))
    assert clock.time() == 999


class Fault(Exception):
    """A role's own."""


def test_a_role_s_exception_comes_out_as_it_is_and_all_else_is_cancelled():
    clock, ends = Clock(), []

    async def records() -> AsyncIterator[int]:
        try:
            while True:
                await asyncio.sleep(1)
                yield 1
        finally:
            ends.append("records")

    async def role() -> None:
        async for _ in records():
            pass

    async def waits() -> None:
        try:
            await clock.create_future()
        finally:
            await asyncio.sleep(0)  # may still tidy up
            ends.append("waits")

    async def fails(when: float) -> None:
        await asyncio.sleep(when)
        raise Fault(f"at {when}")

    async def main() -> None:
        loose.append(asyncio.create_task(waits()))
        await asyncio.gather(role(), waits(), fails(2.5), fails(2.5), fails(3.5))

    loose: list[asyncio.Task[None]] = []
    with pytest.raises(Fault, match=r"at 2\.5"):
        clock.run(main())
    assert clock.time() == 2.5
    assert sorted(ends) == ["records", "waits", "waits"]
    assert clock.is_closed()


def test_what_a_callback_raises_ends_the_run():
    clock = Clock()

    def breaks() -> None:
        raise Fault("in a callback")

    async def main() -> None:
        clock.call_at(4.0, breaks)
        clock.call_at(4.0, breaks)
        await asyncio.sleep(10)

    with pytest.raises(Fault, match="in a callback"):
        clock.run(main())
    assert clock.time() == 4.0


def test_a_role_that_cancels_itself_is_cancelled():
    async def main() -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        Clock().run(main())


def test_a_clock_runs_inside_another_loop_as_in_a_notebook():
    async def notebook() -> tuple[float, float]:
        clock = Clock()
        clock.run(asyncio.sleep(1000))
        before = asyncio.get_running_loop().time()
        await asyncio.sleep(0)
        return clock.time(), asyncio.get_running_loop().time() - before

    virtual, real = asyncio.run(notebook())
    assert virtual == 1000
    assert real < 900


def test_idle_tells_whether_anything_is_left_at_this_moment():
    clock, seen = Clock(), []

    async def looks() -> None:
        await asyncio.sleep(1)
        seen.append(clock.idle)  # the other wakes at this very moment
        await asyncio.sleep(1)
        seen.append(clock.idle)

    async def main() -> None:
        await asyncio.gather(looks(), asyncio.sleep(1))

    clock.run(main())
    assert seen == [False, True]
