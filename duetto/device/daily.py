"""How many inputs have left for learning today: what a user allows a day holds over restarts, too."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import date
from pathlib import Path

from duetto.device.settings import Settings
from duetto.transport.files import put


class Daily:
    """A count of the local day, in a file; where the disk is full it is kept here, as what waits to leave is then.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._told = _read(path)

    def take(self, settings: Settings, nbytes: int, today: date) -> bool:
        """Whether one more input of so many bytes may leave; it is counted then."""
        day, samples, total = self._told if self._told[0] == today.isoformat() else (today.isoformat(), 0, 0)
        if samples >= settings.samples_a_day or total + nbytes > settings.bytes_a_day:
            return False
        self._told = day, samples + 1, total + nbytes
        with suppress(OSError):
            put(self._path, json.dumps(dict(zip(("day", "samples", "bytes"), self._told, strict=True))).encode())
        return True


def _read(path: Path) -> tuple[str, int, int]:
    try:
        told = json.loads(path.read_bytes())
        return str(told["day"]), int(told["samples"]), int(told["bytes"])
    except (OSError, ValueError, KeyError, TypeError):
        return "", 0, 0
