"""Which sub-network answers: what is permitted, with hysteresis; and the cheapest ladder, by brute force."""

import asyncio
import math
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from duetto import protocols
from duetto.errors import ConfigError, DataError
from duetto.policies import Widening, confidence
from duetto.types import Action, Cost, Held, Outcomes, Peer, Reply, Seen

JOULES, SECONDS = (1.0, 3.0, 5.0, 10.0), (0.01, 0.03, 0.05, 0.1)
PLAIN = Widening(JOULES, SECONDS)
CAREFUL = Widening(JOULES, SECONDS, floors=(0.0, 0.2, 0.4, 0.6), deadline=1.0, spare=0.1)
DRAW = np.random.default_rng(3)
USERS, EACH, CLASSES = 40, 25, 4
LABELS = DRAW.integers(0, CLASSES, USERS * EACH)
OWNERS = np.repeat(np.arange(USERS), EACH)
LOGITS = [np.eye(CLASSES)[LABELS] * s + DRAW.normal(size=(len(LABELS), CLASSES)) for s in (2.5, 3, 3.5, 5)]
KNOWN = {k: Outcomes.of_classifiers(each, LOGITS[3], LABELS, OWNERS) for k, each in enumerate(LOGITS)}


def at(battery: float = 1.0, queue: float = 0.0) -> Seen:
    return Seen(battery=np.array([battery]), queue=np.array([queue]))


def lived(held: Held[Any], seen: Seen) -> tuple[int, ...]:
    """The ladder of an item, and that the policy remembers it."""
    ladder = held.part.ladder(held.state, seen)  # type: ignore[attr-defined]
    move = held.choose(seen, ())
    assert move.action.tolist() == [Action.GO]
    assert move.plan.exit == int(held.state["level"])
    return tuple(ladder)


def test_full_battery_and_empty_queue_permit_the_widest() -> None:
    for policy in (PLAIN, CAREFUL):
        assert lived(Held.of(policy), at()) == (3,)
        assert lived(policy.fit(KNOWN), at())[-1] == 3
    assert lived(Held.of(PLAIN), Seen()) == (3,)
    assert lived(Held.of(PLAIN), at(0.0, 1e9)) == (3,)  # without floors and a deadline


@pytest.mark.parametrize(
    ("battery", "queue", "level"),
    [(0.6, 0.0, 3), (0.59, 0.0, 2), (0.2, 0.0, 1), (0.0, 0.0, 0), (1.0, 0.92, 2), (1.0, 0.95, 2), (1.0, 5.0, 0)],
)
def test_what_is_permitted_falls_at_once(battery: float, queue: float, level: int) -> None:
    assert lived(Held.of(CAREFUL), at(battery, queue)) == (level,)


def test_it_rises_only_with_something_to_spare() -> None:
    held = Held.of(CAREFUL)
    assert [lived(held, at(b))[0] for b in (0.61, 0.59, 0.61, 0.69, 0.7, 0.61)] == [3, 2, 2, 2, 3, 3]
    assert [lived(held, at(1.0, q))[0] for q in (0.9, 0.91, 0.82, 0.8)] == [3, 2, 2, 3]


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 2)), min_size=1, max_size=20))
def test_no_item_gets_more_than_it_is_permitted(items: list[tuple[float, float]]) -> None:
    held, together = Held.of(CAREFUL), Held.of(CAREFUL)
    for battery, queue in items:
        (level,) = lived(held, at(battery, queue))
        assert level == 0 or (battery >= CAREFUL.floors[level] and queue + SECONDS[level] <= 1.0)
        again = held.fork()
        assert lived(again, at(battery, queue)) == (level,)  # nothing changes where nothing changed
    columns = np.array(items)
    together.choose(Seen(battery=columns[:, 0], queue=columns[:, 1], size=len(items)), ())
    assert together.state == held.state


def walked(held: Held[Any], ladder: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Which sub-network answers each of the items ``[n]``, and joules, by the policy's own moves."""
    answers, joules, going = np.full(len(LABELS), -1), np.zeros(len(LABELS)), np.ones(len(LABELS), bool)
    for k in ladder:
        move = held.choose(Seen(stage=k + 1, answer=LOGITS[k], size=len(LABELS)), ())
        joules[going] += JOULES[k]
        answers[going & (move.action == Action.STOP)] = k
        going &= move.action == Action.GO
    assert not going.any()
    return answers, joules


@pytest.mark.parametrize("like", [None, 1])
@pytest.mark.parametrize("sure", [0.0, 2.0])
def test_the_ladder_is_the_cheapest_that_keeps_the_quality(like: int | None, sure: float) -> None:
    loss = 0.01
    held = Widening(JOULES, SECONDS, like=like, loss=loss, sure=sure).fit(KNOWN)
    right = np.stack([each.argmax(1) == LABELS for each in LOGITS]).astype(float)
    scores = np.stack([confidence(each) for each in LOGITS])

    def judged(answers: np.ndarray) -> tuple[float, float]:
        gap = (right[answers, np.arange(len(LABELS))] - right[3 if like is None else like]).reshape(USERS, EACH).mean(1)
        return float(gap.mean()), float(gap.mean() - sure * gap.std(ddof=1) / math.sqrt(USERS))

    best = math.inf
    for last in (3,) if like is None else range(4):
        for count in range(min(3, last + 1)):
            for below in combinations(range(last), count):
                pooled = np.concatenate([scores[k] for k in below]) if below else np.zeros(1)
                for threshold in np.unique(np.quantile(pooled, np.linspace(0, 1, 64))):
                    answers, joules, going = (
                        np.full(len(LABELS), last),
                        np.zeros(len(LABELS)),
                        np.ones(len(LABELS), bool),
                    )
                    for k in (*below, last):
                        joules[going] += JOULES[k]
                        stops = going & ((scores[k] >= threshold) | (k == last))
                        answers[stops] = k
                        going &= ~stops
                    if judged(answers)[1] >= -loss - 1e-12:
                        best = min(best, float(joules.mean()))
    assert float(held.state["joules"]) == pytest.approx(best)
    ladder = lived(held, at())
    answers, joules = walked(held, ladder)
    assert joules.mean() == pytest.approx(best)
    assert judged(answers)[0] == pytest.approx(float(held.state["gap"]))
    assert best < JOULES[3 if like is None else like]


def test_a_low_battery_cuts_the_ladder() -> None:
    held = replace(CAREFUL, loss=0.01).fit(KNOWN)
    full = lived(held, at())
    assert len(full) > 1
    low = lived(held, at(battery=0.3))
    assert low == (*(k for k in full if k < 1), 1)
    move = held.choose(Seen(stage=2, answer=LOGITS[1], size=len(LABELS)), ())
    assert (move.action == Action.STOP).all()


def test_all_that_an_item_may_go_through_is_in_time() -> None:
    policy = Widening(JOULES, (1.0, 2.0, 3.0, 4.0), deadline=5.5, spare=0.0)
    state = {**policy.init(), "ladder": np.array([True, False, True, True]), "threshold": np.array(0.9)}
    assert policy.ladder(state, at()) == (0, 2)  # 1 + 3 + 4 seconds are too long
    assert policy.ladder(state, at(queue=2.0)) == (0, 1)
    assert policy.ladder(state, at(queue=2.6)) == (0,)
    assert policy.ladder(policy.init(), at()) == (3,)  # alone


def test_the_cloud_is_asked_where_that_is_cheaper() -> None:
    policy = replace(PLAIN, ask_joules=4.0, deadline=0.5)
    held = policy.fit({0: KNOWN[0]})
    state = {**held.state, "ladder": np.array([True, False, False, True]), "threshold": np.array(0.9)}
    flat, sure = np.zeros((1, CLASSES)), np.array([[9.0, 0, 0, 0]])

    def move(answer: np.ndarray, online: bool, rtt: float, stage: int = 1, of: Widening = policy) -> int:
        link = {"online": np.array([online]), "rtt_seconds": np.array([rtt])}
        return int(of.choose(state, Seen(stage=stage, answer=answer, link=link), ())[1].action[0])

    assert move(sure, True, 0.1) == Action.STOP
    assert move(flat, True, 0.1) == Action.ASK
    assert move(flat, False, 0.1) == move(flat, True, 0.6) == Action.GO  # nobody there, or too late
    assert move(flat, True, 0.1, of=replace(policy, ask_joules=11.0)) == Action.GO  # dearer than to widen
    assert move(flat, True, 0.1, stage=4, of=replace(policy, ask_joules=11.0)) == Action.ASK  # nothing wider
    assert move(flat, True, 0.1, stage=4, of=PLAIN) == move(flat, False, 0.1, stage=4) == Action.STOP


def test_the_walk_of_answering_goes_up_the_ladder() -> None:
    held = PLAIN.fit(KNOWN)
    state = {**held.state, "ladder": np.array([True, False, True, True]), "threshold": np.array(0.9)}

    class Own(Peer):
        name, traits = "device", {}

        def __init__(self) -> None:
            self.ran: list[int] = []

        async def ask(self, skill: Any, tree: Any, *, key: Any, deadline: float | None = None) -> Reply:
            self.ran.append(skill)
            logits = np.array([[9.0 if skill == 2 else 0.5, 0, 0, 0]])
            return Reply("device", {"logits": logits}, cost=Cost(joules=JOULES[skill]))

    async def go() -> Any:
        own = Own()
        exits: Any = {k: k for k in PLAIN.ladder(state, at())}
        policy = Held(PLAIN, state)
        found = await protocols.answer(
            np.zeros(3),
            me=own,
            exits=exits,
            peers={},
            question=None,
            policy=policy,
            key=(),
            known=at(),  # type: ignore[arg-type]
        )
        return own.ran, found.cost.joules

    assert asyncio.run(go()) == ([0, 2], 6.0)


def test_faults_are_told() -> None:
    for wrong in (
        {"joules": ()},
        {"joules": (2.0, 1.0, 3.0, 4.0)},
        {"seconds": (1.0,)},
        {"floors": (0.1, 0.2, 0.3, 0.4)},
        {"floors": (0.0, 0.2)},
        {"floors": (0.0, 0.2, 0.3, 0.99)},
        {"deadline": 0.0},
        {"loss": 2.0},
        {"like": 4},
        {"score": "luck"},
    ):
        with pytest.raises(ConfigError):
            replace(PLAIN, **wrong)
    with pytest.raises(DataError, match="no answers of sub-network 2"):
        replace(PLAIN, like=2).fit({0: KNOWN[0]})
    with pytest.raises(DataError, match=r"answers of sub-networks \[7\]"):
        PLAIN.fit({7: KNOWN[0]})
    with pytest.raises(DataError, match="other items"):
        PLAIN.fit({0: KNOWN[0], 1: Outcomes.of_classifiers(LOGITS[1][:50], LOGITS[3][:50], LABELS[:50], OWNERS[:50])})
    with pytest.raises(DataError, match="a column"):
        PLAIN.choose(PLAIN.init(), Seen(battery=np.ones(3)), ())
