"""Forgetting by hand."""

import numpy as np
import pytest

from duetto.errors import DataError
from duetto.evaluation.forgetting import average, backward_transfer, forgetting

NAN = float("nan")
FOUND = [[0.9, NAN, NAN], [0.95, 0.8, NAN], [0.5, 0.9, 0.7]]


def test_by_hand() -> None:
    assert average(FOUND) == pytest.approx((0.5 + 0.9 + 0.7) / 3)
    assert backward_transfer(FOUND) == pytest.approx(((0.5 - 0.9) + (0.9 - 0.8)) / 2)
    assert forgetting(FOUND) == pytest.approx(((0.95 - 0.5) + (0.8 - 0.9)) / 2)


def test_what_is_no_stream_is_refused() -> None:
    with pytest.raises(DataError, match=r"^accuracies of shape \(1, 1\): give \[tasks, tasks\], from 2 tasks on$"):
        forgetting([[0.5]])
    with pytest.raises(DataError, match=r"^accuracies of shape \(2,\): "):
        average([0.5, 0.6])
    with pytest.raises(DataError, match=r"^accuracies of learnt tasks that are not finite: "):
        backward_transfer(np.array([[0.9, NAN], [NAN, 0.8]]))
