"""Limit laws that need more than one part: where a setting is at its end, one thing is exactly another."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from duetto import tree as trees
from duetto.aggregation import Gate, Mean
from duetto.codecs import Zstd
from duetto.policies import MODES, Budgeted, Calibrated, Everyone, Threshold, Uniform
from duetto.protocols import Coded, Plain, answer, rounds
from duetto.simulation.engine import Log, simulate
from duetto.simulation.fleet import fleet
from duetto.simulation.link import named, offline
from duetto.tree import Tree
from duetto.types import (
    Algorithm,
    Answer,
    Chain,
    Codec,
    Held,
    Key,
    Local,
    Outcomes,
    Party,
    Peer,
    Policy,
    Record,
    ServerUpdate,
    Skill,
    Work,
    rng,
)

LOSSLESS: list[Codec[Any]] = [Chain(), Zstd(), Chain((Zstd(), Zstd(3))), Chain((Chain(), Chain((Zstd(),))))]


@dataclass(frozen=True)
class Classify(Skill):
    """Linear logits by the party's own weights."""

    def __call__(self, local: Local, tree: Tree, key: Key, sender: str) -> tuple[Local, Tree]:
        return local, {"logits": tree["x"] @ local.memory["w"]}

    def work(self, local: Local, tree: Tree) -> Work:
        return Work(1e9)


@dataclass(frozen=True)
class Train(Skill):
    """One step of least squares."""

    def __call__(self, local: Local, tree: Tree, key: Key, sender: str) -> tuple[Local, Tree]:
        delta = {"w": 0.1 * (local.data - tree["params"]["w"])}
        return local, {"delta": delta, "weight": np.float64(local.data[0]), "metrics": {}}


@dataclass(frozen=True)
class Step(ServerUpdate[Any]):
    def step(
        self, state: Any, params: Tree, collected: Tree | None, *, cohort_size: int, fleet_size: int, key: Key
    ) -> tuple[Any, Tree]:
        return state, params if collected is None else trees.add(params, collected)


SMALL, LARGE = (rng(("limits", name)).normal(size=(5, 3)) for name in ("small", "large"))
INPUTS = rng(("limits", "inputs")).normal(size=(40, 5))
FITTED = INPUTS[:20] @ SMALL


def answered(policy: Held[Any] | Policy[Any], *, dead: bool = False, codec: Codec[Any] = Chain()) -> list[Answer]:
    """Forty answers of one device."""
    given: list[Answer] = []

    async def device(me: Peer, cloud: Peer) -> AsyncIterator[Record]:
        held = policy if isinstance(policy, Held) else Held.of(policy)
        for i, x in enumerate(INPUTS):
            one = await answer(
                x,
                me=me,
                exits={0: Classify()},
                peers={"cloud": cloud},
                question=Coded(Classify(), codec, codec),
                policy=held,
                key=(i,),
                deadline=1.0,
            )
            given.append(one)
            yield Record.of(one, step=i)

    network = named("constant-10")
    if dead:
        network = replace(network, links=tuple(offline(link, 0.0) for link in network.links))
    simulate(
        fleet=fleet("mid-phone", ["ann"], memory={"w": SMALL}),
        device=Party((device,), (Classify,)),
        cloud=Party((), (Classify,), Local(None, {"w": LARGE})),
        network=network,
    )
    return given


def logits(answers: list[Answer]) -> np.ndarray:
    return np.stack([each.tree["logits"] for each in answers])


NEVER = {
    "threshold 0": Threshold(0.0),
    "threshold -inf, margin": Threshold(-np.inf, "margin"),
    "a budget of nothing": Budgeted(Threshold(0.5), 0.0),
    "a tolerance of everything": Calibrated(tolerance_points=100.0).fit(Outcomes.of_classifiers(FITTED, FITTED)),
    "only on the device": MODES["only_on_device"],
}
ALWAYS = {
    "threshold above 1": Threshold(1.0000001),
    "threshold inf, energy": Threshold(np.inf, "energy"),
    "a budget of everything": Budgeted(Threshold(0.5), 1.0),
    "not calibrated": Calibrated(),
    "only in the cloud": MODES["only_in_cloud"],
}


@pytest.mark.parametrize("name", NEVER)
def test_who_never_asks_is_the_small_model(name: str) -> None:
    policy = NEVER[name]
    if name == "a tolerance of everything":  # keeps all that is as sure as the least sure item it was fitted on
        assert isinstance(policy, Held)
        policy = Held(policy.part, {**policy.state, "threshold": np.minimum(policy.state["threshold"], 0)})
    answers = answered(policy)
    assert logits(answers) == pytest.approx(np.stack([x[None] @ SMALL for x in INPUTS])[:, 0], rel=1e-12)
    assert {(each.party, each.asked, each.cost.up_bytes, each.cost.dollars) for each in answers} == {
        ("ann", False, 0, 0.0)
    }


@pytest.mark.parametrize("name", ALWAYS)
def test_who_always_asks_is_the_large_model(name: str) -> None:
    answers = answered(ALWAYS[name])
    assert logits(answers) == pytest.approx(np.stack([x[None] @ LARGE for x in INPUTS])[:, 0], rel=1e-12)
    assert {(each.party, each.asked) for each in answers} == {("cloud", True)}


@pytest.mark.parametrize("name", ALWAYS)
def test_who_always_asks_a_cloud_that_is_gone_is_the_small_model_after_the_deadline(name: str) -> None:
    answers, alone = answered(ALWAYS[name], dead=True), answered(NEVER["threshold 0"])
    assert (logits(answers) == logits(alone)).all()
    for late, own in zip(answers, alone, strict=True):
        assert late.cost.seconds == pytest.approx(own.cost.seconds + 1.0)
        assert late.asked
        assert late.party == "ann"


@pytest.mark.parametrize("lossless", LOSSLESS)
def test_a_lossless_codec_changes_no_answer(lossless: Codec[Any]) -> None:
    policy = Threshold(0.8)
    plain, coded = answered(policy), answered(policy, codec=lossless)
    assert (logits(plain) == logits(coded)).all()
    assert [each.party for each in plain] == [each.party for each in coded]
    assert 0 < sum(each.asked for each in plain) < len(plain)


def learned(deadline: float | None = None, **parts: Any) -> Log:
    algorithm = Algorithm(Train(), {"w": np.zeros(4)}, Step(), Mean(), Everyone(), Gate(norm=None), Plain())
    return simulate(
        fleet=fleet("phones", 6, data=lambda name: np.arange(4.0) + 1 + int(name.removeprefix("user-"))),
        device=Party(skills=(Train,)),
        cloud=rounds(replace(algorithm, **parts), steps=5, deadline=deadline),
        network="synthetic",
    )


PLAIN = learned()


@pytest.mark.parametrize(
    "parts",
    [
        *({"up": codec} for codec in LOSSLESS),
        *({"down": codec} for codec in LOSSLESS),
        {"cohort": Uniform(6)},
        {"cohort": Uniform(share=1.0)},
        {"gate": Gate(norm=1e9, weight=1e9)},
        {"aggregator": Mean(cap=1e9)},
    ],
)
def test_parts_at_their_limits_are_plain_averaging(parts: Any) -> None:
    log = learned(**parts)
    assert trees.encode(log.memory["cloud"]["params"]) == trees.encode(PLAIN.memory["cloud"]["params"])


def test_a_deadline_that_nobody_misses_is_none() -> None:
    slowest = max(record.cost.seconds for record in PLAIN.records)
    assert list(learned(2 * slowest).records) == list(PLAIN.records)
    none = learned(1e-9)
    assert none.memory["cloud"]["params"]["w"].tolist() == [0.0] * 4  # and one that all miss is no learning


def test_a_cohort_of_one_is_learning_alone() -> None:
    """One device's rounds are gradient descent on its data."""
    algorithm = Algorithm(Train(), {"w": np.zeros(4)}, Step(), Mean(), Everyone(), Gate(norm=None), Plain())
    log = simulate(
        fleet=fleet("mid-phone", 1, data=lambda name: np.arange(4.0) + 1),
        device=Party(skills=(Train,)),
        cloud=rounds(algorithm, steps=5),
    )
    w = np.zeros(4)
    for _ in range(5):
        w = w + 0.1 * (np.arange(4.0) + 1 - w)
    assert log.memory["cloud"]["params"]["w"] == pytest.approx(w, rel=1e-12)


def test_a_program_of_no_roles_takes_no_time() -> None:
    log = simulate(fleet=fleet("phones", 3))
    assert (list(log.records), log.memory, log.seconds) == ([], {}, 0.0)
