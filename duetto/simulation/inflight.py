"""Uses of skills that are under way, and when they are really run.

A result is needed only at its virtual finish time. When the first one is needed, everything whose input is known
is run together, grouped by skill and by what the skill says may share a call. A use that only reads may run ahead
of its time: should the party's memory be replaced before it finishes, it is run again. Uses that write run in the
order of their finish, one after the other at each party, and what they wrote shows at their finish, not before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from duetto.errors import Error
from duetto.tree import Tree
from duetto.types import Key, Local, Skill


@dataclass(eq=False)
class Cell:
    """A party's local, and the memory after the last write that has run but not finished."""

    local: Local
    ahead: Mapping[str, Any] | None = None
    jobs: int = 0


@dataclass(eq=False)
class Job:
    """One use of a skill.

    Attributes:
        finish: the virtual time at which its result is needed; None while the input is still on its way.
        read: the memory that it ran on.
        result: what it returned.
        failure: one line, where the skill refused.
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

    @property
    def done(self) -> bool:
        """Whether it has run."""
        return self.result is not None or self.failure is not None


class InFlight:
    """The uses under way, in the order in which they were asked for."""

    def __init__(self) -> None:
        self._jobs: dict[Job, None] = {}

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
        if job.done and not job.skill.writes and job.read is not job.cell.local.memory:
            job.result = job.failure = None  # ran ahead on a memory that has been replaced since
        if not job.done:
            self._run()
        self.drop(job)
        if job.skill.writes and job.result is not None:
            job.cell.local.memory = job.result[0].memory
            if job.cell.ahead is job.cell.local.memory:
                job.cell.ahead = None

    def _run(self) -> None:
        ready = [job for job in self._jobs if not job.done and (job.finish is not None or not job.skill.writes)]
        writes = sorted((job for job in ready if job.skill.writes), key=lambda job: job.finish or 0.0)
        wave = [job for job in ready if not job.skill.writes]
        while wave or writes:
            turn, writes = _one_each(writes)
            groups: dict[Any, list[Job]] = {}
            for i, job in enumerate(wave + turn):
                mark = job.skill.group(_sees(job), job.tree)
                groups.setdefault(i if mark is None else (job.skill, mark), []).append(job)
            for jobs in groups.values():
                _together(jobs)
            wave = []


def _one_each(writes: list[Job]) -> tuple[list[Job], list[Job]]:
    """The first write of each party, and the rest."""
    first: dict[Cell, Job] = {}
    rest = [job for job in writes if first.setdefault(job.cell, job) is not job]
    return list(first.values()), rest


def _sees(job: Job) -> Local:
    """The party as this use sees it: a write builds on the writes that ran before it."""
    cell = job.cell
    return Local(cell.local.data, cell.ahead if job.skill.writes and cell.ahead is not None else cell.local.memory)


def _together(jobs: list[Job]) -> None:
    """Run uses of one skill in one call; where one is refused, each for itself, to find whose fault it is."""
    seen = [_sees(job) for job in jobs]
    try:
        results = jobs[0].skill.many(
            seen, [job.tree for job in jobs], [job.key for job in jobs], [job.sender for job in jobs]
        )
    except Error as error:
        if len(jobs) > 1:
            for job in jobs:
                _together([job])
        else:
            jobs[0].failure = str(error)
        return
    for job, local, result in zip(jobs, seen, results, strict=True):
        job.read, job.result = local.memory, result
        if job.skill.writes:
            job.cell.ahead = result[0].memory
