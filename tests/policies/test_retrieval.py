"""Retrieval: hits, the answers it gives back, and what it forgets."""

from dataclasses import replace

import numpy as np
import pytest

from duetto import tree as trees
from duetto.errors import ConfigError, DataError
from duetto.policies import Retrieval, Threshold
from duetto.types import Action, Held, Move, Seen

POINTS = np.array([[0.0, 0], [10, 0], [0, 10]])
ANSWERS = np.array([[1.0, 0], [0, 1], [5, 5]])


def seen(points: list[list[float]]) -> Seen:
    """Items with these features."""
    return Seen(stage=1, features=np.array(points), size=len(points))


def asked(n: int) -> Move:
    """What was asked."""
    return Move.sure(np.full(n, Action.ASK), "asked")


def test_what_the_cloud_answered_is_remembered_within_the_radius() -> None:
    policy = Retrieval(1.0)
    held = Held.of(policy)
    first = seen(POINTS.tolist())
    assert (held.choose(first, ()).action == Action.ASK).all()
    held.learn(first, asked(3), ANSWERS)
    near = seen([[0.6, 0.8], [0.61, 0.8], [10, 0], [5, 5]])
    move = held.choose(near, ())
    assert move.action.tolist() == [Action.STOP, Action.ASK, Action.STOP, Action.ASK]
    assert "remembered" in move.why
    hit, answers = policy.remembered(held.state, near)
    assert hit.tolist() == [True, False, True, False]
    assert answers[hit].tolist() == ANSWERS[[0, 1]].tolist()
    assert np.isnan(answers[~hit]).all()
    assert held.restore(held.save()).choose(near, ()).action.tolist() == move.action.tolist()


def test_the_least_recently_used_is_forgotten() -> None:
    held = Held.of(Retrieval(1.0, capacity=3))
    held.learn(seen(POINTS.tolist()), asked(3), ANSWERS)
    held.choose(seen([[0, 0], [0, 10]]), ())  # uses the first and the third
    held.learn(seen([[7, 7]]), asked(1), np.array([[2.0, 2]]))
    assert held.state["keys"].tolist() == [[0, 0], [0, 10], [7, 7]]
    many = np.arange(20.0)[:, None] * [100, 0]
    held.learn(seen(many.tolist()), asked(20), np.ones((20, 2)))
    assert held.state["keys"].tolist() == many[-3:].tolist()


def test_only_what_was_asked_and_heard_is_remembered() -> None:
    held = Held.of(Retrieval(0.5))
    move = Move.sure(np.array([Action.ASK, Action.STOP, Action.ASK]), "")
    reward = np.where([[True], [True], [False]], ANSWERS, np.nan)
    before = trees.encode(held.state)
    after = held.part.learn(held.state, seen(POINTS.tolist()), move, reward)
    assert trees.encode(held.state) == before
    assert after["keys"].tolist() == [[0, 0]]


def test_the_inner_policy_decides_what_is_not_remembered() -> None:
    logits = np.array([[9.0, 0], [0.1, 0], [0.1, 0]])
    policy = Retrieval(0.5, inner=Threshold(0.9))
    items = replace(seen(POINTS.tolist()), answer=logits)
    state = policy.learn(policy.init(), items.rows(np.array([1])), asked(1), ANSWERS[:1])
    _, move = policy.choose(state, items, ())
    assert move.action.tolist() == [Action.STOP, Action.STOP, Action.ASK]  # sure, remembered, neither
    _, move = policy.choose(state, Seen(stage=0, size=2), ())
    assert move.action.tolist() == [Action.GO, Action.GO]


def test_bad_input_is_refused() -> None:
    held = Held.of(Retrieval(1.0))
    held.learn(seen(POINTS.tolist()), asked(3), ANSWERS)
    with pytest.raises(DataError, match="wide"):
        held.choose(seen([[1.0, 2, 3]]), ())
    with pytest.raises(DataError, match="wide"):
        held.learn(seen([[1.0, 2]]), asked(1), np.ones((1, 5)))
    with pytest.raises(DataError, match="NaN"):
        held.choose(seen([[np.nan, 0]]), ())
    with pytest.raises(DataError, match="shape"):
        held.choose(Seen(stage=1, features={"prompt": np.array(["a"])}), ())
    for radius, capacity in ((-1.0, 5), (float("nan"), 5), (1.0, 0)):
        with pytest.raises(ConfigError, match="radius"):
            Retrieval(radius, capacity)
