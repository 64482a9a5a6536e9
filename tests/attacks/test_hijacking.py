"""Feature-space hijacking: a device that steps along a malicious cloud's slopes gives its inputs away."""

import numpy as np
import pytest

from duetto.attacks.hijacking import Hijack, Hijacking
from duetto.errors import ConfigError, DataError
from duetto.evaluation.leakage import psnr
from duetto.models import Conv, Half, Mlp, stage
from duetto.models.net import built
from duetto.training import Adam
from duetto.training.split import forward, learnable, stepped
from duetto.tree import Tree

DRAW = np.random.default_rng(0)


def bars(n: int) -> np.ndarray:
    """Images of a bright bar somewhere, upright or lying."""
    at, upright = DRAW.integers(0, 8, n), DRAW.random(n) < 0.5
    images = np.zeros((n, 1, 8, 8), np.float32)
    for image, place, up in zip(images, at, upright, strict=True):
        image[0, :, place] = up
        image[0, place, :] += not up
    return np.clip(images + 0.05 * DRAW.random(images.shape), 0, 1).astype(np.float32)


def hijacked(cloud: Hijacking, front: Half, private: np.ndarray, steps: int) -> Tree:
    """The parameters of a device that learned along the cloud's slopes."""
    (name,) = front.outputs
    params, state, optimiser = learnable(front), {}, Adam(3e-3)
    for step in range(steps):
        x = {"x": private[DRAW.integers(0, len(private), 32)]}
        slopes = cloud.slopes(forward(front, params, x)[name])
        params, state, _ = stepped(front, params, x, {name: slopes}, optimiser, state, step, steps)
    return params


def guessed(cloud: Hijacking, front: Half, params: Tree, private: np.ndarray) -> float:
    """dB of what the cloud makes of the device's features."""
    return float(psnr(private, cloud.guess(forward(front, params, {"x": private})[next(iter(front.outputs))])).mean())


def test_a_device_is_led_to_features_that_the_cloud_can_undo() -> None:
    def faint(n: int) -> np.ndarray:
        """One picture, seldom bright: what matches its distribution matches the picture."""
        pattern = np.random.default_rng(5).random((1, 1, 8, 8))
        return (DRAW.beta(0.6, 3, n)[:, None, None, None] * pattern).astype(np.float32)

    public, private = faint(300), faint(200)
    front = stage(built(Mlp((1, 8, 8), 3, (4,)), 0).eval(), np.zeros((2, 1, 8, 8), np.float32))[:2]
    cloud = Hijack(32).start(public, (4,), (0,))
    before = guessed(cloud, front, learnable(front), private)
    after = hijacked(cloud, front, private, 500)
    mean = psnr(private, np.repeat(public.mean(0)[None], 200, 0)).mean()
    assert (
        guessed(cloud, front, after, private) > max(before, mean, guessed(cloud, front, learnable(front), private)) + 3
    )


def test_a_cloud_that_gave_out_the_device_half_undoes_it_where_it_has_not_moved() -> None:
    """A device that has followed its slopes may have moved out of sight (measured: benchmarks/split/LEAKAGE.md)."""
    public, private = bars(400), bars(200)
    net = Conv((1, 8, 8), 3, (8,))
    front = stage(built(net, 0).eval(), np.zeros((2, *net.shape), np.float32))[:3]
    cloud = Hijack().start(public, (8, 4, 4), (0,), front)
    hijacked(cloud, front, private, 300)
    mean = psnr(private, np.repeat(public.mean(0)[None], 200, 0)).mean()
    assert guessed(cloud, front, learnable(front), private) > mean + 4


def test_slopes_have_the_features_shape_and_come_again() -> None:
    public, features = bars(20), DRAW.normal(size=(5, 2, 4, 4)).astype(np.float32)
    one, two = (Hijack(8).start(public, (2, 4, 4), (3,)) for _ in range(2))
    for _ in range(2):
        np.testing.assert_array_equal(one.slopes(features), two.slopes(features))
    assert one.slopes(features).shape == features.shape
    assert one.guess(features).shape == (5, 1, 8, 8)


def test_bad_input_is_one_clear_line() -> None:
    with pytest.raises(ConfigError, match="above 0"):
        Hijack(lr=0.0)
    with pytest.raises(DataError, match="learns from some"):
        Hijack().start(bars(4)[:0], (2,), (0,))
    cloud = Hijack(4).start(bars(4), (2,), (0,))
    with pytest.raises(DataError, match="finite"):
        cloud.slopes(np.full((3, 2), np.nan))
