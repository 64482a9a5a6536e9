"""A convolutional network over time: its sizes by hand, its logits by numpy."""

from typing import Any

import numpy as np
import pytest

from duetto.errors import ConfigError
from duetto.models import Signal

X = np.random.default_rng(0).normal(size=(4, 2, 9)).astype(np.float32)


def test_logits_by_hand() -> None:
    net = Signal((2, 9), 3, (4, 5), (6,), kernel=3, dropout=0.5)
    params: Any = net.init(1)
    x = X.astype(float)
    for name in ("0", "3"):
        padded = np.pad(x, ((0, 0), (0, 0), (1, 1)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, 3, axis=2)
        x = np.einsum("nctk,ock->not", windows, params[name]["weight"]) + params[name]["bias"][:, None]
        x = np.maximum(x, 0)[..., : x.shape[2] // 2 * 2].reshape(*x.shape[:2], -1, 2).max(3)
    x = x.reshape(len(x), -1)
    dense = [name for name in sorted(params, key=int) if name not in ("0", "3")]
    assert len(dense) == 2
    x = np.maximum(x @ params[dense[0]]["weight"].T + params[dense[0]]["bias"], 0)
    expected = x @ params[dense[1]]["weight"].T + params[dense[1]]["bias"]
    np.testing.assert_allclose(net.logits(params, X), expected, rtol=1e-4, atol=1e-5)
    assert net.parameters == (2 * 4 * 3 + 4) + (4 * 5 * 3 + 5) + (5 * 2 * 6 + 6) + (6 * 3 + 3)
    flops = 2 * (9 * 2 * 4 * 3 + 4 * 4 * 5 * 3 + 5 * 2 * 6 + 6 * 3)
    assert net.work(3).flops == 3 * flops


def test_what_cannot_be_built_is_told() -> None:
    with pytest.raises(ConfigError, match="odd"):
        Signal((2, 9), 3, kernel=4)
    with pytest.raises(ConfigError, match="below 1"):
        Signal((2, 9), 3, dropout=1.0)
    with pytest.raises(ConfigError, match="leave a sample"):
        Signal((2, 9), 3, (1, 1, 1, 1))
    with pytest.raises(ConfigError, match="one convolution"):
        Signal((2, 9), 3, ())
