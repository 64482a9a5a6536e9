"""Relations between rows and hints, as terms; numbers by numpy."""

from typing import Any

import numpy as np
import pytest
import torch

from duetto.errors import ConfigError
from duetto.training import CrossEntropy
from duetto.training.hints import Hint, OfLogits
from duetto.training.relational import Relational

DRAW = np.random.default_rng(0)
STUDENT, TEACHER = DRAW.normal(size=(7, 2 + 4)), DRAW.normal(size=(7, 9))
BATCH = {"features": torch.from_numpy(TEACHER), "y": torch.from_numpy(DRAW.integers(0, 2, 7))}


def huber(difference: np.ndarray) -> np.ndarray:
    size = np.abs(difference)
    return np.where(size < 1, size**2 / 2, size - 0.5)


def distances(rows: np.ndarray) -> np.ndarray:
    found = np.linalg.norm(rows[:, None] - rows[None], axis=2)
    return found / found[found > 0].mean()


def angles(rows: np.ndarray) -> np.ndarray:
    """At i between the directions to j and k."""
    ways = rows[None] - rows[:, None]
    ways = ways / np.maximum(np.linalg.norm(ways, axis=2, keepdims=True), 1e-12)
    return np.einsum("ijd,ikd->ijk", ways, ways)


@pytest.mark.parametrize(("distance", "angle"), [(25.0, 0.0), (0.0, 50.0), (1.0, 2.0), (0.0, 0.0)])
def test_relations_equal_numpy(distance: float, angle: float) -> None:
    found = Relational(distance, angle, 2)(torch.from_numpy(STUDENT), BATCH, {}, {})
    expected = distance * huber(distances(STUDENT[:, 2:]) - distances(TEACHER)).mean(1)
    expected = expected + angle * huber(angles(STUDENT[:, 2:]) - angles(TEACHER)).mean((1, 2))
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-12)


def test_relations_are_blind_to_size_place_and_turning() -> None:
    turn = np.linalg.qr(DRAW.normal(size=(9, 9)))[0]
    moved = np.concatenate([np.zeros((7, 2)), 3 * TEACHER @ turn + 5], 1)
    assert float(Relational(25, 50, 2)(torch.from_numpy(moved), BATCH, {}, {}).max()) < 1e-20


def test_equal_rows_have_slopes_that_are_numbers() -> None:
    rows = torch.zeros(3, 5, dtype=torch.float64, requires_grad=True)
    batch = {"features": torch.from_numpy(TEACHER[:3])}
    Relational(1, 1, 2)(rows, batch, {}, {}).mean().backward()
    assert rows.grad is not None
    assert bool(torch.isfinite(rows.grad).all())


def test_a_hint_equals_numpy() -> None:
    shown = DRAW.normal(size=(7, 2 + 9))
    found = Hint(3.0, 2)(torch.from_numpy(shown), BATCH, {}, {})
    expected = 3 * (((shown[:, 2:] - TEACHER) / TEACHER.std(ddof=1)) ** 2).mean(1)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12)


def test_terms_of_logits_see_the_first_numbers() -> None:
    rows = torch.from_numpy(STUDENT)
    found = OfLogits(CrossEntropy(0.5), 2)(rows, BATCH, {}, {})
    np.testing.assert_array_equal(found.numpy(), CrossEntropy(0.5)(rows[:, :2], BATCH, {}, {}).numpy())
    assert OfLogits(CrossEntropy(), 2).by_row
    assert not OfLogits(Hint(1, 2), 2).by_row


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: Relational(-1, 0, 2), "distance=-1, angle=0: use numbers from 0"),
        (lambda: Hint(float("nan"), 2), "weight=nan: use a number from 0"),
        (lambda: OfLogits(CrossEntropy(), 0), "0 classes: give those of the network"),
        (
            lambda: Hint(1, 2)(torch.zeros(7, 6), BATCH, {}, {}),
            "features of width 4 for hints of width 9: give Shown the teacher's width",
        ),
        (lambda: Relational(1, 0, 6)(torch.zeros(7, 6), BATCH, {}, {}), "a network of 6 numbers for 6 classes: train"),
        (lambda: Relational(1, 0, 2)(torch.zeros(7, 6), {}, {}, {}), "no features to imitate: prepare the material wi"),
    ],
)
def test_faults_are_told_in_one_line(call: Any, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        call()
    assert str(caught.value).startswith(says)
