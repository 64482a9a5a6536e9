"""Learning without rounds: who is slow is stale, who is stale counts less, and with equal delays it is rounds."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from duetto import tree as trees
from duetto.aggregation import Gate, Mean
from duetto.algorithms import fedavg
from duetto.algorithms.fedavg import Average
from duetto.errors import ConfigError, DataError
from duetto.models import Mlp
from duetto.policies import Everyone, Uniform
from duetto.protocols import Plain, buffered, rounds
from duetto.protocols.buffered import polynomial
from duetto.simulation.engine import Log, simulate
from duetto.simulation.fleet import Fleet, fleet
from duetto.training import Client
from duetto.tree import Tree
from duetto.types import Algorithm, Key, Local, Party, Reply, Rows, Skill, Work

USERS = tuple(f"u{i}" for i in range(7))
OWN = {name: float(2**i) for i, name in enumerate(USERS)}
START = {"w": np.array([0.5, -1.0])}


@dataclass(frozen=True)
class Echo(Skill):
    """Answers with what it got plus its own number, so that an answer tells what it was made from."""

    def __call__(self, local: Local, tree: Tree, key: Key, sender: str) -> tuple[Local, Tree]:
        if local.data == "u3":
            raise DataError("u3 never answers")
        delta = {"w": tree["params"]["w"] + OWN[local.data]}
        return local, {"delta": delta, "weight": np.float64(1 + USERS.index(local.data)), "metrics": {}}

    def work(self, local: Local, tree: Tree) -> Work:
        return Work(flops=1e9 * OWN[local.data])


@dataclass(frozen=True)
class Kept(Mean):
    """A mean that keeps what it was given."""

    seen: list[list[Reply]] = field(default_factory=list, compare=False)

    def extend(self, state: Tree, replies: Sequence[Reply]) -> Tree:
        self.seen.append(list(replies))
        return super().extend(state, replies)


def algorithm(**parts: Any) -> Algorithm:
    given: dict[str, Any] = {"aggregator": Kept(), "cohort": Everyone(), "gate": Gate(norm=None), "collect": Plain()}
    return Algorithm(Echo(), START, Average(0.01), **{**given, **parts})


def ran(given: Algorithm, phones: Fleet | None = None, **settings: Any) -> Log:
    phones = phones or fleet("mid-phone", USERS, data=lambda name: name)
    settings = {"steps": 6, "goal": 2, **settings}
    return simulate(
        fleet=phones, device=Party(skills=(Echo,)), cloud=buffered(given, **settings), network="constant-10"
    )


def half(staleness: int) -> float:
    return 0.5**staleness


@pytest.mark.parametrize("absolute", [False, True])
def test_every_step_is_the_papers(absolute: bool) -> None:
    given = algorithm()
    log = ran(given, discount=half, absolute=absolute)
    versions, stale = [START["w"]], []
    for replies in given.aggregator.seen:  # type: ignore[attr-defined]
        now, counted = versions[-1], []
        assert len(replies) == 2
        for reply in replies:
            start = versions[len(versions) - 1 - reply.staleness]
            change = start + OWN[reply.sender] + ((start - now) if absolute else 0)
            np.testing.assert_allclose(reply.tree["w"], half(reply.staleness) * change)
            counted.append((reply.weight, half(reply.staleness) * change))
            stale.append(reply.staleness)
        mean = sum(w * c for w, c in counted) / sum(w for w, _ in counted)
        versions.append(now + 0.01 * mean)
    assert len(versions) == 7
    assert max(stale) > 0 == min(stale)
    np.testing.assert_allclose(log.memory["cloud"]["params"]["w"], versions[-1])
    assert [record.step for record in log.records] == list(range(6))
    times = [record.time for record in log.records]
    assert times == sorted(times)
    assert times[0] < times[-1]


def test_who_fails_is_named_and_replaced() -> None:
    log = ran(algorithm(), steps=4)
    told = [str(record.metrics["failures"]) for record in log.records if "failures" in record.metrics]
    assert told
    assert all("u3 never answers" in each for each in told)


def test_nobody_trains_twice_at_a_time_and_no_more_than_chosen() -> None:
    log = ran(algorithm(cohort=Uniform(3)), steps=8, goal=1)
    assert all(record.metrics["cohort"] >= 1 for record in log.records)
    assert int(log.memory["cloud"]["version"]) == 8


def test_nobody_online_ends_it() -> None:
    phones = fleet("mid-phone", USERS, data=lambda name: name, online=lambda time: np.zeros(len(USERS), bool))
    log = ran(algorithm(), phones)
    assert [record.metrics["cohort"] for record in log.records] == [0]


def test_the_paper_s_discount() -> None:
    assert [polynomial(s) for s in (0, 3, 8)] == [1.0, 0.5, pytest.approx(1 / 3)]


def test_a_goal_is_at_least_one() -> None:
    with pytest.raises(ConfigError, match="goal"):
        buffered(algorithm(), steps=1, goal=0)


@pytest.mark.parametrize("cohort", [Everyone(), Uniform(3)])
def test_with_equal_delays_it_is_rounds(cohort: Any) -> None:
    random, net = np.random.default_rng(0), Mlp((3,), 2, (4,))
    data = {name: Rows(random.normal(size=(9, 3)), random.integers(0, 2, 9)) for name in USERS}
    given = fedavg(net, net.init(0), lr=0.1, epochs=2, batch_size=4)
    given = replace(given, cohort=cohort)
    goal = len(USERS) if isinstance(cohort, Everyone) else 3
    phones = fleet("mid-phone", USERS, data=data.__getitem__)
    logs = [
        simulate(fleet=phones, device=Party(skills=(Client,)), cloud=role, network="constant-10", seed=5)
        for role in (rounds(given, steps=4, seed=5), buffered(given, steps=4, goal=goal, seed=5))
    ]
    ends = [trees.encode(log.memory["cloud"]["params"]) for log in logs]
    assert ends[0] == ends[1]
    assert [record.cost for record in logs[0].records] == [record.cost for record in logs[1].records]
    assert {record.metrics["staleness"] for record in logs[1].records} == {0.0}
