"""The guarded network is its backbone in evaluation; in training its decoder learns and its front works against it."""

import numpy as np
import pytest
import torch

from duetto.errors import ConfigError
from duetto.models import Conv, Mlp, Recurrent
from duetto.training import Adam, Client, CrossEntropy, sequential
from duetto.training.adversary import Adversary, Guarded

DRAW = np.random.default_rng(0)
NET = Mlp((6,), 3, (16,))


def test_in_evaluation_it_is_the_backbone() -> None:
    params, x = NET.init(3), DRAW.normal(size=(9, 6)).astype(np.float32)
    guarded = Guarded(NET, 2, 1.0)
    np.testing.assert_array_equal(guarded.logits(guarded.around(params, 0), x), NET.logits(params, x))


def test_gradients_are_reversed_for_the_front_and_for_it_alone() -> None:
    slopes = {}
    for strength in (0.0, 0.5, 2.0):
        module = Guarded(NET, 3, strength).module().train()
        torch.manual_seed(0)
        for parameter in module.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        x = torch.from_numpy(DRAW.normal(size=(5, 6)).astype(np.float32) * 0 + 1.5)
        ((module(x)[:, 3:] - x) ** 2).mean().backward()  # type: ignore[no-untyped-call]
        slopes[strength] = {name: parameter.grad for name, parameter in module.named_parameters()}
    for name, slope in slopes[0.5].items():
        if name.startswith("whole"):
            assert slopes[0.0][name] is None or not slopes[0.0][name].any()
            if slope is not None:
                torch.testing.assert_close(slopes[2.0][name], 4 * slope)
        else:
            torch.testing.assert_close(slopes[2.0][name], slope)
    module = Guarded(NET, 2, 1.0).module().train()
    x = torch.randn(5, 6)
    features = module.whole[:2](x)  # type: ignore[index, operator]
    plain = torch.autograd.grad(((module.decoder(features) - x) ** 2).mean(), module.whole[1].weight)  # type: ignore[index, operator, union-attr]
    against = torch.autograd.grad(((module(x)[:, 3:] - x) ** 2).mean(), module.whole[1].weight)  # type: ignore[index, union-attr]
    torch.testing.assert_close(against[0], -plain[0])


def test_a_front_that_works_against_its_decoder_leaves_it_less() -> None:
    x = DRAW.normal(size=(400, 6)).astype(np.float32)
    data = {"x": x, "y": (x[:, 0] > 0).astype(np.int64)}
    errors = []
    for strength in (0.0, 3.0):
        net = Guarded(NET, 3, strength)
        client = Client(net, (Adversary((CrossEntropy(),), 3),), Adam(5e-3), 25, 40)
        params = sequential.run(client, {"params": net.init(0)}, data, (0,)).params
        module = net.module().train()
        module.load_state_dict({k: torch.from_numpy(v) for k, v in _flat(params).items()})
        guess = module(torch.from_numpy(x))[:, 3:].detach().numpy()
        errors.append(((guess - x) ** 2).mean())
        assert (net.logits(params, x).argmax(1) == data["y"]).mean() > 0.9
    assert errors[1] > errors[0] + 0.2


def _flat(tree: object, at: str = "") -> dict[str, np.ndarray]:
    if not isinstance(tree, dict):
        return {at: np.asarray(tree)}
    return {k: v for name, part in tree.items() for k, v in _flat(part, f"{at}.{name}" if at else name).items()}


def test_bad_settings_are_one_clear_line() -> None:
    with pytest.raises(ConfigError, match="inside"):
        Guarded(NET, 0, 1.0)
    with pytest.raises(ConfigError, match="sequence"):
        Guarded(Recurrent(5, 4), 1, 1.0)
    with pytest.raises(ConfigError, match="from 0"):
        Guarded(Conv((1, 8, 8), 3, (4,)), 2, -1.0)
    with pytest.raises(ConfigError, match="one at least"):
        Adversary((), 3)
    with pytest.raises(ConfigError, match="Guarded"):
        Adversary((CrossEntropy(),), 3)(torch.zeros(2, 3), {"x": torch.zeros(2, 6)}, {}, {})
