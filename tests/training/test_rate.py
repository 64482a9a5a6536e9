"""Terms for a learned bottleneck: their formulas, and that training with them does what they say."""

import numpy as np
import pytest
import torch

from duetto import tree as trees
from duetto.errors import ConfigError
from duetto.models import Residual
from duetto.models.bottleneck import Bottlenecked, fitting_cuts
from duetto.training import Adam, Client, CrossEntropy, sequential
from duetto.training.rate import Imitate, Rated

DRAW = np.random.default_rng(0)
LOGITS, TEACHER = DRAW.normal(size=(5, 4)), DRAW.normal(size=(5, 4))
LABELS = np.array([0, 3, 1, 1, 2])


def test_imitating_is_the_mean_square_of_the_difference() -> None:
    loss = Imitate(3.0)(torch.tensor(LOGITS), {"teacher": torch.tensor(TEACHER)}, {}, {})
    np.testing.assert_allclose(loss, 3 * ((LOGITS - TEACHER) ** 2).mean(1), rtol=1e-12)


@pytest.mark.parametrize("batch", [{}, {"teacher": torch.zeros((5, 3))}], ids=["none", "shape"])
def test_imitating_needs_features_of_the_same_size(batch: dict[str, torch.Tensor]) -> None:
    with pytest.raises(ConfigError, match="features"):
        Imitate()(torch.tensor(LOGITS), batch, {}, {})


def test_a_rate_is_added_and_hidden_from_the_other_terms() -> None:
    bits = np.arange(5.0)
    told = torch.tensor(np.column_stack([LOGITS, bits]))
    batch = {"y": torch.tensor(LABELS)}
    surprise = CrossEntropy()(torch.tensor(LOGITS), batch, {}, {}).numpy()
    loss = Rated((CrossEntropy(), CrossEntropy(0.5)), 0.1)(told, batch, {}, {})
    np.testing.assert_allclose(loss, 1.5 * surprise + 0.1 * bits, rtol=1e-12)


@pytest.mark.parametrize("wrong", [{"weight": -1.0}, {"weight": float("nan")}, {"loss": ()}], ids=str)
def test_a_rate_of_nothing_or_below_zero_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="weight"):
        Rated(**{"loss": (Imitate(),), "weight": 0.1, **wrong})  # type: ignore[arg-type]


def bits(net: Bottlenecked, params: trees.Tree, x: np.ndarray) -> float:
    """What a row's codes cost under the prior."""
    codes = net.encode(params, x).reshape(len(x), net.channels, -1)
    chance = np.take_along_axis(net.prior(params)[None], codes.astype(int), 2)
    return float(-np.log2(chance).sum((1, 2)).mean())


def test_the_key_draws_the_noise() -> None:
    backbone = Residual((1, 8, 8), 2, (8,), 1)
    net = Bottlenecked(backbone, max(fitting_cuts(backbone)) - 1, 2, 4, 2, 8)
    client = Client(net, (Rated((CrossEntropy(),), 0.1),), Adam(5e-3), 1, 4)
    data = {"x": DRAW.normal(size=(8, 1, 8, 8)).astype(np.float32), "y": np.arange(8) % 2}
    one, same, other = (sequential.run(client, {"params": net.init(0)}, data, (key,)).params for key in (0, 0, 1))
    assert trees.encode(one) == trees.encode(same) != trees.encode(other)


@pytest.mark.slow
def test_a_bottleneck_learns_the_frontier_then_the_task_then_to_be_brief() -> None:
    """Images of one of two stripes: a few bits tell them apart."""
    backbone = Residual((1, 8, 8), 2, (8, 16), 1)
    cut = max(cut for cut, shape in fitting_cuts(backbone).items() if shape == (8, 8, 8))
    net = Bottlenecked(backbone, cut, 2, 4, 2, 8)
    random = np.random.default_rng(0)
    y = random.integers(0, 2, 128)
    x = 0.3 * random.normal(size=(128, 1, 8, 8)).astype(np.float32)
    x[y == 0, :, 2] += 1
    x[y == 1, :, :, 2] += 1
    whole = Client(backbone, (CrossEntropy(),), Adam(5e-3), 6, 16)
    trained = sequential.run(whole, {"params": backbone.init(0)}, {"x": x, "y": y}, (0,)).params

    params = dict(net.around(trained, 0))
    targets = net.restoring.targets(trained, x)
    head = Client(net.restoring, (Rated((Imitate(),), 0.0),), Adam(5e-3), 6, 16)
    sides = {name: params[name] for name in ("encoder", "decoder", "prior")}
    found = sequential.run(head, {"params": sides}, {"x": x, "teacher": targets}, (0,)).params

    def apart(sides: trees.Tree) -> float:
        return float(((net.restoring.logits(sides, x) - targets) ** 2).mean())

    assert apart(found) < 0.6 * apart(sides)
    params |= found

    def tuned(weight: float) -> trees.Tree:
        client = Client(net, (Rated((CrossEntropy(),), weight),), Adam(5e-3), 12, 16)
        return sequential.run(client, {"params": params}, {"x": x, "y": y}, (0,)).params

    free, brief = tuned(0.0), tuned(0.05)
    for each in (free, brief):
        assert (net.logits(each, x).argmax(1) == y).mean() > 0.95
    assert bits(net, brief, x) < 0.7 * bits(net, free, x)
