"""The white-box search: it undoes a half that it has, and more of it where it knows the defence."""

from typing import Any

import numpy as np
import pytest
import torch
from images import NAIVE, PRIVATE, PUBLIC

from duetto.attacks.release import Release, features
from duetto.attacks.search import Search, variation
from duetto.codecs import Quantise
from duetto.errors import ConfigError
from duetto.evaluation.leakage import psnr

DRAW = np.random.default_rng(1)


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
