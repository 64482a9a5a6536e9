"""A day without a cloud, and then all of it at once.

The day is shortened: a real device process, with its real outbox, answers a day's questions as fast as it can, while
its wall clock is moved on by 24 hours in all. In between it is killed three times.
"""

import asyncio
import json
import sqlite3
from pathlib import Path

import pytest
from schedules import Schedule
from world import Template, World, clock

QUESTIONS, DAY = 720, 86400.0  # one every two minutes


@pytest.mark.slow
def test_a_day_offline_arrives_whole(template: Template, tmp_path: Path) -> None:
    if clock(template.folder) is None:
        pytest.skip("NOT TESTED HERE: a day's outage needs a clock that can be moved (Linux, cc)")
    world = World(Schedule(0, True, False, False, (), ()), template, tmp_path)

    async def day() -> None:
        await world.wire.start()
        world.processes()
        try:
            await world.device.start()
            for number in range(QUESTIONS):
                (tmp_path / "device.clock").write_text(f"{number * DAY / (QUESTIONS - 1):.0f}")
                if number in (101, 301, 305):  # after a correction was acknowledged: all before it is durable
                    await world.device.kill()
                    await world.device.start()
                answer = await world.ask(number % 3 == 0)
                assert answer is not None
                assert answer["by"] == "phone"
                if number % 4 == 0:
                    await world.correct(number % 12)
            await world.healed()
            await world.judged()
        finally:
            await world.killed()

    with world.folders():
        asyncio.run(day())
    assert len(world.acknowledged) == QUESTIONS // 4 + 1
    disk = sqlite3.connect(tmp_path / "cloud" / "duetto.db")
    records = [json.loads(body) for (body,) in disk.execute("SELECT body FROM feedback WHERE kind = 'record'")]
    disk.close()
    times = [each["time"] for each in records]
    assert max(times) - min(times) > 0.99 * DAY
    assert len(records) == QUESTIONS + 1
