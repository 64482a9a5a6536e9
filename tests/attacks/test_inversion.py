"""Inversion: what can be undone is undone, and a defence is judged by who knows it."""

from typing import Any

import numpy as np
import pytest
from images import NAIVE, PRIVATE, PUBLIC, blobs

from duetto.attacks.inversion import Inversion
from duetto.attacks.release import Release, features, view
from duetto.errors import ConfigError, DataError
from duetto.evaluation.leakage import psnr

DRAW = np.random.default_rng(1)


def test_a_linear_layer_that_can_be_inverted_is() -> None:
    public, private = DRAW.normal(size=(2000, 6)).astype(np.float32), DRAW.normal(size=(50, 6)).astype(np.float32)
    mix = DRAW.normal(size=(6, 6)).astype(np.float32) + 3 * np.eye(6, dtype=np.float32)
    found = Inversion(epochs=20).fit(lambda x, key: x @ mix, public, (0,)).guess(private @ mix)
    assert psnr(private, found, 6.0).mean() > 35
    assert psnr(private, np.zeros_like(private), 6.0).mean() < 20, "what the mean alone gives"


def test_a_decoder_finds_more_in_early_features_than_the_mean_does(half: Any) -> None:
    seen = view(half, Release())
    found = Inversion(epochs=12).fit(seen, PUBLIC, (0,)).guess(seen(PRIVATE, ("test",)))
    assert found.shape == PRIVATE.shape
    assert psnr(PRIVATE, found).mean() > NAIVE + 6


def test_a_mere_change_of_scale_fools_who_does_not_know_it_and_nobody_else(half: Any) -> None:
    """The trap: a defence that only rescales looks private to an attacker who trained without it."""
    plain, scaled = view(half, Release()), lambda x, key: 0.05 * features(half, x)
    attack = Inversion(epochs=12)
    naive, adaptive = attack.fit(plain, PUBLIC, (0,)), attack.fit(scaled, PUBLIC, (0,))
    arrived = scaled(PRIVATE, ("test",))
    undefended = psnr(PRIVATE, naive.guess(plain(PRIVATE, ("test",)))).mean()
    assert psnr(PRIVATE, naive.guess(arrived)).mean() < undefended - 4
    assert psnr(PRIVATE, adaptive.guess(arrived)).mean() == pytest.approx(undefended, abs=0.5)


def test_noise_is_drawn_anew_in_every_epoch(half: Any) -> None:
    keys: list[Any] = []

    def seen(x: np.ndarray, key: Any) -> np.ndarray:
        keys.append(key)
        return Release(noise=0.5)(features(half, x), key)

    Inversion(epochs=3).fit(seen, PUBLIC[:80], (0,))
    assert len(set(keys)) == 5, "three epochs, and two looks that tell whether chance plays a part"
    keys.clear()
    Inversion(epochs=3).fit(lambda x, key: (keys.append(key), features(half, x))[1], PUBLIC[:80], (0,))
    assert len(keys) == 3, "without chance one look at the rows is enough"


def test_the_same_key_gives_the_same_decoder(half: Any) -> None:
    seen = view(half, Release(noise=0.1))
    one, two = (Inversion(epochs=1).fit(seen, PUBLIC[:128], (3,)).guess(seen(PRIVATE, (9,))) for _ in range(2))
    np.testing.assert_array_equal(one, two)


def test_positions_that_do_not_divide_the_image_and_inputs_that_are_none() -> None:
    flat = Inversion(epochs=1).fit(lambda x, key: x.reshape(len(x), -1)[:, :5], PUBLIC, (0,))
    assert flat.guess(np.zeros((3, 5), np.float32)).shape == (3, 1, 8, 8)
    odd = blobs(40, 9)
    found = Inversion(epochs=1).fit(lambda x, key: x[..., ::2, ::2], odd, (0,))
    assert found.guess(odd[:2, :, ::2, ::2]).shape == (2, 1, 9, 9)


def test_bad_settings_are_one_clear_line() -> None:
    with pytest.raises(ConfigError, match="one at least"):
        Inversion(epochs=0)
    with pytest.raises(DataError, match="two at least"):
        Inversion().fit(lambda x, key: x, PUBLIC[:1], (0,))
    with pytest.raises(DataError, match="not finite"):
        Inversion().fit(lambda x, key: x * np.nan, PUBLIC, (0,))
