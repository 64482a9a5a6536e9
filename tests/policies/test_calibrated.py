"""Calibrated: the temperature against a grid, the threshold against brute force in exact fractions."""

import math
from fractions import Fraction
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from duetto.errors import ConfigError, DataError
from duetto.policies import Calibrated, confidence
from duetto.policies.calibrated import cheapest, fit_temperature
from duetto.types import Action, Seen

DRAW = np.random.default_rng(3)
ITEMS, CLASSES = 400, 5
LABELS = DRAW.integers(0, CLASSES, ITEMS)
USERS = DRAW.integers(0, 12, ITEMS)
TRUE = np.eye(CLASSES)[LABELS]
SMALL = TRUE * 2 + DRAW.normal(size=(ITEMS, CLASSES))
LARGE = TRUE * 4 + DRAW.normal(size=(ITEMS, CLASSES))


def loss(logits: np.ndarray, labels: np.ndarray, temperature: float) -> float:
    """Mean negative log-likelihood."""
    z = logits / temperature
    return float((np.log(np.exp(z).sum(axis=1)) - z[np.arange(len(z)), labels]).mean())


def kept(held: Any, logits: np.ndarray) -> np.ndarray:
    """Which items it answers itself."""
    return held.choose(Seen(stage=1, answer=logits, size=len(logits)), ()).action == Action.STOP


@pytest.mark.parametrize("sharper", [0.3, 1.0, 5.0])
def test_the_temperature_has_the_lowest_loss(sharper: float) -> None:
    logits = SMALL * sharper
    temperature = fit_temperature(logits, LABELS)
    grid = np.exp(np.linspace(-0.5, 0.5, 101)) * temperature
    assert np.argmin([loss(logits, LABELS, t) for t in grid]) == 50
    assert temperature == pytest.approx(fit_temperature(SMALL, LABELS) * sharper, rel=1e-9)


def test_honest_logits_have_temperature_one() -> None:
    draw = np.random.default_rng(0)
    logits = draw.normal(size=(40000, 3)) * 2
    labels = (logits + draw.gumbel(size=logits.shape)).argmax(axis=1)  # drawn from the softmax
    assert fit_temperature(logits, labels) == pytest.approx(1, abs=0.03)


def test_every_user_counts_the_same() -> None:
    logits, labels = np.concatenate([SMALL[:10], SMALL[10:]]), LABELS
    users = np.repeat([0, 1], [10, ITEMS - 10])
    by_user = fit_temperature(logits, labels, users)
    grid = np.exp(np.linspace(-0.5, 0.5, 101)) * by_user
    mean = [(loss(logits[:10], labels[:10], t) + loss(logits[10:], labels[10:], t)) / 2 for t in grid]
    assert np.argmin(mean) == 50
    assert by_user != pytest.approx(fit_temperature(logits, labels), rel=1e-3)


def test_a_model_that_is_always_right_or_always_wrong_has_a_bounded_temperature() -> None:
    logits = np.eye(4) * 3
    assert fit_temperature(logits, np.arange(4)) == pytest.approx(0.01)
    assert fit_temperature(logits, (np.arange(4) + 1) % 4) == pytest.approx(100)


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
    held = Calibrated(score, points, by).fit(SMALL, LABELS, USERS, LARGE)
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
    shares = [
        1 - kept(Calibrated(tolerance_points=p).fit(SMALL, LABELS, USERS, LARGE), SMALL).mean() for p in (0.5, 2, 8)
    ]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] > shares[2]


def test_items_of_equal_score_go_together() -> None:
    small = np.repeat([[3.0, 0.0], [1.0, 0.0]], 10, axis=0)
    labels = np.zeros(20, int)
    labels[10] = 1  # one of the ten less sure ones is wrong: 5 points of all
    large = np.eye(2)[labels]
    strict, loose = (Calibrated("margin", p).fit_threshold(small, large, labels) for p in (4.9, 5.0))
    assert strict == confidence(small[:1], "margin")[0]
    assert loose == confidence(small[10:11], "margin")[0]


def test_a_target_out_of_reach_always_asks() -> None:
    wrong = (SMALL.argmax(axis=1) + 1) % CLASSES
    held = Calibrated(tolerance_points=0).fit(SMALL, wrong, None, np.eye(CLASSES)[wrong])
    assert float(held.state["threshold"]) == math.inf
    assert not kept(held, np.eye(CLASSES) * 1e6).any()


def test_before_fitting_it_always_asks() -> None:
    policy = Calibrated()
    _, move = policy.choose(policy.init(), Seen(stage=1, answer=np.eye(3) * 1e6, size=3), ())
    assert move.action.tolist() == [Action.ASK] * 3


def test_without_labels_disagreement_counts() -> None:
    differs = SMALL.argmax(axis=1) != LARGE.argmax(axis=1)
    half, full = (Calibrated("margin", 5.0, factor=factor) for factor in (0.5, 1.0))
    at = full.fit_threshold(SMALL, LARGE)
    scores = confidence(SMALL, "margin")
    assert differs[scores >= at].sum() / ITEMS <= 0.05
    assert differs[scores >= scores[scores < at].max()].sum() / ITEMS > 0.05
    assert half.fit_threshold(SMALL, LARGE) == Calibrated("margin", 10.0).fit_threshold(SMALL, LARGE) < at
    held = full.fit(SMALL, large=LARGE)
    assert float(held.state["temperature"]) == fit_temperature(SMALL, LARGE.argmax(axis=1))


def test_without_the_large_model_it_is_taken_to_be_always_right() -> None:
    policy = Calibrated(tolerance_points=3)
    assert policy.fit_threshold(SMALL, None, LABELS) == policy.fit_threshold(SMALL, TRUE, LABELS)


BAD_LABELS = [
    (LABELS[:-1], "labels of shape"),
    (LABELS * 1.0, "dtype float64"),
    (LABELS - 1, "outside the 5 classes"),
    (LABELS + 1, "outside the 5 classes"),
]


@pytest.mark.parametrize(("labels", "fault"), BAD_LABELS)
def test_bad_labels(labels: np.ndarray, fault: str) -> None:
    with pytest.raises(DataError, match=fault):
        Calibrated().fit(SMALL, labels)


@pytest.mark.parametrize(
    "arguments",
    [
        {"logits": SMALL[:0], "labels": LABELS[:0]},
        {"logits": SMALL[0], "labels": LABELS[:1]},
        {"logits": SMALL * np.nan, "labels": LABELS},
        {"logits": SMALL, "labels": LABELS, "users": USERS[1:]},
        {"logits": SMALL, "labels": LABELS, "large": LARGE[1:]},
        {"logits": SMALL, "labels": LABELS, "large": LARGE * np.inf},
        {"logits": SMALL, "large": LARGE[1:]},
    ],
)
def test_bad_calibration_data(arguments: dict[str, Any]) -> None:
    with pytest.raises(DataError):
        Calibrated().fit(**arguments)


def test_nothing_to_calibrate_with() -> None:
    for fit in (Calibrated().fit, Calibrated().fit_threshold):
        with pytest.raises(ConfigError, match="neither labels nor large logits"):
            fit(SMALL)


@pytest.mark.parametrize(
    "settings",
    [
        {"score": "no"},
        {"by": "device"},
        {"tolerance_points": -0.1},
        {"tolerance_points": math.nan},
        {"factor": math.inf},
    ],
)
def test_settings_that_cannot_be_met(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Calibrated(**settings)
