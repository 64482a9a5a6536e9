"""A fleet as columns: what 100,000 users at rest cost is a few arrays, no object, no coroutine, no model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from duetto.errors import ConfigError
from duetto.simulation import energy
from duetto.simulation.energy import Profile
from duetto.types import rng


@dataclass(frozen=True, eq=False)
class Fleet:
    """Devices and their users, one a row.

    Attributes:
        names: the users; a device is called after its user.
        profiles: the kinds of device.
        profile: [n] index into ``profiles``.
        examples: [n] how many examples each has (a trait that cohort policies may read).
        data: user name -> what that device holds; called while the device is asked or runs a role, not before.
        memory: what every device remembers at first, a mapping.
        online: virtual time in seconds -> [n] bool, who can be reached; None is everybody, always. Who is gone when
            it should answer has dropped out.
    """

    names: Sequence[str]
    profiles: tuple[Profile, ...]
    profile: np.ndarray
    examples: np.ndarray
    data: Callable[[str], Any] = field(default=lambda name: None)
    memory: Mapping[str, Any] = field(default_factory=dict)
    online: Callable[[float], np.ndarray] | None = None

    def __post_init__(self) -> None:
        if not len(self.names) == len(self.profile) == len(self.examples):
            raise ConfigError(
                f"a fleet of {len(self.names)} names, {len(self.profile)} profiles, {len(self.examples)} counts",
                "its columns must have one row a user",
            )

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def row(self) -> Mapping[str, int]:
        """The row of each name."""
        return {name: i for i, name in enumerate(self.names)}

    @cached_property
    def traits(self) -> dict[str, np.ndarray]:
        """What a cohort policy may know of every device: ``examples`` and ``flops``, each [n]."""
        return {"examples": self.examples, "flops": np.array([p.flops for p in self.profiles])[self.profile]}

    def of(self, name: str) -> Profile:
        """The profile of a user's device."""
        return self.profiles[int(self.profile[self.row[name]])]


def fleet(
    mix: str,
    users: Sequence[str] | int,
    *,
    examples: Sequence[int] | np.ndarray | None = None,
    data: Callable[[str], Any] = lambda name: None,
    memory: Mapping[str, Any] | None = None,
    online: Callable[[float], np.ndarray] | None = None,
    seed: int = 0,
) -> Fleet:
    """A fleet whose devices are drawn from a mix.

    Args:
        mix: a mix of ``profiles.toml`` such as ``"phones"``, or the name of one profile.
        users: their names, or how many.
        examples: [n] how many each holds; 1 where not said.
        data: user name -> data.
        memory: what every device starts with.
        online: who can be reached when; see :class:`Fleet`.
        seed: draws the profiles; a user keeps its device whoever else is in the fleet.

    Raises:
        ConfigError: an unknown mix or profile, no users, or a name that is there twice.
    """
    names = [f"user-{i}" for i in range(users)] if isinstance(users, int) else list(users)
    if not names:
        raise ConfigError("a fleet without users", "give at least one name")
    if len(set(names)) != len(names):
        raise ConfigError("a fleet in which a user is there twice", "names must be unique")
    shares = energy.mix(mix)
    edges = np.cumsum(list(shares.values()))
    if isinstance(users, int):  # names carry nothing here, so one draw serves all
        drawn = rng((seed, "profile")).random(len(names))
    else:
        drawn = np.array([rng((seed, "profile", name)).random() for name in names])
    known = energy.profiles()
    return Fleet(
        names=tuple(names),
        profiles=tuple(known[name] for name in shares),
        profile=np.minimum(np.searchsorted(edges / edges[-1], drawn, side="right"), len(shares) - 1),
        examples=np.ones(len(names), np.int64) if examples is None else np.asarray(examples, np.int64),
        data=data,
        memory=dict(memory or {}),
        online=online,
    )
