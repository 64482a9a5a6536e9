"""How many inputs have left for learning today: what a user allows a day holds over restarts, too."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from duetto.device.settings import Settings
from duetto.transport.files import put


@dataclass(frozen=True)
class Daily:
    """A count in a file, of the local day.

    Attributes:
        path: of it.
    """

    path: Path

    def take(self, settings: Settings, nbytes: int, today: date) -> bool:
        """Whether one more input of so many bytes may leave; it is counted then.

        Raises:
            OSError: the count cannot be kept; then nothing leaves.
        """
        samples, total = self._so_far(today)
        if samples >= settings.samples_a_day or total + nbytes > settings.bytes_a_day:
            return False
        told = {"day": today.isoformat(), "samples": samples + 1, "bytes": total + nbytes}
        put(self.path, json.dumps(told).encode())
        return True

    def _so_far(self, today: date) -> tuple[int, int]:
        try:
            told = json.loads(self.path.read_bytes())
            return (int(told["samples"]), int(told["bytes"])) if told["day"] == today.isoformat() else (0, 0)
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return 0, 0
