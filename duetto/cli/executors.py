"""Executors as the command line names them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from duetto.errors import ConfigError

if TYPE_CHECKING:
    from duetto.training.executor import Executor

NAMES = ("auto", "sequential", "cohort", "processes", "ray", "ray:ADDRESS")


def executor(text: str) -> Executor:
    """The executor of a name; ``ray`` starts a cluster on this machine, ``ray:ADDRESS`` is one that is there.

    Raises:
        ConfigError: no executor is called so, or Ray is not installed.
    """
    kind, colon, address = text.partition(":")
    if kind == "ray" and bool(colon) == bool(address):
        from duetto.worlds import Ray

        return Ray(address or None)
    if text not in NAMES[:4]:
        raise ConfigError(f"no executor is called {text!r}", f"use one of {', '.join(NAMES)}")
    from duetto.training.executors import named

    return named(text)
