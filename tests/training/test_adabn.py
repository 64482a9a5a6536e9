"""AdaBN: statistics of one's own inputs, layer by layer in numpy, and what they are good for."""

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from duetto import tree as trees
from duetto.errors import ConfigError, DataError
from duetto.models import Conv
from duetto.training import SGD, AdaBn, Client, CrossEntropy, sequential
from duetto.training.adabn import adapted
from duetto.types import Local, Rows

NET = Conv((1, 8, 8), 2, (3, 4), norm="batch")
DRAW = np.random.default_rng(0)


def images(n: int, gain: float = 1.0) -> Rows:
    """Bars that lie, and bars that stand, as a camera of some gain sees them."""
    y = np.arange(n) % 2
    x = np.zeros((n, 1, 8, 8))
    for i, kind in enumerate(y):
        at = DRAW.integers(1, 7)
        x[i, 0][(at, slice(None)) if kind else (slice(None), at)] = 1
    return Rows((gain * (x + 0.3 * DRAW.normal(size=x.shape))).astype(np.float32), y)


def test_each_layer_sees_what_those_below_make_of_the_new_statistics() -> None:
    params: Any = trees.map(lambda leaf: leaf.astype(np.float64), NET.init(3))
    params["1"]["weight"], params["1"]["bias"] = np.array([0.5, 2, 1]), np.array([0.1, 0, -1])
    x = images(10).x
    after: Any = adapted(NET, params, x)
    h = torch.from_numpy(x).double()
    for conv, norm in (("0", "1"), ("4", "5")):
        h = functional.conv2d(h, *(torch.from_numpy(params[conv][part]) for part in ("weight", "bias")), padding=1)
        mean, var = h.numpy().mean((0, 2, 3)), h.numpy().var((0, 2, 3))
        np.testing.assert_allclose(after[norm]["mean"], mean, rtol=1e-9)
        n = h[:, 0].numel()
        np.testing.assert_allclose(after[norm]["var"], var * n / (n - 1), rtol=1e-9)
        own = {name: torch.from_numpy(params[norm][name])[:, None, None] for name in ("weight", "bias")}
        h = (h - torch.from_numpy(mean)[:, None, None]) / torch.from_numpy(np.sqrt(var + 1e-5))[:, None, None]
        h = functional.max_pool2d(torch.relu(h * own["weight"] + own["bias"]), 2)
    for name in ("0", "4", "9"):
        trees.map(np.testing.assert_array_equal, after[name], params[name])


def test_a_camera_of_another_gain_is_no_stranger() -> None:
    learn = Client(NET, (CrossEntropy(),), SGD(0.1, 0.9), 10, 16)
    seen = images(200)
    params = sequential.run(learn, {"params": NET.init(0)}, {"x": seen.x, "y": seen.y}, (0,)).params
    here, skill = images(200, gain=0.1), AdaBn(NET)
    local, said = skill(Local(here), {"params": params}, (0,), "cloud")
    assert said == {"rows": 200}
    before, after = (
        (skill.logits({"params": params}, memory, here.x).argmax(1) == here.y).mean() for memory in ({}, local.memory)
    )
    assert after > 0.9
    assert before < after - 0.2


def test_labels_stay_unread_and_parts_are_kept() -> None:
    rows = images(12)
    parts = Rows(rows.x, np.full(12, -1), {"stream": np.arange(5)})
    local, said = AdaBn(NET, "stream")(Local(parts), {"params": NET.init(0)}, (0,), "cloud")
    assert said == {"rows": 5}
    trees.map(np.testing.assert_array_equal, local.memory["own"], adapted(NET, NET.init(0), rows.x[:5]))
    assert AdaBn(NET, "stream").work(Local(parts), {}) == NET.work(5)
    assert AdaBn(NET).writes


def test_faults_are_told() -> None:
    plain = Conv((1, 8, 8), 2, (3,))
    with pytest.raises(ConfigError, match=r'has no batch normalisation: adapt a Conv\(norm="batch"\)$'):
        adapted(plain, plain.init(0), images(2).x)
    for x in (np.zeros((0, 1, 8, 8)), np.full((2, 1, 8, 8), np.nan)):
        with pytest.raises(DataError, match=r"^no inputs to adapt to, or some that are not finite: give finite ones$"):
            adapted(NET, NET.init(0), x)
