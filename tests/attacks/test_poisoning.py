"""Poisoned clients: what each attack says, that nobody else is touched, and what gates and aggregators make of them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from duetto import tree as trees
from duetto.aggregation import CentredClip, Gate, GeometricMedian, Krum, Mean, Median, Trimmed
from duetto.algorithms import fedavg
from duetto.attacks import Alie, Attack, Boast, Gaussian, LabelFlip, NaN, Poisoned, SignFlip
from duetto.codecs import Quantise
from duetto.errors import ConfigError, DataError, Error
from duetto.protocols import Coded, rounds
from duetto.simulation.engine import Log, simulate
from duetto.simulation.fleet import fleet
from duetto.tasks import Task
from duetto.training import Client
from duetto.tree import Tree
from duetto.types import Algorithm, Chain, Key, Local, Party, Rows, Skill, Work, rng

BAD = frozenset({"eve"})


@dataclass(frozen=True)
class Tell(Skill):
    """Tells the sum of the labels, and counts how often it did."""

    @property
    def writes(self) -> bool:
        return True

    def __call__(self, local: Local, tree: Tree, key: Key, sender: str) -> tuple[Local, Tree]:
        if tree.get("raises") == key[-1]:
            raise DataError("not today")
        total = local.data.y.sum()
        delta = {"w": tree["w"] * np.float32(total), "n": np.array(3), "tau": np.array(total, np.float32)}
        told = local.remembering(count=local.memory.get("count", 0) + 1)
        return told, {"delta": delta, "weight": np.float64(4), "metrics": {"loss": np.float64(1)}}

    def work(self, local: Local, tree: Tree) -> Work:
        return Work(7.0)

    def group(self, local: Local, tree: Tree) -> Any:
        return "tellers"


LOCAL = Local(Rows(np.zeros((3, 1)), np.array([0, 1, 2])), {"count": 5})
SENT = {"w": np.array([1.0, -2.0], np.float32)}
HONEST = Tell()(LOCAL, SENT, (0, "ann"), "cloud")[1]


def told(attack: Attack, name: str = "eve", inner: Skill = Tell()) -> Tree:
    """What the party of that name answers, alone; checked to be the same in a call with an honest one."""
    skill = Poisoned(inner, attack, BAD)
    after, said = skill(LOCAL, SENT, (0, name), "cloud")
    assert after.data is LOCAL.data, "what is spoilt does not stay"
    assert after.memory == {"count": 6}
    both = skill.many([LOCAL, LOCAL], [SENT, SENT], [(0, "ann"), (0, name)], ["cloud"] * 2)
    assert [local.data is LOCAL.data and local.memory["count"] for local, _ in both] == [6, 6]
    assert trees.encode(both[0][1]) == trees.encode(HONEST)
    assert trees.encode(both[1][1]) == trees.encode(said)
    return said


def test_to_a_world_it_is_the_skill_inside() -> None:
    skill = Poisoned(Tell(), SignFlip(1.0), BAD)
    assert (skill.name, skill.writes, skill.group(LOCAL, SENT), skill.work(LOCAL, SENT)) == (
        "Tell",
        True,
        "tellers",
        Work(7.0),
    )
    assert hash(skill) == hash(Poisoned(Tell(), SignFlip(1.0), frozenset(["eve"])))


@pytest.mark.parametrize("attack", [SignFlip(9.0), NaN(), Gaussian(9.0), Boast(9.0), LabelFlip(3), Alie(1, 4)], ids=str)
def test_others_are_honest(attack: Attack) -> None:
    assert trees.encode(told(attack, "ben")) == trees.encode(HONEST)


def test_sign_flip() -> None:
    said = told(SignFlip(2.5))
    assert trees.spec(said) == trees.spec(HONEST)
    assert said["delta"]["w"].tolist() == [-7.5, 15.0]
    assert (float(said["delta"]["tau"]), int(said["delta"]["n"])) == (-7.5, 3)
    assert (float(said["weight"]), float(said["metrics"]["loss"])) == (4, 1)


def test_an_attacker_does_not_mind_what_is_beyond_a_dtype() -> None:
    assert told(SignFlip(1e300))["delta"]["w"].tolist() == [-np.inf, np.inf]


def test_nan() -> None:
    said = told(NaN())
    assert np.isnan(said["delta"]["w"]).all()
    assert trees.spec(said) == trees.spec(HONEST)


def test_gaussian() -> None:
    said = told(Gaussian(3.0))
    noise = 3 * rng((0, "eve", "poison", "/w")).normal(size=2)
    assert said["delta"]["w"].tolist() == noise.astype(np.float32).tolist()
    assert trees.spec(said) == trees.spec(HONEST)


def test_boast() -> None:
    said = told(Boast(1e9))
    assert float(said["weight"]) == 1e9
    assert trees.encode(said["delta"]) == trees.encode(HONEST["delta"])
    with pytest.raises(DataError, match="an answer without a weight"):
        Boast(1.0).lie([{"logits": np.ones(2)}], [(0, "eve")])


def test_label_flip() -> None:
    said = told(LabelFlip(6))
    assert said["delta"]["tau"] == 5 + 4 + 3
    with pytest.raises(DataError, match="labels to flip in a NoneType"):
        LabelFlip(6).spoil(None)


def test_attacks_add_up() -> None:
    said = told(Boast(50.0), inner=Poisoned(Tell(), SignFlip(1.0), BAD))
    assert (said["delta"]["w"].tolist(), float(said["weight"])) == ([-3.0, 6.0], 50.0)


def test_an_answer_without_a_delta_is_changed_as_a_whole() -> None:
    (said,) = SignFlip(2.0).lie([{"logits": np.array([1.0, 2.0]), "n": np.array(4)}], [(0, "eve")])
    assert (said["logits"].tolist(), int(said["n"])) == ([-2, -4], 4)


def test_who_cannot_answer_cannot_lie() -> None:
    skill = Poisoned(Tell(), SignFlip(1.0), BAD)
    sent = {**SENT, "raises": "eve"}
    first, second = skill.many([LOCAL, LOCAL], [sent, sent], [(0, "ann"), (0, "eve")], ["cloud"] * 2)
    assert isinstance(second, Error)
    assert not isinstance(first, Error)
    assert trees.encode(first[1]) == trees.encode(HONEST)


def test_through_a_codec_the_lie_is_coded() -> None:
    skill = Coded(Poisoned(Tell(), SignFlip(2.0), BAD), Chain(), Quantise(8))
    _, coded = skill(LOCAL, SENT, (0, "eve"), "cloud")
    np.testing.assert_allclose(Quantise(8).decode(coded)["delta"]["w"], [-6, 12], atol=0.1)


@pytest.mark.parametrize("names", [{"eve"}, ["eve"], "eve"])
def test_names_are_a_frozen_set(names: Any) -> None:
    with pytest.raises(ConfigError, match="give a frozenset of names"):
        Poisoned(Tell(), NaN(), names)


# -------------------------------------------------------------------------------------------------------- rounds

USERS = tuple(f"device-{i}" for i in range(4)) + tuple(f"train-{i}" for i in range(4))
EVE = USERS[5]


@pytest.fixture(scope="module")
def world(tiny_task: Callable[..., Task]) -> tuple[Algorithm, Mapping[str, Rows]]:
    """Federated averaging over eight users, and what they hold."""
    task = tiny_task()
    own = {name: task.data.user == task.data.users.index(name) for name in USERS}
    data = {name: Rows(task.data.x[rows], task.data.y[rows]) for name, rows in own.items()}
    return fedavg(task.small, task.small.init(0), lr=0.1, epochs=1, batch_size=8), data


def ran(world: tuple[Algorithm, Mapping[str, Rows]], attack: Attack | None, **parts: Any) -> tuple[np.ndarray, Log]:
    """How one round moves the parameters if one client attacks, as a vector, and the log."""
    algorithm, data = world
    client = algorithm.client if attack is None else Poisoned(algorithm.client, attack, frozenset({EVE}))
    log = simulate(
        fleet=fleet("phones", USERS, data=data.__getitem__),
        device=Party(skills=(Client,)),
        cloud=rounds(replace(algorithm, client=client, **parts), steps=1),
    )
    return vector(trees.subtract(log.memory["cloud"]["params"], algorithm.params)), log


def vector(tree: Tree) -> np.ndarray:
    """A tree as one vector."""
    return np.concatenate([np.ravel(leaf) for _, leaf in trees.leaves(tree)]).astype(np.float64)


@pytest.fixture(scope="module")
def honest(world: tuple[Algorithm, Mapping[str, Rows]]) -> Mapping[str, np.ndarray]:
    """What each user says in the first round, trained alone."""
    algorithm, data = world
    sent = {"params": algorithm.params}
    return {
        name: vector(algorithm.client(Local(data[name]), sent, (0, "round", 0, name), "cloud")[1]["delta"])
        for name in USERS
    }


def weighed(deltas: Mapping[str, np.ndarray], data: Mapping[str, Rows], **weights: float) -> np.ndarray:
    """Their mean by examples, or by another weight where one is given."""
    return np.average([*deltas.values()], axis=0, weights=[weights.get(name, len(data[name])) for name in deltas])


def test_nobody_malicious_is_the_algorithm_itself(world: Any, honest: Any) -> None:
    moved, _ = ran(world, None)
    np.testing.assert_allclose(moved, weighed(honest, world[1]), atol=1e-6)
    algorithm, data = world
    log = simulate(
        fleet=fleet("phones", USERS, data=data.__getitem__),
        device=Party(skills=(Client,)),
        cloud=rounds(replace(algorithm, client=Poisoned(algorithm.client, NaN(), frozenset())), steps=1),
    )
    assert (vector(trees.subtract(log.memory["cloud"]["params"], algorithm.params)) == moved).all()


def test_a_client_of_nan_is_rejected_and_named(world: Any, honest: Any) -> None:
    for aggregator in (Mean(), Median(), Krum(1)):
        moved, log = ran(world, NaN(), aggregator=aggregator)
        assert log.records[0].metrics["failed"] == 1
        assert str(log.records[0].metrics["failures"]).startswith(f"{EVE}: rejected: the leaf")
        assert np.isfinite(moved).all()
    others = {name: delta for name, delta in honest.items() if name != EVE}
    np.testing.assert_allclose(ran(world, NaN())[0], weighed(others, world[1]), atol=1e-6)


def test_a_boaster_takes_over_an_open_mean_and_no_other(world: Any, honest: Any) -> None:
    _, data = world
    taken, log = ran(world, Boast(1e9))
    np.testing.assert_allclose(taken, honest[EVE], atol=1e-6)
    assert log.records[0].metrics["failed"] == 0
    capped, _ = ran(world, Boast(1e9), aggregator=Mean(cap=30.0))
    np.testing.assert_allclose(capped, weighed(honest, data, **{EVE: 30.0}), atol=1e-6)
    gated, log = ran(world, Boast(1e9), gate=Gate(norm=None, weight=30.0))
    others = {name: delta for name, delta in honest.items() if name != EVE}
    np.testing.assert_allclose(gated, weighed(others, data), atol=1e-6)
    assert log.records[0].metrics["failures"] == f"{EVE}: rejected: the weight 1000000000.0 is above 30.0"
    for aggregator in (Median(), Trimmed(0.2), Krum(1), GeometricMedian(), CentredClip(1.0)):
        boasted, plain = (ran(world, attack, aggregator=aggregator)[0] for attack in (Boast(1e9), None))
        assert (boasted == plain).all()


def test_a_sign_flipper_turns_a_mean_round_and_moves_no_robust_one_far(world: Any, honest: Any) -> None:
    attack = SignFlip(100.0)
    others = np.stack([delta for name, delta in honest.items() if name != EVE])
    centre = others.mean(axis=0)
    spread = max(np.linalg.norm(a - b) for a in others for b in others)
    assert ran(world, attack)[0] @ centre < 0, "the round goes uphill"
    for aggregator in (Median(), Trimmed(0.2)):
        moved, _ = ran(world, attack, aggregator=aggregator)
        assert (others.min(axis=0) - 1e-6 <= moved).all()
        assert (moved <= others.max(axis=0) + 1e-6).all()
        assert moved @ centre > 0
    picked, _ = ran(world, attack, aggregator=Krum(1))
    assert np.abs(others - picked).max(axis=1).min() < 1e-6, "one of the honest"
    middle = np.median(np.stack([*others, -100 * honest[EVE]]), axis=0)
    away = np.linalg.norm(others - middle, axis=1).sum()
    moved, _ = ran(world, attack, aggregator=GeometricMedian())
    assert np.linalg.norm(moved - middle) <= 2 * away / (7 - 1) + 1e-5
    moved, _ = ran(world, attack, aggregator=CentredClip(spread / 10, 2))
    assert np.linalg.norm(moved - middle) <= 2 * spread / 10 + 1e-6
    gated, log = ran(world, attack, gate=Gate(norm=float(2 * np.linalg.norm(others, axis=1).max())))
    np.testing.assert_allclose(
        gated, weighed({name: delta for name, delta in honest.items() if name != EVE}, world[1]), atol=1e-6
    )
    assert "the norm" in str(log.records[0].metrics["failures"])


def test_flipped_labels_are_those_of_the_attacker_alone(world: Any, honest: Any) -> None:
    algorithm, data = world
    flipped = replace(data[EVE], y=2 - data[EVE].y)
    alone = algorithm.client(Local(flipped), {"params": algorithm.params}, (0, "round", 0, EVE), "cloud")[1]["delta"]
    expected = weighed({**honest, EVE: vector(alone)}, data)
    assert np.abs(expected - weighed(honest, data)).max() > 1e-3
    np.testing.assert_allclose(ran(world, LabelFlip(3))[0], expected, atol=1e-6)


def test_too_few_replies_for_krum_say_how_many(world: Any) -> None:
    moved, log = ran(world, SignFlip(1.0), aggregator=Krum(3))
    assert "8 replies, where Krum(attackers=3, keep=1) needs 9" in str(log.records[0].metrics["failures"])
    assert not moved.any()
