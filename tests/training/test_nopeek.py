"""Distance correlation is numpy's, and as a term it makes features tell less of the input."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from duetto.errors import ConfigError
from duetto.models import Mlp, stage
from duetto.models.net import built
from duetto.training import Adam, Client, CrossEntropy, sequential
from duetto.training.nopeek import NoPeek, distance_correlation

DRAW = np.random.default_rng(0)


def by_numpy(x: np.ndarray, y: np.ndarray) -> float:
    """Székely, Rizzo, Bakirov 2007."""
    centred = []
    for rows in (x, y):
        apart = np.linalg.norm(rows[:, None] - rows, axis=2)
        centred.append(apart - apart.mean(0) - apart.mean(1)[:, None] + apart.mean())
    one, two = centred
    return float(np.sqrt((one * two).mean() / np.sqrt((one**2).mean() * (two**2).mean())))


def test_it_is_numpys() -> None:
    x = DRAW.normal(size=(30, 4))
    for y in (DRAW.normal(size=(30, 3)), x @ DRAW.normal(size=(4, 2)), x**2, 5 * x + 1):
        found = float(distance_correlation(torch.from_numpy(x), torch.from_numpy(y)))
        assert found == pytest.approx(by_numpy(x, y), rel=1e-4)
    assert by_numpy(x, 5 * x + 1) == pytest.approx(1)


def test_equal_rows_have_a_gradient_that_is_finite() -> None:
    x = torch.ones((4, 2), requires_grad=True)
    distance_correlation(x, torch.zeros((4, 3))).backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()


def test_the_term_is_that_of_the_steps_own_features_and_lowers_it() -> None:
    net = Mlp((6,), 3, (8, 8))
    whole = stage(built(net).eval(), np.zeros((2, 6), np.float32))
    front: Any = whole[: [each.operation for each in whole.stages].index("aten.relu.default") + 1]
    params = net.init(0)
    x, y = DRAW.normal(size=(200, 6)).astype(np.float32), DRAW.integers(0, 3, 200)
    weights, bias = params["1"]["weight"], params["1"]["bias"]  # type: ignore[call-overload, index]
    tensors = {"1.weight": torch.from_numpy(weights), "1.bias": torch.from_numpy(bias)}
    rest = {name: tensor for name, tensor in built(net).named_parameters() if name not in tensors}
    features = np.maximum(x @ weights.T + bias, 0)
    term = NoPeek(front, 2.0)(torch.zeros(200, 3), {"x": torch.from_numpy(x)}, {**tensors, **rest}, {})
    np.testing.assert_allclose(term.numpy(), 2 * by_numpy(x, features), rtol=1e-3)
    plain = Client(net, (CrossEntropy(),), Adam(1e-2), 10, 50)
    data = {"x": x, "y": (x[:, 0] > 0).astype(np.int64) + y * 0}
    left = []
    for loss in ((CrossEntropy(),), (CrossEntropy(), NoPeek(front, 3.0))):
        after = sequential.run(replace(plain, loss=loss), {"params": params}, data, (0,)).params
        own = x @ after["1"]["weight"].T + after["1"]["bias"]  # type: ignore[call-overload, index]
        left.append(by_numpy(x, np.maximum(own, 0)))
    assert left[1] < left[0] - 0.2


def test_bad_settings_are_one_clear_line() -> None:
    front = stage(built(Mlp((6,), 3)).eval(), np.zeros((2, 6), np.float32))[:2]
    with pytest.raises(ConfigError, match="from 0"):
        NoPeek(front, -1.0)
    with pytest.raises(ConfigError, match="cut the network"):
        NoPeek(front, 1.0)(torch.zeros(2, 3), {"x": torch.zeros(2, 6)}, {}, {})
