"""LearnedGain: two heads against numpy, its threshold, and what it makes of bad input."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from duetto import tree as trees
from duetto.errors import ConfigError, DataError
from duetto.policies import Boosted, LearnedGain, Logistic, Neighbours, Network
from duetto.policies.gain import predicted, two_heads
from duetto.policies.signals import reads, scaled, signals, standard, statistics
from duetto.types import Action, Outcomes, Seen

DRAW = np.random.default_rng(5)
N, CLASSES = 600, 4
HARD = DRAW.random(N)  # what the items differ in: the small model fails where it is high, the large one in the middle
LOGITS = np.eye(CLASSES)[DRAW.integers(0, CLASSES, N)] * 3 + DRAW.normal(size=(N, CLASSES))
FEATURES = np.stack([HARD, DRAW.normal(size=N)], axis=1)
SMALL = (DRAW.random(N) < 1 - HARD).astype(float)
LARGE = (DRAW.random(N) < 0.9).astype(float)
USERS = DRAW.integers(0, 15, N)
SEEN = Seen(stage=1, answer=LOGITS, features=FEATURES, size=N)
OUTCOMES = Outcomes(SMALL, LARGE, SEEN, USERS)
HEADS = [Logistic(), Neighbours(30), Boosted(20), Network(8, steps=100)]


@pytest.mark.parametrize("head", HEADS, ids=lambda head: type(head).__name__)
def test_it_asks_where_the_predicted_gain_is_above_the_price(head: Any) -> None:
    held = LearnedGain(head, 0.2).fit(OUTCOMES)
    gain = predicted(head, held.state, signals(SEEN, held.state["reads"]))
    move = held.choose(SEEN, ())
    assert ((move.action == Action.ASK) == (gain > 0.2)).all()
    assert np.corrcoef(gain, HARD)[0, 1] > 0.6, "the gain is HARD - 0.1 in truth"
    assert 0 < (move.action == Action.ASK).mean() < 1


def test_the_logistic_gain_is_the_difference_of_two_logistic_functions() -> None:
    held = LearnedGain().fit(OUTCOMES)
    x = np.concatenate([statistics(SEEN), FEATURES], axis=1)
    shares = OUTCOMES.shares
    mean = shares @ x
    z = (x - mean) / np.sqrt(shares @ (x - mean) ** 2)
    sides = [held.state[name]["logit"] for name in ("large", "small")]
    large, small = (1 / (1 + np.exp(-(z.clip(-10, 10) @ side["weight"] + side["bias"]))) for side in sides)
    assert held.part.scores(held.state, SEEN) == pytest.approx(small - large)  # type: ignore[attr-defined]


def test_every_user_counts_the_same() -> None:
    once = two_heads(Logistic(), FEATURES, OUTCOMES)
    doubled = np.append(np.arange(N), np.flatnonzero(USERS == 0))  # one user says everything twice
    twice = two_heads(Logistic(), FEATURES[doubled], OUTCOMES.rows(doubled))
    shown = [predicted(Logistic(), state, FEATURES) for state in (once, twice)]
    assert shown[0] == pytest.approx(shown[1], abs=5e-3)
    assert once["scale"]["mean"] == pytest.approx(twice["scale"]["mean"])


def test_statistics_are_those_of_the_softmax() -> None:
    p = np.exp(LOGITS) / np.exp(LOGITS).sum(1, keepdims=True)
    top = -np.sort(-p, axis=1)
    found = statistics(SEEN)
    assert found[:, 0] == pytest.approx(np.log(top[:, 0] / (1 - top[:, 0])))
    assert found[:, 1] == pytest.approx(-(p * np.log(p)).sum(1))
    assert found[:, 2] == pytest.approx(np.log(np.exp(LOGITS).sum(1)))
    assert found[:, 3:] == pytest.approx(np.log(top[:, :4]))


def test_a_column_that_is_constant_stays_and_a_stray_item_is_cut_off() -> None:
    x = np.stack([np.full(4, 7.0), np.array([0.0, 0, 2, 2])], axis=1)
    by = scaled(x, np.full(4, 0.25))
    assert standard(np.array([[7.0, 1e9], [7.0, 0.0]]), by).tolist() == [[0, 10], [0, -1]]


def test_before_fitting_it_always_asks_and_after_it_survives_saving() -> None:
    policy = LearnedGain()
    _, move = policy.choose(policy.init(), SEEN, ())
    assert (move.action == Action.ASK).all()
    held = policy.fit(OUTCOMES)
    again = held.restore(trees.encode(held.state))
    assert (again.choose(SEEN, ()).action == held.choose(SEEN, ()).action).all()


def test_with_features_alone_it_decides_before_the_device_has_answered() -> None:
    blind = replace(SEEN, stage=0, answer=None)
    held = LearnedGain(price=0.2).fit(Outcomes(SMALL, LARGE, blind, USERS))
    actions = held.choose(blind, ()).action
    assert set(actions.tolist()) == {Action.STOP, Action.ASK}
    with_answer = LearnedGain().fit(OUTCOMES)
    assert (with_answer.choose(blind, ()).action == Action.GO).all()


def test_an_ensemble_is_read_where_there_is_one() -> None:
    members = LOGITS[:, None] + DRAW.normal(size=(N, 3, CLASSES))
    seen = replace(SEEN, scores=members)
    held = LearnedGain().fit(Outcomes(SMALL, LARGE, seen, USERS))
    assert held.state["reads"].tolist() == [CLASSES, 2, 3]
    assert held.choose(seen, ()).action.shape == (N,)
    with pytest.raises(DataError, match="members"):
        held.choose(replace(seen, scores=members[:, :2]), ())


def test_qualities_that_are_no_right_or_wrong_are_regressed() -> None:
    quality = Outcomes(-HARD, np.full(N, -0.2) + 0.01 * HARD, SEEN, USERS)
    held = LearnedGain(Logistic(1e-6)).fit(quality)
    assert held.part.scores(held.state, SEEN) == pytest.approx(-(1.01 * HARD - 0.2), abs=1e-6)  # type: ignore[attr-defined]


@pytest.mark.parametrize("head", HEADS, ids=lambda head: type(head).__name__)
@pytest.mark.parametrize("small", [0.0, 1.0])
def test_one_class_only(head: Any, small: float) -> None:
    """All right: nobody asks. All wrong, and the large model right: everybody asks."""
    held = LearnedGain(head, 0.05).fit(Outcomes(np.full(N, small), np.ones(N), SEEN, USERS))
    assert (held.choose(SEEN, ()).action == (Action.STOP if small else Action.ASK)).all()


@pytest.mark.parametrize("head", HEADS, ids=lambda head: type(head).__name__)
def test_answers_that_are_all_alike(head: Any) -> None:
    alike = Seen(stage=1, answer=np.zeros((N, CLASSES)), size=N)
    held = LearnedGain(head, 0.1).fit(Outcomes(np.arange(N) % 2 * 1.0, np.ones(N), alike, None))
    assert (held.choose(alike, ()).action == Action.ASK).all(), "half of them gain 1"


def test_bad_input_is_refused() -> None:
    held = LearnedGain().fit(OUTCOMES)
    with pytest.raises(DataError, match="NaN"):
        held.choose(replace(SEEN, answer=np.full((N, CLASSES), np.nan)), ())
    with pytest.raises(DataError, match="NaN"):
        held.choose(replace(SEEN, features=np.full((N, 2), np.nan)), ())
    for features in (None, FEATURES[:, :1], {"prompt": np.array(["a"] * N)}, np.array([["a", "b"]] * N)):
        with pytest.raises(DataError, match="features"):
            held.choose(replace(SEEN, features=features), ())
    with pytest.raises(DataError, match="answers of shape"):
        held.choose(replace(SEEN, answer=LOGITS[:, :3]), ())
    with pytest.raises(DataError, match="neither"):
        reads(Seen(stage=1, size=3))
    with pytest.raises(DataError, match="no items"):
        Outcomes(np.zeros(0), np.zeros(0), Seen(stage=1, answer=np.zeros((0, 2)), size=0))
    with pytest.raises(ConfigError, match="price"):
        LearnedGain(price=float("nan"))
