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

_SLOTS = {"memory", "answered"}


class Kept:
    """A file with what a party remembers; see :class:`duetto.transport.party.Keep`.

    What is no tree (a model that is loaded, a store that is open) is not kept: whoever starts the party gives it anew.
    Python's numbers come back as numpy's.

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
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as fault:
            raise ConfigError(f"{self._path} cannot be read ({fault.strerror})", "mend it, or name another") from fault
        kept = opened(data, str(self._path))
        self._began = float(kept.get("began", {}).get("unix_seconds", self._began))
        return kept["memory"], kept["answered"]

    def save(self, memory: Mapping[str, Any], answered: Mapping[str, Tree]) -> None:
        """Keep both."""
        try:
            put(self._path, packed(memory, answered, {"unix_seconds": np.float64(self._began)}))
        except OSError as fault:
            raise ConfigError(
                f"{self._path} cannot be written ({fault.strerror})", "make room, or name another"
            ) from fault


def packed(memory: Mapping[str, Any], answered: Mapping[str, Tree], began: Tree | None = None) -> bytes:
    """A party's memory as bytes, without what is no tree."""
    kept = {name: value for name, value in memory.items() if _is_tree(value)}
    return trees.encode({"memory": kept, "answered": dict(answered), **({} if began is None else {"began": began})})


def opened(data: bytes, where: str) -> Mapping[str, Any]:
    """What was packed: ``memory``, ``answered`` and perhaps ``began``.

    Raises:
        DataError: it was not; ``where`` it comes from is told.
    """
    try:
        kept = trees.decode(data, len(data))
    except WireError as fault:
        raise DataError(f"{where} is damaged ({fault})", "move it away to begin anew") from fault
    if not isinstance(kept, Mapping) or kept.keys() - {"began"} != _SLOTS or not all(map(_is_mapping, kept.values())):
        raise DataError(f"{where} holds no party's memory", "move it away to begin anew")
    return kept


def _is_tree(value: Any) -> bool:
    try:
        trees.spec(value)
    except Error:
        return False
    return isinstance(value, Mapping | np.ndarray | np.generic | bool | int | float)


def _is_mapping(value: Any) -> bool:
    return isinstance(value, Mapping)
