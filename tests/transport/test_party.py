"""A party that runs: what it is asked is done once, what it remembers is kept, and nobody else is held up."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from duetto import tree as trees
from duetto.errors import ConfigError, DataError, WireError
from duetto.transport import vocabulary
from duetto.transport.kept import Kept
from duetto.transport.party import REMEMBERED, Running
from duetto.transport.session import Question, Said
from duetto.tree import Tree
from duetto.types import GIVEN_UP, Key, Local, Party, Record, Skill, Work


def run(main: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(main, 60))


@dataclass(frozen=True)
class Count(Skill):
    """Counts, slowly where told, and tells the count."""

    @property
    def writes(self) -> bool:
        return True

    def __call__(self, local: Local, tree: Tree, key: Key, sender: str) -> tuple[Local, Tree]:
        count = int(local.memory.get("count", 0)) + 1
        time.sleep(float(tree.get("seconds", 0.0)))
        return local.remembering(count=np.int64(count)), {"count": np.int64(count)}


@dataclass(frozen=True)
class Say(Skill):
    """Does as its message says."""

    def __call__(self, local: Local, tree: Tree, key: Key, sender: str) -> tuple[Local, Tree]:
        if "refuse" in tree:
            raise DataError("no such thing", "ask for another")
        if "fail" in tree:
            raise KeyError("fail")
        if "shed" in tree:
            error = DataError("too much")
            error.retry_after = 2.5  # type: ignore[attr-defined]
            raise error
        if "object" in tree:
            return local, {"x": object()}
        here = threading.current_thread() is threading.main_thread()
        return local, {"here": np.bool_(here), "version": np.int64(local.memory.get("version", -1))}

    def work(self, local: Local, tree: Tree) -> Work:
        return Work(1e12 if "heavy" in tree else 0)


@dataclass(frozen=True)
class Set(Skill):
    """Sets and removes slots."""

    @property
    def writes(self) -> bool:
        return True

    def __call__(self, local: Local, tree: Tree, key: Key, sender: str) -> tuple[Local, Tree]:
        time.sleep(0.02)
        return Local(local.data, {"kept": local.memory["kept"], "none": None, "new": np.int64(1)}), {}


def asked(skill: Skill, tree: Tree = {}, key: Key = (1,), **about: Any) -> Question:  # noqa: B006
    number, description = vocabulary.written(skill)
    return Question(number, description, key, trees.encode(tree), **about)


def party(**about: Any) -> Running:
    return Running(Party(skills=(Count, Say, Set), local=Local(None, {"kept": np.int64(5)})), "ann", **about)


def count(said: Said) -> int:
    assert said.failure == ""
    return int(trees.decode(said.body)["count"])


# ------------------------------------------------------------------------------------------------------- asked


def test_what_it_offers_is_answered_and_nothing_else() -> None:
    async def main() -> None:
        running = Running(Party(skills=(Say,), local=Local(None, {"version": np.int64(3)})), "ann")
        said = await running.answer("ben", asked(Say()))
        assert (said.version, int(trees.decode(said.body)["version"])) == (3, 3)
        assert "ann does not know that skill" in (await running.answer("ben", asked(Count()))).failure
        other = Running(Party(skills=(Say(),)), "ann")
        other._own = {**other._own, "Count": Count}
        assert (await other.answer("ben", asked(Count()))).failure == "ann does not offer Count"
        assert running.busy == other.busy == 0

    run(main())


def test_faults_of_a_skill_are_told_and_bugs_are_raised() -> None:
    async def main() -> None:
        running = party()
        said = await running.answer("ben", asked(Say(), {"refuse": np.ones(1)}))
        assert said.failure == "no such thing: ask for another"
        said = await running.answer("ben", asked(Say(), {"shed": np.ones(1)}))
        assert (said.failure, said.metrics) == ("too much", {"retry_after": 2.5})
        said = await running.answer("ben", asked(Say(), {"object": np.ones(1)}))
        assert "is no array" in said.failure or "has dtype" in said.failure
        with pytest.raises(KeyError):
            await running.answer("ben", asked(Say(), {"fail": np.ones(1)}))
        for bad in (
            Question(1, "no json", (1,), trees.encode({})),
            Question(2, "[]", (1,), trees.encode({})),
            Question(*vocabulary.written(Say()), (1,), b"no tree"),
        ):
            with pytest.raises(WireError):
                await running.answer("ben", bad)
        assert (running.busy, running._going) == (0, {})

    run(main())


def test_heavy_skills_run_in_a_thread() -> None:
    async def main() -> None:
        running = party()
        for tree, here in (({}, True), ({"heavy": np.ones(1)}, False)):
            said = await running.answer("ben", asked(Say(), tree))
            assert bool(trees.decode(said.body)["here"]) == here
        running.close()

    run(main())


# --------------------------------------------------------------------------------------------------- done once


def test_the_same_ask_is_done_once_at_once_and_later() -> None:
    async def main() -> None:
        running = party()
        slow = asked(Count(), {"seconds": np.float64(0.02)})
        at_once = await asyncio.gather(*(running.answer("ben", slow) for _ in range(5)))
        later = await running.answer("ben", slow)
        assert {each.body for each in (*at_once, later)} == {at_once[0].body}
        assert int(running.local.memory["count"]) == 1
        others = [("ben", asked(Count(), key=(2,))), ("eve", slow), ("ben", asked(Count(), {"x": np.ones(1)}))]
        assert [count(await running.answer(*each)) for each in others] == [2, 3, 4]
        running.close()

    run(main())


def test_what_was_done_is_known_after_a_restart(tmp_path: Path) -> None:
    async def main() -> None:
        first = party(keep=Kept(tmp_path / "memory"))
        said = [await first.answer("ben", asked(Count(), key=(i,))) for i in range(REMEMBERED + 3)]
        first.close()
        again = party(keep=Kept(tmp_path / "memory"))
        assert int(again.local.memory["count"]) == REMEMBERED + 3
        for i in range(3, REMEMBERED + 3):
            assert (await again.answer("ben", asked(Count(), key=(i,)))).body == said[i].body
        assert count(await again.answer("ben", asked(Count(), key=(99,)))) == REMEMBERED + 4
        # the oldest was forgotten for it, the others were not: a file keeps no order by itself
        for i in range(4, REMEMBERED + 3):
            assert (await again.answer("ben", asked(Count(), key=(i,)))).body == said[i].body
        assert int(again.local.memory["count"]) == REMEMBERED + 4
        again.close()

    run(main())


def test_what_others_ask_for_makes_nobody_forgotten() -> None:
    async def main() -> None:
        running = party()
        mine = await running.answer("ben", asked(Count()))
        for i in range(3 * REMEMBERED):
            await running.answer(f"device-{i % 3}", asked(Count(), key=(i,)))
        assert (await running.answer("ben", asked(Count()))).body == mine.body
        assert sum(map(len, running._answered.values())) == 3 * REMEMBERED + 1
        running.close()

    run(main())


def test_what_could_not_be_kept_was_not_done(tmp_path: Path) -> None:
    class Full:
        """A disk that is full once."""

        saved: ClassVar[list[tuple[Mapping[str, Any], Mapping[str, Tree]]]] = []

        def load(self) -> None:
            return None

        def save(self, memory: Mapping[str, Any], answered: Mapping[str, Tree]) -> None:
            if not self.saved:
                self.saved.append(({}, {}))
                raise ConfigError("the disk is full", "make room")
            self.saved.append((memory, answered))

    async def main() -> None:
        running = party(keep=Full())
        assert (await running.answer("ben", asked(Count()))).failure == "the disk is full: make room"
        assert "count" not in running.local.memory
        assert count(await running.answer("ben", asked(Count()))) == 1
        assert count(await running.answer("ben", asked(Count()))) == 1
        assert [int(memory["count"]) for memory, _ in Full.saved[1:]] == [1]
        running.close()

    run(main())


def test_many_who_write_at_once_are_served_one_after_the_other() -> None:
    async def main() -> None:
        running = party()
        slow = [asked(Count(), {"seconds": np.float64(0.001)}, key=(i,)) for i in range(20)]
        said = await asyncio.gather(*(running.answer(f"d{i % 4}", each) for i, each in enumerate(slow)))
        assert sorted(map(count, said)) == list(range(1, 21))
        assert int(running.local.memory["count"]) == 20
        running.close()

    run(main())


def test_a_role_and_a_skill_write_side_by_side() -> None:
    async def main() -> None:
        running = party()
        running.local.memory = {**running.local.memory, "gone": np.int64(1)}
        asking = asyncio.ensure_future(running.answer("ben", asked(Set())))
        await asyncio.sleep(0.005)  # it runs, and has seen neither of these
        running.local.memory = {**running.local.memory, "kept": np.int64(6), "roles": np.int64(7)}
        assert (await asking).failure == ""
        memory = running.local.memory
        assert memory.keys() == {"kept", "none", "new", "roles"}
        assert (int(memory["kept"]), memory["none"]) == (6, None)
        running.close()

    run(main())


# -------------------------------------------------------------------------------------------------- withdrawn


class Waiting:
    """Uses that wait until they are let go."""

    def __init__(self) -> None:
        self.begun, self.free, self.ended = 0, asyncio.Event(), 0

    async def use(
        self, skill: Skill, local: Local, tree: Tree, key: Key, sender: str, *, deadline: float | None = None
    ) -> tuple[Tree, int]:
        self.begun += 1
        try:
            await self.free.wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0.01)  # it takes its time to end
            raise
        finally:
            self.ended += 1
        return {"deadline": np.float64(-1 if deadline is None else deadline)}, 0


def test_an_ask_that_nobody_waits_for_is_dropped_and_can_be_asked_anew() -> None:
    async def main() -> None:
        uses = Waiting()
        running = party(uses=uses)
        first = asyncio.ensure_future(running.answer("ben", asked(Say(), seconds=3.0)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.sleep(0)
        again = asyncio.ensure_future(running.answer("ben", asked(Say(), seconds=3.0)))  # while the first one ends
        await asyncio.sleep(0.02)
        assert (uses.begun, uses.ended) == (2, 1)
        uses.free.set()
        assert trees.decode((await again).body)["deadline"] == 3.0
        assert (running.busy, running._going) == (0, {})

    run(main())


def test_of_two_who_wait_for_what_writes_one_may_leave() -> None:
    async def main() -> None:
        running = party()
        slow = asked(Count(), {"seconds": np.float64(0.02)})
        one, other = (asyncio.ensure_future(running.answer("ben", slow)) for _ in range(2))
        await asyncio.sleep(0.005)
        one.cancel()
        await asyncio.sleep(0)
        assert running.busy > 0
        assert count(await other) == 1
        assert int(running.local.memory["count"]) == 1
        await asyncio.sleep(0)
        assert (running.busy, running._going) == (0, {})
        running.close()

    run(main())


def test_what_writes_is_done_whoever_has_gone() -> None:
    async def main() -> None:
        running = party()
        asking = asyncio.ensure_future(running.answer("ben", asked(Count(), {"seconds": np.float64(0.02)})))
        await asyncio.sleep(0.005)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        assert count(await running.answer("ben", asked(Count(), {"seconds": np.float64(0.02)}))) == 1
        assert int(running.local.memory["count"]) == 1
        running.close()

    run(main())


# -------------------------------------------------------------------------------------------------- its roles


def test_a_party_asks_itself() -> None:
    async def main() -> None:
        running = party()
        reply = await running.me.ask(Count(), {}, key=(1,))
        assert int(reply.tree["count"]) == 1
        assert (reply.cost.up_bytes, reply.cost.down_bytes) == (0, 0)
        assert (
            await running.me.ask(Say(), {"refuse": np.ones(1)}, key=(1,))
        ).failure == "no such thing: ask for another"
        late = await running.me.ask(Count(), {"seconds": np.float64(0.1)}, key=(1,), deadline=0.01)
        assert late.failure == "no answer within 0.01 s"
        assert int(running.local.memory["count"]) == 1
        asking = asyncio.ensure_future(running.me.ask(Count(), {"seconds": np.float64(0.1)}, key=(1,)))
        await asyncio.sleep(0.005)
        asking.cancel(GIVEN_UP)
        assert (await asking).failure == GIVEN_UP
        assert (await Running(Party(), "b").me.ask(Say(), {}, key=(1,))).failure == "b does not offer Say"
        assert running.busy == 0
        running.close()

    run(main())


def test_roles_are_played_with_what_they_name_and_kept_after_each_record(tmp_path: Path) -> None:
    kept = Kept(tmp_path / "memory")

    async def counting(me: Any, local: Local, cloud: Any = None) -> AsyncIterator[Record]:
        for step in range(2):
            local.memory = {**local.memory, "step": np.int64(step)}
            yield Record("step", step, {})

    async def lonely(nobody: Any) -> AsyncIterator[Record]:
        yield Record("step", 0, {})

    async def main() -> None:
        records: list[Record] = []
        seen: list[int | None] = []

        def log(record: Record) -> None:
            """A record is logged before what is remembered after it is kept: a kill between them loses neither."""
            before = kept.load()
            records.append(record)
            seen.append(None if before is None else int(before[0]["step"]))

        await Running(Party(roles=(counting,)), "ann", keep=kept).play({}, log)
        assert (seen, [record.party for record in records]) == ([None, 0], ["ann", "ann"])
        after = kept.load()
        assert after is not None
        assert int(after[0]["step"]) == 1
        with pytest.raises(ConfigError, match="a role of ann wants nobody: it can have local, me"):
            await Running(Party(roles=(lonely,)), "ann").play({}, log)

    run(main())
