"""A stream of tasks out of any data set by user: parts "task-0" and on, by class or by time.

Everything here is a pure function of its arguments. All users meet the same tasks in the same order.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from duetto.errors import ConfigError
from duetto.tasks.by_user import ByUser
from duetto.types import Rows, rng


def groups(classes: int, tasks: int, seed: int) -> tuple[tuple[int, ...], ...]:
    """The classes of each task, drawn by seed; sizes differ by one at most.

    Raises:
        ConfigError: no task, or more tasks than classes.
    """
    if not 1 <= tasks <= classes:
        raise ConfigError(f"{classes} classes cannot be {tasks} tasks", f"use 1 to {classes}")
    order = rng((seed, "incremental", "classes")).permutation(classes)
    return tuple(tuple(sorted(part.tolist())) for part in np.array_split(order, tasks))


def by_class(data: ByUser, tasks: int, seed: int) -> dict[str, NDArray[np.int64]]:
    """Rows by the group of their class (see :func:`groups`): class-incremental, or task-incremental where the task is
    known when answering. Of a task whose classes a user lacks, that user has no rows.

    Raises:
        ConfigError: as :func:`groups`.
    """
    return {
        f"task-{i}": np.flatnonzero(np.isin(data.y, classes))
        for i, classes in enumerate(groups(len(data.classes), tasks, seed))
    }


def by_time(data: ByUser, tasks: int) -> dict[str, NDArray[np.int64]]:
    """Each user's rows, in order, cut into equal pieces (to within one row): the same classes, as time goes by.

    Raises:
        ConfigError: no task.
    """
    if tasks < 1:
        raise ConfigError(f"a stream of {tasks} tasks", "use at least one")
    task = np.empty(len(data.y), np.int64)
    for user in data.users:
        rows = data.rows(user)
        task[rows] = np.arange(len(rows)) * tasks // len(rows)
    return {f"task-{i}": np.flatnonzero(task == i) for i in range(tasks)}


def stream(data: ByUser, user: str, parts: Mapping[str, NDArray[np.int64]]) -> Rows:
    """One user's rows with the parts as positions among them: what a device holds."""
    rows = data.rows(user)
    return Rows(data.x[rows], data.y[rows], {name: np.flatnonzero(np.isin(rows, part)) for name, part in parts.items()})
