"""One walk: limit laws, modes of availability, exits, deadlines, and an answer whatever the cloud does."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from duetto.codecs import Quantise, Zstd
from duetto.errors import DataError
from duetto.policies import MODES, Audited, LinUCB, Threshold
from duetto.protocols import Coded, Unanswered, answer, disagreement
from duetto.simulation import energy
from duetto.simulation.engine import simulate
from duetto.simulation.fleet import fleet
from duetto.simulation.link import Link, Network, offline
from duetto.simulation.traces import constant
from duetto.tree import Tree
from duetto.types import (
    Action,
    Answer,
    Chain,
    Held,
    Key,
    Local,
    Move,
    Outcomes,
    Party,
    Peer,
    Policy,
    Record,
    Seen,
    Skill,
    Work,
)

LINK = Link(constant(8), constant(8), 0.1)
ONLINE, GONE = Network("online", (LINK,), "4g"), Network("gone", (offline(LINK, 0.0),), "4g")
X = np.array([0.2, -0.4, 0.6])
OWN, CLOUD = np.array([1.0, 0.0, 0.5]), np.array([0.0, 3.0, 0.0])


@dataclass(frozen=True)
class Says(Skill):
    """Logits that tell who computed them from what: ``weights[slot] * x``."""

    slot: str = "model"
    flops: float = 1e9

    def __call__(self, local: Local, tree: Tree, key: Key, sender: str) -> tuple[Local, Tree]:
        if self.slot not in local.memory:
            raise DataError(f"no {self.slot} here")
        return local, {"logits": local.memory[self.slot] + 0 * tree["x"]}

    def work(self, local: Local, tree: Tree) -> Work:
        return Work(self.flops)


@dataclass(frozen=True)
class Strange(Skill):
    """Answers with what is no answer."""

    kind: str

    def __call__(self, local: Local, tree: Tree, key: Key, sender: str) -> tuple[Local, Tree]:
        return local, STRANGE[self.kind]


STRANGE: Mapping[str, Tree] = {
    "no logits": {"label": np.array([1])},
    "no rows": {"logits": np.zeros((0, 3))},
    "a scalar": {"logits": np.float64(1)},
    "no classes": {"logits": np.zeros((1, 0))},
    "an array": np.zeros((1, 3)),
    "nested": {"logits": {"a": np.zeros((1, 3))}},
}


@dataclass(frozen=True)
class Script(Policy[Any]):
    """These actions, one a stage; keeps what it saw."""

    actions: tuple[Action, ...]

    def init(self) -> Any:
        return {"seen": ()}

    def choose(self, state: Any, seen: Seen, key: Key) -> tuple[Any, Move]:
        saw = (seen.stage, None if seen.answer is None else tuple(np.asarray(seen.answer)[0].tolist()))
        return {"seen": (*state["seen"], saw)}, Move.sure(self.actions[seen.stage], f"scripted at {seen.stage}")


ONE: Mapping[int, Skill] = {0: Says()}


def walked(
    policy: Policy[Any] | Held[Any],
    *,
    exits: Mapping[int, Skill] = ONE,
    network: Network = ONLINE,
    question: Skill = Says(flops=3e9),
    skills: tuple[type[Skill], ...] = (Says, Strange),
    reach: bool = True,
    **more: Any,
) -> Answer:
    """The answer of a device, version 3, that may ask a cloud, version 8."""
    given: list[Answer] = []

    async def device(me: Peer, cloud: Peer) -> AsyncIterator[Record]:
        held = policy if isinstance(policy, Held) else Held.of(policy)
        peers = {"cloud": cloud} if reach else {}
        given.append(await answer(X, me=me, exits=exits, peers=peers, question=question, policy=held, key=(1,), **more))
        yield Record("answer")

    own = {"model": OWN, "second": 2 * OWN, "version": np.int64(3)}
    simulate(
        fleet=fleet("mid-phone", ["ann"], memory=own),
        device=Party((device,), (Says,)),
        cloud=Party((), skills, Local(None, {"model": CLOUD, "version": np.int64(8)})),
        network=network,
    )
    return given[0]


def logits(said: Answer) -> list[float]:
    return [float(number) for number in said.tree["logits"]]


# ------------------------------------------------------------------------------------------------------ limit laws


@pytest.mark.parametrize("at", [0.0, -np.inf])
def test_a_threshold_of_nothing_never_asks(at: float):
    said = walked(Threshold(at))
    seconds, joules = energy.compute(energy.profiles()["mid-phone"], Work(1e9))
    assert logits(said) == OWN.tolist()
    assert (said.party, said.asked, said.version, said.why) == ("ann", False, 3, f"max_softmax against {at:g}")
    assert said.own is not None
    assert said.own["logits"].tolist() == OWN.tolist()
    assert said.cost.seconds == pytest.approx(seconds)
    assert (said.cost.up_bytes, said.cost.down_bytes, said.cost.dollars) == (0, 0, 0.0)
    assert said.cost.joules == pytest.approx(joules)


@pytest.mark.parametrize("at", [1.0000001, np.inf])
def test_a_threshold_above_everything_always_asks(at: float):
    said = walked(Threshold(at))
    assert logits(said) == CLOUD.tolist()
    assert (said.party, said.asked, said.version, said.why) == ("cloud", True, 8, f"max_softmax against {at:g}")
    assert said.own is not None
    assert said.own["logits"].tolist() == OWN.tolist()  # it had answered first
    alone = walked(Threshold(0.0)).cost
    asked = walked(MODES["only_in_cloud"]).cost  # without the device's own answer
    total = alone + asked
    for name in ("seconds", "joules", "dollars", "up_bytes", "down_bytes"):
        assert getattr(said.cost, name) == pytest.approx(getattr(total, name)), name


@given(st.floats(0, 1))
def test_in_between_the_softmax_decides(at: float):
    surest = np.exp(OWN).max() / np.exp(OWN).sum()
    if abs(surest - at) > 1e-12:
        assert walked(Threshold(at)).party == ("ann" if surest >= at else "cloud")


# ----------------------------------------------------------------------------------------------------------- modes

MODEL, NONE = {"exits": ONE}, {"exits": {}}


@pytest.mark.parametrize(
    ("mode", "online", "with_model", "without"),
    [
        ("only_on_device", True, ("ann", False), None),
        ("only_on_device", False, ("ann", False), None),
        ("only_in_cloud", True, ("cloud", True), ("cloud", True)),
        ("only_in_cloud", False, ("ann", True), None),
        ("prefer_on_device", True, ("ann", False), ("cloud", True)),
        ("prefer_on_device", False, ("ann", False), None),
        ("prefer_in_cloud", True, ("cloud", True), ("cloud", True)),
        ("prefer_in_cloud", False, ("ann", False), None),
    ],
)
def test_the_four_modes(mode: str, online: bool, with_model: Any, without: Any):
    world: dict[str, Any] = {"network": ONLINE if online else GONE, "online": online, "deadline": 2.0}
    said = walked(MODES[mode], exits=ONE, **world)
    assert (said.party, said.asked) == with_model
    assert logits(said) == (OWN if said.party == "ann" else CLOUD).tolist()
    if without is None:
        with pytest.raises(Unanswered, match="ann has no answer"):
            walked(MODES[mode], exits={}, **world)
    else:
        said = walked(MODES[mode], exits={}, **world)
        assert (said.party, said.asked, said.own) == (*without, None)
        assert logits(said) == CLOUD.tolist()


# ------------------------------------------------------------------------------------------ the cloud slow or gone


@pytest.mark.parametrize("policy", [Threshold(2.0), MODES["only_in_cloud"], MODES["prefer_in_cloud"]])
@pytest.mark.parametrize("deadline", [0.05, 1.0])
def test_when_the_cloud_is_gone_the_device_answers_within_the_deadline(policy: Policy[Any], deadline: float):
    said = walked(policy, network=GONE, deadline=deadline)
    own, _ = energy.compute(energy.profiles()["mid-phone"], Work(1e9))
    assert logits(said) == OWN.tolist()
    assert (said.party, said.asked, said.version) == ("ann", True, 3)
    assert said.cost.seconds == pytest.approx(deadline + own)


def test_when_the_cloud_is_slow_the_answer_says_why_it_was_not_heard():
    said = walked(Threshold(2.0), question=Says(flops=3e14), deadline=3.0)
    assert (said.party, said.why) == ("ann", "no answer within 3 s")
    assert said.cost.up_bytes > 0
    assert said.cost.dollars > 0
    assert walked(Threshold(2.0), question=Says(flops=3e14), deadline=200.0).party == "cloud"


def test_a_cloud_that_refuses_or_does_not_know_the_skill_is_not_heard():
    said = walked(Threshold(2.0), question=Says("large"))
    assert (said.party, said.asked, said.why) == ("ann", True, "no large here")
    said = walked(Threshold(2.0), skills=())
    assert (said.party, said.asked, said.why) == ("ann", True, "cloud does not offer Says")


@pytest.mark.parametrize("kind", STRANGE)
def test_a_cloud_that_answers_with_nonsense_is_not_heard(kind: str):
    said = walked(Threshold(2.0), question=Strange(kind))
    assert (said.party, said.asked, said.why) == ("ann", True, "cloud answered with what is no answer")
    with pytest.raises(Unanswered, match="what is no answer"):
        walked(Threshold(2.0), question=Strange(kind), exits={})


def test_a_peer_that_is_not_there_cannot_be_asked():
    said = walked(MODES["only_in_cloud"], reach=False)
    assert (said.party, said.asked, said.why) == ("ann", False, "nobody is called cloud")
    with pytest.raises(Unanswered, match="nobody is called cloud"):
        walked(MODES["only_in_cloud"], reach=False, exits={})


# ----------------------------------------------------------------------------------------------------- several exits

TWO: Mapping[int, Skill] = {2: Says("second"), 0: Says()}  # in order of their stages, not of the mapping
STOP, GO, ASK = Action.STOP, Action.GO, Action.ASK


def scripted(*actions: Action, at: tuple[int, ...] = (0, 1, 3)) -> Held[Any]:
    script = dict(zip(at, actions, strict=False))
    return Held.of(Script(tuple(script.get(stage, GO) for stage in range(4))))


def test_an_early_exit_computes_no_further():
    held = scripted(GO, STOP)
    said = walked(held, exits=TWO)
    assert (said.party, said.why, logits(said)) == ("ann", "scripted at 1", OWN.tolist())
    assert held.state["seen"] == ((0, None), (1, tuple(OWN)))
    assert said.cost.seconds == pytest.approx(energy.compute(energy.profiles()["mid-phone"], Work(1e9))[0])


def test_the_second_exit_answers_when_the_first_does_not():
    held = scripted(GO, GO, STOP)
    said = walked(held, exits=TWO)
    assert (said.why, logits(said)) == ("scripted at 3", (2 * OWN).tolist())
    assert held.state["seen"] == ((0, None), (1, tuple(OWN)), (3, tuple(2 * OWN)))
    assert said.cost.seconds == pytest.approx(2 * energy.compute(energy.profiles()["mid-phone"], Work(1e9))[0])


def test_after_both_exits_the_cloud():
    said = walked(scripted(GO, GO, ASK), exits=TWO)
    assert (said.party, said.why, logits(said)) == ("cloud", "scripted at 3", CLOUD.tolist())
    assert said.own is not None
    assert said.own["logits"].tolist() == (2 * OWN).tolist()


def test_going_on_after_the_last_exit_is_stopping_there():
    said = walked(scripted(GO, GO, GO), exits=TWO)
    assert (said.party, said.asked, logits(said)) == ("ann", False, (2 * OWN).tolist())


def test_asking_first_and_in_vain_goes_on_to_the_model_and_asks_no_second_time():
    held = scripted(ASK, ASK, ASK)
    said = walked(held, exits=TWO, network=GONE, deadline=1.0)
    assert (said.party, said.asked, said.why) == ("ann", True, "no answer within 1 s")
    assert logits(said) == (2 * OWN).tolist()
    own = energy.compute(energy.profiles()["mid-phone"], Work(1e9))[0]
    assert said.cost.seconds == pytest.approx(1.0 + 2 * own)  # waited once
    assert [stage for stage, _ in held.state["seen"]] == [0, 1, 3]


def test_stopping_before_there_is_an_answer_is_no_way_out_of_answering():
    said = walked(scripted(STOP, STOP), exits=TWO)
    assert (said.party, logits(said)) == ("ann", OWN.tolist())


def test_an_exit_that_fails_leaves_the_answer_of_the_one_before():
    failing = {0: Says(), 1: Says("missing")}
    said = walked(Held.of(Script((GO, GO, GO))), exits=failing)
    assert (said.party, said.why, said.version, logits(said)) == ("ann", "no missing here", 3, OWN.tolist())
    said = walked(MODES["prefer_on_device"], exits={0: Says("missing")})  # no model, as it turns out
    assert (said.party, said.own) == ("cloud", None)
    with pytest.raises(Unanswered, match="no missing here"):
        walked(MODES["only_on_device"], exits={0: Says("missing")})


def test_a_question_through_codecs_is_the_same_question_in_fewer_bytes():
    plain = walked(MODES["only_in_cloud"])
    lossless = walked(MODES["only_in_cloud"], question=Coded(Says(flops=3e9), Chain((Zstd(),)), Chain((Zstd(),))))
    assert logits(lossless) == logits(plain) == CLOUD.tolist()
    eight = walked(MODES["only_in_cloud"], question=Coded(Says(flops=3e9), back=Quantise(8)))
    assert np.abs(np.array(logits(eight)) - CLOUD).max() <= (CLOUD.max() - CLOUD.min()) / 127


def test_the_policy_is_told_whether_there_is_a_connection():
    told: list[Any] = []

    @dataclass(frozen=True)
    class Asks(Policy[Any]):
        def choose(self, state: Any, seen: Seen, key: Key) -> tuple[Any, Move]:
            told.append((seen.stage, bool((seen.link or {})["online"][0]), key))
            return state, Move.sure(GO, "looks")

    walked(Asks(), online=False)
    walked(Asks())
    assert told == [(0, False, (1, "policy", 0)), (1, False, (1, "policy", 1)), (0, True, (1, "policy", 0)),
                    (1, True, (1, "policy", 1))]  # fmt: skip


def test_a_record_of_an_answer_tells_who_and_what():
    record = Record.of(walked(Threshold(2.0)), truth=1, step=5)
    assert record.metrics == {
        "by": "cloud", "why": "max_softmax against 2", "asked": 1, "label": 1, "own": 0, "truth": 1, "correct": 1,
    }  # fmt: skip


def test_answers_of_many_devices_at_once_are_those_of_each_alone():
    said: dict[str, list[bool]] = {}

    async def device(me: Peer, cloud: Peer) -> AsyncIterator[Record]:
        async def one(i: int) -> Answer:
            x = X + i
            held = Held.of(Threshold(2.0))
            return await answer(
                x, me=me, exits=ONE, peers={"cloud": cloud}, question=Says(), policy=held, key=(me.name, i)
            )

        for each in await asyncio.gather(*map(one, range(3))):
            said.setdefault(me.name, []).append(each.party == "cloud" and logits(each) == CLOUD.tolist())
        yield Record("answered")

    simulate(
        fleet=fleet("phones", 5, memory={"model": OWN}),
        device=Party((device,), (Says,)),
        cloud=Party((), (Says,), Local(None, {"model": CLOUD})),
        network=ONLINE,
    )
    assert said == {f"user-{i}": [True] * 3 for i in range(5)}


# ---------------------------------------------------------------------------------------------- what a policy learns


@dataclass(frozen=True)
class Pupil(Script):
    """Keeps what it was taught: the stage, the action, the reward, and what it had been told of the item."""

    def learn(self, state: Any, seen: Seen, move: Move, reward: Any) -> Any:
        battery = None if seen.battery is None else float(seen.battery[0])
        return {**state, "taught": (seen.stage, int(move.action[0]), float(reward[0]), battery)}


KNOWN = Seen(battery=np.array([0.25]), link={"up_mbps": np.array([3.0])})


@pytest.mark.parametrize(
    ("network", "actions", "taught"),
    [
        (ONLINE, (Action.GO, Action.STOP), (1, Action.STOP, np.nan, 0.25)),
        (ONLINE, (Action.GO, Action.ASK), (1, Action.ASK, 1.0, 0.25)),
        (GONE, (Action.GO, Action.ASK), (1, Action.ASK, np.nan, 0.25)),
        (ONLINE, (Action.ASK, Action.STOP), (0, Action.ASK, 1.0, 0.25)),
    ],
)
def test_a_policy_is_taught_by_what_it_heard(network: Network, actions: Any, taught: Any) -> None:
    held = Held.of(Pupil(actions))
    walked(held, network=network, known=KNOWN, reward=disagreement, deadline=5.0)
    np.testing.assert_equal(held.state["taught"], taught)
    untaught = Held.of(Pupil(actions))
    walked(untaught, network=network, known=KNOWN, deadline=5.0)
    assert "taught" not in untaught.state


def test_audits_and_bandits_learn_while_they_answer() -> None:
    outcomes = Outcomes.of_classifiers(np.eye(3)[[0, 1, 2, 0]], np.eye(3)[[0, 1, 2, 1]])
    audited = Audited(Threshold(0.0), 0.1, share=0.999999).fit(outcomes)
    audited.state = {**audited.state, "threshold": np.array(0.0)}
    walked(audited, reward=disagreement)
    assert int(audited.state["audits"]) == int(audited.state["learned"]) == 1
    assert float(audited.state["paid"]) == pytest.approx(1 / 0.999999)
    bandit = Held.of(LinUCB())
    before = bandit.save()
    walked(bandit, known=KNOWN, reward=lambda own, said: 0.7)
    assert bandit.save() != before


def test_answers_disagree_where_their_classes_do() -> None:
    same, other = {"logits": np.array([1.0, 3.0])}, {"logits": np.array([2.0, 1.0])}
    assert [disagreement(own, same) for own in (None, same, other)] == [1.0, 0.0, 1.0]
