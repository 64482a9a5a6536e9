"""What went wrong, in one line, and what to do about it.

Every error a user can cause is an :class:`Error`: it carries the fault and its remedy, and the command
line prints them as one line (``--debug`` shows the trace). Subclasses name the room the fault lies in, so
that a caller can catch what it can mend.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Error(Exception):
    """A fault that the user can mend.

    Args:
        fault: what is wrong, in one clause, naming the offending value.
        remedy: what to do about it, in one clause; may be empty where nothing helps.
    """

    def __init__(self, fault: str, remedy: str = "") -> None:
        super().__init__(f"{fault}: {remedy}" if remedy else fault)
        self.fault = fault
        self.remedy = remedy


class ConfigError(Error):
    """A setting that cannot be met: unknown name, negative budget, mismatched domains."""


class DataError(Error):
    """Data that cannot be used: missing, corrupt, not finite, a label outside the classes, a user without rows."""


class WireError(Error):
    """Bytes that are not an encoded tree: truncated, malformed, too large, or altered on the way."""


class Deadlock(Error):
    """No timer is left and somebody still waits; the message names who waits for whom."""


def caught(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | Error:
    """What the function returns, or the :class:`Error` that it raises: one of many may fail alone."""
    try:
        return function(*args, **kwargs)
    except Error as error:
        return error
