"""Many devices in one process: each is a whole one, with a folder, an outbox and a user of its own."""

import asyncio
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from duetto import tree as trees
from duetto.device.crowd import PROFILES, Crowd, live
from duetto.device.outbox import Outbox
from duetto.errors import ConfigError
from duetto.models import Mlp, export
from duetto.policies import Threshold
from duetto.protocols.deliver import FEEDBACK, RECORD
from duetto.types import Held, Rows, rng

NET = Mlp((4,), 3, (8,))
PARAMS = NET.init(0)


def test_every_device_answers_its_own_users_rows_and_keeps_what_it_has_to_tell(tmp_path: Path) -> None:
    draw = rng(("crowd", "rows"))
    users = [Rows(draw.standard_normal((5, 4)).astype(np.float32), draw.integers(0, 3, 5)) for _ in range(2)]
    crowd = Crowd(count=3, every=0.01, corrected=1.0)
    counted: list[int] = []

    async def main() -> int:
        return await live(
            crowd,
            tmp_path,
            "127.0.0.1:1",  # nobody is there: what is to be told is kept
            small=export.onnx(NET, PARAMS, tmp_path / "small.onnx"),
            policy=Held.of(Threshold(0.0)),
            users=users,
            enrol=None,
            seconds=0.5,
            on_answer=counted.append,
        )

    answers = asyncio.run(asyncio.wait_for(main(), 60))
    assert counted == list(range(1, answers + 1))

    async def kept(name: str) -> list[tuple[str, bytes]]:
        async with Outbox(tmp_path / name / "outbox.db") as outbox:
            return [(entry.kind, entry.body) for entry in (await outbox.batch()).entries]

    total = 0
    for number, name in enumerate(["phone-0", "phone-1", "phone-2"]):
        entries = asyncio.run(kept(name))
        records = [json.loads(body) for kind, body in entries if kind == RECORD]
        said = [trees.decode(body) for kind, body in entries if kind == FEEDBACK]
        total += len(records)
        assert records
        assert {each["by"] for each in records} == {name}
        rows = users[number % 2]
        known = {x.tobytes(): y for x, y in zip(rows.x, rows.y, strict=True)}
        assert all(known[np.asarray(each["x"]).tobytes()] == each["label"] for each in said)
        assert len(said) == len(records)
    assert total == answers


def test_who_is_what_follows_the_seed() -> None:
    crowd = Crowd(count=400)
    assert crowd.names[:2] == ["phone-000", "phone-001"]
    found = Counter(crowd.profile(number) for number in range(400))
    for name, share in PROFILES.items():
        assert abs(found[name] / 400 - share) < 4 * np.sqrt(share * (1 - share) / 400)
    assert [Crowd(seed=1).profile(i) for i in range(50)] != [crowd.profile(i) for i in range(50)]


@pytest.mark.parametrize("given", [{"count": 0}, {"every": 0.0}, {"corrected": 1.5}, {"deliver": -1.0}])
def test_numbers_that_cannot_be(given: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="count >= 1"):
        Crowd(**given)  # type: ignore[arg-type]
