"""Federated rounds on a tiny problem whose every number numpy knows: the mean of what devices hold."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pytest

from duetto import tree as trees
from duetto.aggregation import Gate, Mean
from duetto.codecs import Quantise, Zstd
from duetto.errors import DataError
from duetto.policies import Everyone, Uniform
from duetto.protocols import Plain, rounds
from duetto.simulation.engine import Log, simulate
from duetto.simulation.fleet import fleet
from duetto.simulation.link import Link, Network, offline
from duetto.simulation.traces import constant
from duetto.tree import Tree
from duetto.types import Action, Algorithm, Chain, Key, Local, Move, Party, Policy, Seen, ServerUpdate, Skill, Work

LR = 0.5
USERS = [f"u{i}" for i in range(8)]


@dataclass(frozen=True)
class Pull(Skill):
    """One step from the parameters towards the mean of the data."""

    bad: tuple[tuple[str, str], ...] = ()

    def __call__(self, local: Local, tree: Tree, key: Key, sender: str) -> tuple[Local, Tree]:
        name, points = local.data
        delta = {"w": LR * (points.mean(axis=0) - tree["params"]["w"])}
        kind = dict(self.bad).get(name)
        if kind == "nan":
            delta["w"] = delta["w"] * np.nan
        if kind == "shape":
            delta["w"] = delta["w"][:1]
        if kind == "raises":
            raise DataError("no data today")
        loss = ((points - tree["params"]["w"]) ** 2).mean()
        said = {"delta": delta, "weight": np.float64(len(points)), "metrics": {"loss": loss}}
        return local, {} if kind == "empty" else said

    def work(self, local: Local, tree: Tree) -> Work:
        return Work(1e9)


@dataclass(frozen=True)
class Step(ServerUpdate[Any]):
    """Adds what was collected, and counts how often; remembers how many were asked."""

    def init(self, params: Tree) -> Any:
        return {"steps": np.int64(0), "asked": np.int64(0)}

    def step(
        self, state: Any, params: Tree, collected: Tree | None, *, cohort_size: int, fleet_size: int, key: Key
    ) -> tuple[Any, Tree]:
        assert fleet_size == len(USERS)
        after = {"steps": state["steps"] + (collected is not None), "asked": state["asked"] + cohort_size}
        return after, params if collected is None else trees.add(params, collected)


@dataclass(frozen=True)
class Nobody(Policy[Any]):
    def choose(self, state: Any, seen: Seen, key: Key) -> tuple[Any, Move]:
        return state, Move.sure(np.full(seen.size, Action.STOP), "nobody")


@dataclass(frozen=True)
class InTurn(Policy[Any]):
    """One after the other, remembering whose turn it is; those with the most examples first."""

    def init(self) -> Any:
        return {"turn": np.int64(0)}

    def choose(self, state: Any, seen: Seen, key: Key) -> tuple[Any, Move]:
        order = np.argsort(-seen.traits["examples"], kind="stable")
        chosen = np.arange(seen.size) == order[int(state["turn"]) % seen.size]
        return {"turn": state["turn"] + 1}, Move.sure(np.where(chosen, Action.ASK, Action.STOP), "in turn")


def points(name: str) -> np.ndarray:
    i = USERS.index(name)
    return np.random.default_rng(i).normal(i, 1, (2 + 3 * (i % 4), 3))


START = {"w": np.array([10.0, -10.0, 0.0])}
PLAIN = Algorithm(Pull(), START, Step(), Mean(), Everyone(), Gate(norm=None), Plain())


def learned(
    algorithm: Algorithm | Callable[[int], Algorithm],
    steps: int = 4,
    network: Network | str = "constant-10",
    **more: Any,
) -> Log:
    everyone = fleet(
        "phones", USERS, examples=[len(points(name)) for name in USERS], data=lambda name: (name, points(name))
    )
    role = rounds(algorithm, steps=steps, **more)
    return simulate(fleet=everyone, device=Party(skills=(Pull,)), cloud=role, network=network)


def by_hand(steps: int, users: list[str], start: np.ndarray = START["w"]) -> np.ndarray:
    """FedAvg in four lines."""
    w, n = start, [len(points(name)) for name in users]
    for _ in range(steps):
        w = w + np.average([LR * (points(name).mean(axis=0) - w) for name in users], axis=0, weights=n)
    return w


def test_rounds_are_federated_averaging():
    log = learned(PLAIN)
    memory = log.memory["cloud"]
    assert memory["params"]["w"] == pytest.approx(by_hand(4, USERS), rel=1e-12)
    assert (int(memory["version"]), int(memory["rounds"]["step"])) == (4, 4)
    assert {name: int(value) for name, value in memory["rounds"]["server"].items()} == {"steps": 4, "asked": 32}
    n = np.array([len(points(name)) for name in USERS])
    for step, record in enumerate(log.records):
        w = by_hand(step, USERS)
        losses = [((points(name) - w) ** 2).mean() for name in USERS]
        assert (record.protocol, record.step, record.party) == ("rounds", step, "cloud")
        assert record.metrics["loss"] == pytest.approx(np.average(losses, weights=n))
        assert (record.metrics["cohort"], record.metrics["failed"]) == (8, 0)
        assert "failures" not in record.metrics
    assert log.seconds == pytest.approx(sum(record.cost.seconds for record in log.records))


def test_an_algorithm_may_change_with_the_round():
    everyone, one = PLAIN, replace(PLAIN, cohort=InTurn())
    log = learned(lambda step: everyone if step < 2 else replace(everyone, client=Pull((("u3", "nan"),))))
    others = [name for name in USERS if name != "u3"]
    expected = by_hand(2, others, by_hand(2, USERS))
    assert log.memory["cloud"]["params"]["w"] == pytest.approx(expected, rel=1e-12)
    assert [record.metrics["failed"] for record in log.records] == [0, 0, 1, 1]
    assert (
        learned(lambda step: one).memory["cloud"]["params"]["w"] == learned(one).memory["cloud"]["params"]["w"]
    ).all()


def test_bytes_of_a_round_are_those_of_its_messages():
    (record,) = learned(PLAIN, 1).records
    said = {"delta": START, "weight": np.float64(1), "metrics": {"loss": np.float64(0)}}
    assert record.cost.down_bytes == 8 * len(trees.encode({"params": START}))
    assert record.cost.up_bytes == 8 * len(trees.encode(said))


def test_codecs_of_both_ways_are_used():
    lossy = replace(PLAIN, up=Chain((Quantise(8), Zstd())), down=Quantise(8))
    log = learned(lossy, 1)
    down = lossy.down.encode({}, {"params": START}, (0, "round", 0, "down"))[1]
    got = lossy.down.decode(down)["params"]["w"]
    exact = by_hand(1, USERS, got) - got  # what the devices computed, from what they got
    moved = log.memory["cloud"]["params"]["w"] - START["w"]
    assert np.abs(moved - exact).max() <= 20 * LR / 127
    assert log.records[0].cost.down_bytes == 8 * len(trees.encode(down))
    assert log.records[0].metrics["failed"] == 0
    assert (moved != by_hand(1, USERS) - START["w"]).any()


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("nan", "rejected: the leaf /w holds NaN or infinity"),
        ("shape", "rejected: the leaf /w has shape (1,), not (3,)"),
        ("raises", "no data today"),
        ("empty", "unreadable: KeyError('delta')"),
    ],
)
def test_who_fails_is_named_and_counts_as_nothing(kind: str, why: str):
    log = learned(replace(PLAIN, client=Pull((("u2", kind), ("u5", kind)))))
    well = [name for name in USERS if name not in ("u2", "u5")]
    assert log.memory["cloud"]["params"]["w"] == pytest.approx(by_hand(4, well), rel=1e-12)
    for record in log.records:
        assert record.metrics["failed"] == 2
        assert record.metrics["failures"] == f"u2: {why}; u5: {why}"


@pytest.mark.parametrize("kind", ["nan", "shape", "raises", "empty"])
def test_when_nobody_answers_the_parameters_stay_and_time_goes_on(kind: str):
    log = learned(replace(PLAIN, client=Pull(tuple((name, kind) for name in USERS))), 2)
    memory = log.memory["cloud"]
    assert memory["params"]["w"].tolist() == START["w"].tolist()
    assert (int(memory["version"]), int(memory["rounds"]["server"]["steps"])) == (2, 0)
    for record in log.records:
        assert record.metrics["failed"] == 8
        assert str(record.metrics["failures"]).endswith("; and 3 more")
        assert "loss" not in record.metrics


def test_an_empty_cohort_is_a_round_all_the_same():
    log = learned(replace(PLAIN, cohort=Nobody()), 3)
    assert [record.metrics for record in log.records] == [{"cohort": 0, "failed": 0}] * 3
    assert log.memory["cloud"]["params"]["w"].tolist() == START["w"].tolist()
    assert int(log.memory["cloud"]["rounds"]["server"]["asked"]) == 0
    assert log.seconds == 0


def test_the_cohort_is_the_policy_s_and_its_state_is_kept():
    log = learned(replace(PLAIN, cohort=InTurn()), 3)
    turn = sorted(USERS, key=lambda name: -len(points(name)))[:3]
    w = START["w"]
    for name in turn:
        w = by_hand(1, [name], w)
    assert log.memory["cloud"]["params"]["w"] == pytest.approx(w, rel=1e-12)
    assert int(log.memory["cloud"]["rounds"]["cohort"]["turn"]) == 3
    drawn = learned(replace(PLAIN, cohort=Uniform(3)), 5)
    assert [record.metrics["cohort"] for record in drawn.records] == [3] * 5


class Half(Network):
    """Down for good for some, from the middle of the second round on."""

    def link(self, key: Any) -> Link:
        return offline(self.links[0], 1.2) if key[-1] in ("u1", "u6") else self.links[0]


def test_a_deadline_goes_on_without_those_who_are_gone():
    slow = Link(constant(10), constant(10), 0.8)  # a round takes 0.8 s and what the devices compute
    log = learned(PLAIN, 3, Half("half", (slow,)), deadline=5.0)
    well = [name for name in USERS if name not in ("u1", "u6")]
    expected = by_hand(2, well, by_hand(1, USERS))
    assert [record.metrics["failed"] for record in log.records] == [0, 2, 2]
    assert log.records[1].metrics["failures"] == "u1: no answer within 5 s; u6: no answer within 5 s"
    assert [record.cost.seconds for record in log.records[1:]] == pytest.approx([5.0, 5.0])
    assert log.memory["cloud"]["params"]["w"] == pytest.approx(expected, rel=1e-12)


def test_rounds_go_on_from_a_memory_that_has_some_behind_it():
    first = learned(PLAIN, 2).memory["cloud"]
    everyone = fleet("phones", USERS, examples=[len(points(n)) for n in USERS], data=lambda n: (n, points(n)))
    more = simulate(
        fleet=everyone,
        device=Party(skills=(Pull,)),
        cloud=Party((rounds(PLAIN, steps=5),), (), Local(None, {**first, "mine": np.int64(9)})),
    )
    assert [record.step for record in more.records] == [2, 3, 4]
    assert more.memory["cloud"]["params"]["w"] == pytest.approx(by_hand(5, USERS), rel=1e-12)
    assert int(more.memory["cloud"]["mine"]) == 9  # what else the cloud remembers is left alone


def test_the_record_of_a_round_sums_over_the_cohort():
    record = learned(replace(PLAIN, cohort=InTurn()), 1).records[0]
    everyone = learned(PLAIN, 1).records[0]
    assert everyone.cost.up_bytes == 8 * record.cost.up_bytes
    assert everyone.cost.joules > 7 * record.cost.joules * 0.5
    metrics: Mapping[str, Any] = everyone.metrics
    assert set(metrics) == {"cohort", "failed", "loss", "compute_seconds"}


@dataclass(frozen=True)
class Listens(Policy[Any]):
    """Asks all but the first, and keeps what it heard."""

    def init(self) -> Any:
        return {"heard": np.zeros((0, 3))}

    def choose(self, state: Any, seen: Seen, key: Key) -> tuple[Any, Move]:
        return state, Move.sure(np.where(np.arange(seen.size) > 0, Action.ASK, Action.STOP), "all but one")

    def learn(self, state: Any, seen: Seen, move: Move, reward: Any) -> Any:
        return {"heard": np.column_stack([seen.traits["loss"], seen.traits["seconds"], reward])}


def test_a_cohort_policy_hears_how_its_choice_went():
    log = learned(replace(PLAIN, cohort=Listens(), client=Pull((("u2", "raises"), ("u5", "nan")))), 1)
    loss, seconds, reward = log.memory["cloud"]["rounds"]["cohort"]["heard"].T
    assert np.isnan(reward).tolist() == [True] + [False] * 7
    assert reward[1:].tolist() == [1, 0, 1, 1, 0, 1, 1]
    assert np.isnan(loss).tolist() == np.isnan(seconds).tolist() == [name in ("u0", "u2", "u5") for name in USERS]
    expected = [((points(name) - START["w"]) ** 2).mean() for name in ("u1", "u3")]
    assert loss[[1, 3]] == pytest.approx(expected)


def test_enough_answers_end_a_round_and_the_others_cost_and_count_as_nothing():
    log = learned(PLAIN, 3, enough=5)
    heard = [record.metrics["cohort"] - record.metrics["failed"] for record in log.records]
    assert all(5 <= each < 8 for each in heard), "alike devices answer at the same time"
    assert all("late" in str(record.metrics["failures"]) for record in log.records)
    everybody = learned(PLAIN, 3)
    assert log.seconds < everybody.seconds
    assert int(log.memory["cloud"]["rounds"]["server"]["asked"]) == sum(heard)


def test_the_parameters_are_measured_now_and_then_and_at_the_end():
    log = learned(PLAIN, 5, measure=lambda params: {"first": float(params["w"][0])}, every=2)
    assert ["first" in record.metrics for record in log.records] == [False, True, False, True, True]
    assert log.records[3].metrics["first"] == pytest.approx(by_hand(4, USERS)[0])


def test_a_message_that_is_the_same_for_all_is_made_once():
    made: list[Any] = []

    @dataclass(frozen=True)
    class Telling(Step):
        def send(self, state: Any, params: Tree, peer: Any) -> Tree:
            made.append(peer)
            return {"params": params}

    @dataclass(frozen=True)
    class Personal(Telling):
        personal: ClassVar[bool] = True

    learned(replace(PLAIN, server=Telling()), 2)
    assert made == [None, None]
    made.clear()
    learned(replace(PLAIN, server=Personal()), 1)
    assert [peer.name for peer in made] == USERS
