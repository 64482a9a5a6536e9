"""What devices tell of their answers, as columns in memory: what figures over time and over users are made from.

It follows the feedback store by its arrivals, so each look reads what is new, and every process tells the same. What a
device says is not believed further than it must be: an answer counts at its own time, though never later than it came.
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from duetto import tree as trees
from duetto.cloud.feedback import Feedback, Kept
from duetto.cloud.promotion import record
from duetto.errors import WireError
from duetto.protocols.deliver import FEEDBACK, RECORD

MOST = 1_000_000  # answers that are kept, the newest: 50 MB
ANSWER = np.dtype(
    [
        ("time", "f8"),  # seconds since 1970
        ("device", "i4"),
        ("release", "i8"),  # of the small model
        ("asked", "?"),
        ("agreed", "i1"),  # the small model with the cloud; -1 where the cloud was not heard
        ("failed", "?"),
        *((name, "f4") for name in ("seconds", "bytes", "joules", "dollars")),
    ]
)
CORRECTION = np.dtype([("time", "f8"), ("device", "i4"), ("right", "?")])
_COSTS = ("seconds", "up_bytes", "down_bytes", "joules", "dollars")


@dataclass(frozen=True, eq=False)
class Told:
    """Columns, in the order of arrival.

    Attributes:
        answers: [n] of dtype :data:`ANSWER`.
        corrections: [m] of dtype :data:`CORRECTION`: what users said of answers that they were shown.
        devices: names, which ``device`` counts.
        arrival: of the last entry that was read.
    """

    answers: np.ndarray
    corrections: np.ndarray
    devices: Sequence[str]
    arrival: int

    def releases(self) -> dict[str, int]:
        """By device, the release of the small model that gave its newest answer."""
        newest = np.full(len(self.devices), -(2**63), np.int64)
        newest[self.answers["device"]] = self.answers["release"]  # of one that comes twice the last one stays
        return {name: int(release) for name, release in zip(self.devices, newest, strict=True) if release > -(2**63)}


@dataclass(eq=False)
class Observed:
    """A reader of the store, one a process; threads may share it.

    Attributes:
        feedback: the store.
        most: answers that are kept, and corrections.
    """

    feedback: Feedback
    most: int = MOST
    _rows: dict[str, np.ndarray] = field(init=False, repr=False)
    _counts: dict[str, int] = field(init=False, repr=False)
    _numbers: dict[str, int] = field(init=False, repr=False)
    _arrival: int = field(init=False, repr=False)
    _forgotten: tuple[int, int] = field(init=False, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    def __post_init__(self) -> None:
        self._begin((0, 0))

    def told(self) -> Told:
        """All that has come so far.

        Raises:
            DataError: the database cannot be reached.
        """
        with self._lock:
            forgotten = self.feedback.forgettings()
            if forgotten != self._forgotten:  # what was deleted there must not be shown from here
                self._begin(forgotten)
            if not self._arrival:
                self._arrival = max(0, self.feedback.newest() - 2 * self.most)
            for kept in self.feedback.arrivals(self._arrival, (RECORD, FEEDBACK)):
                self._arrival = kept.arrival
                name, row = ("answer", _answer(kept)) if kept.kind == RECORD else ("correction", _correction(kept))
                if row is not None:
                    self._add(name, (row[0], self._number(kept.device), *row[1:]))
            rows = {name: rows[: self._counts[name]] for name, rows in self._rows.items()}
            return Told(rows["answer"], rows["correction"], tuple(self._numbers), self._arrival)

    def _begin(self, forgotten: tuple[int, int]) -> None:
        self._rows = {"answer": np.zeros(1024, ANSWER), "correction": np.zeros(1024, CORRECTION)}
        self._counts = dict.fromkeys(self._rows, 0)
        self._numbers, self._arrival, self._forgotten = {}, 0, forgotten

    def _number(self, device: str) -> int:
        return self._numbers.setdefault(device, len(self._numbers))

    def _add(self, name: str, row: tuple[float | int | bool, ...]) -> None:
        rows, n = self._rows[name], self._counts[name]
        if n == len(rows):  # others may still look at the old array: it is left as it is
            kept = rows[max(0, n - self.most) :]
            rows = np.zeros(min(2 * len(kept), self.most + len(kept) // 4), rows.dtype)
            rows[: len(kept)] = kept
            self._rows[name], n = rows, len(kept)
        rows[n] = row
        self._counts[name] = n + 1


def _answer(kept: Kept) -> tuple[float | int | bool, ...] | None:
    """A row of :data:`ANSWER` without its device; None of a record that tells too little, or nothing sensible."""
    said = record(kept.device, kept.body)
    if said is None:
        return None
    told = json.loads(kept.body)
    given = told.get("cost")
    cost = {name: _number(given.get(name)) if isinstance(given, dict) else 0.0 for name in _COSTS}
    time = _number(told.get("time"), kept.unix_seconds)
    return (
        min(time, kept.unix_seconds),
        min(max(said.model, -(2**62)), 2**62),
        said.asked,
        -1 if said.agreed is None else int(said.agreed),
        said.failed,
        cost["seconds"],
        cost["up_bytes"] + cost["down_bytes"],
        cost["joules"],
        cost["dollars"],
    )


def _correction(kept: Kept) -> tuple[float | int | bool, ...] | None:
    try:
        told = trees.decode(kept.body)
        logits = np.asarray(told["logits"])
        return kept.unix_seconds, bool(int(np.argmax(logits)) == int(told["label"]))
    except (WireError, ValueError, TypeError, KeyError):
        return None


def _number(value: object, otherwise: float = 0.0) -> float:
    """A cost or a time as devices tell it: a number that is none, or no sensible one, is not believed."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return otherwise
    return float(value) if math.isfinite(value) and 0 <= value <= 1e12 else otherwise
