"""Batch normalisation whose statistics are parameters: values by numpy, what training does to them, cuts and faults."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from duetto import tree as trees
from duetto.errors import ConfigError
from duetto.models import Conv, stage
from duetto.models.narrow import cut, narrowed, window
from duetto.models.norm import Norm
from duetto.training import SGD, Client, Cohort, CrossEntropy, Sequential, sequential
from duetto.training.cohort.executor import why_not
from duetto.training.executor import Task

NET = Conv((1, 4, 4), 3, (2,), norm="batch")
DRAW = np.random.default_rng(0)
X, Y = DRAW.normal(2, 3, size=(6, 1, 4, 4)).astype(np.float32), np.arange(6) % 3


@dataclass(frozen=True)
class Summing(Client):
    """As SCAFFOLD's."""

    sums_gradients: ClassVar[bool] = True


PLAIN = Client(NET, (CrossEntropy(),), SGD(0.1), 2, 3)


def test_statistics_are_leaves_and_rows_do_not_mix() -> None:
    params: Any = NET.init(0)
    assert {name: np.shape(leaf) for name, leaf in trees.leaves(params["1"])} == {
        f"/{name}": (2,) for name in ("bias", "mean", "var", "weight")
    }
    params["1"] = {name: np.abs(DRAW.normal(size=2)).astype(np.float32) for name in params["1"]}
    module = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3, padding=1))
    module[0].load_state_dict({name: torch.from_numpy(leaf) for name, leaf in params["0"].items()})
    seen = module(torch.from_numpy(X)).detach().numpy()
    own = {name: leaf[:, None, None] for name, leaf in params["1"].items()}
    normal = (seen - own["mean"]) / np.sqrt(own["var"] + 1e-5) * own["weight"] + own["bias"]
    pooled = np.maximum(normal, 0).reshape(6, 2, 2, 2, 2, 2).max((3, 5)).reshape(6, 8)
    wanted = pooled @ params["5"]["weight"].T + params["5"]["bias"]
    np.testing.assert_allclose(NET.logits(params, X), wanted, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(NET.logits(params, X[2:3]), NET.logits(params, X)[2:3], rtol=1e-5, atol=1e-6)


def test_training_moves_the_statistics_by_the_batches_alone() -> None:
    """With a learning rate of 0: a tenth of each batch's statistics, and nothing of what the caller holds."""
    start: Any = trees.map(lambda leaf: leaf.astype(np.float64), NET.init(0))
    before = trees.map(np.copy, start)
    still = Client(NET, (CrossEntropy(),), SGD(0.0, momentum=0.5), 1, 3)
    after = sequential.run(still, {"params": start}, {"x": X, "y": Y}, (0,)).params
    mean, var = np.zeros(2), np.ones(2)
    conv = torch.nn.functional.conv2d(
        torch.from_numpy(X).double(), *(torch.from_numpy(start["0"][part]) for part in ("weight", "bias")), padding=1
    ).numpy()
    for rows in np.split(sequential.order((0,), 0, 6).numpy(), 2):
        mean = 0.9 * mean + 0.1 * conv[rows].mean((0, 2, 3))
        var = 0.9 * var + 0.1 * conv[rows].var((0, 2, 3), ddof=1)
    np.testing.assert_allclose(after["1"]["mean"], mean, rtol=1e-10)
    np.testing.assert_allclose(after["1"]["var"], var, rtol=1e-10)
    trees.map(np.testing.assert_array_equal, start, before)
    for part in ("0", "5"):
        trees.map(np.testing.assert_array_equal, after[part], start[part])


def test_the_cohort_executor_trains_it_one_by_one() -> None:
    """It says why, and does the same as the sequential one."""
    tasks = [Task({"params": NET.init(0)}, {"x": X, "y": Y}, (i,)) for i in range(2)]
    assert why_not(PLAIN, tasks) == "1 (Norm) mixes rows"
    alone, together = Sequential().train(PLAIN, tasks), Cohort(1).train(PLAIN, tasks)
    for one, other in zip(alone, together, strict=True):
        trees.map(np.testing.assert_array_equal, one.delta, other.delta)  # type: ignore[union-attr]


def test_every_leaf_has_a_gradient() -> None:
    """SCAFFOLD sums them; those of the statistics are zero."""
    summing = Summing(NET, (CrossEntropy(),), SGD(0.1), 1, 3)
    sums: Any = sequential.run(summing, {"params": NET.init(0)}, {"x": X, "y": Y}, (0,)).gradients
    assert not sums["1"]["mean"].any()
    assert not sums["1"]["var"].any()
    assert sums["1"]["weight"].any()


def test_it_can_be_cut() -> None:
    module = NET.module().eval()
    example = torch.from_numpy(X[:2])
    net = stage(module, example)
    assert len(net.stages) > 1


@pytest.mark.parametrize("offset", [0, 1])
def test_a_narrower_one_keeps_the_statistics_of_its_channels(offset: int) -> None:
    wide = Conv((1, 8, 8), 3, (4, 2), norm="batch")
    params: Any = wide.init(0)
    params["1"] = {name: np.arange(4, dtype=np.float32) for name in params["1"]}
    thin: Any = cut(params, window(wide, 0.5, offset))
    assert trees.spec(thin) == trees.spec(narrowed(wide, 0.5).init(0))
    for leaf in thin["1"].values():
        np.testing.assert_array_equal(leaf, [offset, offset + 1])
    np.testing.assert_array_equal(thin["0"]["weight"], params["0"]["weight"][offset : offset + 2])


def test_what_a_server_made_negative_is_no_variance() -> None:
    params: Any = NET.init(0)
    params["1"]["var"] = np.array([-1e-3, 1.0], np.float32)
    assert np.isfinite(NET.logits(params, X)).all()
    assert isinstance(NET.module()[1], Norm)  # type: ignore[index]


def test_faults_are_told() -> None:
    with pytest.raises(ConfigError, match=r"^no normalisation is called 'layer': use \"batch\", or \"\" for none$"):
        Conv((1, 4, 4), 3, (2,), norm="layer")
