"""Uses under way: whatever runs ahead, and together with whatever, the results are those of one after the other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from duetto.errors import DataError, Error
from duetto.simulation.inflight import Cell, InFlight, Job
from duetto.tree import Tree
from duetto.types import Key, Local, Skill


@dataclass
class Calls:
    """What was really run: sizes of batches, and inputs."""

    batches: list[list[Any]] = field(default_factory=list)

    def __hash__(self) -> int:
        return id(self)


@dataclass(frozen=True)
class Logged(Skill):
    """Tells of its calls."""

    calls: Calls = field(default_factory=Calls, compare=False)

    def many(
        self, locals: Sequence[Local], trees: Sequence[Tree], keys: Sequence[Key], senders: Sequence[str]
    ) -> list[tuple[Local, Tree]]:
        self.calls.batches.append([int(tree["x"]) for tree in trees])
        return super().many(locals, trees, keys, senders)


@dataclass(frozen=True)
class Read(Logged):
    """What the party remembers, and the input."""

    together: str | None = "all"

    def __call__(self, local: Local, tree: Tree, key: Key, sender: str) -> tuple[Local, Tree]:
        if int(tree["x"]) < 0:
            raise DataError(f"{sender} sent {int(tree['x'])}")
        return local, {"seen": local.memory["value"], "x": tree["x"]}

    def group(self, local: Local, tree: Tree) -> Any:
        return self.together


@dataclass(frozen=True)
class Write(Logged):
    """A step that does not commute: ``value = 3 * value + x (mod 10007)``."""

    @property
    def writes(self) -> bool:
        return True

    def __call__(self, local: Local, tree: Tree, key: Key, sender: str) -> tuple[Local, Tree]:
        if int(tree["x"]) < 0:
            raise DataError(f"{sender} sent {int(tree['x'])}")
        return local.remembering(value=stepped(local.memory["value"], tree["x"])), {"before": local.memory["value"]}

    def group(self, local: Local, tree: Tree) -> Any:
        return "writes"


def stepped(value: Any, x: Any) -> Any:
    return np.int64((3 * int(value) + int(x)) % 10007)


def cell(value: int = 1) -> Cell:
    return Cell(Local(None, {"value": np.int64(value)}))


def job(skill: Skill, where: Cell, x: int, finish: float | None = None, sender: str = "s") -> Job:
    return Job(skill, where, {"x": np.int64(x)}, (x,), sender, finish)


def test_a_read_that_ran_ahead_is_run_again_when_the_memory_was_replaced():
    flight, skill, here, there = InFlight(), Read(), cell(1), cell(2)
    first, ahead, other = job(skill, here, 1, 1.0), job(skill, here, 2, 9.0), job(skill, there, 3, 9.5)
    for each in (first, ahead, other):
        flight.add(each)
    flight.finish(first)
    assert skill.calls.batches == [[1, 2, 3]]  # one call for all
    here.local.memory = {"value": np.int64(50)}
    flight.finish(ahead)
    flight.finish(other)
    assert skill.calls.batches == [[1, 2, 3], [2]]  # the other party's stands
    assert [int(each.result[1]["seen"]) for each in (first, ahead, other)] == [1, 50, 2]
    assert len(flight) == 0
    assert (here.jobs, there.jobs) == (0, 0)


def test_a_refused_read_is_not_run_again_for_nothing_and_again_where_the_memory_changed():
    flight, skill, here = InFlight(), Read(), cell()
    good, bad = job(skill, here, 1, 1.0), job(skill, here, -2, 2.0, "eve")
    flight.add(good)
    flight.add(bad)
    flight.finish(good)
    tried = len(skill.calls.batches)
    assert bad.done
    flight.finish(bad)
    assert len(skill.calls.batches) == tried
    assert bad.failure == "eve sent -2"
    assert bad.result is None


@dataclass(frozen=True)
class AllOrNone(Read):
    """A call for many that knows nobody to blame."""

    def many(self, *args: Any) -> list[tuple[Local, Tree] | Error]:
        results = super().many(*args)
        for result in results:
            if isinstance(result, Error):
                raise result
        return results


@pytest.mark.parametrize(("skill", "sizes"), [(Read(), [4]), (AllOrNone(), [1, 1, 1, 1, 4])], ids=["named", "found"])
def test_in_a_batch_only_the_guilty_one_fails(skill: Read, sizes: list[int]):
    flight, where = InFlight(), [cell(i) for i in range(4)]
    skill.calls.batches.clear()
    jobs = [job(skill, c, x, 1.0, f"s{i}") for i, (c, x) in enumerate(zip(where, [5, -6, 7, 8], strict=True))]
    for each in jobs:
        flight.add(each)
    for each in jobs:
        flight.finish(each)
    assert [each.failure for each in jobs] == [None, "s1 sent -6", None, None]
    assert [int(each.result[1]["seen"]) for each in jobs if each.result] == [0, 2, 3]
    assert sorted(map(len, skill.calls.batches)) == sizes


def test_other_exceptions_come_out():
    class Broken(Read):
        def __call__(self, local: Local, tree: Tree, key: Key, sender: str) -> tuple[Local, Tree]:
            raise ZeroDivisionError("a fault of the code")

    flight, only = InFlight(), job(Broken(), cell(), 1, 1.0)
    flight.add(only)
    with pytest.raises(ZeroDivisionError, match="a fault of the code"):
        flight.finish(only)


@dataclass(frozen=True)
class Picky(Read):
    """Cannot even tell its group for a negative input."""

    def group(self, local: Local, tree: Tree) -> Any:
        if int(tree["x"]) < 0:
            raise DataError("no group")
        return "all"


def test_a_group_that_cannot_be_told_is_its_own_fault_only():
    flight, skill = InFlight(), Picky()
    good, bad = job(skill, cell(), 1, 1.0), job(skill, cell(), -1, 1.0, "eve")
    flight.add(bad)
    flight.add(good)
    flight.finish(good)
    flight.finish(bad)
    assert (good.failure, bad.failure) == (None, "eve sent -1")
    assert sorted(skill.calls.batches) == [[-1], [1]]


def test_grouping_is_by_skill_and_group_and_changes_no_result():
    kinds = [Read(), Read(Calls(), "odd"), Read(Calls(), None)]  # calls do not count in ==, so the first two differ
    cells = [cell(i) for i in range(6)]
    jobs = [job(kinds[i % 3], cells[i], 10 + i, 1.0 + i) for i in range(6)]
    flight = InFlight()
    for each in jobs:
        flight.add(each)
    for each in jobs:
        flight.finish(each)
    assert kinds[0].calls.batches == [[10, 13]]
    assert kinds[1].calls.batches == [[11, 14]]
    assert sorted(kinds[2].calls.batches) == [[12], [15]]  # None runs alone
    for i, each in enumerate(jobs):
        _, alone = kinds[i % 3](cells[i].local, each.tree, each.key, each.sender)
        assert each.result is not None
        assert alone == each.result[1]


def test_an_input_on_its_way_is_read_ahead_but_never_written():
    flight, read, write, here = InFlight(), Read(), Write(), cell()
    now, coming, later = job(read, here, 1, 1.0), job(read, here, 2), job(write, here, 3)
    for each in (now, coming, later):
        flight.add(each)
    flight.finish(now)
    assert read.calls.batches == [[1, 2]]
    assert write.calls.batches == []
    flight.drop(later)  # it never arrived
    assert here.jobs == 1
    coming.finish = 2.0
    flight.finish(coming)
    assert int(here.local.memory["value"]) == 1
    flight.finish(coming)  # a second call does nothing
    flight.drop(coming)
    assert here.jobs == 0


def test_writes_at_one_party_build_on_each_other_and_show_at_their_finish():
    flight, skill, here = InFlight(), Write(), cell(1)
    jobs = [job(skill, here, x, float(x)) for x in (4, 2, 7)]
    for each in jobs:
        flight.add(each)
    value, memories = np.int64(1), []
    for each in sorted(jobs, key=lambda each: each.finish or 0):
        assert int(here.local.memory["value"]) == value  # not earlier
        flight.finish(each)
        assert each.result is not None
        assert int(each.result[1]["before"]) == value
        value = stepped(value, each.tree["x"])
        memories.append(int(here.local.memory["value"]))
    assert memories[-1] == value
    assert skill.calls.batches == [[2], [4], [7]]  # each once, although all ran when the first was needed


def test_of_two_writes_at_one_time_the_one_that_is_needed_first_is_first():
    flight, skill, here = InFlight(), Write(), cell(1)
    one, two = job(skill, here, 1, 5.0), job(skill, here, 2, 5.0)
    flight.add(one)
    flight.add(two)
    flight.finish(two)
    assert int(here.local.memory["value"]) == stepped(1, 2)
    flight.finish(one)
    assert int(here.local.memory["value"]) == stepped(stepped(1, 2), 1)


def test_a_write_that_comes_between_is_not_lost():
    flight, skill, here = InFlight(), Write(), cell(1)
    slow, needed = job(skill, here, 10, 10.0), job(Read(), cell(), 0, 3.0)
    flight.add(slow)
    flight.add(needed)
    flight.finish(needed)  # runs the slow write ahead of its time
    quick = job(skill, here, 5, 5.0)
    flight.add(quick)
    flight.finish(quick)
    assert int(here.local.memory["value"]) == stepped(1, 5)
    flight.finish(slow)
    assert int(here.local.memory["value"]) == stepped(stepped(1, 5), 10)


def test_what_a_role_put_into_the_memory_is_not_overwritten_by_a_write_that_ran_ahead():
    flight, skill, here = InFlight(), Write(), cell(1)
    slow, needed = job(skill, here, 10, 10.0), job(Read(), cell(), 0, 3.0)
    flight.add(slow)
    flight.add(needed)
    flight.finish(needed)
    here.local.memory = {"value": np.int64(100), "role": np.int64(1)}
    flight.finish(slow)
    assert here.local.memory == {"value": stepped(100, 10), "role": 1}


uses = st.fixed_dictionaries(
    {
        "write": st.booleans(),
        "party": st.integers(0, 2),
        "asked": st.integers(0, 12),
        "travels": st.integers(0, 4),
        "takes": st.integers(0, 9),
        "x": st.integers(-2, 40),
        "lost": st.sampled_from([False, False, False, True]),
    }
)
replacements = st.lists(st.tuples(st.integers(0, 25), st.integers(0, 2), st.integers(0, 1000)), max_size=4)


@given(st.lists(uses, max_size=14), replacements)
def test_any_schedule_is_as_one_after_the_other(
    schedule: list[Mapping[str, int]], replaced: list[tuple[int, int, int]]
):
    """Against a naive world in which each use runs at its finish, and nothing ever runs ahead or together."""
    flight, cells, reads, writes = InFlight(), [cell(i) for i in range(3)], Read(), Write()
    jobs = [
        job(writes if use["write"] else reads, cells[use["party"]], use["x"], None, f"s{i}")
        for i, use in enumerate(schedule)
    ]
    # What happens, in order: at one time first what is put into a memory, then what is asked, arrives, is finished.
    events: list[tuple[float, int, int]] = []
    events += [(time, -1, i) for i, (time, _, _) in enumerate(replaced)]
    for i, use in enumerate(schedule):
        events.append((use["asked"], 0, i))
        events.append((use["asked"] + use["travels"], 1, i))
        if not use["lost"]:
            events.append((use["asked"] + use["travels"] + use["takes"], 2, i))
    naive = [np.int64(i) for i in range(3)]
    for time, kind, i in sorted(events):
        if kind == -1:
            _, party, value = replaced[i]
            cells[party].local.memory = {"value": np.int64(value)}
            naive[party] = np.int64(value)
            continue
        use, one = schedule[i], jobs[i]
        if kind == 0:
            flight.add(one)
        elif kind == 1 and use["lost"]:
            flight.drop(one)
        elif kind == 1:
            one.finish = float(time + use["takes"])
        else:
            flight.finish(one)
            assert (one.failure is not None) == (use["x"] < 0)
            if one.result is not None:
                assert int(one.result[1]["before" if use["write"] else "seen"]) == naive[use["party"]]
                if use["write"]:
                    naive[use["party"]] = stepped(naive[use["party"]], use["x"])
        assert [int(c.local.memory["value"]) for c in cells] == naive
    assert len(flight) == 0
    assert [c.jobs for c in cells] == [0, 0, 0]
