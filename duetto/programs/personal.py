"""Personalised federated learning side by side: every device is scored with what it answers itself.

The people, rounds and wire are those of :mod:`duetto.programs.federated`; what differs is who answers. After the last
round every device trains once more as its method says (``tune_epochs`` passes from what the cloud would send now, with
its own memory; nothing is sent back), and answers its held-back rows. So does every unseen user, as a device that has
just joined: it trains on the earlier half of its rows with an empty memory and answers the later half. Cold is the
same half before that. All methods are compared with FedAvg + fine-tuning.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from duetto.errors import ConfigError, Error
from duetto.evaluation import users
from duetto.evaluation.result import Result
from duetto.evaluation.table import Interval, Row, Value
from duetto.evaluation.users import PerUser
from duetto.programs import federated
from duetto.programs.federated import BASELINES, Comparison, Outcome, Progress
from duetto.training import Client
from duetto.training.executor import Executor
from duetto.tree import Tree
from duetto.types import Local, Rows, rng

AGAINST = "fedavg_ft"
METHODS: Mapping[str, Mapping[str, Any]] = {
    "fedavg": {},
    AGAINST: {},
    "fedper": {},
    "fedrep": {"head_epochs": 2},
    "fedbn": {},
    "lg_fedavg": {},
    "ditto": {"lam": 0.1},
    "pfedme": {"lam": 1.0, "eta": 0.5, "steps": 5},
    "per_fedavg": {"alpha": 0.05},
    "reptile": {"epsilon": 0.7},
    "apfl": {"alpha": 0.5},
    "knn_per": {"k": 10, "lam": 0.5},
    "ifca": {"k": 2},
    "moon": {"mu": 1.0},
}
"""The methods, and what each adds to the common settings; chosen on other seeds than those that are reported."""

WORLDS: Mapping[str, Callable[[str, federated.Settings, int], federated.World]] = {}
"""Tasks whose people are not drawn as :func:`duetto.programs.federated.world` draws them, and who draws them."""


@dataclass(frozen=True)
class Settings(federated.Settings):
    """What is compared.

    Attributes:
        tune_epochs: passes of every device after the last round, before it is scored.
    """

    rounds: int = 50
    cohort: int = 20
    tune_epochs: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tune_epochs < 0:
            raise ConfigError(f"tune_epochs={self.tune_epochs}", "use a number from 0")


@dataclass(frozen=True, eq=False)
class World(federated.World):
    """A seed's people; ``unseen`` are the later halves of theirs.

    Attributes:
        joining: unseen user -> the earlier half, to learn from on joining.
    """

    joining: Mapping[str, Rows] = field(default_factory=dict)


def world(task: str, settings: Settings, seed: int) -> World:
    """The people of a seed; an unseen user with fewer than two rows is left out."""
    plain = WORLDS.get(task, federated.world)(task, settings, seed)
    rows, owners = plain.unseen
    joining, later = {}, []
    for user in sorted(set(owners.tolist())):
        mine = rng((seed, user, "joining")).permutation(np.flatnonzero(owners == user))
        if len(mine) > 1:
            half = np.sort(mine[: len(mine) // 2])
            joining[user] = Rows(rows.x[half], rows.y[half])
            later.append(np.sort(mine[len(mine) // 2 :]))
    at = np.concatenate(later)
    own = {name: getattr(plain, name) for name in ("net", "params", "train", "held", "augment")}
    return World(**own, unseen=(Rows(rows.x[at], rows.y[at]), owners[at]), joining=joining)


def learn(
    name: str,
    here: World,
    settings: Settings,
    seed: int,
    more: Mapping[str, Any],
    executor: Executor,
    progress: Progress,
) -> Outcome:
    """Rounds of one method, the last training of all, and their answers."""
    made = federated.algorithm(name, here, settings, more, executor, METHODS)
    began = time.perf_counter()
    log = federated.lived(name, here, settings, seed, made, progress)
    cloud = log.memory["cloud"]
    sent = made.server.send(cloud["rounds"]["server"], cloud["params"], None)
    client = made.client
    assert isinstance(client, Client)
    last = replace(client, epochs=settings.tune_epochs)
    devices = {user: Local(rows, log.memory.get(user, {})) for user, rows in here.train.items()}
    scored = set(here.held[1].tolist())
    ready = tuned(last, sent, {user: local for user, local in devices.items() if user in scored}, seed)
    joined = tuned(last, sent, {user: Local(rows) for user, rows in here.joining.items()}, seed)
    seconds = time.perf_counter() - began
    found = {
        "held": answers(client, sent, ready, here.held),
        "unseen": answers(client, sent, joined, here.unseen),
        "cold": answers(client, sent, {user: Local() for user in joined}, here.unseen),
    }
    return federated.outcome(name, seed, found, log, seconds)


def tuned(client: Client, sent: Tree, devices: Mapping[str, Local], seed: int, together: int = 20) -> dict[str, Local]:
    """The devices once each has trained on its own, ``together`` at a time.

    Raises:
        Error: one of them cannot.
    """
    names, after = list(devices), {}
    for first in range(0, len(names), together):
        part = names[first : first + together]
        keys = [(seed, "tuned", user) for user in part]
        results = client.many([devices[user] for user in part], [sent] * len(part), keys, ["cloud"] * len(part))
        for user, result in zip(part, results, strict=True):
            if isinstance(result, Error):
                raise result
            after[user] = result[0]
    return after


def answers(client: Client, sent: Tree, devices: Mapping[str, Local], asked: tuple[Rows, np.ndarray]) -> PerUser:
    """Who is answered right how often by the own device."""
    rows, owners = asked
    right = np.zeros(len(rows))
    for user, local in devices.items():
        mine = owners == user
        right[mine] = client.logits(sent, local.memory, rows.x[mine]).argmax(1) == rows.y[mine]
    return users.by(right, owners)


def compare(what: Comparison, folder: Path, progress: Progress = lambda what, done, of: None) -> list[Outcome]:
    """Do what of a comparison is not there yet; see :func:`duetto.programs.federated.compare`."""
    return federated.compare(what, folder, progress, methods=METHODS, people=world, learning=learn)


@dataclass(frozen=True)
class Line(federated.Line):
    """One method over all seeds; ``gain`` is over FedAvg + fine-tuning.

    Attributes:
        cold: unseen users before they have trained; NaN where there is no device to ask.
    """

    cold: float = np.nan


def lines(found: Sequence[Outcome]) -> list[Line]:
    """One line a method, in their order."""

    def cold(name: str) -> float:
        seeds = [each for each in found if each.name == name and each.users.get("cold")]
        return float(np.mean([users.user_mean(each.of("cold")) for each in seeds])) if seeds else np.nan

    return [Line(**vars(line), cold=cold(line.name)) for line in federated.lines(found, AGAINST)]


def result(what: Comparison, name: str, found: Sequence[Outcome]) -> Result:
    """What the page shows: a row a method."""
    rows = []
    for line in lines(found):
        values: dict[str, Value] = {"accuracy": line.held, "worst_accuracy": line.worst}
        values |= {"unseen users, joined, %": 100 * line.unseen, "unseen users, cold, %": 100 * line.cold}
        if line.gain is not None:
            values["points over fedavg_ft"] = Interval(*(100 * value for value in line.gain))
        if line.up_bytes:
            values |= {"kB up a device and round": line.up_bytes / 1e3, "kB down": line.down_bytes / 1e3}
        values["seconds"] = line.seconds
        told = {key: value for key, value in values.items() if isinstance(value, Interval) or not np.isnan(value)}
        rows.append(Row(line.name, told))
    ahead = [line.name for line in lines(found) if line.gain is not None and line.gain[1] > 0 and line.name in METHODS]
    beaten = f"{', '.join(ahead)} beat" if len(ahead) > 1 else f"{ahead[0]} beats" if ahead else "nothing beats"
    notes = [f"{each.name}, seed {each.seed}: {each.diverged}" for each in found if each.diverged]
    return Result(name, what.task, what.seeds, f"{beaten} FedAvg + fine-tuning on held-back rows", rows, notes=notes)


__all__ = ["BASELINES", "METHODS", "Comparison", "Line", "Settings", "World", "compare", "learn", "lines", "result"]
