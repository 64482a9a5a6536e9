"""Bad data, bad settings and devices that fail: the others go on, and the record says who failed and why."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from duetto import tree as trees
from duetto.algorithms import fedavg
from duetto.codecs import Quantise, Zstd
from duetto.evaluation import records as log
from duetto.models import Mlp
from duetto.programs import closed_loop
from duetto.programs.closed_loop import Settings, stored
from duetto.protocols import rounds
from duetto.simulation.engine import Log, simulate
from duetto.simulation.fleet import fleet
from duetto.tasks import Task, pair
from duetto.training import SGD, Client, Sequential
from duetto.tree import Tree
from duetto.types import Chain, Key, Local, Outcomes, Party, Rows

# ------------------------------------------------------------------------------------------------ federated rounds

NET = Mlp((3,), 2, (4,))
PARAMS = NET.init(0)
GOOD = ("ann", "ben")
X = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
Y = (X.sum(1) > 0).astype(np.int64)
BAD: Mapping[str, tuple[Rows, str]] = {
    "nan": (Rows(np.where(np.arange(8)[:, None] == 3, np.nan, X), Y), "finite"),
    "infinite": (Rows(np.where(np.arange(8)[:, None] == 3, np.inf, X), Y), "finite"),
    "empty": (Rows(X[:0], Y[:0]), "without examples"),
    "labels": (Rows(X, Y + 7), "outside"),
}
CODECS = {"plain": Chain(), "eight bits": Chain((Quantise(8), Zstd(1)))}


@dataclass(frozen=True)
class Wild(Client):
    """Learns a million million times too fast where the party says so."""

    @property
    def name(self) -> str:
        """Asked for as any client is."""
        return "Client"

    def __call__(self, local: Local, tree: Tree, key: Key, sender: str) -> tuple[Local, Tree]:
        wild = bool(local.memory.get("wild")) or getattr(local.data, "parts", {}).get("wild") is not None
        client = Client(self.net, self.loss, SGD(1e30) if wild else self.optimiser, self.epochs, self.batch_size)
        return client(local, tree, key, sender)


def learned(data: Mapping[str, Rows], codec: Chain = CODECS["plain"], steps: int = 2, wild: bool = False) -> Log:
    """Rounds with everybody, with these data."""
    algorithm = fedavg(NET, PARAMS, lr=0.1, epochs=2, batch_size=4)
    algorithm = replace(algorithm, up=codec, client=replace(algorithm.client, executor=Sequential()))
    if wild:
        client = algorithm.client
        assert isinstance(client, Client)
        algorithm = replace(
            algorithm, client=Wild(client.net, client.loss, client.optimiser, client.epochs, client.batch_size)
        )
    return simulate(
        fleet=fleet("phones", list(data), data=data.__getitem__),
        device=Party(skills=(Client,)),
        cloud=rounds(algorithm, steps=steps),
    )


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
@pytest.mark.parametrize("what", BAD)
def test_a_round_goes_on_without_a_device_whose_data_are_bad(what: str, codec: Chain) -> None:
    rows, said = BAD[what]
    with_it = learned({"ann": Rows(X, Y), "bad": rows, "ben": Rows(X[::-1], Y[::-1])}, codec)
    without = learned({"ann": Rows(X, Y), "ben": Rows(X[::-1], Y[::-1])}, codec)
    for record in with_it.records:
        assert (record.metrics["cohort"], record.metrics["failed"]) == (3, 1)
        assert str(record.metrics["failures"]).startswith("bad: ")
        assert said in str(record.metrics["failures"])
        log.line(record)
    assert trees.encode(with_it.memory["cloud"]["params"]) == trees.encode(without.memory["cloud"]["params"])
    assert trees.norm(trees.subtract(with_it.memory["cloud"]["params"], PARAMS)) > 1e-3


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
def test_a_training_that_runs_away_is_rejected_by_name(codec: Chain) -> None:
    wild = Rows(X, Y, {"wild": np.arange(8)})
    with_it = learned({"ann": Rows(X, Y), "bad": wild, "ben": Rows(X[::-1], Y[::-1])}, codec, wild=True)
    without = learned({"ann": Rows(X, Y), "ben": Rows(X[::-1], Y[::-1])}, codec)
    for record in with_it.records:
        assert (record.metrics["cohort"], record.metrics["failed"]) == (3, 1)
        assert str(record.metrics["failures"]).startswith("bad: ")
        assert "NaN or infinity" in str(record.metrics["failures"])
        log.line(record)
    assert trees.encode(with_it.memory["cloud"]["params"]) == trees.encode(without.memory["cloud"]["params"])


def test_when_all_fail_nothing_changes() -> None:
    life = learned({name: rows for name, (rows, _) in BAD.items()}, steps=3)
    assert [record.metrics["failed"] for record in life.records] == [len(BAD)] * 3
    assert trees.encode(life.memory["cloud"]["params"]) == trees.encode(PARAMS)
    for record in life.records:
        log.line(record)


def test_a_device_with_one_row_counts_as_one() -> None:
    life = learned({"ann": Rows(X, Y), "one": Rows(X[:1], Y[:1])}, steps=1)
    assert life.records[0].metrics["failed"] == 0
    alone, one = (learned({"u": rows}, steps=1).memory["cloud"]["params"] for rows in (Rows(X, Y), Rows(X[:1], Y[:1])))
    assert trees.norm(trees.subtract(alone, one)) > 1e-3


def test_a_device_without_the_skill_says_so() -> None:
    life = simulate(
        fleet=fleet("phones", list(GOOD), data=lambda user: Rows(X, Y)),
        cloud=rounds(fedavg(NET, PARAMS, lr=0.1, epochs=1), steps=1),
    )
    assert life.records[0].metrics["failed"] == 2
    assert "does not offer Client" in str(life.records[0].metrics["failures"])


# ------------------------------------------------------------------------------------------------- the closed loop

SETTINGS = Settings(days=2, rounds=4, cohort=4, tolerance_points=5.0)


@pytest.fixture(scope="module")
def task(tiny_task: Callable[..., Task]) -> Task:
    """A small one."""
    return tiny_task(1)


@pytest.fixture(scope="module")
def made(task: Task) -> dict[str, Tree]:
    """Its pair."""
    return pair.train(task)


def lived(
    task: Task, made: dict[str, Tree], change: Callable[[Rows], Rows] | None, settings: Settings = SETTINGS
) -> Log:
    """The whole loop; the first device's rows are changed."""
    known = task.group("calibration")[0]
    small = stored(made["small"])
    policy = settings.policy.fit(
        Outcomes.of_classifiers(task.small.logits(small, known.x), task.large.logits(made["large"], known.x), known.y)
    )
    bad = task.users["device"][0]
    return simulate(
        fleet=fleet(
            "phones",
            task.users["device"],
            data=lambda user: change(task.rows(user)) if change and user == bad else task.rows(user),
            memory=closed_loop.first(task, settings, made["small"], policy),
        ),
        device=closed_loop.device(task, settings),
        cloud=closed_loop.cloud(task, settings, made["small"], made["large"]),
    )


def poisoned(rows: Rows, part: str, value: float) -> Rows:
    """One value of one row of a part."""
    x = rows.x.copy()
    x[rows.parts[part][0], 0] = value
    return Rows(x, rows.y, rows.parts)


def without(rows: Rows, *parts: str) -> Rows:
    """No rows in these parts."""
    return Rows(rows.x, rows.y, {**rows.parts, **{part: np.zeros(0, np.int64) for part in parts}})


CHANGES: Mapping[str, Callable[[Rows], Rows]] = {
    "NaN in the stream": lambda rows: poisoned(rows, "stream", np.nan),
    "infinity in the stream": lambda rows: poisoned(rows, "stream", np.inf),
    "NaN in the calibration part": lambda rows: poisoned(rows, "calibration", np.nan),
    "no stream": lambda rows: without(rows, "stream"),
    "no calibration part": lambda rows: without(rows, "calibration"),
    "nothing at all": lambda rows: without(rows, "stream", "calibration", "held"),
    "one row": lambda rows: replace(
        without(rows, "calibration", "held"),
        parts={"stream": np.array([0]), "calibration": np.zeros(0, np.int64), "held": np.zeros(0, np.int64)},
    ),
}


@pytest.mark.parametrize("what", CHANGES)
def test_the_loop_ends_whatever_one_device_holds(what: str, task: Task, made: dict[str, Tree]) -> None:
    life = lived(task, made, CHANGES[what])
    bad, *others = task.users["device"]
    assert int(life.memory["cloud"]["night"]) == SETTINGS.days + 1
    for user in others:
        stream = task.rows(user).parts["stream"]
        answers = [record for record in life.records if record.protocol == "answer" and record.party == user]
        assert len(answers) == len(stream)
        assert sorted(life.memory[user]["lessons"]["rows"].tolist()) == sorted(stream.tolist())
        assert trees.encode(life.memory[user]["policy"]) == trees.encode(life.memory["cloud"]["policy"])
    for record in life.records:
        log.line(record)
    if "NaN" in what or "infinity" in what:
        told = [str(value) for record in life.records for name, value in record.metrics.items() if "fail" in name]
        assert any("finite" in text or "NaN" in text for text in told), "somewhere the failure is named"
    if what in ("no stream", "nothing at all"):
        failed = [record.metrics for record in life.records if record.protocol == "rounds"]
        assert all(bad in str(metrics["failures"]) for metrics in failed if metrics["cohort"] == 4)
    assert trees.norm(trees.subtract(life.memory["cloud"]["params"], made["small"])) > 1e-2


def test_a_loop_whose_every_round_runs_away_keeps_the_model_it_had(task: Task, made: dict[str, Tree]) -> None:
    fast = replace(task, learn=replace(task.learn, optimiser=SGD(1e30)), tune=replace(task.tune, optimiser=SGD(1e30)))
    settings = replace(SETTINGS, days=1, rounds=2)
    life = lived(fast, made, None, settings)
    nightly = [record for record in life.records if record.protocol == "rounds"]
    assert [record.metrics["failed"] for record in nightly] == [4, 4]
    assert trees.encode(life.memory["cloud"]["params"]) == trees.encode(made["small"])
    (tuned, *_) = [record for record in life.records if record.protocol == "tune"]
    assert tuned.metrics["failed"] == 1
    for user in task.users["device"]:
        assert trees.encode(life.memory[user]["params"]) == trees.encode(stored(made["small"]))
    for record in life.records:
        log.line(record)


def test_a_loop_of_devices_without_any_rows_ends(task: Task, made: dict[str, Tree]) -> None:
    empty: dict[str, Any] = {part: np.zeros(0, np.int64) for part in ("stream", "calibration", "held")}
    everyone = task.users["device"]
    alone = replace(task, users={**task.users, "device": everyone[:1]})
    life = lived(alone, made, lambda rows: Rows(rows.x, rows.y, empty), replace(SETTINGS, cohort=1))
    assert int(life.memory["cloud"]["night"]) == SETTINGS.days + 1
    assert trees.encode(life.memory["cloud"]["params"]) == trees.encode(made["small"])
