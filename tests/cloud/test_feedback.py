"""What devices send is kept once, read in the order of arrival, missing numbers show, and a user can be forgotten."""

import asyncio
import itertools
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
import sqlalchemy as sql
from hypothesis import HealthCheck, given, settings

from duetto import tree as trees
from duetto.cloud.database import alone, opened, upgraded, writing
from duetto.cloud.feedback import Feedback, Gap, feedback
from duetto.device.outbox import OVERHEAD, Outbox
from duetto.errors import DataError, Error
from duetto.protocols.deliver import DROPPED, Drop, Entry, delivering, told
from duetto.tree import Tree
from duetto.types import Key, Local, Peer, Reply, Skill

ONE, TWO = bytes(range(16)), bytes(16)


@pytest.fixture
def store(engine: sql.Engine) -> Feedback:
    return Feedback(engine)


def entries(*numbers: int, kind: str = "record") -> list[Entry]:
    return [Entry(n, kind, b"%d" % n) for n in numbers]


def names(store: Feedback, **more: Any) -> list[tuple[str, bytes, int]]:
    return [(each.device, each.session, each.sequence) for each in store.arrivals(**more)]


def test_each_is_kept_once_whoever_sends_it_how_often(store: Feedback) -> None:
    assert store.keep("ann", ONE, entries(1, 2)) == [1, 2]
    assert store.keep("ann", ONE, [Entry(2, "record", b"other"), *entries(3)]) == [2, 3]
    assert store.keep("ann", TWO, entries(1)) == [1]
    assert store.keep("bob", ONE, entries(1, kind="feedback")) == [1]
    assert names(store) == [("ann", ONE, 1), ("ann", ONE, 2), ("ann", ONE, 3), ("ann", TWO, 1), ("bob", ONE, 1)]
    assert [each.body for each in store.arrivals()] == [b"1", b"2", b"3", b"1", b"1"], "the first is kept"
    assert store.counts() == {"ann": {"record": 4}, "bob": {"feedback": 1}}
    assert store.keep("ann", ONE, []) == []


def test_a_cursor_goes_on_where_it_was(store: Feedback) -> None:
    store.keep("ann", ONE, entries(*range(1, 8)))
    store.keep("ann", ONE, entries(8, 9, kind="feedback"))
    seen = list(itertools.islice(store.arrivals(page=2), 3))
    assert [each.sequence for each in seen] == [1, 2, 3]
    store.keep("bob", ONE, entries(1))
    rest = list(store.arrivals(after=seen[-1].arrival, page=3))
    assert [(each.device, each.sequence) for each in rest] == [("ann", n) for n in range(4, 10)] + [("bob", 1)]
    assert [each.sequence for each in store.arrivals(kinds=["feedback"], page=1)] == [8, 9]
    arrivals = [each.arrival for each in store.arrivals()]
    assert arrivals == sorted(set(arrivals))
    assert list(store.arrivals(after=arrivals[-1])) == []


def test_missing_numbers_show_and_those_that_were_dropped_apart(store: Feedback) -> None:
    store.keep("ann", ONE, entries(1, 2, 5, 9))
    store.keep("ann", TWO, entries(3))
    store.keep("bob", ONE, entries(1, 2))
    first, second, third = Gap("ann", ONE, 3, 4, False), Gap("ann", ONE, 6, 8, False), Gap("ann", TWO, 1, 2, False)
    assert store.gaps() == sorted([first, second, third], key=lambda gap: (gap.session, gap.first))
    assert store.gaps("bob") == []
    drops = told({"record": Drop(3, 30, 3, 6), "feedback": Drop(1, 1)})
    store.keep("ann", ONE, [Entry(10, DROPPED, drops), Entry(11, DROPPED, b"nonsense")])
    assert [gap for gap in store.gaps("ann") if gap.session == ONE] == [
        Gap("ann", ONE, 3, 4, True),
        Gap("ann", ONE, 6, 6, True),
        Gap("ann", ONE, 7, 8, False),
    ]


@given(st.sets(st.integers(1, 30), min_size=1), st.lists(st.tuples(st.integers(1, 30), st.integers(0, 9)), max_size=3))
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_gaps_are_what_is_missing_below_the_last(
    store: Feedback, there: set[int], drops: list[tuple[int, int]]
) -> None:
    store.forget("ann")
    with store.engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM feedback_forgotten")
    ranges = [Drop(1, 1, first, first + more) for first, more in drops]
    tallies = [Entry(100 + i, DROPPED, told({"record": drop})) for i, drop in enumerate(ranges)]
    store.keep("ann", ONE, [*entries(*sorted(there)), *tallies])
    last = max(there) if not tallies else 99 + len(tallies)
    missing = [n for n in range(1, last + 1) if n not in there and n < 100]
    covered = {n for n in missing if any(drop.first <= n <= drop.last for drop in ranges)}
    found = store.gaps()
    assert [n for gap in found for n in range(gap.first, gap.last + 1)] == missing
    assert {n for gap in found if gap.told for n in range(gap.first, gap.last + 1)} == covered
    for left, right in itertools.pairwise(found):
        assert left.last + 1 < right.first or left.told != right.told, "neighbours are one gap"


def test_who_is_forgotten_stays_forgotten_and_the_others_stay(store: Feedback) -> None:
    store.keep("ann", ONE, entries(1, 2, 4))
    store.keep("ann", TWO, entries(1))
    store.keep("bob", ONE, entries(1))
    before = [each.arrival for each in store.arrivals()]
    assert store.forget("ann") == 4
    assert names(store) == [("bob", ONE, 1)]
    assert store.keep("ann", TWO, entries(1)) == [1], "it is not sent a third time"
    assert store.keep("ann", TWO, entries(2, 4)) == [2, 4]
    assert names(store)[1:] == [("ann", TWO, 2), ("ann", TWO, 4)]
    assert [each.arrival for each in store.arrivals(after=before[-1])] != [], "cursors go on"
    assert store.gaps("ann") == [Gap("ann", TWO, 3, 3, False)]
    assert store.forget("ann") == 2
    assert store.keep("ann", TWO, entries(3, 4)) == [3, 4]
    assert store.forget("ann") == 0
    with store.engine.connect() as connection:
        rows = connection.exec_driver_sql("SELECT * FROM feedback_forgotten").all()
    assert sorted((bytes(session), upto) for session, upto in rows) == [(TWO, 4), (ONE, 4)]


def test_nobody_s_entries_and_a_database_that_is_gone_are_refused(store: Feedback, tmp_path: Path) -> None:
    for device, session in (("", ONE), ("a\0b", ONE), ("ann", b"short")):
        with pytest.raises(DataError, match="say whose they are"):
            store.keep(device, session, entries(1))
    gone = Feedback(opened(f"sqlite:///{tmp_path}/nowhere/x.db"))
    with pytest.raises(DataError, match="cannot be used"):
        gone.keep("ann", ONE, entries(1))


def test_a_lower_arrival_never_shows_after_a_higher_one(store: Feedback) -> None:
    late = {"device": "late", "session": ONE, "sequence": 1, "kind": "record", "body": b"", "unix_seconds": 0.0}
    other = threading.Thread(target=store.keep, args=("early", ONE, entries(1)))
    with writing(store.engine) as connection:
        alone(connection, "feedback")
        connection.execute(feedback.insert(), late)
        other.start()
        other.join(0.3)
        assert names(store) == [], "it waits for the commit of who was first"
    other.join()
    assert [device for device, *_ in names(store)] == ["late", "early"]


KEEP = """
import sys
from duetto.cloud.database import opened
from duetto.cloud.feedback import Feedback
from duetto.protocols.deliver import Entry

url, device = sys.argv[1:]
store = Feedback(opened(url))
for i in range(20):
    for session in (b"mine" * 4, b"ours" * 4):
        name = device if session[:4] == b"mine" else "both"
        store.keep(name, session, [Entry(n, "record", b"x" * 100) for n in range(5 * i + 1, 5 * i + 6)])
"""


def test_processes_that_keep_at_once_keep_each_once_and_hide_nothing_from_a_reader(url: str) -> None:
    engine = upgraded(opened(url))
    store = Feedback(engine)
    writers = [
        subprocess.Popen([sys.executable, "-c", KEEP, url, name], stderr=subprocess.PIPE, text=True)
        for name in ("ann", "bob", "cem")
    ]
    seen: list[tuple[str, int]] = []
    last = 0
    while True:
        over = all(writer.poll() is not None for writer in writers)
        for each in store.arrivals(after=last, page=7):
            assert each.arrival > last
            last = each.arrival
            seen.append((each.device, each.sequence))
        if over:
            break
    assert [writer.communicate()[1] for writer in writers] == ["", "", ""]
    assert sorted(seen) == sorted((name, n) for name in ("ann", "bob", "both", "cem") for n in range(1, 101))
    assert store.gaps() == []
    engine.dispose()


class Line(Peer):
    """The cloud, behind a line that loses every second reply."""

    name = "cloud"
    traits: dict[str, Any] = {}  # noqa: RUF012

    def __init__(self, store: Feedback) -> None:
        self.local, self.asked = Local(None, {"feedback": store}), 0

    async def ask(self, skill: Skill, tree: Tree, *, key: Key, deadline: float | None = None) -> Reply:
        self.asked += 1
        try:
            _, answer = await asyncio.to_thread(skill, self.local, trees.decode(trees.encode(tree)), key, "ann")
        except Error as error:
            return Reply(self.name, failure=str(error))
        return Reply(self.name, failure="no answer within 1 s") if self.asked % 2 else Reply(self.name, answer)


def test_an_outbox_that_was_full_arrives_whole_but_for_what_it_says_it_dropped(store: Feedback, tmp_path: Path) -> None:
    async def main() -> None:
        room = 20 * (100 + OVERHEAD)
        line = Line(store)
        async with Outbox(tmp_path / "outbox", session=ONE, limit_bytes=room) as outbox:
            for i in range(50):
                outbox.put("feedback" if i % 5 == 0 else "record", bytes(100))
            failures = []
            while (done := await delivering(outbox, line, key=(), deadline=1.0, max_entries=7)).failure:
                failures.append(done.failure)
            assert set(failures) == {"no answer within 1 s"}
            assert await outbox.counts() == {}
            drops = await outbox.drops()
            assert sum(drop.entries for drop in drops.values()) == 30
        assert store.counts()["ann"] == {DROPPED: 1, "feedback": 10, "record": 10}
        gaps = store.gaps()
        assert all(gap.told for gap in gaps)
        assert sum(gap.last - gap.first + 1 for gap in gaps) == 30

    asyncio.run(main())
