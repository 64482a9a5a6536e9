"""The laws of every policy."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from duetto import tree as trees
from duetto.errors import DataError
from duetto.types import Action, Held, Seen

ITEMS, CLASSES = 23, 4
DRAW = np.random.default_rng(7)
LOGITS = DRAW.normal(size=(ITEMS, CLASSES)) * 3
ONLINE = DRAW.random(ITEMS) < 0.6
SEEN = {
    "before": Seen(stage=0, link={"online": ONLINE}, size=ITEMS),
    "no model": Seen(stage=1, size=ITEMS),
    "offline": Seen(stage=1, link={"online": np.zeros(ITEMS, bool)}, size=ITEMS),
    "answered": Seen(stage=1, answer=LOGITS, link={"online": ONLINE}, size=ITEMS),
    "single": Seen(stage=1, answer=LOGITS[:1].astype(np.float32), size=1),
    "alike": Seen(stage=2, answer=np.ones((ITEMS, CLASSES)), size=ITEMS),
    "nobody": Seen(stage=0, link={"online": np.zeros(0, bool)}, size=0),
}


@pytest.fixture(params=SEEN)
def seen(request: pytest.FixtureRequest) -> Seen:
    """What a policy may see."""
    return SEEN[request.param]


def test_choosing_is_pure(held: Held[Any], seen: Seen) -> None:
    policy, state = held.part, held.state
    before = trees.encode(state)
    (state_1, one), (state_2, two) = policy.choose(state, seen, (1, "a")), policy.choose(state, seen, (1, "a"))
    assert trees.encode(state) == before
    assert trees.encode(state_1) == trees.encode(state_2)
    assert (one.action == two.action).all()
    assert (one.propensity == two.propensity).all()
    assert (one.why, one.peer, one.plan) == (two.why, two.peer, two.plan)


def test_there_is_one_move_an_item(held: Held[Any], seen: Seen) -> None:
    _, move = held.part.choose(held.state, seen, (1, "a"))
    assert move.action.shape == move.propensity.shape == (seen.size,)
    assert set(move.action.tolist()) <= set(Action)
    assert ((move.propensity > 0) & (move.propensity <= 1)).all()
    assert move.why
    assert "\n" not in move.why


def test_an_array_is_its_items_one_by_one(itemwise_held: Held[Any], seen: Seen) -> None:
    policy, state = itemwise_held.part, itemwise_held.state
    after, move = policy.choose(state, seen, (1, "a"))
    actions = []
    for i in range(seen.size):
        one = replace(
            seen,
            answer=None if seen.answer is None else seen.answer[i : i + 1],
            link=None if seen.link is None else {name: column[i : i + 1] for name, column in seen.link.items()},
            size=1,
        )
        state, single = policy.choose(state, one, (1, "a"))
        actions += single.action.tolist()
    assert actions == move.action.tolist()
    assert trees.encode(state) == trees.encode(after)


def test_a_state_survives_saving(held: Held[Any], seen: Seen) -> None:
    held = held.fork()
    for _ in range(2):  # the first state, and one that has chosen
        saved = held.save()
        restored = held.restore(saved)
        assert restored.save() == saved
        assert trees.spec(restored.state) == trees.spec(held.state)
        mine, other = held.choose(seen, (2,)), restored.choose(seen, (2,))
        assert (mine.action == other.action).all()
        assert held.save() == restored.save()


def test_learning_changes_no_state_in_place(held: Held[Any]) -> None:
    seen = SEEN["answered"]
    after, move = held.part.choose(held.state, seen, (3,))
    trees.map(lambda leaf: leaf.setflags(write=False), after)
    before = trees.encode(after)
    trees.encode(held.part.learn(after, seen, move, np.ones(seen.size)))
    assert trees.encode(after) == before


def test_answers_that_are_nan_never_pass_for_sure(scored_held: Held[Any]) -> None:
    with pytest.raises(DataError):
        scored_held.choose(Seen(stage=1, answer=np.full((2, 3), np.nan), size=2), (0,))


def test_a_cohort_states_its_sampling_and_leaves_out_who_is_offline(cohort_policy: Any) -> None:
    assert cohort_policy.sampling in ("all", "fixed-size", "poisson", "data-dependent")
    _, move = cohort_policy.choose(cohort_policy.init(), SEEN["before"], (4,))
    assert set(move.action.tolist()) <= {Action.ASK, Action.STOP}
    assert (move.action == Action.ASK).any()
    assert not (move.action == Action.ASK)[~ONLINE].any()
