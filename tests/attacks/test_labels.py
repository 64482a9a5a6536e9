"""Labels from slopes and updates, against slopes of real models."""

import numpy as np
import pytest

from duetto.attacks import labels
from duetto.errors import DataError
from duetto.evaluation.leakage import auc
from duetto.models import Conv, Mlp, stage
from duetto.models.net import built
from duetto.training import SGD, Client, CrossEntropy, gradient
from duetto.training.split import learnable, learned

DRAW = np.random.default_rng(0)


def slopes_at(cut: int, classes: int, y: np.ndarray) -> np.ndarray:
    """What a cloud sends back at a cut, of an untrained network."""
    net = Mlp((6,), classes, (16, 8))
    staged = stage(built(net, 1).eval(), np.zeros((2, 6), np.float32))
    x = DRAW.normal(size=(len(y), 6)).astype(np.float32)
    cut = cut % (len(staged) + 1)
    back = staged[cut:]
    (name,) = staged[:cut].inputs
    crossing = staged[:cut]({name: x})
    _, _, slopes, _ = learned(back, learnable(back), crossing, y, SGD(0.0), {}, 0, 1)
    return next(iter(slopes.values()))


def test_the_sign_rule_is_exact_at_the_logits() -> None:
    y = DRAW.integers(0, 5, 40)
    logits = DRAW.normal(size=(40, 5))
    soft = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_array_equal(labels.by_sign((soft - np.eye(5)[y]) / 40), y)


@pytest.mark.parametrize("net", [Mlp((6,), 7, (16,)), Conv((1, 8, 8), 7, (4,))])
def test_the_update_of_one_row_tells_its_label_exactly(net: Mlp | Conv) -> None:
    params = net.init(0)
    client = Client(net, (CrossEntropy(),), SGD(0.1), 1, 1)
    for y in range(7):
        batch = {"x": DRAW.normal(size=(1, *net.shape)).astype(np.float32), "y": np.array([y])}
        last = list(gradient(client, params, {"params": params}, batch, (0,)).values())[-1]  # type: ignore[union-attr]
        assert labels.of_update(last["bias"]) == y
        assert labels.of_update(None, last["weight"]) == y


def test_slopes_at_a_cut_tell_two_classes_apart() -> None:
    y = (DRAW.random(200) < 0.1).astype(np.int64)
    seen = slopes_at(-2, 2, y)
    one = int(np.flatnonzero(y)[0])
    assert auc(labels.by_direction(seen, seen[one]), y == 1) > 0.95
    found = labels.by_norm(seen)
    np.testing.assert_allclose(found, np.sqrt((seen.reshape(200, -1) ** 2).sum(1)), rtol=1e-5)


def test_the_norm_tells_the_rare_class_once_a_model_is_sure_of_the_other() -> None:
    y = (DRAW.random(500) < 0.05).astype(np.int64)
    p = 1 / (1 + np.exp(3 + 0.5 * DRAW.normal(size=500)))  # of the rare class: low for all, as the model is biased
    slopes = np.stack([p - y, y - p], 1)[:, ::-1]
    assert auc(labels.by_norm(slopes), y == 1) == 1


def test_a_few_known_rows_are_enough_for_many_classes() -> None:
    y = DRAW.integers(0, 4, 400)
    seen = slopes_at(-1, 4, y)
    known = np.concatenate([np.flatnonzero(y == c)[:3] for c in range(4)])
    found = labels.clustered(seen, seen[known], y[known])
    assert (found == y).mean() > 0.9


def test_counts_of_a_mean_gradient() -> None:
    y = np.array([0, 0, 0, 2, 3, 3])
    soft = DRAW.dirichlet(np.ones(4) * 30, 6)
    bias = (soft - np.eye(4)[y]).mean(0)
    np.testing.assert_array_equal(labels.counts(bias, 6, soft.mean(0)), [3, 0, 1, 2])
    guessed = labels.counts(bias, 6, np.full(4, 0.25))
    assert guessed.sum() == 6
    assert np.abs(guessed - [3, 0, 1, 2]).sum() <= 2
    assert labels.counts(np.array([-2.0, -2.0]), 3, np.array([0.5, 0.5])).sum() == 3


def test_bad_input_is_one_clear_line() -> None:
    with pytest.raises(DataError, match="at the logits"):
        labels.by_sign(np.zeros(3))
    with pytest.raises(DataError, match="its bias"):
        labels.of_update(None)
    with pytest.raises(DataError, match="finite"):
        labels.by_norm(np.full((2, 2), np.nan))
    with pytest.raises(DataError, match="one each"):
        labels.clustered(np.ones((2, 2)), np.ones((0, 2)), np.zeros(0))
