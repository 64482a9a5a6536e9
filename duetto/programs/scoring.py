"""What a pair of models is worth to people: every system answers the same users' inputs in the same world.

The systems are the four modes that app developers know from hybrid SDKs (they decide by availability), and the
cascade, which decides by confidence. A user's inputs come one after the other with random pauses, over a real or an
invented network, so latency, energy and price are those of a whole stream.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from duetto.models import Predict
from duetto.policies import MODES
from duetto.programs.closed_loop import Settings, mixture, question
from duetto.protocols import answer
from duetto.simulation.engine import simulate
from duetto.simulation.fleet import fleet
from duetto.simulation.link import Network
from duetto.tasks import Task
from duetto.tree import Tree
from duetto.types import Held, Local, Party, Peer, Record, rng

PAUSE = 30.0  # seconds between a user's inputs, on average

GROUPS: Mapping[str, str | None] = {"unseen": None, "device": "held"}
"""Who is scored, and on which part of their rows: those never trained on, on all; those with devices, on the rest."""


@dataclass(frozen=True, eq=False)
class Models:
    """What answers: a small model for every user, the members of the cloud's mixture, and the cascade's policy."""

    small: Callable[[str], Tree]
    large: Tree
    policy: Held[Any]

    def systems(self) -> dict[str, Held[Any]]:
        """Every system by name, the cascade last."""
        return {**{name: Held.of(mode) for name, mode in MODES.items()}, "cascade": self.policy}


@dataclass(frozen=True, eq=False)
class Scores:
    """Both models' logits ``[n, classes]`` on the same rows, the truth ``[n]``, and whose each row is ``[n]``."""

    user: NDArray[np.str_]
    truth: NDArray[np.int64]
    small: NDArray[np.float32]
    large: NDArray[np.float32]

    @property
    def small_correct(self) -> NDArray[np.float64]:
        """[n] 0 or 1."""
        return np.asarray(self.small.argmax(1) == self.truth, np.float64)

    @property
    def large_correct(self) -> NDArray[np.float64]:
        """[n] 0 or 1."""
        return np.asarray(self.large.argmax(1) == self.truth, np.float64)


def scores(task: Task, group: str, models: Models) -> Scores:
    """Both models on all scored rows of a group, without a world."""
    rows, user = task.group(group, GROUPS[group])
    names, first = np.unique(user, return_index=True)
    small = np.empty((len(rows), task.small.classes), np.float32)
    alike: dict[int, list[str]] = {}
    for name in names[np.argsort(first)].tolist():
        alike.setdefault(id(models.small(name)), []).append(name)
    for same in alike.values():  # users with the very same model are answered together
        mine = np.isin(user, same)
        small[mine] = task.small.logits(models.small(same[0]), rows.x[mine])
    return Scores(user, np.asarray(rows.y), small, mixture(task).logits(models.large, rows.x))


def answers(
    task: Task, settings: Settings, group: str, models: Models, system: str, network: Network | str, stage: str
) -> list[Record]:
    """Every scored row of a group, answered by one system in the simulated world; one record an answer."""
    policy, seed = models.systems()[system], settings.seed
    small, asks = Predict(task.small), question(task)

    async def answering(me: Peer, cloud: Peer, local: Local) -> AsyncIterator[Record]:
        local.memory = {"params": models.small(me.name)}
        own = policy.fork()
        rows = local.data if GROUPS[group] is None else local.data.part(GROUPS[group])
        pauses = rng((seed, "pauses", me.name)).exponential(PAUSE, len(rows))
        for step, (x, y, pause) in enumerate(zip(rows.x, rows.y, pauses.tolist(), strict=True)):
            await asyncio.sleep(pause)
            given = await answer(
                x,
                me=me,
                exits={0: small},
                peers={"cloud": cloud},
                question=asks,
                policy=own,
                key=(seed, stage, me.name, step),
                deadline=settings.deadline,
            )
            yield Record.of(given, truth=int(y), step=step, system=system, group=group, stage=stage, seed=seed)

    log = simulate(
        fleet=fleet("phones", task.users[group], data=task.rows, seed=seed),
        device=Party(roles=(answering,), skills=(Predict,)),
        cloud=Party(skills=(Predict,), local=Local(None, {"large": models.large})),
        network=network,
        seed=seed,
    )
    return list(log.records)
