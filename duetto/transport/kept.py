"""A party's memory in a file: written whole, or not at all."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from duetto import tree as trees
from duetto.errors import ConfigError, DataError, Error, WireError
from duetto.transport.files import put
from duetto.tree import Tree


class Kept:
    """A file with what a party remembers; see :class:`duetto.transport.party.Keep`.

    What is no tree (a model that is loaded, a store that is open) is not kept: whoever starts the party gives it anew.

    Raises:
        DataError: the file is damaged.
        ConfigError: it cannot be written.
    """

    def __init__(self, path: Path | str) -> None:
        self._path = Path(path)
        self._began = time.time()

    @property
    def began(self) -> float:
        """When the program first began here, seconds since 1970: its time goes on over restarts."""
        self.load()
        return self._began

    def load(self) -> tuple[Mapping[str, Any], Mapping[str, Tree]] | None:
        """What was kept."""
        if not self._path.exists():
            return None
        try:
            kept = trees.decode(self._path.read_bytes())
            self._began = float(kept.get("began", self._began))
            return kept["memory"], kept["answered"]
        except (WireError, KeyError, TypeError, IndexError) as fault:
            raise DataError(f"{self._path} is damaged ({fault})", "move it away to begin anew") from fault

    def save(self, memory: Mapping[str, Any], answered: Mapping[str, Tree]) -> None:
        """Keep both."""
        try:
            kept = {name: value for name, value in memory.items() if _is_tree(value)}
            began = np.float64(self._began)
            put(self._path, trees.encode({"memory": kept, "answered": dict(answered), "began": began}))
        except OSError as fault:
            raise ConfigError(
                f"{self._path} cannot be written ({fault.strerror})", "make room, or name another"
            ) from fault


def _is_tree(value: Any) -> bool:
    try:
        trees.spec(value)
    except Error:
        return False
    return isinstance(value, Mapping | np.ndarray | np.generic)
