"""A stand-in for the device's half: the cloud's half stays as it is, and the two fit each other."""

import numpy as np
import pytest

from duetto import tree as trees
from duetto.attacks.surrogate import surrogate
from duetto.errors import ConfigError
from duetto.models import Mlp, stage
from duetto.models.net import built, fitting
from duetto.training import Adam, Client, CrossEntropy, sequential

DRAW = np.random.default_rng(0)
NET = Mlp((6,), 3, (16, 8))
X = DRAW.normal(size=(400, 6)).astype(np.float32)
Y = (X @ DRAW.normal(size=(6, 3))).argmax(1)
CLIENT = Client(NET, (CrossEntropy(),), Adam(1e-2), 15, 32)


def test_the_front_is_the_attackers_and_the_rest_the_clouds() -> None:
    params = sequential.run(CLIENT, {"params": NET.init(0)}, {"x": X[:200], "y": Y[:200]}, (0,)).params
    module = built(NET)
    module.load_state_dict(fitting(NET, params))
    staged = stage(module, X[:2])
    cut = [each.operation for each in staged.stages].index("aten.relu.default") + 1
    found = surrogate(CLIENT, params, staged[:cut], X[200:], Y[200:], (1,))
    both = zip(trees.leaves(params), trees.leaves(found), strict=True)
    changed = {pointer for (pointer, before), (_, after) in both if not np.array_equal(before, after)}
    assert changed == {f"/{name.replace('.', '/')}" for name in staged[:cut].learnable}
    assert (NET.logits(found, X[:200]).argmax(1) == Y[:200]).mean() > 0.8
    again = surrogate(CLIENT, params, staged[:cut], X[200:], Y[200:], (1,))
    assert trees.encode(again) == trees.encode(found)


def test_a_front_without_parameters_or_of_another_network() -> None:
    staged = stage(built(NET), X[:2])
    with pytest.raises(ConfigError, match="cut the network deeper"):
        surrogate(CLIENT, NET.init(0), staged[:0], X, Y, (0,))
    with pytest.raises(ConfigError, match="the same one"):
        surrogate(CLIENT, {"w": np.zeros(3)}, staged[:3], X, Y, (0,))
