"""The alignment of features: its three losses in numpy, and which network each of them moves."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from duetto import tree as trees
from duetto.errors import ConfigError
from duetto.models import Mlp, Text
from duetto.models.aligned import Aligned
from duetto.models.net import to_tensors
from duetto.training import Align

NET = Mlp((3,), 2, (4,))
THREE = Aligned(NET, noise=2, hidden=5, seen=3)
X = np.random.default_rng(0).normal(size=(6, 3))
Y = np.arange(6) % 2
Params = dict[str, Any]


def layer(params: Params, at: str, x: np.ndarray) -> np.ndarray:
    return np.asarray(x @ params[at]["weight"].T + params[at]["bias"])


def losses(params: Params, noise: np.ndarray) -> dict[str, np.ndarray]:
    """By network, what it makes smaller."""
    told = np.eye(2)[Y]
    features = np.maximum(layer(params["net"], "1", X), 0)
    within = layer(params["generator"], "0", np.concatenate([noise, told], 1))
    made = np.maximum(layer(params["generator"], "2", np.where(within > 0, within, 0.01 * within)), 0)

    def sure(features: np.ndarray) -> np.ndarray:
        seen = np.concatenate([features @ THREE.projection(4).astype(float), told], 1)
        within = layer(params["discriminator"], "0", seen)
        return 1 / (1 + np.exp(-layer(params["discriminator"], "2", np.where(within > 0, within, 0.01 * within))[:, 0]))

    own, generated = sure(features), sure(made)
    return {"net": (1 - own) ** 2, "generator": generated**2, "discriminator": own**2 + (1 - generated) ** 2}


def slope(loss: Callable[[Params], float], params: Params, at: tuple[str, str, str]) -> np.ndarray:
    """By central differences."""
    leaf = params[at[0]][at[1]][at[2]]
    found = np.zeros_like(leaf)
    for entry in np.ndindex(leaf.shape):
        sides = []
        for step in (1e-6, -1e-6):
            moved = trees.map(np.copy, params)
            moved[at[0]][at[1]][at[2]][entry] += step
            sides.append(loss(moved))
        found[entry] = (sides[0] - sides[1]) / 2e-6
    return found


@pytest.mark.parametrize("weight", [0.0, 0.7])
def test_each_loss_moves_its_own_network(weight: float) -> None:
    params: Any = trees.map(lambda leaf: leaf.astype(np.float64), THREE.init(3))
    torch.manual_seed(4)
    noise = torch.rand(6, 2, dtype=torch.float64).numpy()
    named = {name: tensor.clone().requires_grad_() for name, tensor in to_tensors(params).items()}
    torch.manual_seed(4)
    batch = {"x": torch.from_numpy(X), "y": torch.from_numpy(Y)}
    told = Align(THREE, weight)(torch.zeros(6, 2, dtype=torch.float64), batch, named, {})
    by = losses(params, noise)
    np.testing.assert_allclose(
        told.detach().numpy(), weight * by["net"] + by["generator"] + by["discriminator"], rtol=1e-10
    )
    told.sum().backward()  # type: ignore[no-untyped-call]
    scale = {"net": weight, "generator": 1.0, "discriminator": 1.0}
    for name, tensor in named.items():
        network, at, kind = name.split(".")
        if (network, at) == ("net", "3"):
            assert tensor.grad is None, "the last layer reads features, and makes none"
            continue
        wanted = slope(lambda p, n=network: float(losses(p, noise)[n].sum()), params, (network, at, kind))  # type: ignore[misc]
        assert tensor.grad is not None
        np.testing.assert_allclose(tensor.grad.numpy(), scale[network] * wanted, rtol=1e-5, atol=1e-8)


def test_it_answers_as_its_network() -> None:
    params: Any = THREE.init(3)
    x = X.astype(np.float32)
    np.testing.assert_array_equal(THREE.logits(params, x), NET.logits(params["net"], x))
    assert (THREE.shape, THREE.classes) == ((3,), 2)


def test_faults_are_told() -> None:
    with pytest.raises(ConfigError, match=r"^weight=-1: use a number from 0$"):
        Align(THREE, -1)
    with pytest.raises(ConfigError, match=r"^Text does not end in a dense layer: use Mlp or Conv$"):
        Aligned(Text((4,), 2)).init(0)
