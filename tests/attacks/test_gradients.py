"""Gradient inversion recovers the input of a tiny network, and a clip alone hides nothing from who knows it."""

import numpy as np
import pytest
import torch

from duetto import tree as trees
from duetto.attacks.gradients import Clip, Matching
from duetto.errors import ConfigError, DataError
from duetto.evaluation.leakage import psnr
from duetto.models import Mlp
from duetto.training import SGD, Client, CrossEntropy, gradient

DRAW = np.random.default_rng(0)
NET = Mlp((1, 6, 6), 4, (24,))
PARAMS = NET.init(0)
X, Y = DRAW.random((1, 1, 6, 6)).astype(np.float32), np.array([2])
CLIENT = Client(NET, (CrossEntropy(),), SGD(0.1), 1, 1)
SENT = gradient(CLIENT, PARAMS, {"params": PARAMS}, {"x": X, "y": Y}, (0,))


def test_deep_leakage_recovers_a_single_input() -> None:
    found = Matching("distance", steps=300, starts=3).guess(NET, PARAMS, SENT, Y, (0,))
    assert psnr(X, found)[0] > 40
    assert psnr(X, np.full_like(X, 0.5))[0] < 15, "what a grey image comes to"


def test_the_cosine_recovers_it_whatever_its_scale() -> None:
    attack = Matching("cosine", steps=400, within=(0.0, 1.0))
    for scale in (1.0, 0.01):
        found = attack.guess(NET, PARAMS, trees.scale(SENT, scale), Y, (0,))
        assert psnr(X, found)[0] > 25


def test_a_clip_fools_only_who_does_not_know_it() -> None:
    """The control: nothing but the scale is changed."""
    clip = Clip(0.1 * trees.norm(SENT))
    leaves = [torch.from_numpy(leaf) for _, leaf in trees.leaves(SENT)]
    clipped = clip(leaves)
    assert torch.sqrt(sum(each.square().sum() for each in clipped)) == pytest.approx(clip.norm, rel=1e-5)
    sent = trees.scale(SENT, 0.1)
    attack = Matching("distance", steps=300, starts=3)
    naive, adaptive = (attack.guess(NET, PARAMS, sent, Y, (0,), known) for known in (None, clip))
    assert psnr(X, adaptive)[0] > 30
    assert psnr(X, naive)[0] < psnr(X, adaptive)[0] - 10


def test_noise_that_is_large_enough_does_hide() -> None:
    noise = trees.map(lambda leaf: leaf + DRAW.normal(size=leaf.shape).astype(np.float32) * 0.1, SENT)
    found = Matching("distance", steps=100).guess(NET, PARAMS, noise, Y, (0,))
    assert psnr(X, found)[0] < 20


def test_the_same_key_finds_the_same() -> None:
    attack = Matching("cosine", steps=5, smooth=0.01)
    one, two = (attack.guess(NET, PARAMS, SENT, Y, (1,)) for _ in range(2))
    np.testing.assert_array_equal(one, two)
    assert one.shape == X.shape


def test_bad_input_is_one_clear_line() -> None:
    with pytest.raises(ConfigError, match="distance"):
        Matching("angle")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="another network"):
        Matching().guess(NET, PARAMS, {"w": np.zeros(3)}, Y, (0,))
