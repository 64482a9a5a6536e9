"""The scalings: each against a search that needs no cleverness."""

from itertools import pairwise

import numpy as np
import pytest

from duetto.errors import ConfigError, DataError
from duetto.policies import confidence
from duetto.policies.scaling import (
    fit_isotonic,
    fit_temperature,
    fit_top_temperature,
    fit_vector,
    known_scaling,
    scaled_confidence,
)

DRAW = np.random.default_rng(3)
ITEMS, CLASSES = 400, 5
LABELS = DRAW.integers(0, CLASSES, ITEMS)
SMALL = np.eye(CLASSES)[LABELS] * 2 + DRAW.normal(size=(ITEMS, CLASSES))
RIGHT = SMALL.argmax(axis=1) == LABELS


def loss(logits: np.ndarray, labels: np.ndarray, temperature: float) -> float:
    """Mean negative log-likelihood."""
    z = logits / temperature
    return float((np.log(np.exp(z).sum(axis=1)) - z[np.arange(len(z)), labels]).mean())


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
    logits, labels = SMALL, LABELS
    users = np.repeat([0, 1], [10, ITEMS - 10])
    shares = np.where(users == 0, 1 / 20, 1 / (2 * (ITEMS - 10)))
    by_user = fit_temperature(logits, labels, shares)
    grid = np.exp(np.linspace(-0.5, 0.5, 101)) * by_user
    mean = [(loss(logits[:10], labels[:10], t) + loss(logits[10:], labels[10:], t)) / 2 for t in grid]
    assert np.argmin(mean) == 50
    assert by_user != pytest.approx(fit_temperature(logits, labels), rel=1e-3)


def test_a_model_that_is_always_right_or_always_wrong_has_a_bounded_temperature() -> None:
    logits = np.eye(4) * 3
    assert fit_temperature(logits, np.arange(4)) == pytest.approx(0.01)
    assert fit_temperature(logits, (np.arange(4) + 1) % 4) == pytest.approx(100)


@pytest.mark.parametrize("sharper", [0.3, 1.0, 5.0])
def test_the_top_temperature_tells_best_who_is_right(sharper: float) -> None:
    logits = SMALL * sharper
    found = fit_top_temperature(logits, RIGHT)

    def likelihood(temperature: float) -> float:
        top = confidence(logits / temperature)
        return float(np.where(RIGHT, np.log(top), np.log1p(-top)).mean())

    grid = [likelihood(t) for t in np.exp(np.linspace(-1, 1, 201)) * found]
    assert int(np.argmax(grid)) == 100
    assert found == pytest.approx(fit_top_temperature(SMALL, RIGHT) * sharper, rel=1e-6)


def test_the_top_temperature_is_bounded() -> None:
    assert fit_top_temperature(SMALL, np.ones(ITEMS)) == pytest.approx(0.01)
    assert fit_top_temperature(SMALL, np.zeros(ITEMS)) == pytest.approx(100)
    assert fit_top_temperature(SMALL[:, :1], np.ones(ITEMS)) == 1.0


def test_vector_scaling_is_where_no_step_is_better() -> None:
    shares = DRAW.dirichlet(np.ones(ITEMS))
    weight, bias = fit_vector(SMALL, LABELS, shares)

    def pulled(weight: np.ndarray, bias: np.ndarray) -> float:
        z = SMALL * weight + bias
        lost = np.log(np.exp(z).sum(axis=1)) - z[np.arange(ITEMS), LABELS]
        return float(shares @ lost + 1e-3 * (((weight - 1) ** 2).sum() + (bias**2).sum()))

    best = pulled(weight, bias)
    assert best < pulled(np.ones(CLASSES), np.zeros(CLASSES))
    for i in range(CLASSES):
        step = 0.01 * np.eye(CLASSES)[i]
        assert best < min(pulled(weight + sign * step, bias) for sign in (1, -1))
        assert best < min(pulled(weight, bias + sign * step) for sign in (1, -1))


def test_a_class_that_never_occurs_has_a_finite_bias() -> None:
    weight, bias = fit_vector(SMALL, np.zeros(ITEMS, int))
    assert np.isfinite(weight).all()
    assert np.isfinite(bias).all()


def test_isotonic_is_the_best_rising_curve() -> None:
    scores = np.array([0.1, 0.2, 0.3, 0.4, 0.5])
    right, shares = np.array([0, 1, 0, 1, 1.0]), np.array([1, 3, 1, 1, 1]) / 7
    knots, meaning = fit_isotonic(scores, right, shares)
    # The one violation, 1 before 0, is pooled by what they count: 3 / 4.
    assert np.interp(scores, knots, meaning) == pytest.approx([0, 0.75, 0.75, 1, 1])
    assert all(before <= after for before, after in pairwise(meaning))


def test_confidence_by_what_was_fitted() -> None:
    weight, bias = np.linspace(0.5, 1.5, CLASSES), np.linspace(-1, 1, CLASSES)
    for score in ("margin", "energy"):
        both = scaled_confidence({"weight": weight, "bias": bias}, SMALL, score)
        assert both == pytest.approx(confidence(SMALL * weight + bias, score))
        assert scaled_confidence({"temperature": np.array(2.0)}, SMALL, score) == pytest.approx(
            confidence(SMALL / 2, score)
        )
    knots, meaning = np.array([0.2, 0.9]), np.array([0.4, 0.6])
    found = scaled_confidence({"knots": knots, "meaning": meaning}, SMALL, "margin")
    assert found == pytest.approx(0.4 + 0.2 * np.clip((confidence(SMALL, "margin") - 0.2) / 0.7, 0, 1))


def test_a_class_that_is_ruled_out_stays_so() -> None:
    logits = np.array([[1.0, 0.0, -np.inf]])
    moved = scaled_confidence({"weight": np.zeros(3), "bias": np.array([0, 0, 99.0])}, logits, "max_softmax")
    assert moved == pytest.approx([0.5])


def test_faults() -> None:
    with pytest.raises(ConfigError, match="no scaling is called 'platt'"):
        known_scaling("platt")
    with pytest.raises(DataError, match="for 3 classes"):
        scaled_confidence({"weight": np.ones(3), "bias": np.zeros(3)}, SMALL, "margin")
    for bad in (SMALL[:0], SMALL[0], SMALL * np.nan):
        for fit in (fit_temperature, fit_top_temperature, fit_vector):
            with pytest.raises(DataError):
                fit(bad, LABELS[: len(bad)])
    with pytest.raises(DataError):
        fit_isotonic(np.array([np.nan]), np.array([1.0]))
