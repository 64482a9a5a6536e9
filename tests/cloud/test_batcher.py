"""Dynamic batching, with real threads; whatever depends on time is held by a gate in the skill."""

import asyncio
import logging
import threading
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from duetto.cloud.batcher import Batcher, Overloaded, leading
from duetto.cloud.pace import Pace
from duetto.errors import ConfigError, DataError, Error
from duetto.models import Mlp, Predict
from duetto.tree import Tree
from duetto.types import Key, Local, Skill

PATIENCE = 20  # seconds after which a test is stuck


class Gate:
    """Lets batches through one by one, and remembers what they were."""

    def __init__(self, is_open: bool = False) -> None:
        self.began, self.go = threading.Semaphore(0), threading.Semaphore(0)
        self.is_open = is_open
        self.batches: list[list[Any]] = []
        self.inside, self.most = 0, 0
        self.lock = threading.Lock()

    def through(self, batch: list[Any]) -> None:
        with self.lock:
            self.batches.append(batch)
            self.inside += 1
            self.most = max(self.most, self.inside)
        self.began.release()
        if not self.is_open:
            assert self.go.acquire(timeout=PATIENCE)
        with self.lock:
            self.inside -= 1

    async def begun(self) -> None:
        """A batch has begun."""
        assert await asyncio.to_thread(self.began.acquire, timeout=PATIENCE)

    def open(self) -> None:
        self.is_open = True
        self.go.release(1000)


@dataclass(frozen=True)
class Twice(Skill):
    """Gives twice what it gets, behind a gate; "bad" is refused, "mad" is a programming error."""

    gate: Gate
    mode: str = "all"  # who is told of a refusal

    def __call__(self, local: Local, tree: Tree, key: Key, sender: str) -> tuple[Local, Tree]:
        raise AssertionError("a batcher uses many")

    def many(
        self, locals: Sequence[Local], trees: Sequence[Tree], keys: Sequence[Key], senders: Sequence[str]
    ) -> Sequence[tuple[Local, Tree] | Error]:
        self.gate.through([key[-1] for key in keys])
        if self.mode == "all" and "bad" in senders:
            raise DataError("bad")
        if "mad" in senders:
            raise ZeroDivisionError("secret")
        if "few" in senders:
            return []
        return [
            DataError("bad") if sender == "bad" else (local, {"y": 2 * tree["x"]})
            for local, tree, sender in zip(locals, trees, senders, strict=True)
        ]

    def group(self, local: Local, tree: Tree) -> Any:
        if "alone" in tree:
            return None
        if "wrong" in tree:
            raise DataError("no group")
        return tree["x"].shape[1:]


@dataclass(frozen=True)
class Append(Skill):
    """Writes its key into the party's memory."""

    gate: Gate
    label: str = ""

    @property
    def writes(self) -> bool:
        return True

    def __call__(self, local: Local, tree: Tree, key: Key, sender: str) -> tuple[Local, Tree]:
        self.gate.through([key[-1]])
        if sender == "bad":
            raise DataError("bad")
        seen = (*local.memory.get("seen", ()), key[-1])
        return local.remembering(seen=seen, version=len(seen)), {"seen": np.array(seen)}


@dataclass(eq=False)
class Asked:
    """Uses under way, by name."""

    batcher: Batcher
    skill: Skill
    local: Local = field(default_factory=Local)
    tasks: dict[Any, asyncio.Task[Any]] = field(default_factory=dict)

    async def ask(self, *names: Any, sender: str = "ann", rows: int = 1, wide: int = 2, **more: Any) -> None:
        """Ask, and let the batcher see it."""
        deadline = more.pop("deadline", None)
        for name in names:
            tree = {"x": np.full((rows, wide), 1.0), **more}
            use = self.batcher.use(self.skill, self.local, tree, (0, name), sender, deadline=deadline)
            self.tasks[name] = asyncio.ensure_future(use)
        await settled()

    async def results(self) -> dict[Any, Any]:
        """What came of each: an error, or the version."""
        found = await asyncio.gather(*self.tasks.values(), return_exceptions=True)
        return {
            name: one if isinstance(one, BaseException) else one[1] for name, one in zip(self.tasks, found, strict=True)
        }


async def settled() -> None:
    """Everything that can happen without a thread has happened."""
    for _ in range(5):
        await asyncio.sleep(0)


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, PATIENCE))


def balanced(batcher: Batcher) -> bool:
    """Whether everybody who asked is accounted for."""
    told = batcher.counters()
    ends = ("answered", "failed", "shed", "dropped", "late", "cancelled", "waiting", "running")
    return told["asked"] == sum(told[name] for name in ends)


def test_what_queues_while_the_worker_is_busy_runs_together() -> None:
    async def test() -> None:
        gate = Gate()
        async with Batcher(max_rows=4) as batcher:
            asked = Asked(batcher, Twice(gate), Local(None, {"version": 7}))
            await asked.ask("first")
            await gate.begun()
            await asked.ask("a", "b", "c", "d", "e")
            gate.open()
            assert set((await asked.results()).values()) == {7}
            assert gate.batches == [["first"], ["a", "b", "c", "d"], ["e"]]
            told = batcher.counters()
            assert (told["batches"], told["rows"], told["answered"], told["waiting"]) == (3, 6, 6, 0)
            assert (told["batch_rows_le_1"], told["batch_rows_le_4"]) == (2, 1)
            assert balanced(batcher)

    run(test())


def test_those_who_ask_in_one_turn_of_the_loop_go_together() -> None:
    async def test() -> None:
        gate = Gate(is_open=True)
        async with Batcher() as batcher:
            asked = Asked(batcher, Twice(gate))
            await asked.ask("a", "b", "c")
            await asked.results()
            assert gate.batches == [["a", "b", "c"]]

    run(test())


def test_a_batcher_that_lingers_waits_for_company() -> None:
    async def test() -> None:
        gate = Gate(is_open=True)
        async with Batcher(linger_seconds=PATIENCE, max_rows=3) as batcher:
            asked = Asked(batcher, Twice(gate))
            for name in "abc":  # with the third the batch is full
                await asked.ask(name)
            await asked.results()
            await asked.ask("d")
            assert gate.batches == [["a", "b", "c"]]
        assert gate.batches == [["a", "b", "c"], ["d"]], "stopping ends the wait"
        assert (await asked.results())["d"] == 0

    run(test())


def test_a_batcher_that_lingers_goes_on_by_itself() -> None:
    async def test() -> None:
        async with Batcher(linger_seconds=1e-3) as batcher:
            asked = Asked(batcher, Twice(Gate(is_open=True)))
            await asked.ask("a")
            assert (await asked.results()) == {"a": 0}

    run(test())


def test_only_one_group_shares_a_call() -> None:
    async def test() -> None:
        gate = Gate()
        async with Batcher() as batcher:
            asked = Asked(batcher, Twice(gate))
            await asked.ask("first")
            await gate.begun()
            await asked.ask("a", "c")
            await asked.ask("b", "d", wide=3)
            await asked.ask("alone", alone=np.ones(1))
            await asked.ask("wrong", wrong=np.ones(1))
            gate.open()
            await asked.results()
            assert gate.batches == [["first"], ["a", "c"], ["b", "d"], ["alone"], ["wrong"]]
            assert (batcher.counters()["batches"], batcher.counters()["calls"]) == (2, 5)

    run(test())


def test_a_use_larger_than_a_batch_runs_alone() -> None:
    async def test() -> None:
        gate = Gate()
        async with Batcher(max_rows=4) as batcher:
            asked = Asked(batcher, Twice(gate))
            await asked.ask("first")
            await gate.begun()
            await asked.ask("small")
            await asked.ask("large", rows=9)
            await asked.ask("last")
            gate.open()
            await asked.results()
            assert gate.batches == [["first"], ["small"], ["large"], ["last"]]

    run(test())


@pytest.mark.parametrize("mode", ["all", "own"])
def test_a_refused_use_hurts_nobody_else(mode: str) -> None:
    async def test() -> None:
        gate = Gate()
        async with Batcher() as batcher:
            asked = Asked(batcher, Twice(gate, mode))
            await asked.ask("first")
            await gate.begun()
            await asked.ask(*range(4))
            await asked.ask("bad", sender="bad")
            await asked.ask(*range(4, 8))
            gate.open()
            results = await asked.results()
            assert str(results.pop("bad")) == "bad"
            assert set(results.values()) == {0}
            assert batcher.counters()["failed"] == 1
            # Halves: 9 | 4 5 | 4 2 3 | 4 1 1 3 ...; never one by one for all.
            assert len(gate.batches) == 2 if mode == "own" else len(gate.batches) < 1 + 9

    run(test())


@pytest.mark.parametrize(("sender", "kind"), [("mad", "ZeroDivisionError"), ("few", "TypeError")])
def test_a_fault_of_the_skill_is_one_line_for_one(sender: str, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        gate = Gate()
        async with Batcher() as batcher:
            asked = Asked(batcher, Twice(gate))
            await asked.ask("first")
            await gate.begun()
            await asked.ask("a", "b")
            await asked.ask("mad", sender=sender)
            gate.open()
            results = await asked.results()
            assert str(results.pop("mad")) == f"Twice failed ({kind}): the server's log says why"
            assert set(results.values()) == {0}

    with caplog.at_level(logging.ERROR):
        run(test())
    assert [kind in (record.exc_text or "") for record in caplog.records] == [True]


def test_a_skill_that_gives_junk_is_a_failure(caplog: pytest.LogCaptureFixture) -> None:
    @dataclass(frozen=True)
    class Junk(Skill):
        def __call__(self, local: Local, tree: Tree, key: Key, sender: str) -> tuple[Local, Tree]:
            return None  # type: ignore[return-value]

    async def test() -> None:
        async with Batcher() as batcher:
            with pytest.raises(Error, match="Junk failed"):
                await batcher.use(Junk(), Local(), {}, (), "ann")

    run(test())


def test_a_skill_that_ends_the_thread_ends_only_itself() -> None:
    @dataclass(frozen=True)
    class Leaves(Skill):
        def __call__(self, local: Local, tree: Tree, key: Key, sender: str) -> tuple[Local, Tree]:
            raise GeneratorExit

    async def test() -> None:
        async with Batcher() as batcher:
            with pytest.raises(Error, match=r"Leaves failed \(GeneratorExit\)"):
                await batcher.use(Leaves(), Local(), {}, (), "ann")
            asked = Asked(batcher, Twice(Gate(is_open=True)))
            await asked.ask("a")
            assert await asked.results() == {"a": 0}

    run(test())


def test_writers_run_in_order_one_after_the_other_beside_the_readers() -> None:
    async def test() -> None:
        gate, free = Gate(), Gate(is_open=True)
        async with Batcher(threads=3) as batcher:
            cell = Local(None, {"version": 0})
            wrote, read = Asked(batcher, Append(gate), cell), Asked(batcher, Twice(free), cell)
            other = Asked(batcher, Append(gate, "another skill"), cell)
            await wrote.ask(0)
            await gate.begun()
            await other.ask(1)
            await wrote.ask(2)
            await wrote.ask("bad", sender="bad")
            await other.ask(3)
            await read.ask("meanwhile")
            assert await read.results() == {"meanwhile": 0}, "what is being written does not show"
            gate.open()
            found = {**await wrote.results(), **await other.results()}
            assert str(found.pop("bad")) == "bad"
            assert found == {0: 0, 1: 1, 2: 2, 3: 3}, "each began from what the one before it left"
            assert (cell.memory["seen"], gate.most) == ((0, 1, 2, 3), 1)
            await read.ask("after")
            assert (await read.results())["after"] == 4

    run(test())


def test_one_skill_is_never_in_two_threads() -> None:
    async def test() -> None:
        gate, other = Gate(), Gate()
        async with Batcher(threads=2) as batcher:
            asked, beside = Asked(batcher, Twice(gate)), Asked(batcher, Twice(other))
            await asked.ask("a")
            await gate.begun()
            await asked.ask("b")
            await beside.ask("c")
            await other.begun()  # the second thread is free for another skill
            assert batcher.counters()["waiting"] == 1
            gate.open()
            other.open()
            await asked.results()
            await beside.results()
            assert (gate.most, gate.batches) == (1, [["a"], ["b"]])

    run(test())


def test_skills_take_turns() -> None:
    async def test() -> None:
        gate = Gate()
        async with Batcher(max_rows=1) as batcher:
            busy, quiet = Asked(batcher, Twice(gate, "all")), Asked(batcher, Twice(gate, "own"))
            await busy.ask("a", "b", "c")
            await gate.begun()
            await quiet.ask("q")
            gate.open()
            await busy.results()
            await quiet.results()
            assert gate.batches == [["a"], ["q"], ["b"], ["c"]]

    run(test())


def test_a_full_queue_refuses() -> None:
    async def test() -> None:
        gate = Gate()
        async with Batcher(max_waiting=2) as batcher:
            asked = Asked(batcher, Twice(gate))
            await asked.ask("first")
            await gate.begun()
            await asked.ask("a", "b", "c")
            refused = asked.tasks.pop("c").exception()
            assert isinstance(refused, Overloaded)
            assert refused.retry_after > 0
            assert str(refused) == f"2 uses are waiting: ask again in {refused.retry_after:.2g} s"
            gate.open()
            assert set((await asked.results()).values()) == {0}
            assert batcher.counters()["shed"] == 1
            assert balanced(batcher)

    run(test())


def test_those_who_go_leave_the_queue() -> None:
    async def test() -> None:
        gate = Gate()
        async with Batcher(max_waiting=2) as batcher:
            asked = Asked(batcher, Twice(gate))
            await asked.ask("first")
            await gate.begun()
            await asked.ask("a", "b")
            asked.tasks.pop("a").cancel()
            asked.tasks["first"].cancel()  # it is being computed
            await settled()
            assert batcher.counters()["waiting"] == 1
            await asked.ask("c")
            gate.open()
            del asked.tasks["first"]
            assert await asked.results() == {"b": 0, "c": 0}
            assert gate.batches == [["first"], ["b", "c"]]
            assert batcher.counters()["cancelled"] == 2
            assert balanced(batcher)

    run(test())


def test_a_deadline_ends_the_wait_in_the_queue_and_in_the_thread() -> None:
    async def test() -> None:
        gate = Gate()
        async with Batcher() as batcher:
            asked = Asked(batcher, Twice(gate))
            await asked.ask("computed", deadline=1.0)
            await gate.begun()
            await asked.ask("queued", deadline=0.1)
            results = await asked.results()
            assert [type(one) for one in results.values()] == [Overloaded, Overloaded]
            assert "Twice is not done in 0.1 s" in str(results["queued"])
            gate.open()
        told = batcher.counters()
        assert (told["late"], told["dropped"], gate.batches) == (1, 1, [["computed"]])
        assert balanced(batcher)

    run(test())


def test_what_cannot_be_in_time_is_refused_at_the_door() -> None:
    async def test() -> None:
        gate = Gate()
        skill = Twice(gate)
        async with Batcher() as batcher:
            asked = Asked(batcher, skill)
            slow(batcher, skill, (1, 10.0))
            await asked.ask("first", deadline=15.0)  # an idle lane takes it, whatever is expected
            await gate.begun()
            await asked.ask("hurried", deadline=15.0)
            await asked.ask("patient", deadline=25.0)
            await asked.ask("over", deadline=0.0)
            refused = asked.tasks.pop("hurried").exception()
            assert isinstance(refused, Overloaded)
            assert 0 < refused.retry_after <= 10
            assert "no time is left" in str(asked.tasks.pop("over").exception())
            gate.open()
            assert set((await asked.results()).values()) == {0}
            assert batcher.counters()["shed"] == 2

    run(test())


def test_what_can_no_longer_be_in_time_is_not_computed() -> None:
    async def test() -> None:
        gate = Gate()
        skill = Twice(gate)
        async with Batcher() as batcher:
            asked = Asked(batcher, skill)
            await asked.ask("first")
            await gate.begun()
            await asked.ask("a", deadline=10.0)
            await asked.ask("b", "c")
            slow(batcher, skill, *[(1, 1000.0)] * 20)  # it turns out to be slow
            gate.open()
            results = await asked.results()
            assert "cannot be done in time" in str(results.pop("a"))
            assert results == {"first": 0, "b": 0, "c": 0}
            assert gate.batches == [["first"], ["b", "c"]]
            assert (batcher.counters()["dropped"], balanced(batcher)) == (1, True)

    run(test())


def slow(batcher: Batcher, skill: Skill, *measured: tuple[int, float]) -> None:
    """Let the batcher believe that batches of so many rows took so many seconds."""
    pace = Pace()
    for rows, seconds in measured:
        pace = pace.measured(rows, seconds)
    batcher._paces[skill] = replace(pace, error=0.0)


def test_a_batch_is_no_larger_than_the_first_deadline_in_it_allows() -> None:
    async def test() -> None:
        gate = Gate()
        skill = Twice(gate, "all")
        async with Batcher() as batcher:
            asked = Asked(batcher, skill)
            await asked.ask("first", "bad", sender="bad")  # refused, so nothing is learned of the pace
            await gate.begun()
            slow(batcher, skill, (1, 30.0), (2, 60.0))
            await asked.ask("a", deadline=100.0)
            await asked.ask("b", "c", "d")
            gate.open()
            await asked.results()
            assert [batch for batch in gate.batches if "a" in batch] == [["a", "b", "c"]]

    run(test())


@pytest.mark.parametrize(
    ("two", "batches"),
    [
        (12.0, [["b", "c"], ["d"]]),  # two at once are nearly as quick as one: "a" is in the way
        (21.0, [["a"], ["b", "c"], ["d"]]),  # two take longer than one after the other: nothing is lost with "a" alone
    ],
)
def test_where_more_wait_than_a_batch_holds_throughput_rules(two: float, batches: list[list[str]]) -> None:
    async def test() -> None:
        gate = Gate()
        skill = Twice(gate, "all")
        async with Batcher(max_rows=2) as batcher:
            asked = Asked(batcher, skill)
            await asked.ask("first", sender="bad")
            await gate.begun()
            await asked.ask("a", deadline=11.0)
            await asked.ask("b", "c", "d")
            slow(batcher, skill, (1, 10.0), (2, two))
            gate.go.release()
            await gate.begun()
            slow(batcher, skill, (1, 0.0))
            gate.open()
            results = await asked.results()
            assert gate.batches == [["first"], *batches]
            assert isinstance(results["a"], Overloaded) == (batches[0] == ["b", "c"])
            assert balanced(batcher)

    run(test())


def test_a_skill_that_was_slow_once_is_measured_again() -> None:
    async def test() -> None:
        gate = Gate(is_open=True)
        skill = Twice(gate)
        async with Batcher() as batcher:
            slow(batcher, skill, (1, 1000.0))
            for name in range(60):
                asked = Asked(batcher, skill)
                await asked.ask(name, deadline=20.0)
                assert await asked.results() == {name: 0}
            assert batcher._pace(_use(skill)).expected(1) < 20.0

    run(test())


def test_stopping_finishes_what_waits_and_takes_nothing_new() -> None:
    async def test() -> None:
        gate = Gate()
        batcher = Batcher()
        batcher.start()
        asked = Asked(batcher, Twice(gate))
        await asked.ask("first")
        await gate.begun()
        await asked.ask("a")
        stopping = asyncio.ensure_future(batcher.stop())
        await settled()
        await asked.ask("new")
        assert "does not take questions" in str(asked.tasks.pop("new").exception())
        assert not stopping.done()
        gate.open()
        await stopping
        assert await asked.results() == {"first": 0, "a": 0}
        await batcher.stop()

    run(test())


def test_stopping_within_a_time_leaves_the_rest() -> None:
    async def test() -> None:
        gate = Gate()
        batcher = Batcher()
        batcher.start()
        asked = Asked(batcher, Twice(gate))
        await asked.ask("first")
        await gate.begun()
        await asked.ask("a")
        await batcher.stop(within=0.01)
        results = await asked.results()
        assert {str(one) for one in results.values()} == {"not answered: the server has stopped: ask again"}
        gate.open()

    run(test())


def test_it_is_started_once_and_refuses_before() -> None:
    async def test() -> None:
        threads = threading.active_count()
        batcher = Batcher()
        assert threading.active_count() == threads
        with pytest.raises(Overloaded):
            await batcher.use(Twice(Gate()), Local(), {"x": np.ones((1, 1))}, (), "ann")
        async with batcher:
            with pytest.raises(ConfigError, match="started twice"):
                batcher.start()

    run(test())


@pytest.mark.parametrize(
    "wrong", [{"max_rows": 0}, {"max_waiting": 0}, {"threads": 0}, {"linger_seconds": -1}, {"linger_seconds": np.inf}]
)
def test_numbers_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Batcher(**wrong)


def test_rows_are_the_longest_leading_axis() -> None:
    assert leading({"x": np.ones((5, 2))}) == 5
    assert leading({"cut": np.int64(3), "features": {"a": np.ones((4, 2, 2)), "b": np.ones((4, 1))}}) == 4
    assert leading({"prompt": np.zeros(1000, np.uint8)}) == leading({}) == leading(np.float32(1)) == 1


def test_a_model_answers_many_as_it_answers_one() -> None:
    net = Mlp((6,), 3, (8,))
    params = net.init(0)
    x = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)

    async def test() -> None:
        async with Batcher(max_rows=16) as batcher:
            cell = Local(None, {"params": params, "version": 3})
            asked = [batcher.use(Predict(net), cell, {"x": x[i : i + 1]}, (i,), f"{i}") for i in range(40)]
            found = await asyncio.gather(*asked)
            assert {version for _, version in found} == {3}
            logits = np.concatenate([tree["logits"] for tree, _ in found])
            np.testing.assert_allclose(logits, net.logits(params, x), atol=1e-6)
            assert batcher.counters()["calls"] == 3

    run(test())


def test_a_skill_that_cannot_be_hashed_is_used_all_the_same() -> None:
    @dataclass(frozen=True)
    class Unhashable(Skill):
        numbers: list[int]

        def __call__(self, local: Local, tree: Tree, key: Key, sender: str) -> tuple[Local, Tree]:
            return local, {"sum": np.array(sum(self.numbers))}

        def group(self, local: Local, tree: Tree) -> Any:
            return self.numbers

    async def test() -> None:
        async with Batcher() as batcher:
            tree, _ = await batcher.use(Unhashable([1, 2]), Local(), {}, (), "ann")
            assert int(tree["sum"]) == 3

    run(test())


STEP = st.one_of(
    st.tuples(st.just("ask"), st.integers(1, 4), st.sampled_from(["ann", "bad", "mad"]), st.integers(2, 3)),
    st.tuples(st.just("write"), st.sampled_from(["ann", "bad"])),
    st.tuples(st.just("cancel"), st.integers(0, 40)),
    st.tuples(st.just("pass"), st.integers(1, 2)),
)


@settings(max_examples=60)
@given(st.lists(STEP, max_size=40), st.integers(1, 6), st.integers(1, 8), st.integers(1, 2))
def test_everybody_is_answered_once_in_order_and_within_the_limits(
    steps: list[Any], max_rows: int, max_waiting: int, threads: int
) -> None:
    async def test() -> None:
        gates = [Gate(), Gate()]
        cell = Local()
        batcher = Batcher(max_rows=max_rows, max_waiting=max_waiting, threads=threads)
        batcher.start()
        skills: list[Skill] = [Twice(gates[0]), Append(gates[1])]
        asked = {kind: Asked(batcher, skill, cell) for kind, skill in zip(("ask", "write"), skills, strict=True)}
        sizes: dict[int, int] = {}
        senders: dict[int, str] = {}
        for name, (kind, *more) in enumerate(steps):
            if kind == "ask":
                sizes[name], senders[name] = more[0], more[1]
                await asked["ask"].ask(name, rows=more[0], sender=more[1], wide=more[2])
            elif kind == "write":
                sizes[name], senders[name] = 1, more[0]
                await asked["write"].ask(name, sender=more[0])
            elif kind == "cancel":
                for each in asked.values():
                    if more[0] in each.tasks:
                        each.tasks[more[0]].cancel()
                await settled()
            else:
                for gate in gates:
                    gate.go.release(more[0])
            told = batcher.counters()
            assert told["waiting"] <= max_waiting
            assert balanced(batcher)
        for gate in gates:
            gate.open()
        await batcher.stop()
        told = batcher.counters()
        assert (told["waiting"], told["running"]) == (0, 0)
        assert balanced(batcher)
        assert not batcher._lanes
        results = {**await asked["ask"].results(), **await asked["write"].results()}
        assert set(results) == set(sizes)
        for name, one in results.items():
            if isinstance(one, Error) and not isinstance(one, Overloaded):
                assert senders[name] != "ann", "an error is the fault of its own use"
            elif isinstance(one, int):
                assert senders[name] == "ann"
        for batch in gates[0].batches:
            assert len(batch) == 1 or sum(sizes[name] for name in batch) <= max_rows
        firsts = [name for batch in gates[0].batches for name in batch]
        assert all(a <= b for batch in gates[0].batches for a, b in pairwise(batch))
        assert set(firsts) <= set(sizes)
        wrote = [name for batch in gates[1].batches for name in batch]
        assert wrote == sorted(wrote)
        assert (gates[0].most <= 1, gates[1].most <= 1) == (True, True)
        done = [name for name in wrote if senders[name] == "ann"]
        assert cell.memory.get("seen", ()) == tuple(done)

    run(test())


def _use(skill: Skill) -> Any:
    """Something with the marks of a use."""

    @dataclass
    class Use:
        skill: Skill
        mark: Any

    return Use(skill, skill)
