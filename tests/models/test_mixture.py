"""A model over models."""

import numpy as np
import pytest
import torch

from duetto.errors import ConfigError
from duetto.models import Mixture, Mlp
from duetto.models.net import to_tensors

LARGE, SMALL = Mlp((4,), 3, (8,)), Mlp((4,), 3, (2,))
BOTH = Mixture((LARGE, SMALL))
PARAMS = {"0": LARGE.init(1), "1": SMALL.init(2)}
X = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32) * 3


def log_probabilities(net: Mlp, params: object) -> np.ndarray:
    """By numpy."""
    logits = net.logits(params, X).astype(float)
    return np.log(np.exp(logits) / np.exp(logits).sum(1, keepdims=True))


def test_it_answers_the_mean_of_the_log_probabilities() -> None:
    expected = (log_probabilities(LARGE, PARAMS["0"]) + log_probabilities(SMALL, PARAMS["1"])) / 2
    logits = BOTH.logits(PARAMS, X)
    assert (logits.dtype, logits.shape) == (np.float32, (5, 3))
    np.testing.assert_allclose(logits, expected, atol=1e-6)


@pytest.mark.parametrize(("name", "net"), [("0", LARGE), ("1", SMALL)])
def test_a_member_without_parameters_is_left_out(name: str, net: Mlp) -> None:
    np.testing.assert_allclose(BOTH.logits({name: PARAMS[name]}, X), log_probabilities(net, PARAMS[name]), atol=1e-6)


def test_the_module_is_what_the_description_says() -> None:
    named = {f"{i}.{name}": t for i in "01" for name, t in to_tensors(PARAMS[i]).items()}
    module = BOTH.module()
    module.load_state_dict(named)
    with torch.inference_mode():
        np.testing.assert_allclose(module(torch.from_numpy(X)).numpy(), BOTH.logits(PARAMS, X), atol=1e-6)


def test_it_is_as_big_as_its_members() -> None:
    assert (BOTH.shape, BOTH.classes) == ((4,), 3)
    assert BOTH.logits(BOTH.init(0), X).shape == (5, 3)
    assert BOTH.parameters == LARGE.parameters + SMALL.parameters
    assert BOTH.work(2).flops == LARGE.work(2).flops + SMALL.work(2).flops


@pytest.mark.parametrize("members", [(), (LARGE, Mlp((5,), 3)), (LARGE, Mlp((4,), 2))])
def test_members_that_do_not_fit_are_told(members: tuple[Mlp, ...]) -> None:
    with pytest.raises(ConfigError):
        Mixture(members)


@pytest.mark.parametrize("params", [{}, {"2": LARGE.init(0)}, {**PARAMS, "2": LARGE.init(0)}, {"0": SMALL.init(0)}])
def test_parameters_of_no_member_are_told(params: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        BOTH.logits(params, X)
