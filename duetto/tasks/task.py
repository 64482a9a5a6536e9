"""A task: data by user, who plays which part, and a small/large pair to answer with.

Every user has a group: "train" users' labelled rows made the cloud's models; "calibration" users' labels set
thresholds; "device" users learn, from what the cloud answers and never from their labels; "unseen" users are
never trained on. A device user's rows have three parts: "stream" (it learns from these), "calibration" (it may
ask the cloud about these to check itself) and "held" (only scored).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from duetto.errors import ConfigError
from duetto.tasks.by_user import ByUser, split
from duetto.types import Rows

if TYPE_CHECKING:
    from duetto.models import Net
    from duetto.training import Client

GROUPS = ("train", "calibration", "device", "unseen")
PARTS: Mapping[str, float] = {"stream": 0.6, "calibration": 0.2, "held": 0.2}


@dataclass(frozen=True, eq=False)
class Task:
    """One task.

    Attributes:
        name: as it is loaded by.
        seed: drew the users and the parts.
        data: all users' rows.
        users: group -> names; a user is in one group at most.
        small, large: the pair.
        teach_large, teach_small: how the cloud trains the large model on labels, and distils the small one from it.
        learn, tune: how devices train on what they were taught, in federated rounds and each for itself.
        train: rows of ``data`` that the cloud may train on, where they are not simply those of the "train" users.
        parts: shares of a device user's rows.
        dealt: part -> rows of ``data``, each row in one of them, where the parts are not drawn (as by time).
    """

    name: str
    seed: int
    data: ByUser
    users: Mapping[str, tuple[str, ...]]
    small: Net
    large: Net
    teach_large: Client
    teach_small: Client
    learn: Client
    tune: Client
    train: NDArray[np.int64] | None = None
    parts: Mapping[str, float] = field(default_factory=lambda: PARTS)
    dealt: Mapping[str, NDArray[np.int64]] | None = None

    def __post_init__(self) -> None:
        names = [name for group in GROUPS for name in self.users.get(group, ())]
        needed = GROUPS if self.train is None else GROUPS[1:]
        missing = [group for group in needed if not self.users.get(group)]
        if missing or len(set(names)) != len(names):
            raise ConfigError(
                f"task {self.name}: no {missing[0]} users" if missing else f"task {self.name}: a user in two groups",
                "every group needs users of its own; the data may have too few",
            )

    @cached_property
    def _parts(self) -> Mapping[str, NDArray[np.int64]]:
        return split(self.data, self.parts, self.seed) if self.dealt is None else self.dealt

    @cached_property
    def _of_user(self) -> Mapping[str, Mapping[str, NDArray[np.int64]]]:
        """User -> part -> positions among the user's own rows."""
        part_of = np.empty(len(self.data.y), np.int64)
        names = list(self._parts)
        for i, name in enumerate(names):
            part_of[self._parts[name]] = i
        if self.train is not None:
            part_of[self.train] = -1
        rows = {user: part_of[self.data.rows(user)] for user in self.users["device"]}
        return {user: {n: np.flatnonzero(of == i) for i, n in enumerate(names)} for user, of in rows.items()}

    def rows(self, user: str) -> Rows:
        """A user's rows; with parts for a device user."""
        own = self.data.rows(user)
        return Rows(self.data.x[own], self.data.y[own], self._of_user.get(user, {}))

    def group(self, name: str, part: str | None = None) -> tuple[Rows, NDArray[np.str_]]:
        """The rows of all users of a group (or only a part of them), and whose each is."""
        own = [self.data.rows(user) for user in self.users[name]]
        if part is not None:
            own = [rows[self._of_user[user][part]] for user, rows in zip(self.users[name], own, strict=True)]
        owners = np.repeat(np.array(self.users[name]), [len(rows) for rows in own])
        rows = np.concatenate(own)
        return Rows(self.data.x[rows], self.data.y[rows]), owners

    @cached_property
    def public(self) -> Rows:
        """What the cloud has labels for and may train on."""
        if self.train is not None:
            return Rows(self.data.x[self.train], self.data.y[self.train])
        return self.group("train")[0]


NAMES = ("activity", "cifar", "digits", "handwriting", "ratings", "sensors", "shakespeare", "tweets")
"""Of all tasks; each has a file of its name."""


def load(name: str, seed: int = 0) -> Task:
    """The task of that name.

    Raises:
        ConfigError: there is none.
        DataError: its data cannot be found or read.
    """
    if name not in NAMES:
        raise ConfigError(f"no task is called {name!r}", f"choose one of {', '.join(NAMES)}")
    made: Task = import_module(f"duetto.tasks.{name}").task(seed)
    return made


def found(name: str) -> str:
    """What to do when a task's data is not there."""
    from duetto.tasks import official

    if not official.SETS[name].sources:
        return official.by_hand(name)
    return f"set DUETTO_DATA to a folder that holds it, or run `duetto data get {name}`"
