"""What leaves a device: rows one by one, clipped, noised and coded, and the features of any half."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from duetto.attacks.release import Release, crossing, features, view
from duetto.codecs import Feedback, Quantise, TopK
from duetto.errors import ConfigError
from duetto.models import Conv, stage
from duetto.models.net import built

DRAW = np.random.default_rng(0)
ROWS = DRAW.normal(size=(5, 3, 4, 4)).astype(np.float32) * np.arange(1, 6, dtype=np.float32).reshape(5, 1, 1, 1)


@pytest.mark.parametrize("bits", [8, 4, 2])
def test_rows_together_are_coded_as_messages_of_one_row(bits: Any) -> None:
    together = Release(Quantise(bits, "channel"))(ROWS, (0,))
    codec = Quantise(bits)
    for row, found in zip(ROWS, together, strict=True):
        alone = codec.decode(codec.encode({}, row.reshape(-1), (0,))[1])
        np.testing.assert_array_equal(found.reshape(-1), alone)


def test_noise_is_a_share_of_a_rows_own_size() -> None:
    release = Release(noise=0.5)
    draws = np.stack([release(ROWS, (i,)) - ROWS for i in range(400)])
    rms = np.sqrt((ROWS.reshape(5, -1) ** 2).mean(1))
    np.testing.assert_allclose(draws.reshape(400, 5, -1).std((0, 2)), 0.5 * rms, rtol=0.03)
    np.testing.assert_array_equal(release(ROWS, (7,)), release(ROWS, (7,)))


def test_a_clip_bounds_norms_and_the_noise_is_its_share() -> None:
    clipped = Release(clip=2.0)(ROWS, (0,)).reshape(5, -1)
    np.testing.assert_allclose(np.linalg.norm(clipped, axis=1), 2.0, rtol=1e-5)
    flat = ROWS.reshape(5, -1)
    np.testing.assert_allclose(clipped, flat * 2 / np.linalg.norm(flat, axis=1, keepdims=True), rtol=1e-5)
    np.testing.assert_array_equal(Release(clip=1e9)(ROWS, (0,)), ROWS)
    noise = np.stack([Release(clip=2.0, noise=1.0)(ROWS, (i,)).reshape(5, -1) - clipped for i in range(200)])
    assert noise.std() == pytest.approx(2.0 / np.sqrt(48), rel=0.03)


def test_features_of_a_half_are_those_of_the_module() -> None:
    net = Conv((1, 8, 8), 3, (4, 8))
    module = built(net, 0).eval()
    assert isinstance(module, nn.Sequential)
    staged = stage(module, np.zeros((2, *net.shape), np.float32))
    x = DRAW.random((300, 1, 8, 8)).astype(np.float32)
    for cut in range(len(staged) + 1):
        layers = [layer for layer in module if not isinstance(layer, nn.Dropout)]
        expected = nn.Sequential(*layers[:cut])(torch.from_numpy(x)).detach().numpy()
        found = features(staged[:cut], x)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
        if cut < len(staged):
            (logits,) = staged[cut:](crossing(staged[:cut], found)).values()
            np.testing.assert_allclose(logits, net.logits(net.init(0), x), rtol=1e-4, atol=1e-5)
    seen = view(staged[:3], Release(Quantise(4, "channel")))
    assert seen(x, (0,)).shape == (300, 4, 4, 4)


def test_several_outputs_are_one_flat_array() -> None:
    class Forked(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            wide, narrow = x * 2, x[:, :1] + 1
            return wide.sum(1) + narrow.sum(1) * wide[:, 0]

    staged = stage(Forked(), np.ones((2, 3), np.float32))
    cut = next(cut for cut in range(1, len(staged)) if len(staged[:cut].outputs) > 1)
    x = DRAW.normal(size=(4, 3)).astype(np.float32)
    flat = features(staged[:cut], x)
    assert flat.ndim == 2
    coded = view(staged[:cut], Release(Quantise(2, "channel")))(x, (0,))
    for name, leaf in crossing(staged[:cut], coded).items():
        for row, found in zip(staged[:cut]({"x": x})[name], leaf, strict=True):
            codec = Quantise(2)
            np.testing.assert_array_equal(found, codec.decode(codec.encode({}, row, (0,))[1]))
    for name, leaf in crossing(staged[:cut], flat).items():
        np.testing.assert_array_equal(leaf, staged[:cut]({"x": x})[name])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Release(clip=0.0), "above 0"),
        (lambda: Release(noise=-1.0), "from 0"),
        (lambda: Release(Feedback(TopK(0.1))), "remembers"),
        (lambda: Release(Quantise(4))(ROWS, (0,)), "codes rows together"),
    ],
)
def test_bad_settings_are_one_clear_line(make: Callable[[], Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make()
