"""Calibrated: the threshold against brute force in exact fractions; the scalings have tests of their own."""

import math
from dataclasses import replace
from fractions import Fraction
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from duetto.errors import ConfigError, DataError
from duetto.policies import Calibrated, confidence
from duetto.policies.calibrated import cheapest
from duetto.policies.scaling import SCALINGS, fit_temperature, fit_top_temperature
from duetto.types import Action, Held, Outcomes, Seen

DRAW = np.random.default_rng(3)
ITEMS, CLASSES = 400, 5
LABELS = DRAW.integers(0, CLASSES, ITEMS)
USERS = DRAW.integers(0, 12, ITEMS)
TRUE = np.eye(CLASSES)[LABELS]
SMALL = TRUE * 2 + DRAW.normal(size=(ITEMS, CLASSES))
LARGE = TRUE * 4 + DRAW.normal(size=(ITEMS, CLASSES))


def known(small: Any = SMALL, labels: Any = LABELS, users: Any = USERS, large: Any = LARGE) -> Outcomes:
    return Outcomes.of_classifiers(small, large, labels, users)


def threshold(held: Any) -> float:
    return float(held.state["threshold"])


def kept(held: Any, logits: np.ndarray) -> np.ndarray:
    """Which items it answers itself."""
    return held.choose(Seen(stage=1, answer=logits, size=len(logits)), ()).action == Action.STOP


@given(
    st.lists(st.tuples(st.integers(0, 4), st.sampled_from([-1, 0, 0, 1])), min_size=1, max_size=12), st.integers(0, 6)
)
def test_the_threshold_is_the_last_one_before_the_first_failure(items: list[tuple[int, int]], allowed: int) -> None:
    scores, losses = np.array(items, float).T
    count = len(items)
    best = math.inf
    for at in sorted(set(scores), reverse=True):  # from "always ask" downwards
        lost = Fraction(sum(gap for score, gap in items if score >= at), count)
        if lost > Fraction(allowed, 12):
            break
        best = at
    assert cheapest(scores, losses / count, allowed / 12) == best


@pytest.mark.parametrize("by", ["user", "example"])
@pytest.mark.parametrize("score", ["margin", "energy"])
@pytest.mark.parametrize("points", [0.0, 1.0, 4.0])
def test_the_cascade_keeps_within_the_tolerance(by: Any, score: str, points: float) -> None:
    held = Calibrated(score, points, by).fit(known())
    keep = kept(held, SMALL)
    right, best = SMALL.argmax(axis=1) == LABELS, LARGE.argmax(axis=1) == LABELS
    gap = 1.0 * best - np.where(keep, right, best)

    def mean(values: np.ndarray) -> float:
        users = [values[user == USERS].mean() for user in np.unique(USERS)]
        return float(np.mean(users) if by == "user" else values.mean())

    assert mean(gap) <= points / 100 + 1e-9
    at = float(held.state["threshold"])
    scores = confidence(SMALL / held.state["temperature"], score)
    lower = scores[scores < at].max()  # one group further is too far
    assert mean((scores >= lower) * (1.0 * best - right)) > points / 100
    assert 0 < keep.mean() < 1 or points == 0


def test_more_tolerance_asks_less() -> None:
    shares = [1 - kept(Calibrated(tolerance_points=p).fit(known()), SMALL).mean() for p in (0.5, 2, 8)]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] > shares[2]


def test_items_of_equal_score_go_together() -> None:
    small = np.repeat([[3.0, 0.0], [1.0, 0.0]], 10, axis=0)
    labels = np.zeros(20, int)
    labels[10] = 1  # one of the ten less sure ones is wrong: 5 points of all
    large = np.eye(2)[labels]
    of = known(small, labels, None, large)
    strict, loose = (threshold(Calibrated("margin", p, scaling="none").fit(of)) for p in (4.9, 5.0))
    assert strict == confidence(small[:1], "margin")[0]
    assert loose == confidence(small[10:11], "margin")[0]


def test_a_target_out_of_reach_always_asks() -> None:
    wrong = (SMALL.argmax(axis=1) + 1) % CLASSES
    held = Calibrated(tolerance_points=0).fit(known(SMALL, wrong, None, np.eye(CLASSES)[wrong]))
    assert float(held.state["threshold"]) == math.inf
    assert not kept(held, np.eye(CLASSES) * 1e6).any()


def test_before_fitting_it_always_asks() -> None:
    policy = Calibrated()
    _, move = policy.choose(policy.init(), Seen(stage=1, answer=np.eye(3) * 1e6, size=3), ())
    assert move.action.tolist() == [Action.ASK] * 3


def test_without_labels_disagreement_counts() -> None:
    differs = SMALL.argmax(axis=1) != LARGE.argmax(axis=1)
    unlabelled = known(labels=None, users=None)
    half, full = (Calibrated("margin", 5.0, factor=factor, scaling="none").fit(unlabelled) for factor in (0.5, 1.0))
    at = threshold(full)
    scores = confidence(SMALL, "margin")
    assert differs[scores >= at].sum() / ITEMS <= 0.05
    assert differs[scores >= scores[scores < at].max()].sum() / ITEMS > 0.05
    assert threshold(half) == threshold(Calibrated("margin", 10.0, scaling="none").fit(unlabelled)) < at
    scaled = Calibrated("margin", 5.0).fit(unlabelled)
    assert float(scaled.state["temperature"]) == fit_temperature(SMALL, LARGE.argmax(axis=1))


def test_who_is_right_is_enough_for_a_temperature() -> None:
    right = replace(known(users=None), labels=None)
    found = Calibrated("margin", 5.0).fit(right)
    assert float(found.state["temperature"]) == fit_top_temperature(SMALL, right.small)
    with pytest.raises(ConfigError, match="vector scaling without labels"):
        Calibrated(scaling="vector").fit(right)


def test_without_the_large_model_it_is_taken_to_be_always_right() -> None:
    policy = Calibrated(tolerance_points=3)
    assert threshold(policy.fit(known(large=None))) == threshold(policy.fit(known(large=TRUE)))


@pytest.mark.parametrize("scaling", SCALINGS)
@pytest.mark.parametrize("score", ["max_softmax", "energy"])
def test_every_scaling_keeps_within_the_tolerance(scaling: Any, score: str) -> None:
    policy = Calibrated(score, 2.0, scaling=scaling)
    held = policy.fit(known())
    keep = kept(held, SMALL)
    lost = keep * (1.0 * (LARGE.argmax(1) == LABELS) - (SMALL.argmax(1) == LABELS))
    assert np.mean([lost[user == USERS].mean() for user in np.unique(USERS)]) <= 0.02 + 1e-9
    assert 0 < keep.mean() < 1
    assert not kept(Held.of(policy), np.eye(CLASSES) * 1e6).any()
    assert set(held.state) == set(policy.init())


def test_a_fitted_temperature_is_by_user_too() -> None:
    of = known()
    by_user, by_example = (Calibrated(by=by).fit(of).state["temperature"] for by in ("user", "example"))  # type: ignore[arg-type]
    assert float(by_user) == fit_temperature(SMALL, LABELS, of.shares)
    assert float(by_example) == fit_temperature(SMALL, LABELS)


def test_outcomes_without_logits() -> None:
    with pytest.raises(DataError):
        Calibrated().fit(Outcomes(np.ones(3), np.ones(3), Seen(size=3)))


@pytest.mark.parametrize(
    "settings",
    [
        {"score": "no"},
        {"by": "device"},
        {"tolerance_points": -0.1},
        {"tolerance_points": math.nan},
        {"factor": math.inf},
        {"scaling": "platt"},
    ],
)
def test_settings_that_cannot_be_met(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Calibrated(**settings)
