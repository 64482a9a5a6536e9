"""Embeddings: the last layer on top of them gives the logits."""

import numpy as np
import pytest

from duetto.errors import ConfigError
from duetto.models import Conv, Mixture, Mlp, Net, embedded

DRAW = np.random.default_rng(0)


@pytest.mark.parametrize("net", [Mlp((2, 2), 3, (5,)), Conv((1, 8, 8), 3, (2, 4)), Conv((1, 8, 8), 3, (2,), (6,))])
def test_the_last_layer_makes_logits_of_it(net: Net) -> None:
    params, x = net.init(1), DRAW.normal(size=(200, *net.shape)).astype(np.float32)
    last = params[max(params, key=int)]
    np.testing.assert_allclose(
        embedded(net, params, x) @ last["weight"].T + last["bias"], net.logits(params, x), atol=1e-5
    )


def test_what_has_no_last_layer_or_other_parameters() -> None:
    net = Mlp((2,), 3, (5,))
    with pytest.raises(ConfigError, match="no layer before its last"):
        embedded(Mixture((net,)), {"0": net.init(0)}, np.zeros((1, 2)))
    with pytest.raises(ConfigError):
        embedded(net, Mlp((2,), 3, (4,)).init(0), np.zeros((1, 2)))
