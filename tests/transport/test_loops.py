"""The time of a program: it goes on over restarts, and in a rehearsal it moves when somebody moves it."""

import asyncio
import time

import pytest

from duetto.transport.loops import Paced, Rehearsal, really


def test_a_program_that_began_earlier_is_later() -> None:
    with asyncio.Runner(loop_factory=lambda: Paced(time.time() - 3600)) as runner:

        async def main() -> None:
            loop = asyncio.get_running_loop()
            begin = loop.time()
            assert 3599 < begin < 3700
            await asyncio.sleep(0.01)
            assert loop.time() - begin >= 0.009

        runner.run(main())


def test_virtual_time_jumps_to_the_next_timer_when_nothing_is_left_to_do() -> None:
    asked: list[float] = []
    loop: Rehearsal

    def idle(until: float) -> bool:
        asked.append(until)
        loop.move(until)
        return True

    def made() -> Rehearsal:
        nonlocal loop
        loop = Rehearsal(idle)
        return loop

    async def main() -> None:
        begin = time.monotonic()
        times: list[float] = []

        async def one(seconds: float) -> None:
            await asyncio.sleep(seconds)
            times.append(loop.time())

        await asyncio.gather(one(86400), one(3), one(7.5), one(3))
        assert times == [3, 3, 7.5, 86400]
        assert time.monotonic() - begin < 30
        loop.move(5)
        assert loop.time() == 86400  # never back

    with asyncio.Runner(loop_factory=made) as runner:
        runner.run(main())
    assert asked[:3] == [3, 7.5, 86400]


def test_a_loop_that_rests_hears_what_comes_from_outside() -> None:
    with asyncio.Runner(loop_factory=lambda: Rehearsal(lambda until: False)) as runner:

        async def main() -> None:
            begin = time.monotonic()
            await really(0.02)
            assert time.monotonic() - begin >= 0.019
            assert asyncio.get_running_loop().time() == 0
            await asyncio.get_running_loop().run_in_executor(None, time.sleep, 0.01)

        runner.run(main())


@pytest.mark.parametrize("factory", [lambda: Paced(time.time()), lambda: Rehearsal(lambda until: False)])
def test_who_really_sleeps_can_be_woken(factory: object) -> None:
    """A device that waits before its next try can be stopped at once."""
    begin = time.monotonic()
    with asyncio.Runner(loop_factory=factory) as runner:  # type: ignore[arg-type]

        async def main() -> None:
            sleeping = asyncio.ensure_future(really(60))
            await asyncio.sleep(0)
            sleeping.cancel()
            with pytest.raises(asyncio.CancelledError):
                await sleeping

        runner.run(main())
    assert time.monotonic() - begin < 30


def test_the_next_timer_is_told_without_those_that_were_cancelled() -> None:
    asked: list[float] = []

    def idle(until: float) -> bool:
        asked.append(until)
        loop.move(2.0)
        return True

    loop = Rehearsal(idle)
    loop.call_at(1.0, print).cancel()
    loop.call_at(2.0, loop.stop)
    loop.run_forever()
    loop.close()
    assert asked == [2.0]
