"""Scores against their definitions."""

import hypothesis.extra.numpy as arrays
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from duetto.errors import ConfigError, DataError
from duetto.policies import SCORES, confidence

LOGITS = np.random.default_rng(0).normal(size=(50, 6)) * 3


def softmax(logits: np.ndarray) -> np.ndarray:
    """As defined."""
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


def test_scores_are_as_defined() -> None:
    p = softmax(LOGITS)
    top = np.sort(p, axis=1)
    np.testing.assert_allclose(confidence(LOGITS), top[:, -1])
    np.testing.assert_allclose(confidence(LOGITS, "margin"), top[:, -1] - top[:, -2])
    np.testing.assert_allclose(confidence(LOGITS, "entropy"), 1 + (p * np.log(p)).sum(axis=1) / np.log(6), atol=1e-12)
    np.testing.assert_allclose(confidence(LOGITS, "energy"), np.log(np.exp(LOGITS).sum(axis=1)))


@pytest.mark.parametrize("kind", SCORES)
def test_higher_is_surer(kind: str) -> None:
    logits = np.zeros((30, 4))
    logits[:, 2] = np.arange(30)
    assert (np.diff(confidence(logits, kind)) > 0).sum() >= 25  # probabilities saturate at the end
    assert (np.diff(confidence(logits, kind)) >= 0).all()


@pytest.mark.parametrize("kind", ["entropy", "margin", "max_softmax"])
@given(arrays.arrays("float64", st.tuples(st.integers(0, 4), st.integers(1, 5)), elements=st.floats(-1e300, 1e300)))
def test_probabilities_stay_within_0_and_1(kind: str, logits: np.ndarray) -> None:
    scores = confidence(logits, kind)
    assert (scores.shape, scores.dtype) == ((len(logits),), np.float64)
    assert ((scores >= 0) & (scores <= 1)).all()


@pytest.mark.parametrize("kind", ["entropy", "margin", "max_softmax"])
def test_the_ends_are_met(kind: str) -> None:
    none, all_ = confidence(np.array([[0.0, 0, 0, 0], [900, 0, 0, 0]]), kind)
    assert none == pytest.approx(0.25 if kind == "max_softmax" else 0, abs=1e-15)
    assert all_ == 1


@pytest.mark.parametrize("kind", SCORES)
def test_a_class_that_is_ruled_out_does_not_count(kind: str) -> None:
    ruled_out = np.array([[1.0, 2.0, -np.inf]])
    if kind == "entropy":  # which is relative to the number of classes
        p = softmax(ruled_out[:, :2])
        assert confidence(ruled_out, kind)[0] == pytest.approx(1 + (p * np.log(p)).sum() / np.log(3))
    else:
        assert confidence(ruled_out, kind) == pytest.approx(confidence(ruled_out[:, :2], kind))


@pytest.mark.parametrize("kind", SCORES)
def test_a_single_class_is_sure(kind: str) -> None:
    assert confidence(np.array([[3.0]]), kind).tolist() == [3.0 if kind == "energy" else 1.0]


@pytest.mark.parametrize("kind", SCORES)
@pytest.mark.parametrize(
    "logits",
    [
        np.array([[0, np.nan]]),
        np.array([[0, np.inf]]),
        np.array([[-np.inf, -np.inf]]),
        np.zeros(3),
        np.zeros((2, 0)),
        np.array(1.0),
    ],
)
def test_what_is_no_logit_is_an_error(kind: str, logits: np.ndarray) -> None:
    with pytest.raises(DataError):
        confidence(logits, kind)


def test_an_unknown_score_is_an_error() -> None:
    with pytest.raises(ConfigError, match="'sureness'"):
        confidence(LOGITS, "sureness")
