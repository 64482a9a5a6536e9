"""The contrast of features, in numpy."""

import numpy as np
import pytest
import torch

from duetto.errors import ConfigError
from duetto.models import Mixture, Mlp
from duetto.models.features import last_features
from duetto.models.net import to_tensors
from duetto.training import Contrast

NET = Mlp((3,), 2, (4,))


def test_the_term_is_that_of_the_paper() -> None:
    x = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    own, shared, last = (NET.init(seed) for seed in range(3))
    z, near, far = (last_features(NET, params, x).astype(float) for params in (own, shared, last))

    def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        length = np.maximum(np.linalg.norm(a, axis=1), 1e-8) * np.maximum(np.linalg.norm(b, axis=1), 1e-8)
        return np.asarray((a * b).sum(1) / length)

    s, r = np.exp(cosine(z, near) / 0.5), np.exp(cosine(z, far) / 0.5)
    start = {"params": to_tensors(shared), "previous": to_tensors(last)}
    told = Contrast(NET, 2.0)(torch.zeros(5, 2), {"x": torch.from_numpy(x)}, to_tensors(own), start)
    np.testing.assert_allclose(told.numpy(), -2.0 * np.log(s / (s + r)), rtol=1e-5)


def test_mistakes_are_told() -> None:
    with pytest.raises(ConfigError, match="mu=-1"):
        Contrast(NET, -1)
    with pytest.raises(ConfigError, match="temperature=0"):
        Contrast(NET, 1.0, 0)
    with pytest.raises(ConfigError, match="does not end in one linear layer"):
        Contrast(Mixture((NET, NET)), 1.0)
