"""What a device was told about its own answers: by the cloud, which it asked, and by its user, who corrected it.

One small SQLite file in the device's folder, bounded, the oldest gone first. It never leaves the device; settings
decide about what does (:mod:`duetto.device.settings`), and :meth:`Lessons.forget` leaves nothing of it.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from duetto import tree as trees
from duetto.errors import ConfigError, DataError, WireError

_TABLE = """
CREATE TABLE IF NOT EXISTS lesson (
    arrival INTEGER PRIMARY KEY AUTOINCREMENT, session TEXT NOT NULL, number INTEGER NOT NULL, model INTEGER NOT NULL,
    body BLOB NOT NULL, UNIQUE (session, number))
"""


@dataclass(frozen=True, eq=False)
class Taught:
    """Lessons as columns, the oldest first.

    Attributes:
        x: [n, *shape] inputs.
        logits: [n, classes] float32, what the small model said, before anything personal.
        target: [n, classes] float32 probabilities: one class where the user said which, else the cloud's.
        corrected: [n] whether the user did.
        model: [n] the version of the small model.
    """

    x: np.ndarray
    logits: np.ndarray
    target: np.ndarray
    corrected: np.ndarray
    model: np.ndarray

    def __len__(self) -> int:
        return len(self.model)


@dataclass(frozen=True)
class Lessons:
    """The file.

    Attributes:
        path: of it.
        most: lessons that are kept.

    Raises:
        ConfigError: none are.
    """

    path: Path
    most: int = 500

    def __post_init__(self) -> None:
        if self.most < 1:
            raise ConfigError(f"{self.most} lessons", "keep one at least")

    def keep(
        self,
        session: str,
        number: int,
        model: int,
        x: np.ndarray,
        logits: np.ndarray,
        target: np.ndarray,
        corrected: bool,
    ) -> None:
        """Keep a lesson about the answer ``number`` of a session; what the user says stands before what the cloud says.

        Raises:
            DataError: the file is damaged, or the disk is full.
        """
        body = trees.encode(
            {
                "x": np.asarray(x),
                "logits": np.asarray(logits, np.float32),
                "target": np.asarray(target, np.float32),
                "corrected": np.array(corrected),
            }
        )
        with self._open() as file:
            file.execute("DELETE FROM lesson WHERE session = ? AND number = ?", (session, number))
            row = (session, number, model, body)
            file.execute("INSERT INTO lesson (session, number, model, body) VALUES (?, ?, ?, ?)", row)
            newest = "SELECT arrival FROM lesson ORDER BY arrival DESC LIMIT ?"
            file.execute(f"DELETE FROM lesson WHERE arrival NOT IN ({newest})", (self.most,))

    def newest(self) -> int:
        """Grows with each lesson; 0 where there is none."""
        if not self.path.exists():
            return 0
        with self._open() as file:
            return int(file.execute("SELECT COALESCE(MAX(arrival), 0) FROM lesson").fetchone()[0])

    def taught(self) -> Taught | None:
        """All that are kept, of the newest lesson's shapes; None where there are none.

        Raises:
            DataError: the file is damaged.
        """
        if not self.path.exists():
            return None
        with self._open() as file:
            rows = file.execute("SELECT model, body FROM lesson ORDER BY arrival").fetchall()
        try:
            read = [(int(model), trees.decode(body)) for model, body in rows]
        except WireError as fault:
            raise DataError(f"{self.path} is damaged ({fault})", "forget what was learned here") from fault
        if not read:
            return None
        form = _form(read[-1][1])  # a model of other classes, or other inputs, was here before
        read = [each for each in read if _form(each[1]) == form]
        columns = {name: np.stack([tree[name] for _, tree in read]) for name in ("x", "logits", "target", "corrected")}
        return Taught(**columns, model=np.array([model for model, _ in read], np.int64))

    def forget(self) -> None:
        """Delete all of it."""
        for suffix in ("", "-wal", "-shm", "-journal"):
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with contextlib.closing(sqlite3.connect(self.path, timeout=10.0)) as file:
                # A power cut may cost the last lessons, and never the file: nobody was promised them.
                file.executescript(
                    f"PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA secure_delete=ON;{_TABLE}"
                )
                with file:
                    yield file
        except sqlite3.Error as fault:
            raise DataError(f"{self.path} cannot be used ({fault})", "forget what was learned here") from fault


def _form(tree: dict[str, np.ndarray]) -> tuple[object, ...]:
    return np.shape(tree["x"]), np.shape(tree["logits"])
