"""The white-box search: it undoes a half that it has, and more of it where it knows the defence."""

from typing import Any

import numpy as np
import pytest
import torch

from duetto.attacks.release import Release, features
from duetto.attacks.search import Search, variation
from duetto.codecs import Quantise
from duetto.errors import ConfigError
from duetto.evaluation.leakage import psnr
from duetto.models import Conv, stage
from duetto.models.net import built

DRAW = np.random.default_rng(0)


def blobs(n: int, side: int = 8) -> np.ndarray:
    """Images of two smooth bumps each, 0 to 1."""
    at = np.arange(side)
    centre = DRAW.random((2, n, 2)) * side
    bumps = [np.exp(-((at[:, None] - c[:, :1, None]) ** 2 + (at - c[:, 1:, None]) ** 2) / 6) for c in centre]
    return np.clip(bumps[0] + bumps[1], 0, 1)[:, None].astype(np.float32)


PUBLIC, PRIVATE = blobs(600), blobs(60)
NAIVE = psnr(PRIVATE, np.repeat(PUBLIC.mean(0)[None], 60, 0)).mean()


@pytest.fixture(scope="module")
def half() -> Any:
    """The first convolution, ReLU and pooling of a network, untrained."""
    net = Conv((1, 8, 8), 3, (4, 8))
    return stage(built(net).eval(), np.zeros((2, *net.shape), np.float32))[:3]


def test_the_search_undoes_a_half_that_it_has(half: Any) -> None:
    seen = features(half, PRIVATE[:8])
    found = Search(200, within=(0.0, 1.0)).guess(half, seen, PUBLIC.mean(0), (0,))
    assert psnr(PRIVATE[:8], found).mean() > NAIVE + 4


def test_a_search_that_knows_the_defence_finds_more(half: Any) -> None:
    release = Release(clip=0.5)  # a control: every row has the same norm, nothing is hidden but its scale
    arrived = release(features(half, PRIVATE[:8]), (0,))
    blind, knowing = (
        psnr(PRIVATE[:8], Search(200, within=(0.0, 1.0)).guess(half, arrived, PUBLIC.mean(0), (0,), known)).mean()
        for known in (None, release)
    )
    assert knowing > blind + 1
    coded = Release(Quantise(4, "channel"), noise=0.1)
    found = Search(steps=5).guess(half, coded(seen := features(half, PRIVATE[:2]), (0,)), PUBLIC.mean(0), (0,), coded)
    assert found.shape == PRIVATE[:2].shape
    assert np.isfinite(found).all()
    assert seen.shape[0] == 2


def test_variation_by_hand() -> None:
    x = DRAW.random((2, 1, 3, 4)).astype(np.float32)
    expected = np.abs(np.diff(x, axis=2)).sum((1, 2, 3)) + np.abs(np.diff(x, axis=3)).sum((1, 2, 3))
    np.testing.assert_allclose(variation(torch.from_numpy(x)).numpy(), expected, rtol=1e-5)
    assert float(variation(torch.ones(3, 4)).sum()) == 0


def test_bad_settings_are_one_clear_line() -> None:
    with pytest.raises(ConfigError, match="a step"):
        Search(steps=0)
