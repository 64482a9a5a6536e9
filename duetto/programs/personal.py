"""Personalised federated learning side by side: every device is scored with what it answers itself.

Rounds and wire are those of :mod:`duetto.programs.federated`; what differs is who answers. After the last
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

from duetto import tree as trees
from duetto.algorithms.fedper import SplitClient
from duetto.algorithms.fedrep import FedRepClient
from duetto.algorithms.per_fedavg import PerFedAvgClient
from duetto.errors import ConfigError, Error
from duetto.evaluation import ranking, users
from duetto.evaluation.result import Result
from duetto.evaluation.table import Interval, Row, Value
from duetto.evaluation.users import PerUser
from duetto.programs import federated
from duetto.programs.federated import BASELINES, Comparison, Outcome, Progress
from duetto.simulation.engine import Log
from duetto.tasks import by_user, load, partition
from duetto.tasks.by_user import ByUser
from duetto.training import SGD, Client, Partly
from duetto.training.executor import Executor
from duetto.tree import Tree
from duetto.types import Algorithm, Local, Rows, rng

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
    "knn_per": {"k": 10},
    "ifca": {"k": 2},
    "moon": {"mu": 1.0},
}
"""The methods, and what each adds to the common settings, where a task has none of :data:`CHOSEN`."""

ENDS: Mapping[str, Mapping[str, Any]] = {
    "fedavg": {"last_epochs": 0},
    "apfl": {"keeps": True},
    "knn_per": {"last_epochs": 0},
}
"""How the last training differs: ``last_epochs``, ``last_lr``, and whether one ``keeps`` what it would have sent."""

CHOSEN: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "activity": {
        "fedavg": {"lr": 0.3},
        AGAINST: {"lr": 0.3, "last_epochs": 10, "last_lr": 0.3},
        "fedper": {"lr": 0.3, "keeps": False, "last_epochs": 10, "last_lr": 0.09},
        "fedrep": {"lr": 0.3, "head_epochs": 1, "keeps": False, "last_epochs": 10, "last_lr": 0.3},
        "fedbn": {"lr": 0.3},
        "lg_fedavg": {"lr": 0.3, "keeps": False, "last_epochs": 3, "last_lr": 0.3},
        "ditto": {"lr": 0.3, "lam": 0.03, "last_epochs": 10, "last_lr": 0.09},
        "reptile": {"lr": 0.3, "epsilon": 1.0, "last_epochs": 10, "last_lr": 0.3},
        "pfedme": {"lr": 0.3, "lam": 1.0, "eta": 0.5, "steps": 3, "last_epochs": 10, "last_lr": 0.09},
        "per_fedavg": {"lr": 0.3, "alpha": 0.15, "last_epochs": 10, "last_lr": 0.09},
        "apfl": {"lr": 0.3, "alpha": 0.5, "keeps": True, "last_epochs": 10, "last_lr": 0.3},
        "ifca": {"lr": 0.3, "k": 2, "keeps": True, "last_epochs": 10, "last_lr": 0.3},
        "moon": {"lr": 0.3, "mu": 0.1, "keeps": True, "last_epochs": 10, "last_lr": 0.3},
        "knn_per": {"lr": 0.3, "k": 5, "scale": 0.3, "last_epochs": 0},
    },
    "handwriting": {
        "fedavg": {"lr": 0.3},
        AGAINST: {"lr": 0.3, "last_epochs": 3, "last_lr": 0.09},
        "fedper": {"lr": 0.3, "keeps": False, "last_epochs": 10, "last_lr": 0.3},
        "fedrep": {"lr": 0.3, "head_epochs": 1, "keeps": True, "last_epochs": 10, "last_lr": 0.3},
        "fedbn": {"lr": 0.3},
        "lg_fedavg": {"lr": 0.3, "keeps": False, "last_epochs": 10, "last_lr": 0.09},
        "ditto": {"lr": 0.3, "lam": 0.3, "last_epochs": 10, "last_lr": 0.09},
        "reptile": {"lr": 0.3, "epsilon": 0.7, "last_epochs": 10, "last_lr": 0.09},
        "pfedme": {"lr": 0.3, "lam": 1.0, "eta": 0.5, "steps": 3, "last_epochs": 10, "last_lr": 0.09},
        "per_fedavg": {"lr": 0.3, "alpha": 0.03, "last_epochs": 3, "last_lr": 0.09},
        "apfl": {"lr": 0.3, "alpha": 0.75, "keeps": True, "last_epochs": 10, "last_lr": 0.09},
        "ifca": {"lr": 0.3, "k": 2, "last_epochs": 0},
        "moon": {"lr": 0.3, "mu": 0.1, "keeps": True, "last_epochs": 10, "last_lr": 0.09},
        "knn_per": {"lr": 0.3, "k": 5, "scale": 0.3, "last_epochs": 0},
    },
    "ratings": {
        "fedavg": {"lr": 1.0},
        AGAINST: {"lr": 1.0, "last_epochs": 10, "last_lr": 1.0},
        "fedper": {"lr": 1.0, "keeps": True, "last_epochs": 3, "last_lr": 0.3},
        "fedrep": {"lr": 1.0, "head_epochs": 1, "keeps": True, "last_epochs": 10, "last_lr": 0.3},
        "fedbn": {"lr": 1.0},
        "lg_fedavg": {"lr": 1.0, "keeps": False, "last_epochs": 3, "last_lr": 1.0},
        "ditto": {"lr": 1.0, "lam": 0.03, "last_epochs": 10, "last_lr": 0.3},
        "reptile": {"lr": 1.0, "epsilon": 1.0, "last_epochs": 10, "last_lr": 1.0},
        "knn_per": {"lr": 1.0, "k": 10, "scale": 3.0, "last_epochs": 0},
        "pfedme": {"lr": 1.0, "lam": 1.0, "eta": 0.5, "steps": 3, "last_epochs": 10, "last_lr": 0.3},
        "per_fedavg": {"lr": 1.0, "alpha": 0.1, "last_epochs": 10, "last_lr": 0.3},
        "apfl": {"lr": 1.0, "alpha": 0.5, "keeps": True, "last_epochs": 3, "last_lr": 0.3},
        "ifca": {"lr": 1.0, "k": 2, "keeps": True, "last_epochs": 10, "last_lr": 1.0},
        "moon": {"lr": 1.0, "mu": 0.1, "last_epochs": 0},
    },
    "shakespeare": {
        "fedavg": {"lr": 3.0},
        AGAINST: {"lr": 3.0, "last_epochs": 3, "last_lr": 0.09},
        "fedper": {"lr": 3.0, "keeps": False, "last_epochs": 3, "last_lr": 0.3},
        "fedbn": {"lr": 3.0},
        "ditto": {"lr": 3.0, "lam": 0.3, "last_epochs": 10, "last_lr": 0.09},
        "reptile": {"lr": 3.0, "epsilon": 1.0, "last_epochs": 10, "last_lr": 0.09},
        "knn_per": {"lr": 3.0, "k": 10, "scale": 3.0, "last_epochs": 0},
        "fedrep": {"lr": 3.0, "head_epochs": 1, "keeps": True, "last_epochs": 3, "last_lr": 0.09},
        "lg_fedavg": {"lr": 3.0, "keeps": False, "last_epochs": 3, "last_lr": 0.3},
        "pfedme": {"lr": 3.0, "lam": 1.0, "eta": 0.5, "steps": 3, "last_epochs": 10, "last_lr": 0.09},
        "per_fedavg": {"lr": 3.0, "alpha": 0.3, "last_epochs": 3, "last_lr": 0.09},
        "apfl": {"lr": 3.0, "alpha": 0.75, "keeps": True, "last_epochs": 3, "last_lr": 0.3},
        "ifca": {"lr": 3.0, "k": 2, "keeps": True, "last_epochs": 3, "last_lr": 0.09},
        "moon": {"lr": 3.0, "mu": 1.0, "last_epochs": 0},
    },
}
"""Task -> method -> what tuning chose, over :data:`METHODS`: on the tuning people, who are in no reported world."""

TOGETHER: Mapping[str, int] = {"ratings": 5, "shakespeare": 1}
"""Tasks whose rows follow time, and how many rows belong together; what comes later is not learned from."""

TUNING = 0.3
"""The share of a task's people on whom numbers are chosen; nobody else is reported on."""

LAST = ("last_epochs", "last_lr", "keeps")


@dataclass(frozen=True)
class Settings(federated.Settings):
    """What is compared.

    Attributes:
        people: of the task's, drawn by the seed; 0 is all.
        rows: of a person, at most; 0 is all.
        tune_epochs: passes of every device after the last round, before it is scored.
    """

    people: int = 100
    rows: int = 200
    rounds: int = 60
    cohort: int = 10
    tune_epochs: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("people", "rows", "tune_epochs"):
            if (value := getattr(self, name)) < 0:
                raise ConfigError(f"{name}={value}", "use a number from 0")


@dataclass(frozen=True, eq=False)
class World(federated.World):
    """A seed's people; ``unseen`` are the later halves of theirs.

    Attributes:
        joining: unseen user -> the earlier half, to learn from on joining.
    """

    joining: Mapping[str, Rows] = field(default_factory=dict)


def world(task: str, settings: Settings, seed: int, tuning: bool = False) -> World:
    """The people of a seed: a fifth of them unseen, a fifth of every other one's rows held back.

    An unseen user with fewer than two rows is left out. Where a task's rows follow time, the last ones are held back.

    Args:
        task: its name.
        settings: how many people and rows.
        seed: draws them.
        tuning: the people on whom numbers are chosen, and not those who are reported; invented people are both.
    """
    given = load(task, seed)
    people = partition.named(settings.partition, settings.users)(given.data, seed)
    together = TOGETHER.get(task) if settings.partition == "natural" else None
    if settings.partition == "natural":
        people = people.only(name for name in people.users if for_tuning(name) == tuning)
    if 0 < settings.people < len(people.users):
        rest = len(people.users) - settings.people
        people = people.only(rng((seed, "people")).permutation(np.array(sorted(people.users)))[rest:].tolist())
    if settings.rows:
        most = settings.rows - settings.rows % (together or 1)
        people = people.take(np.concatenate([people.rows(user)[:most] for user in people.users]))
    drawn = by_user.draw_users(people.users, {"device": 0.8, "unseen": 0.2}, seed)
    parts = _parted(people, {"train": 0.8, "held": 0.2}, seed, together)
    names = np.array(people.users)
    train = federated.owned(people, drawn["device"], parts["train"])
    held = np.sort(parts["held"][np.isin(names[people.user[parts["held"]]], drawn["device"])])
    newer = people.only(drawn["unseen"])
    halves = _parted(newer, {"joining": 0.5, "unseen": 0.5}, seed, together)
    owners = np.array(newer.users)[newer.user]
    joining = {user: np.sort(halves["joining"][owners[halves["joining"]] == user]) for user in newer.users}
    joining = {user: rows for user, rows in joining.items() if len(rows)}
    unseen = np.sort(halves["unseen"][np.isin(owners[halves["unseen"]], list(joining))])
    net = given.small if settings.model == "small" else given.large
    return World(
        net,
        net.init(seed),
        train,
        (Rows(people.x[held], people.y[held]), names[people.user[held]]),
        (Rows(newer.x[unseen], newer.y[unseen]), owners[unseen]),
        given.teach_small.augment if settings.augment else None,
        {user: Rows(newer.x[at], newer.y[at]) for user, at in joining.items()},
    )


def for_tuning(name: str) -> bool:
    """Whether numbers may be chosen on a person; told by the name alone, whoever else is there."""
    return bool(rng(("personal", "tuning", name)).random() < TUNING)


def _parted(people: ByUser, shares: Mapping[str, float], seed: int, together: int | None) -> dict[str, np.ndarray]:
    return by_user.split(people, shares, seed) if together is None else by_user.in_order(people, shares, together)


def chosen(task: str, name: str, settings: Settings) -> dict[str, Any]:
    """A method's numbers for a task; what the settings say of learning rate and last passes, unless by default, rules.

    Only ``last_epochs`` of :data:`ENDS` stays: those have nothing to train last.
    """
    plain, tuned = {**METHODS.get(name, {}), **ENDS.get(name, {})}, dict(CHOSEN.get(task, {}).get(name, {}))
    for key, said in (
        ("lr", settings.lr != Settings.lr),
        ("last_epochs", settings.tune_epochs != Settings.tune_epochs),
    ):
        if said:
            tuned.pop(key, None)
    return {**plain, **tuned}


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
    own = {**METHODS.get(name, {}), **ENDS.get(name, {}), **more}
    made = built(name, here, settings, own, executor, seed)
    began = time.perf_counter()
    log = federated.lived(name, here, settings, seed, made, progress)
    devices = ready(made, log, here, settings, seed, own)
    seconds = time.perf_counter() - began
    return federated.outcome(name, seed, scored(here, devices), log, seconds)


def built(
    name: str, here: World, settings: Settings, own: Mapping[str, Any], executor: Executor, seed: int
) -> Algorithm:
    """The algorithm of that name with its numbers, but for what these say of the last training.

    What a device has of its own begins where the world's parameters do.
    """
    rounds = {key: value for key, value in own.items() if key not in LAST}
    methods = {**METHODS, name: rounds} if name in METHODS else METHODS
    made = federated.algorithm(name, here, settings, {}, executor, methods)
    return replace(made, client=replace(made.client, first=seed)) if isinstance(made.client, SplitClient) else made


@dataclass(frozen=True)
class Device:
    """Who answers: as it trained last, with what it has of the cloud, and with its own memory."""

    client: Client
    sent: Tree
    memory: Mapping[str, Any]


def ready(
    made: Algorithm,
    log: Log,
    here: World,
    settings: Settings,
    seed: int,
    own: Mapping[str, Any],
    groups: Sequence[str] = ("held", "unseen", "cold"),
) -> dict[str, dict[str, Device]]:
    """The devices after their last training: ``held``, who took part; ``unseen``, who joins; ``cold``, before that."""
    cloud = log.memory["cloud"]
    sent = made.server.send(cloud["rounds"]["server"], cloud["params"], None)
    client = made.client
    assert isinstance(client, Client)
    keeps = bool(own.get("keeps", False))
    last = lasting(client, sent, own.get("last_epochs", settings.tune_epochs), own.get("last_lr"), keeps)
    scored = sorted(set(here.held[1].tolist()) & set(here.train))
    before = {user: Local(here.train[user], log.memory.get(user, {})) for user in scored}
    joining = {user: Local(rows) for user, rows in here.joining.items()}
    made_ready = {
        "held": lambda: tuned(last, sent, before, seed, keeps),
        "unseen": lambda: tuned(last, sent, joining, seed, keeps),
        "cold": lambda: {user: Device(client, sent, {}) for user in joining},
    }
    return {group: made_ready[group]() for group in groups}


def lasting(client: Client, sent: Tree, epochs: int, lr: float | None = None, keeps: bool = False) -> Client:
    """The client as it trains last, ``epochs`` times over its rows.

    Unless a device ``keeps`` the change that it would have sent, those whose networks are split (FedPer, FedRep,
    LG-FedAvg, FedBN) train what stays and nothing else: what would travel is lost, so nothing may be fitted to it.
    Per-FedAvg's own steps have the size ``lr`` too.
    """
    assert isinstance(client.optimiser, SGD)
    steps = client.optimiser if lr is None else replace(client.optimiser, lr=lr)
    if isinstance(client, PerFedAvgClient) and lr is not None:
        client = replace(client, alpha=lr)
    if isinstance(client, FedRepClient):
        return replace(client, optimiser=steps, head_epochs=epochs, epochs=epochs if keeps else 0)
    if isinstance(client, SplitClient) and not keeps:
        whole = client.personal(sent, {})
        part = Partly.of(steps, whole, client.view.stays(whole, ""))
        return replace(client, optimiser=part, epochs=epochs) if part.leaves else replace(client, epochs=0)
    return replace(client, optimiser=steps, epochs=epochs)


def tuned(
    client: Client, sent: Tree, devices: Mapping[str, Local], seed: int, keeps: bool, together: int = 20
) -> dict[str, Device]:
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
            local, answer = result
            after[user] = Device(client, _kept(sent, answer["delta"]) if keeps else sent, local.memory)
    return after


def _kept(sent: Tree, delta: Tree) -> Tree:
    if "models" in sent:
        return {**sent, "models": trees.add(sent["models"], delta["models"])}
    return {**sent, "params": trees.add(sent["params"], delta)}


def scored(here: World, devices: Mapping[str, Mapping[str, Device]]) -> dict[str, PerUser]:
    """Group -> who is answered right how often by the own device; with two classes also ``auc``, of held-back rows.

    The latter counts pairs of a row of class 1 and one of class 0, twice, and twice those in the right order.
    """
    found: dict[str, PerUser] = {}
    for group, mine in devices.items():
        rows, owners = here.held if group == "held" else here.unseen
        right, score = np.zeros(len(rows)), np.zeros(len(rows))
        for user, device in mine.items():
            at = owners == user
            logits = device.client.logits(device.sent, device.memory, rows.x[at])
            right[at] = logits.argmax(1) == rows.y[at]
            score[at] = logits[:, 1] - logits[:, 0]
        found[group] = users.by(right, owners)
        if group == "held" and here.net.classes == 2 and np.isfinite(score).all():
            found["auc"] = _pairs(ranking.auc(score, rows.y, owners), rows.y, owners)
    return found


def _pairs(each: PerUser, y: np.ndarray, owners: np.ndarray) -> PerUser:
    of = users.by(y, owners)
    at = np.searchsorted(of.names, each.names)
    pairs = 2 * (of.total * (of.count - of.total))[at].astype(np.int64)
    return PerUser(each.names, pairs, np.rint(each.mean * pairs))


def compare(what: Comparison, folder: Path, progress: Progress = lambda what, done, of: None) -> list[Outcome]:
    """Do what of a comparison is not there yet; see :func:`duetto.programs.federated.compare`.

    A run's file is named by the numbers that its method has for the task: where these change, it is done anew.
    """
    assert isinstance(what.settings, Settings)
    own = {name: {**chosen(what.task, name, what.settings), **what.own.get(name, {})} for name in what.names}
    what = replace(what, own=own)
    return federated.compare(what, folder, progress, methods=METHODS, people=world, learning=learn)


@dataclass(frozen=True)
class Line(federated.Line):
    """One method over all seeds; ``gain`` is over FedAvg + fine-tuning.

    Attributes:
        cold: unseen users before they have trained; NaN where there is no device to ask.
        gauc: the AUC of the users' held-back rows, weighted by how many these are; NaN but for two classes.
    """

    cold: float = np.nan
    gauc: float = np.nan


def lines(found: Sequence[Outcome]) -> list[Line]:
    """One line a method, in their order."""

    def cold(each: Outcome) -> float:
        return float(users.user_mean(each.of("cold")))

    def gauc(each: Outcome) -> float:
        auc, held = each.of("auc"), each.of("held")
        weight = held.count[np.searchsorted(held.names, auc.names)]
        return float(np.average(auc.mean, weights=weight))

    def mean(name: str, group: str, statistic: Callable[[Outcome], float]) -> float:
        values = [statistic(each) for each in found if each.name == name and each.users.get(group)]
        return float(np.mean(values)) if values else np.nan

    return [
        Line(**vars(line), cold=mean(line.name, "cold", cold), gauc=mean(line.name, "auc", gauc))
        for line in federated.lines(found, AGAINST)
    ]


def result(what: Comparison, name: str, found: Sequence[Outcome]) -> Result:
    """What the page shows: a row a method."""
    rows = []
    for line in lines(found):
        values: dict[str, Value] = {"accuracy": line.held, "worst_accuracy": line.worst}
        values |= {"unseen users, joined, %": 100 * line.unseen, "unseen users, cold, %": 100 * line.cold}
        if not np.isnan(line.gauc):
            values["GAUC, %"] = 100 * line.gauc
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


__all__ = [
    "BASELINES",
    "CHOSEN",
    "METHODS",
    "Comparison",
    "Line",
    "Settings",
    "World",
    "compare",
    "learn",
    "lines",
    "result",
    "world",
]
