"""The linear autoencoder."""

import numpy as np
import pytest

from duetto.errors import ConfigError
from duetto.models.principal import decoded, encoded, principal

X = (np.random.default_rng(0).normal(size=(20, 6)) @ np.random.default_rng(1).normal(size=(6, 6))).astype(np.float32)


def test_what_comes_back_is_the_best_that_so_many_numbers_can_do() -> None:
    """Eckart, Young: what is missing are the singular values left out."""
    singular = np.linalg.svd(X - X.mean(0), compute_uv=False)
    for width in (1, 3, 6):
        coder = principal(X.reshape(20, 2, 3), width)
        codes = encoded(coder, X.reshape(20, 2, 3))
        assert codes.shape == (20, width)
        back = decoded(coder, codes, (2, 3))
        assert (back.shape, back.dtype) == ((20, 2, 3), np.float32)
        missing = np.linalg.norm(back.reshape(20, 6) - X)
        np.testing.assert_allclose(missing, np.sqrt((singular[width:] ** 2).sum()), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("width", [0, 7])
def test_faults_are_told(width: int) -> None:
    with pytest.raises(ConfigError, match=f"^{width} components of 20 inputs: use 1 to 6$"):
        principal(X, width)
