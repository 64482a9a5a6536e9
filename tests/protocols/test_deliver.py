"""Batches reach the cloud at least once and are counted once; what is malformed is refused whole."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from duetto import tree as trees
from duetto.errors import ConfigError, DataError, Error
from duetto.protocols.deliver import (
    BATCH_ENTRIES,
    BODY_BYTES,
    Batch,
    Deliver,
    Delivered,
    Drop,
    Entry,
    delivering,
    heard,
    packed,
    told,
    unpacked,
)
from duetto.tree import Tree
from duetto.types import Cost, Key, Local, Peer, Reply, Skill

SESSION = bytes(range(16))
ENTRIES = (Entry(2, "record", b"one"), Entry(3, "feedback", b""), Entry(7, "record", b"three"))
BATCH = Batch(SESSION, ENTRIES)


@dataclass
class Store:
    """Keeps one entry of each name, and tells how often each came."""

    kept: dict[tuple[str, bytes, int], Entry] = field(default_factory=dict)
    most: int = 10**9

    def keep(self, device: str, session: bytes, entries: Sequence[Entry]) -> Sequence[int]:
        taken = entries[: self.most]
        for entry in taken:
            self.kept.setdefault((device, session, entry.sequence), entry)
        return [entry.sequence for entry in taken]


class Box:
    """An outbox in memory."""

    def __init__(self, entries: Sequence[Entry], session: bytes = SESSION) -> None:
        self.session, self.entries = session, list(entries)

    async def batch(self, max_entries: int = 256, max_bytes: int = 1 << 18) -> Batch:
        return Batch(self.session, tuple(self.entries[:max_entries]))

    async def acknowledge(self, session: bytes, sequences: Sequence[int]) -> int:
        before = len(self.entries)
        self.entries = [entry for entry in self.entries if session != self.session or entry.sequence not in sequences]
        return before - len(self.entries)


class Line(Peer):
    """The cloud behind a line that loses requests and replies as told, or says what no cloud says."""

    name = "cloud"
    traits: dict[str, Any] = {}  # noqa: RUF012

    def __init__(self, store: Any, faults: Sequence[str] = (), said: Tree | None = None) -> None:
        self.local, self.faults, self.said = Local(None, {"feedback": store}), list(faults), said
        self.asked: list[tuple[Key, float | None]] = []

    async def ask(self, skill: Skill, tree: Tree, *, key: Key, deadline: float | None = None) -> Reply:
        self.asked.append((key, deadline))
        fault = self.faults.pop(0) if self.faults else ""
        cost = Cost(up_bytes=len(trees.encode(tree)))
        if fault == "request lost":
            return Reply(self.name, failure=fault, cost=cost)
        try:
            _, answer = skill(self.local, trees.decode(trees.encode(tree)), key, "ann")
        except Error as error:
            return Reply(self.name, failure=str(error), cost=cost)
        if fault == "reply lost":
            return Reply(self.name, failure=fault, cost=cost)
        return Reply(self.name, trees.decode(trees.encode(answer)) if self.said is None else self.said, cost=cost)


def deliver(box: Box, line: Line, **more: Any) -> Delivered:
    return asyncio.run(delivering(box, line, key=("ann", "deliver"), deadline=3.0, **more))


@given(
    st.binary(min_size=16, max_size=16),
    st.lists(st.tuples(st.integers(1, 1 << 40), st.sampled_from(["record", "x", "a-b.c_9"]), st.binary()), min_size=1),
)
def test_a_batch_is_what_went_in(session: bytes, rows: list[tuple[int, str, bytes]]) -> None:
    entries = tuple(Entry(*row) for row in {row[0]: row for row in sorted(rows)}.values())
    batch = Batch(session, entries)
    assert unpacked(trees.decode(trees.encode(packed(batch))), "ann") == batch


@given(st.lists(st.sampled_from(["request lost", "reply lost", ""]), max_size=12), st.integers(1, 4), st.integers(1, 9))
def test_whatever_the_line_loses_each_entry_is_counted_once(faults: list[str], most: int, n: int) -> None:
    entries = [Entry(i, "record", bytes([i])) for i in range(1, n + 1)]
    store, box = Store(), Box(entries)
    line = Line(store, faults)
    for _ in range(len(faults) + 1):
        done = deliver(box, line, max_entries=most)
    assert (done.failure, box.entries) == (None, [])
    assert list(store.kept.values()) == entries
    assert {name[:2] for name in store.kept} == {("ann", SESSION)}


def test_only_what_the_reply_names_is_let_go_and_every_call_has_a_deadline_and_a_key() -> None:
    box, line = Box(ENTRIES), Line(Store(most=1))
    done = deliver(box, line)
    sizes = [len(trees.encode(packed(Batch(SESSION, ENTRIES[i:])))) for i in range(3)]
    assert done == Delivered(3, 3, Cost(up_bytes=sum(sizes)), None)
    assert line.asked == [(("ann", "deliver", i), 3.0) for i in range(3)]


@pytest.mark.parametrize(
    ("said", "failure"),
    [
        ({"sequences": np.array([2, 99])}, "cloud acknowledged what it was not sent"),
        ({"sequences": np.array([2.0])}, "cloud acknowledged what it was not sent"),
        ({"sequences": np.int64(2)}, "cloud acknowledged what it was not sent"),
        ({"numbers": np.array([2])}, "cloud acknowledged what it was not sent"),
        (np.array([2]), "cloud acknowledged what it was not sent"),
        ({"sequences": np.zeros(0, np.int64)}, "cloud kept none of 3 entries"),
    ],
)
def test_a_reply_without_sense_lets_nothing_go(said: Tree, failure: str) -> None:
    box = Box(ENTRIES)
    assert deliver(box, Line(Store(), said=said)).failure == failure
    assert box.entries == list(ENTRIES)


def test_a_cloud_that_keeps_nothing_says_so() -> None:
    done = asyncio.run(delivering(Box(ENTRIES), Line(Store()), key=(), deadline=1.0, slot="diary"))
    assert done.failure == "nothing is kept in 'diary': ask a party that keeps feedback"


def test_bounds_that_no_cloud_takes_are_refused() -> None:
    for bounds in ({"max_entries": 0}, {"max_entries": BATCH_ENTRIES + 1}, {"max_bytes": -1}, {"max_bytes": 1 << 40}):
        with pytest.raises(ConfigError, match="at most"):
            deliver(Box(ENTRIES), Line(Store()), **bounds)


def changed(**leaves: Any) -> dict[str, Any]:
    return {**packed(BATCH), **leaves}


def ends(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


@pytest.mark.parametrize(
    ("tree", "fault"),
    [
        (np.zeros(3), "no branch"),
        ({"session": np.zeros(16, np.uint8)}, "named"),
        ({**packed(BATCH), "more": np.zeros(1)}, "named"),
        (changed(session=np.zeros(15, np.uint8)), "a session of 15 bytes"),
        (changed(session=np.zeros(16)), "session of float64"),
        (changed(sequences=np.array([2, 3, 7], np.int32)), "sequences of int32"),
        (changed(sequences=np.zeros((3, 1), np.int64)), "sequences of int64"),
        (changed(sequences=ends(2, 2, 7)), "do not grow"),
        (changed(sequences=ends(0, 2, 7)), "do not grow"),
        (changed(sequences=ends(3, 2, 7)), "do not grow"),
        (packed(Batch(SESSION)), "0 entries"),
        (packed(Batch(SESSION, [Entry(i + 1, "r", b"") for i in range(BATCH_ENTRIES + 1)])), "4097 entries"),
        (changed(body_ends=ends(3, 3)), "ends that do not fit"),
        (changed(body_ends=ends(3, 2, 8)), "ends that do not fit"),
        (changed(body_ends=ends(3, 3, 9)), "ends that do not fit"),
        (changed(body_ends=ends(-1, 3, 8)), "ends that do not fit"),
        (changed(kind_ends=ends(6, 14, 19)), "ends that do not fit"),
        (changed(kinds=np.full(20, 255, np.uint8)), "of kind"),
        (changed(kind_ends=ends(0, 14, 20)), "of kind ''"),
        (
            changed(bodies=np.zeros(BODY_BYTES + 1, np.uint8), body_ends=ends(0, 0, BODY_BYTES + 1)),
            f"a record of {BODY_BYTES + 1} bytes",
        ),
    ],
)
def test_what_is_no_batch_is_refused_in_one_line_and_nothing_is_kept(tree: Tree, fault: str) -> None:
    store = Store()
    with pytest.raises(DataError, match=fault) as caught:
        Deliver()(Local(None, {"feedback": store}), tree, (), "ann")
    assert "\n" not in str(caught.value)
    assert store.kept == {}


def test_what_was_dropped_is_told_and_adds_up() -> None:
    first, second = Drop(2, 30, 4, 9), Drop(1, 5)
    assert first + second == second + first == Drop(3, 35, 4, 9)
    assert second + Drop() == second
    drops = {"record": first, "feedback": second}
    assert heard(told(drops)) == drops
    for wrong in (
        b"",
        b"{",
        b"[]",
        b'{"a":1}',
        b'{"a":{"entries":-1}}',
        b'{"a":{"x":1}}',
        b'{"a":{"bytes":1.5}}',
        b"\xff",
    ):
        with pytest.raises(DataError, match="tells nothing"):
            heard(wrong)
