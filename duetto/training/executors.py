"""Executors by name, for flags and files."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from duetto.errors import ConfigError
from duetto.training.auto import Auto
from duetto.training.cohort import Cohort
from duetto.training.executor import Executor
from duetto.training.processes import Processes
from duetto.training.sequential import Sequential

NAMES: Mapping[str, Callable[[], Executor]] = {
    "auto": Auto,
    "sequential": Sequential,
    "cohort": Cohort,
    "processes": Processes,
}
"""How each is made."""


def named(name: str) -> Executor:
    """The executor of a name, with its defaults.

    Raises:
        ConfigError: no executor is called so.
    """
    if name not in NAMES:
        raise ConfigError(f"no executor is called {name!r}", f"use one of {', '.join(NAMES)}")
    return NAMES[name]()
