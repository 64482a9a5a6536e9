"""The programs that run on real machines as they run in simulation: their parties, made on each machine anew.

Every machine loads the same task by the same seed, so that they mean the same models and users.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

from duetto.errors import ConfigError
from duetto.programs import closed_loop, split_learning
from duetto.tasks import Task, load, trained
from duetto.types import Local, Party

S = TypeVar("S")


@dataclass(frozen=True, eq=False)
class Deployed:
    """A program on its way to the machines that it runs on.

    Attributes:
        users: the devices, in the order in which policies see them.
        device, cloud: the parties.
        first: what every device remembers at first.
        task: whose rows devices hold.
    """

    users: Sequence[str]
    device: Party
    cloud: Party
    first: Mapping[str, Any]
    task: Any

    def local(self, user: str) -> Local:
        """What a user's device holds.

        Raises:
            ConfigError: no such user.
        """
        if user not in self.users:
            raise ConfigError(f"no device of {self.task.name} is called {user!r}", f"take {', '.join(self.users[:9])}")
        return Local(self.task.rows(user), self.first)


def deployed(program: str, task: str, settings: Mapping[str, str], users: int = 0) -> Deployed:
    """A program's parties.

    Args:
        program: one of :data:`PROGRAMS`.
        task: its name.
        settings: of the program, as texts.
        users: how many take part, the first ones; 0 is all.

    Raises:
        ConfigError: no such program, task or setting.
    """
    if program not in PROGRAMS:
        raise ConfigError(f"no program is called {program!r}", f"use one of {', '.join(PROGRAMS)}")
    defaults, make = PROGRAMS[program]
    given = _set(defaults(), settings)
    loaded = load(task, given.seed)
    device, cloud, first = make(loaded, given)
    names = loaded.users["device"]
    return Deployed(names[: users or len(names)], device, cloud, first, loaded)


def _closed_loop(task: Task, given: closed_loop.Settings) -> tuple[Party, Party, Mapping[str, Any]]:
    pair = trained(task)
    policy = closed_loop.fitted(task, given, pair.small, pair.large)
    cloud = closed_loop.cloud(task, given, pair.small, pair.large)
    return closed_loop.device(task, given), cloud, closed_loop.first(task, given, pair.small, policy)


PROGRAMS: Mapping[str, tuple[Any, Any]] = {
    "closed-loop": (closed_loop.Settings, _closed_loop),
    "split-learning": (split_learning.Settings, split_learning.made),
}
"""Programs by name: their settings, and what makes their parties (device, cloud, what devices remember at first)."""


def _set(settings: S, texts: Mapping[str, str]) -> S:
    """The settings with some of them read from texts, each as the type that it has."""
    known = {each.name: getattr(settings, each.name) for each in fields(settings)}  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    for name, text in texts.items():
        if name not in known:
            raise ConfigError(f"the program has no setting {name!r}", f"it has {', '.join(known)}")
        try:
            kind = type(known[name])
            values[name] = {"true": True, "false": False}[text.lower()] if kind is bool else kind(text)
        except (KeyError, ValueError) as fault:
            raise ConfigError(f"{name} = {text!r}", f"give it as {known[name]!r}, a {kind.__name__}") from fault
    return replace(settings, **values)  # type: ignore[type-var]
