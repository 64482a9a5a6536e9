"""Uses of skills that are under way, and when they are really run.

A result is needed only at its virtual finish time. When the first one is needed, everything whose input is known
is run together, grouped by skill and by what the skill says may share a call. A use may run ahead of its time, on the
memory that it should find at its finish: should it find another one there, it is run again. Uses that write run in
the order of their finish, one after the other at each party, and what they wrote shows at their finish, not before.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from duetto.errors import Error, caught
from duetto.tree import Tree
from duetto.types import Key, Local, Skill


@dataclass(eq=False)
class Cell:
    """A party's local, and how many uses of its skills are under way."""

    local: Local
    jobs: int = 0


@dataclass(eq=False)
class Job:
    """One use of a skill.

    Attributes:
        finish: the virtual time at which its result is needed; None while the input is still on its way.
        read: the memory that it ran on.
        result: what it returned.
        failure: one line, where the skill refused.
        seconds: of computing.
    """

    skill: Skill
    cell: Cell
    tree: Tree
    key: Key
    sender: str
    finish: float | None = None
    read: Mapping[str, Any] | None = None
    result: tuple[Local, Tree] | None = None
    failure: str | None = None
    seconds: float = 0.0

    @property
    def done(self) -> bool:
        """Whether it has run."""
        return self.result is not None or self.failure is not None

    def stands_on(self, memory: Mapping[str, Any]) -> bool:
        """Whether it has run, and on this memory."""
        return self.done and self.read is memory


class InFlight:
    """The uses under way, in the order in which they were asked for; ``alone`` runs each by itself."""

    def __init__(self, alone: bool = False) -> None:
        self._jobs: dict[Job, None] = {}
        self._alone = alone

    def __len__(self) -> int:
        return len(self._jobs)

    def add(self, job: Job) -> None:
        """Somebody asked."""
        self._jobs[job] = None
        job.cell.jobs += 1

    def drop(self, job: Job) -> None:
        """It never arrived, or it is finished."""
        if job in self._jobs:
            del self._jobs[job]
            job.cell.jobs -= 1

    def finish(self, job: Job) -> None:
        """Its result is needed now; what it wrote shows from now on. A second call does nothing."""
        if job not in self._jobs:
            return
        if not job.stands_on(job.cell.local.memory):
            self._run(job)
        self.drop(job)
        if job.skill.writes and job.result is not None:
            job.cell.local.memory = job.result[0].memory

    def _run(self, needed: Job) -> None:
        """Run ``needed`` and all that can run with it; a write builds on those that finish before it."""
        wave = [job for job in self._jobs if not job.skill.writes and (job is needed or not job.done)]
        turn = [(job, job.cell.local.memory) for job in wave]
        queues: dict[Cell, deque[Job]] = {}
        for job in sorted(self._writes(), key=lambda job: (job is not needed, job.finish)):
            queues.setdefault(job.cell, deque()).append(job)
        ahead = {cell: cell.local.memory for cell in queues}
        while turn or queues:
            firsts = [queue.popleft() for queue in queues.values()]
            turn += [(job, ahead[job.cell]) for job in firsts if not job.stands_on(ahead[job.cell])]
            self.together(turn)
            ahead.update({job.cell: job.result[0].memory for job in firsts if job.result is not None})
            queues = {cell: queue for cell, queue in queues.items() if queue}
            turn = []

    def together(self, turn: list[tuple[Job, Mapping[str, Any]]]) -> None:
        """Run each on its memory, those of one group in one call."""
        groups: dict[Any, list[tuple[Job, Local]]] = {}
        for i, (job, memory) in enumerate(turn):
            job.read, job.result, job.failure = memory, None, None
            seen = Local(job.cell.local.data, memory)
            try:
                mark = None if self._alone else job.skill.group(seen, job.tree)
            except Error:
                mark = None  # run alone, it says what is wrong
            groups.setdefault(i if mark is None else (job.skill, mark), []).append((job, seen))
        for each in groups.values():
            if self._alone:
                _by_itself(*each[0])
            else:
                _together(each)

    def _writes(self) -> list[Job]:
        return [job for job in self._jobs if job.skill.writes and job.finish is not None]


def _by_itself(job: Job, seen: Local) -> None:
    _told(job, caught(job.skill, seen, job.tree, job.key, job.sender))


def _together(group: list[tuple[Job, Local]]) -> None:
    """Run uses of one skill in one call; where one is refused, each for itself, to find whose fault it is."""
    jobs = [job for job, _ in group]
    try:
        results = jobs[0].skill.many(
            [seen for _, seen in group],
            [job.tree for job in jobs],
            [job.key for job in jobs],
            [job.sender for job in jobs],
        )
    except Error as error:
        if len(group) > 1:
            for one in group:
                _together([one])
        else:
            jobs[0].failure = str(error)
        return
    for job, result in zip(jobs, results, strict=True):
        _told(job, result)


def _told(job: Job, result: tuple[Local, Tree] | Error) -> None:
    if isinstance(result, Error):
        job.failure = str(result)
    else:
        job.result = result
