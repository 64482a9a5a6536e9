"""What devices at rest remember: in memory up to a bound, the rest on disk."""

from __future__ import annotations

import sqlite3
import tempfile
import weakref
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from duetto import tree as trees
from duetto.errors import ConfigError

Memory = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Left:
    """A device as it was left: its memory, and when its radio was last on air."""

    memory: Memory
    radio: float | None


class Store(Mapping[str, Left]):
    """Devices at rest by name.

    A memory that several devices share, as they do what was published to all, counts once. Those that were left
    longest ago go to a temporary database when the bound is passed, and come back as equal trees.

    Args:
        limit: bytes of arrays that are kept in memory.

    Raises:
        ConfigError: a negative limit.
    """

    def __init__(self, limit: int = 1 << 30) -> None:
        if limit < 0:
            raise ConfigError(f"{limit} bytes for what devices remember", "use 0 or more")
        self._limit, self._bytes = limit, 0
        self._here: OrderedDict[str, Left] = OrderedDict()
        self._uses: Counter[int] = Counter()  # how many memories hold an array
        self._disk: sqlite3.Connection | None = None
        self._away: dict[str, float | None] = {}  # those on disk, and their radios

    def __setitem__(self, name: str, left: Left) -> None:
        self._here[name] = left
        for array in _arrays(left.memory):
            self._uses[id(array)] += 1
            self._bytes += array.nbytes if self._uses[id(array)] == 1 else 0
        while self._bytes > self._limit and self._here:
            self._store(*self._drop(next(iter(self._here))))

    def pop(self, name: str, otherwise: Left) -> Left:
        """The device, which is not at rest any more."""
        if name in self._here:
            return self._drop(name)[1]
        if name not in self._away:
            return otherwise
        left = self[name]
        del self._away[name]
        assert self._disk is not None
        self._disk.execute("DELETE FROM device WHERE name = ?", (name,))
        return left

    def __getitem__(self, name: str) -> Left:
        if name in self._here:
            return self._here[name]
        radio = self._away[name]
        assert self._disk is not None
        (blob,) = self._disk.execute("SELECT memory FROM device WHERE name = ?", (name,)).fetchone()
        return Left(trees.decode(blob), radio)

    def __iter__(self) -> Iterator[str]:
        return iter([*self._here, *self._away])

    def __len__(self) -> int:
        return len(self._here) + len(self._away)

    def _drop(self, name: str) -> tuple[str, Left]:
        left = self._here.pop(name)
        for array in _arrays(left.memory):
            self._uses[id(array)] -= 1
            if not self._uses[id(array)]:
                del self._uses[id(array)]
                self._bytes -= array.nbytes
        return name, left

    def _store(self, name: str, left: Left) -> None:
        if self._disk is None:
            folder = tempfile.TemporaryDirectory(prefix="duetto-fleet-")
            self._disk = sqlite3.connect(Path(folder.name) / "memory.sqlite", isolation_level=None)
            weakref.finalize(self, _remove, self._disk, folder)
            self._disk.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF")
            self._disk.execute("CREATE TABLE device (name TEXT PRIMARY KEY, memory BLOB)")
        self._disk.execute("INSERT OR REPLACE INTO device VALUES (?, ?)", (name, trees.encode(left.memory)))
        self._away[name] = left.radio


def _remove(disk: sqlite3.Connection, folder: tempfile.TemporaryDirectory[str]) -> None:
    disk.close()
    folder.cleanup()


def _arrays(memory: Memory) -> list[np.ndarray]:
    return [leaf for _, leaf in trees.leaves(memory) if isinstance(leaf, np.ndarray)]
