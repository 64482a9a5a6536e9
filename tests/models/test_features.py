"""The last layer on its features gives the logits."""

import numpy as np
import pytest

from duetto.errors import ConfigError
from duetto.models import Conv, Mixture, Mlp, Ncf, Recurrent, Text
from duetto.models.features import last_features
from duetto.models.net import Net


@pytest.mark.parametrize("net", [Conv((1, 8, 8), 3, (4,), (5,), 0.1), Conv((2, 4, 4), 3, (4,)), Mlp((6,), 2, (7,))])
def test_the_last_layer_on_its_features_gives_the_logits(net: Net) -> None:
    params = net.init(0)
    x = np.random.default_rng(0).normal(size=(140, *net.shape)).astype(np.float32)
    last = params[max(params, key=int)]
    found = last_features(net, params, x) @ last["weight"].T + last["bias"]
    assert found == pytest.approx(net.logits(params, x), abs=1e-5)


@pytest.mark.parametrize("net", [Ncf((4,), 2, 9, 2, (3,)), Recurrent((5,), 3, 9, 2, 4), Text((5,), 3, 9, 4, 1, 2)])
def test_so_it_does_where_the_network_calls_it_head(net: Net) -> None:
    params = net.init(0)
    x = np.random.default_rng(0).integers(1, 9, (140, *net.shape)).astype(np.float32)
    found = last_features(net, params, x) @ params["head"]["weight"].T + params["head"]["bias"]
    assert found == pytest.approx(net.logits(params, x), abs=1e-5)


def test_what_does_not_end_in_a_layer_is_refused() -> None:
    both = Mixture((Mlp((6,), 2), Mlp((6,), 2)))
    with pytest.raises(ConfigError, match="Mixture does not end in one linear layer"):
        last_features(both, both.init(0), np.zeros((1, 6), np.float32))
    with pytest.raises(ConfigError, match="not those"):
        last_features(Mlp((6,), 2), Mlp((7,), 2).init(0), np.zeros((1, 6), np.float32))
