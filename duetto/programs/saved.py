"""What a comparison found in one run, as a JSON file."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from duetto.errors import DataError


@dataclass(frozen=True)
class Saved:
    """Figures that can be written and read again: numbers, texts, and lists and mappings of these."""

    def save(self, path: Path) -> None:
        """As JSON, whole or not at all."""
        part = path.with_suffix(".part")
        part.write_text(json.dumps(asdict(self)))
        part.replace(path)

    @classmethod
    def load(cls, path: Path) -> Self:
        """What was saved.

        Raises:
            DataError: something else.
        """
        try:
            return cls(**json.loads(path.read_text()))
        except (OSError, ValueError, TypeError) as error:
            raise DataError(f"{path} cannot be read ({error})", "remove it, and run again") from error
