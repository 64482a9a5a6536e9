"""A device that learns with others: it offers its cloud to train on what it was taught, while its user's settings
allow.

Needs the extra ``train``, and is the only file of a device that does. What leaves the device is what the algorithm
sends, an update of the parameters; the lessons stay. A round that asks at another time hears why not, and goes on
without it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from duetto import algorithms
from duetto.device.lessons import Lessons
from duetto.errors import ConfigError
from duetto.protocols.probe import Echo
from duetto.training import Client
from duetto.transport.kept import Kept
from duetto.transport.party import Running
from duetto.transport.session import Question, Said
from duetto.types import Party, Rows, Skill


def offers() -> tuple[type[Skill], ...]:
    """The classes of training: the plain client, and those of the library's algorithms."""
    found = {Client.__name__: Client}
    waiting = [Client]
    assert algorithms.__all__  # imported, so that their clients are there
    while waiting:
        for kind in waiting.pop().__subclasses__():
            if kind.__module__.startswith("duetto.algorithms.") and kind.__name__ not in found:
                found[kind.__name__] = kind
                waiting.append(kind)
    return tuple(found.values())


class Learning(Running):
    """What a cloud can ask of a device that learns: to train, and to echo.

    A client trains on :class:`~duetto.types.Rows`: the inputs of the lessons, and as labels what the user said, else
    what the cloud did.

    Args:
        name: of the device.
        lessons: what it was taught.
        refused: why it may not learn now, or None.
        keep: the file in which what algorithms remember outlives the process; None is nowhere.
    """

    def __init__(
        self, name: str, lessons: Lessons, refused: Callable[[], str | None], keep: Path | None = None
    ) -> None:
        party = Party(skills=(Echo, *offers()))
        super().__init__(party, name, keep=None if keep is None else Kept(keep))
        self._lessons, self._refused = lessons, refused

    async def answer(self, sender: str, question: Question) -> Said:
        """Answer what the cloud asks; training only while that is allowed."""
        if not self._only_echoes(question):
            if (why := self._refused()) is not None:
                return Said(failure=f"{self.name} does not learn now: {why}")
            self.local.data = await asyncio.to_thread(self._rows)
        return await super().answer(sender, question)

    def _only_echoes(self, question: Question) -> bool:
        try:
            return isinstance(self._skill(question).inner, Echo)
        except ConfigError:
            return False

    def _rows(self) -> Any:
        taught = self._lessons.taught()
        if taught is None:
            return Rows(np.zeros((0, 0), np.float32), np.zeros(0, np.int64))
        return Rows(np.asarray(taught.x, np.float32), taught.target.argmax(1).astype(np.int64))
