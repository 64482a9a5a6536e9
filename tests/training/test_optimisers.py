"""Local optimisers: torch's own, and a falling rate."""

import numpy as np
import pytest
import torch

from duetto.errors import ConfigError
from duetto.training import SGD, Adam


@pytest.mark.parametrize("make", [SGD, Adam])
def test_the_cosine_falls_from_the_whole_rate_to_a_fiftieth(make: type) -> None:
    optimiser = make(0.4, schedule="cosine")
    steps = 10
    expected = [0.4 * (0.02 + 0.98 * 0.5 * (1 + np.cos(np.pi * step / steps))) for step in range(steps + 1)]
    rates = [optimiser.rate(step, steps) for step in range(steps + 1)]
    np.testing.assert_allclose(rates, expected, rtol=1e-12)
    assert rates[0] == 0.4
    assert rates[steps // 2] == pytest.approx(0.4 * 0.51)
    assert rates[steps] == pytest.approx(0.4 / 50)
    assert (np.diff(rates) < 0).all()


@pytest.mark.parametrize("make", [SGD, Adam])
def test_without_a_schedule_the_rate_stays(make: type) -> None:
    assert {make(0.3).rate(step, 7) for step in range(8)} == {0.3}


def test_a_step_of_sgd_is_a_linear_recurrence() -> None:
    """v <- m v + g + d w; w <- w - lr v."""
    lr, m, d = 0.1, 0.9, 0.01
    w = torch.tensor([1.0, -2.0], dtype=torch.float64, requires_grad=True)
    optimiser = SGD(lr, m, d).start([w])
    weight, speed = np.array([1.0, -2.0]), np.zeros(2)
    for gradient in ([0.5, 1.0], [-0.25, 2.0], [1.5, 0.0]):
        w.grad = torch.tensor(gradient, dtype=torch.float64)
        optimiser.step()
        speed = m * speed + np.array(gradient) + d * weight
        weight = weight - lr * speed
        np.testing.assert_allclose(w.detach().numpy(), weight, rtol=1e-12)


def test_adam_is_kingma_s() -> None:
    """Moments of the gradient and its square, freed from their bias at the start."""
    w = torch.tensor([1.0, -2.0], dtype=torch.float64, requires_grad=True)
    optimiser = Adam(0.01).start([w])
    weight, first, second = np.array([1.0, -2.0]), np.zeros(2), np.zeros(2)
    for step, gradient in enumerate(([0.5, 1.0], [-0.25, 2.0], [1.5, 0.1]), 1):
        w.grad = torch.tensor(gradient, dtype=torch.float64)
        optimiser.step()
        g = np.array(gradient)
        first, second = 0.9 * first + 0.1 * g, 0.999 * second + 0.001 * g * g
        weight -= 0.01 * first / (1 - 0.9**step) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
        np.testing.assert_allclose(w.detach().numpy(), weight, rtol=1e-10)


@pytest.mark.parametrize(
    ("make", "setting"),
    [
        (SGD, {"lr": -0.1}),
        (SGD, {"lr": float("nan")}),
        (SGD, {"lr": 0.1, "momentum": -1}),
        (SGD, {"lr": 0.1, "weight_decay": -1}),
        (SGD, {"lr": 0.1, "schedule": "cosin"}),
        (Adam, {"lr": float("inf")}),
        (Adam, {"lr": 0.1, "weight_decay": -1}),
        (Adam, {"lr": 0.1, "schedule": ""}),
    ],
)
def test_a_setting_that_cannot_be_is_told(make: type, setting: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        make(**setting)
