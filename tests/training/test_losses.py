"""Loss terms against their formulas, by numpy."""

import numpy as np
import pytest
import torch

from duetto.errors import ConfigError
from duetto.training import CrossEntropy, Distil, Drift, Proximal

DRAW = np.random.default_rng(0)
LOGITS, TEACHER = DRAW.normal(size=(5, 4)) * 2, DRAW.normal(size=(5, 4)) * 3
LABELS = np.array([0, 3, 1, 1, 2])
BATCH = {"y": torch.tensor(LABELS), "teacher": torch.tensor(TEACHER)}


def softmax(logits: np.ndarray) -> np.ndarray:
    """Shares that add up to 1."""
    return np.exp(logits) / np.exp(logits).sum(1, keepdims=True)


def test_cross_entropy_is_the_surprise_of_the_label() -> None:
    expected = 0.3 * -np.log(softmax(LOGITS)[np.arange(5), LABELS])
    loss = CrossEntropy(0.3)(torch.tensor(LOGITS), BATCH, {}, {})
    np.testing.assert_allclose(loss.numpy(), expected, rtol=1e-12)


def test_without_labels_the_teacher_s_hard_answers_are_the_labels() -> None:
    expected = -np.log(softmax(LOGITS)[np.arange(5), TEACHER.argmax(1)])
    loss = CrossEntropy()(torch.tensor(LOGITS), {"teacher": BATCH["teacher"]}, {}, {})
    np.testing.assert_allclose(loss.numpy(), expected, rtol=1e-12)
    assert not np.allclose(expected, -np.log(softmax(LOGITS)[np.arange(5), LABELS]))


@pytest.mark.parametrize(("alpha", "t"), [(0.0, 1.0), (0.1, 2.0), (0.7, 0.5)])
def test_distillation_is_hinton_s(alpha: float, t: float) -> None:
    """alpha * CE + (1 - alpha) * T^2 * KL(teacher/T || student/T)."""
    p, q = softmax(TEACHER / t), softmax(LOGITS / t)
    kl = (p * (np.log(p) - np.log(q))).sum(1)
    surprise = -np.log(softmax(LOGITS)[np.arange(5), LABELS])
    logits = torch.tensor(LOGITS)
    loss = CrossEntropy(alpha)(logits, BATCH, {}, {}) + Distil(1 - alpha, t)(logits, BATCH, {}, {})
    np.testing.assert_allclose(loss.numpy(), alpha * surprise + (1 - alpha) * t**2 * kl, rtol=1e-12)


def test_its_gradient_is_the_difference_of_the_shares() -> None:
    """d/dz T^2 KL = T (q - p): the scale of Hinton et al., equation 2."""
    t, logits = 3.0, torch.tensor(LOGITS, requires_grad=True)
    Distil(1.0, t)(logits, BATCH, {}, {}).sum().backward()
    np.testing.assert_allclose(logits.grad.numpy(), t * (softmax(LOGITS / t) - softmax(TEACHER / t)), atol=1e-12)


def test_a_teacher_says_nothing_about_its_own_answer() -> None:
    teacher = BATCH["teacher"]
    np.testing.assert_allclose(Distil(1.0, 2.0)(teacher, BATCH, {}, {}).numpy(), 0, atol=1e-12)


def test_the_proximal_term_is_half_the_squared_distance() -> None:
    now = {"a": DRAW.normal(size=(2, 3)), "b": DRAW.normal(size=4)}
    sent = {"a": DRAW.normal(size=(2, 3)), "b": DRAW.normal(size=4)}
    expected = 0.2 / 2 * sum(((now[name] - sent[name]) ** 2).sum() for name in now)
    params, fixed = ({name: torch.tensor(array) for name, array in tree.items()} for tree in (now, sent))
    for term, start in ((Proximal(0.2), {"params": fixed}), (Proximal(0.2, "other"), {"other": fixed})):
        loss = term(torch.tensor(LOGITS), BATCH, params, start)
        np.testing.assert_allclose(loss.numpy(), np.full(5, expected), rtol=1e-6)


def test_the_gradient_of_a_drift_is_what_lies_in_its_slot() -> None:
    now = {"a": torch.tensor(DRAW.normal(size=(2, 3)), requires_grad=True)}
    pull = {"a": torch.tensor(DRAW.normal(size=(2, 3)))}
    loss = Drift("drift")(torch.tensor(LOGITS), BATCH, now, {"drift": pull})
    np.testing.assert_allclose(loss.detach().numpy(), np.full(5, (now["a"].detach() * pull["a"]).sum()), rtol=1e-6)
    loss.mean().backward()
    np.testing.assert_allclose(now["a"].grad.numpy(), pull["a"].numpy())


@pytest.mark.parametrize("temperature", [0.0, -1.0, np.nan, np.inf])
def test_a_temperature_is_positive(temperature: float) -> None:
    with pytest.raises(ConfigError):
        Distil(1.0, temperature)
