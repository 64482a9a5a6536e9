"""Algorithms of federated learning side by side: the same users, rows and rounds, measured by user.

Every algorithm starts from the same parameters and is scored on what device users held back and on users nobody
learned from. Beside them stand what they are measured against: the parameters before any learning, every device
training alone, and centralised training on all the devices' rows with the same model. A run is a folder with one file
for each algorithm and seed; what is there is not done again.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from duetto import algorithms, codecs, training
from duetto import tree as trees
from duetto.errors import ConfigError
from duetto.evaluation import users
from duetto.evaluation.result import Result
from duetto.evaluation.table import Interval, Row, Value
from duetto.evaluation.users import PerUser
from duetto.models import Net
from duetto.policies import Uniform
from duetto.programs.saved import Saved
from duetto.protocols import rounds
from duetto.simulation.engine import Log, simulate
from duetto.simulation.fleet import fleet
from duetto.tasks import by_user, load, partition
from duetto.tasks.by_user import ByUser
from duetto.training import SGD, Client, CrossEntropy, sequential
from duetto.training.executor import Executor, Task
from duetto.tree import Tree
from duetto.types import Algorithm, Chain, Codec, Local, Party, Record, Rows, rng

Progress = Callable[[str, float, float], None]
Augment = Callable[[Any, Any], Any]

METHODS: Mapping[str, Mapping[str, Any]] = {
    "fedavg": {},
    "fedprox": {"mu": 0.01},
    "scaffold": {},
    "feddyn": {"alpha": 0.01},
    "fednova": {},
    "fedavgm": {"beta": 0.9, "server_lr": 0.3},
    "fedadagrad": {"server_lr": 0.03},
    "fedadam": {"server_lr": 0.01},
    "fedyogi": {"server_lr": 0.01},
}
"""The algorithms, and what each adds to the common settings; chosen on other seeds than those that are reported."""

BASELINES = ("start", "alone", "centralised")

WIRES: Mapping[str, Codec[Any]] = {
    "float32": Chain(),
    "int8": Chain((codecs.Quantise(8), codecs.Zstd())),
    "int4": Chain((codecs.Quantise(4, stochastic=True), codecs.Zstd())),
    "top2%": codecs.Feedback(Chain((codecs.TopK(0.02), codecs.Quantise(8), codecs.Zstd(19)))),
    "top5%": codecs.Feedback(Chain((codecs.TopK(0.05), codecs.Quantise(4), codecs.Zstd(19)))),
    "sign": codecs.Feedback(Chain((codecs.Sign(), codecs.Zstd()))),
    "powersgd": codecs.Feedback(codecs.PowerSGD(2)),
}
"""Codecs of the way up, by name."""


@dataclass(frozen=True)
class Settings:
    """What is compared.

    Attributes:
        partition: who has which rows: "natural", "dirichlet:0.1", "shards:2" ...; see ``duetto data show``.
        users: invented users, where the partition invents them.
        model: of the task's pair, "small" or "large".
        rounds: of every algorithm.
        cohort: devices a round.
        epochs, batch_size: of a device's training.
        lr, momentum: of a device's steps.
        schedule: of ``lr`` over the rounds: "constant", or "cosine", which falls to 2 % in ten stairs.
        augment: whether training, centralised training too, distorts inputs as the task's own does.
        up: the codec of the way up.
        network: between devices and cloud.
        alone_epochs: passes of a device that trains alone.
        central_epochs: passes of centralised training.
        points: of the learning curve.
    """

    partition: str = "natural"
    users: int = 100
    model: str = "small"
    rounds: int = 100
    cohort: int = 50
    epochs: int = 1
    batch_size: int = 16
    lr: float = 0.1
    momentum: float = 0.0
    schedule: str = "constant"
    augment: bool = False
    up: str = "float32"
    network: str = "constant-10"
    alone_epochs: int = 20
    central_epochs: int = 20
    points: int = 20

    def __post_init__(self) -> None:
        if min(self.rounds, self.cohort, self.users, self.points) < 1:
            raise ConfigError(f"{self.rounds} rounds with {self.cohort} of {self.users} devices", "use at least one")
        if self.model not in ("small", "large"):
            raise ConfigError(f"no model of a pair is called {self.model!r}", 'use "small" or "large"')
        if self.schedule not in ("constant", "cosine"):
            raise ConfigError(f"no schedule is called {self.schedule!r}", 'use "constant" or "cosine"')
        if self.up not in WIRES:
            raise ConfigError(f"no codec is called {self.up!r}", f"use one of {', '.join(WIRES)}")


@dataclass(frozen=True, eq=False)
class World:
    """A seed's people and where all algorithms start.

    Attributes:
        net: what is trained.
        params: where everything starts.
        train: device user -> rows it learns from.
        held: rows that device users held back, and whose each is.
        unseen: rows of users that nobody learns from, and whose each is.
        augment: changes a batch's inputs in training, or None.
    """

    net: Net
    params: Tree
    train: Mapping[str, Rows]
    held: tuple[Rows, np.ndarray]
    unseen: tuple[Rows, np.ndarray]
    augment: Augment | None = None

    def score(self, params: Tree) -> dict[str, PerUser]:
        """Who is answered right how often, by group."""
        return {
            group: users.by(self.net.logits(params, rows.x).argmax(1) == rows.y, owners)
            for group, (rows, owners) in (("held", self.held), ("unseen", self.unseen))
        }

    def accuracy(self, params: Tree) -> dict[str, float]:
        """The mean over users, by group."""
        return {f"accuracy_{group}": float(users.user_mean(found)) for group, found in self.score(params).items()}


@dataclass(frozen=True)
class Outcome(Saved):
    """What one algorithm came to with one seed.

    Attributes:
        name: of the algorithm or baseline.
        seed: of people, cohorts and training.
        users: group -> user -> (rows, right answers).
        curve: rows of (round, accuracy held, accuracy unseen, loss).
        up_bytes, down_bytes: of a device in a round, mean.
        seconds: of real time, for all rounds.
        diverged: why the run is worth nothing, or None.
    """

    name: str
    seed: int
    users: Mapping[str, Mapping[str, tuple[int, int]]]
    curve: Sequence[tuple[float, ...]] = ()
    up_bytes: float = 0.0
    down_bytes: float = 0.0
    seconds: float = 0.0
    failed: int = 0
    diverged: str | None = None

    def of(self, group: str) -> PerUser:
        """The users of a group."""
        found = self.users[group]
        names = np.array(sorted(found))
        count, right = (np.array([found[name][i] for name in names]) for i in (0, 1))
        return PerUser(names, count, right.astype(float))


def world(task: str, settings: Settings, seed: int) -> World:
    """The people of a seed: a fifth of them unseen, a fifth of every other one's rows held back."""
    given = load(task, seed)
    people: ByUser = partition.named(settings.partition, settings.users)(given.data, seed)
    drawn = by_user.draw_users(people.users, {"device": 0.8, "unseen": 0.2}, seed)
    parts = by_user.split(people, {"train": 0.8, "held": 0.2}, seed)
    mine = {name: np.isin(people.user, [people.users.index(user) for user in chosen]) for name, chosen in drawn.items()}
    names = np.array(people.users)
    train = owned(people, drawn["device"], parts["train"])
    held = np.sort(parts["held"][mine["device"][parts["held"]]])
    unseen = np.flatnonzero(mine["unseen"])
    net = given.small if settings.model == "small" else given.large
    return World(
        net,
        net.init(seed),
        train,
        (Rows(people.x[held], people.y[held]), names[people.user[held]]),
        (Rows(people.x[unseen], people.y[unseen]), names[people.user[unseen]]),
        given.teach_small.augment if settings.augment else None,
    )


def owned(people: ByUser, names: Sequence[str], rows: np.ndarray) -> dict[str, Rows]:
    """Which of these rows are whose; whoever has none is left out."""
    mine = {name: np.intersect1d(rows, people.rows(name)) for name in names}
    return {name: Rows(people.x[own], people.y[own]) for name, own in mine.items() if len(own)}


def algorithm(
    name: str,
    here: World,
    settings: Settings,
    more: Mapping[str, Any],
    executor: Executor,
    methods: Mapping[str, Mapping[str, Any]] = METHODS,
) -> Algorithm:
    """The algorithm of that name on this world.

    Raises:
        ConfigError: there is none.
    """
    if name not in methods:
        raise ConfigError(f"no algorithm is called {name!r}", f"use one of {', '.join((*methods, *BASELINES))}")
    own: dict[str, Any] = {"lr": settings.lr, "momentum": settings.momentum}
    own |= {"epochs": settings.epochs, "batch_size": settings.batch_size}
    own |= {"cohort": Uniform(settings.cohort), **methods[name], **more}
    made: Algorithm = getattr(algorithms, name)(here.net, here.params, **own)
    client = made.client
    assert isinstance(client, Client)
    up = made.up if settings.up == "float32" else WIRES[settings.up]
    return replace(made, client=replace(client, executor=executor, augment=here.augment), up=up)


def learn(
    name: str,
    here: World,
    settings: Settings,
    seed: int,
    more: Mapping[str, Any],
    executor: Executor,
    progress: Progress,
    changed: Callable[[Algorithm], Algorithm] = lambda made: made,
) -> Outcome:
    """Rounds of one algorithm on a simulated fleet; ``changed`` may replace its parts."""
    plain = algorithm(name, here, settings, more, executor)
    curve: list[tuple[float, ...]] = []

    def heard(record: Record) -> None:
        if "accuracy_held" in record.metrics:
            told = [record.metrics.get(key, np.nan) for key in ("accuracy_held", "accuracy_unseen", "loss")]
            curve.append((record.step + 1, *map(float, told)))

    began = time.perf_counter()
    log = lived(name, here, settings, seed, plain, progress, changed, here.accuracy, heard)
    seconds = time.perf_counter() - began
    return outcome(name, seed, here.score(log.memory["cloud"]["params"]), log, seconds, curve)


def lived(
    name: str,
    here: World,
    settings: Settings,
    seed: int,
    made: Algorithm,
    progress: Progress,
    changed: Callable[[Algorithm], Algorithm] = lambda made: made,
    measure: Callable[[Tree], Mapping[str, float]] | None = None,
    heard: Callable[[Record], None] = lambda record: None,
) -> Log:
    """Rounds of an algorithm among the devices of a world, and what all of them remember."""

    def told(record: Record) -> None:
        progress(name, record.step + 1, settings.rounds)
        heard(record)

    return simulate(
        fleet=fleet(
            "phones",
            list(here.train),
            examples=[len(rows) for rows in here.train.values()],
            data=here.train.__getitem__,
        ),
        device=Party(skills=(type(made.client),)),
        cloud=rounds(
            lambda step: changed(_slowed(made, settings, step)),
            steps=settings.rounds,
            seed=seed,
            measure=measure,
            every=max(1, settings.rounds // settings.points),
        ),
        network=settings.network,
        seed=seed,
        on_record=told,
    )


def outcome(
    name: str,
    seed: int,
    found: Mapping[str, PerUser],
    log: Log,
    seconds: float,
    curve: Sequence[tuple[float, ...]] = (),
) -> Outcome:
    """What a run came to, its costs by device and round."""
    asked = sum(int(record.metrics["cohort"]) for record in log.records)
    return Outcome(
        name,
        seed,
        _told(found),
        curve,
        sum(record.cost.up_bytes for record in log.records) / asked,
        sum(record.cost.down_bytes for record in log.records) / asked,
        seconds,
        sum(int(record.metrics["failed"]) for record in log.records),
        None if trees.finite(log.memory["cloud"]["params"]) else "its parameters are not finite",
    )


def _slowed(made: Algorithm, settings: Settings, step: int, stairs: int = 10) -> Algorithm:
    """The algorithm with the learning rate of a round."""
    if settings.schedule == "constant":
        return made
    share = min(stairs * step // settings.rounds, stairs - 1) / (stairs - 1)
    lr = settings.lr * (0.02 + 0.98 * (1 + math.cos(math.pi * share)) / 2)
    client = made.client
    assert isinstance(client, Client)
    assert isinstance(client.optimiser, SGD)
    return replace(made, client=replace(client, optimiser=replace(client.optimiser, lr=lr)))


def baseline(name: str, here: World, settings: Settings, seed: int, executor: Executor, progress: Progress) -> Outcome:
    """What the algorithms are measured against."""
    began = time.perf_counter()
    if name == "start":
        return Outcome(name, seed, _told(here.score(here.params)))
    if name == "alone":
        one = Client(
            here.net, (CrossEntropy(),), SGD(settings.lr, settings.momentum), settings.alone_epochs, settings.batch_size
        )
        return _alone(one, here, seed, executor, progress, began)
    x, y = (np.concatenate([getattr(rows, column) for rows in here.train.values()]) for column in ("x", "y"))
    optimiser = SGD(0.05, 0.9, schedule="cosine")
    central = Client(here.net, (CrossEntropy(),), optimiser, settings.central_epochs, 32, augment=here.augment)

    def stepped(step: int, steps: int) -> None:
        progress(name, step, steps)

    done = sequential.run(central, {"params": here.params}, {"x": x, "y": y}, (seed, "centralised"), stepped)
    return Outcome(name, seed, _told(here.score(done.params)), seconds=time.perf_counter() - began)


def _alone(
    one: Client, here: World, seed: int, executor: Executor, progress: Progress, began: float, most: int = 100
) -> Outcome:
    """Devices that never hear of each other: a hundred of them, each scored on what it held back."""
    rows, owners = here.held
    names = sorted(set(owners.tolist()) & set(here.train))
    chosen = sorted(rng((seed, "alone")).choice(names, min(most, len(names)), replace=False).tolist())
    found: dict[str, tuple[int, int]] = {}
    for first in range(0, len(chosen), 10):
        progress("alone", first, len(chosen))
        part = chosen[first : first + 10]
        start = {"params": here.params}
        tasks = [Task(start, one.examples(Local(here.train[user]), here.params), (seed, user)) for user in part]
        for user, trained in zip(part, executor.train(one, tasks), strict=True):
            if isinstance(trained, Exception):
                raise trained
            mine = owners == user
            right = here.net.logits(trained.params, rows.x[mine]).argmax(1) == rows.y[mine]
            found[user] = (int(mine.sum()), int(right.sum()))
    return Outcome("alone", seed, {"held": found, "unseen": {}}, seconds=time.perf_counter() - began)


def _told(found: Mapping[str, PerUser]) -> dict[str, dict[str, tuple[int, int]]]:
    return {
        group: {
            str(name): (int(count), int(right))
            for name, count, right in zip(each.names, each.count, each.total, strict=True)
        }
        for group, each in found.items()
    }


@dataclass(frozen=True)
class Comparison:
    """What is to be done.

    Attributes:
        task: its name.
        names: algorithms and baselines.
        seeds: each draws its own people, cohorts and start.
        settings: of all algorithms.
        own: algorithm -> settings of its own, over those of :data:`METHODS`.
        executor: who trains.
    """

    task: str
    names: tuple[str, ...]
    seeds: tuple[int, ...]
    settings: Settings = field(default_factory=Settings)
    own: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    executor: Executor = field(default_factory=training.Auto)


def compare(
    what: Comparison,
    folder: Path,
    progress: Progress = lambda what, done, of: None,
    *,
    methods: Mapping[str, Mapping[str, Any]] = METHODS,
    people: Callable[[str, Any, int], Any] | None = None,
    learning: Callable[..., Outcome] | None = None,
) -> list[Outcome]:
    """Do what of a comparison is not there yet.

    Args:
        what: is compared.
        folder: of the run.
        progress: is told.
        methods: the algorithms that there are.
        people: makes a seed's world; None is :func:`world`.
        learning: what is done with an algorithm; None is :func:`learn`.

    Raises:
        ConfigError: an unknown algorithm, or a folder that holds another comparison.
    """
    for name in what.names:
        if name not in methods and name not in BASELINES:
            raise ConfigError(f"no algorithm is called {name!r}", f"use some of {', '.join((*methods, *BASELINES))}")
    config = {"task": what.task, "settings": asdict(what.settings)}
    claim = folder / "config.json"
    if claim.exists() and json.loads(claim.read_text()) != config:
        raise ConfigError(f"{folder} holds another comparison", "give it another --name, or forget it with --fresh")
    found = []
    for seed in what.seeds:
        here: World | None = None
        for name in what.names:
            own = what.own.get(name, {})
            mark = "".join(f"-{key}={value}" for key, value in sorted(own.items()))
            path = folder / f"{name}{mark}-seed-{seed}.json"
            if not path.exists():
                here = here or (people or world)(what.task, what.settings, seed)
                folder.mkdir(parents=True, exist_ok=True)  # what cannot start leaves no folder
                claim.write_text(json.dumps(config))
                say = _saying(progress, f"seed {seed}: ")
                if name in BASELINES:
                    baseline(name, here, what.settings, seed, what.executor, say).save(path)
                else:
                    (learning or learn)(name, here, what.settings, seed, own, what.executor, say).save(path)
            found.append(Outcome.load(path))
    return found


def _saying(progress: Progress, front: str) -> Progress:
    return lambda what, done, of: progress(front + what, done, of)


@dataclass(frozen=True)
class Line:
    """One algorithm over all seeds.

    Attributes:
        name: of the algorithm.
        held, unseen, worst: the mean over users of held-back rows and of unseen users, and over the worst tenth of
            device users; a mean over seeds.
        gain: held, less that of "fedavg" (or what else is compared with), and its 95 % interval over users drawn again
            (all seeds pooled).
        gap: "centralised" less this one, likewise.
        up_bytes, down_bytes: of a device in a round.
        seconds: of real time a run.
    """

    name: str
    seeds: int
    held: float
    unseen: float
    worst: float
    gain: tuple[float, float, float] | None
    gap: tuple[float, float, float] | None
    up_bytes: float
    down_bytes: float
    seconds: float
    failed: int
    diverged: str | None


def lines(found: Sequence[Outcome], against: str = "fedavg") -> list[Line]:
    """One line an algorithm, in their order, compared with the one that is named."""
    names = list(dict.fromkeys(each.name for each in found))
    of = {name: [each for each in found if each.name == name] for name in names}

    def line(name: str) -> Line:
        mine = of[name]

        def mean(group: str, statistic: Callable[[PerUser], Any] = users.user_mean) -> float:
            values = [float(statistic(each.of(group))) for each in mine if each.users[group]]
            return float(np.mean(values)) if values else np.nan

        return Line(
            name,
            len(mine),
            mean("held"),
            mean("unseen"),
            mean("held", users.worst),
            _difference(of.get(against), mine),
            _difference(mine, of.get("centralised")),
            float(np.mean([each.up_bytes for each in mine])),
            float(np.mean([each.down_bytes for each in mine])),
            float(np.mean([each.seconds for each in mine])),
            sum(each.failed for each in mine),
            next((each.diverged for each in mine if each.diverged), None),
        )

    return [line(name) for name in names]


def result(what: Comparison, name: str, found: Sequence[Outcome]) -> Result:
    """What the page shows: a row an algorithm, and the learning curves, a mean over seeds with their range."""
    rows = []
    for line in lines(found):
        values: dict[str, Value] = {"accuracy": line.held, "unseen users, %": 100 * line.unseen}
        values |= {"worst_accuracy": line.worst}
        for key, interval in (("points over fedavg", line.gain), ("points below centralised", line.gap)):
            if interval is not None:
                values[key] = Interval(*(100 * value for value in interval))
        if line.up_bytes:
            values |= {"kB up a device and round": line.up_bytes / 1e3, "kB down": line.down_bytes / 1e3}
        rows.append(Row(line.name, {key: value for key, value in values.items() if not _missing(value)}))
    best = max(
        (row for row in rows if row.name in METHODS), key=lambda row: _value(row.values["accuracy"]), default=None
    )
    headline = "" if best is None else f"{best.name} reaches {_value(best.values['accuracy']):.1%} on held-back rows"
    return Result(name, what.task, what.seeds, headline, rows, rounds=_curves(found), notes=_failures(found))


def _curves(found: Sequence[Outcome]) -> list[dict[str, float]]:
    rounds: dict[int, dict[str, float]] = {}
    for name in dict.fromkeys(each.name for each in found):
        seeds = [{int(point[0]): point[1] for point in each.curve} for each in found if each.name == name]
        for step in sorted(set.intersection(*map(set, seeds))):
            values = [curve[step] for curve in seeds]
            told = {"": float(np.mean(values)), "_low": min(values), "_high": max(values)}
            entry = rounds.setdefault(step, {"round": step})
            entry |= {f"{name}_accuracy{end}": value for end, value in told.items()}
    return [rounds[step] for step in sorted(rounds)]


def _failures(found: Sequence[Outcome]) -> list[str]:
    told = [f"{each.name}, seed {each.seed}: {each.diverged}" for each in found if each.diverged]
    failed = sum(each.failed for each in found)
    return told + ([f"{failed} answers of devices failed or were rejected"] if failed else [])


def _value(value: Value) -> float:
    return value.value if isinstance(value, Interval) else value


def _missing(value: Value) -> bool:
    return bool(np.isnan(_value(value)))


def _difference(before: Sequence[Outcome] | None, after: Sequence[Outcome] | None) -> tuple[float, float, float] | None:
    """The paired difference of the mean over users, and its interval; the users of all seeds are one crowd."""
    if not before or not after or before[0].name == after[0].name or len(before) != len(after):
        return None
    both = [_pooled(side) for side in (before, after)]
    if len(both[0]) != len(both[1]):  # only some were scored
        return None
    low, high = users.paired(users.user_mean, *both, key=("federated",))
    return float(users.user_mean(both[1]) - users.user_mean(both[0])), low, high


def _pooled(found: Sequence[Outcome]) -> PerUser:
    each = [(one.seed, one.of("held")) for one in found]
    names = np.concatenate([[f"{seed}/{name}" for name in of.names] for seed, of in each])
    return PerUser(names, np.concatenate([of.count for _, of in each]), np.concatenate([of.total for _, of in each]))
