"""What an attacker has got: numbers that a few lines of numpy give, and who leaks most."""

import math

import numpy as np
import pytest

from duetto.errors import ConfigError, DataError
from duetto.evaluation import leakage, users
from duetto.evaluation.leakage import CEILING, auc, by_user, most, psnr, ssim, tpr_at

DRAW = np.random.default_rng(0)
IMAGES = DRAW.random((4, 1, 28, 28)).astype(np.float32)


def test_psnr_by_hand() -> None:
    guess = IMAGES + np.array([0.0, 0.1, 0.01, 1.0]).reshape(4, 1, 1, 1)
    np.testing.assert_allclose(psnr(IMAGES, guess), [CEILING, 20, 40, 0], atol=1e-4)
    np.testing.assert_allclose(psnr(IMAGES, guess, 10.0)[1:], [40, 60, 20], atol=1e-4)


def test_ssim_of_an_image_without_structure_by_hand() -> None:
    x, y = np.full((1, 1, 8, 8), 0.5), np.full((1, 1, 8, 8), 0.25)
    c1 = 0.01**2
    np.testing.assert_allclose(ssim(x, y), (2 * 0.5 * 0.25 + c1) / (0.5**2 + 0.25**2 + c1))


def test_ssim_is_the_papers_window_in_the_middle_of_an_image() -> None:
    x, y = DRAW.random((2, 11, 11))
    at = np.arange(11) - 5
    weight = np.exp(-(at[:, None] ** 2 + at**2) / (2 * 1.5**2))
    weight /= weight.sum()
    mx, my = (weight * x).sum(), (weight * y).sum()
    vx, vy, both = (weight * x * x).sum() - mx**2, (weight * y * y).sum() - my**2, (weight * x * y).sum() - mx * my
    c1, c2 = 0.01**2, 0.03**2
    expected = (2 * mx * my + c1) * (2 * both + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
    np.testing.assert_allclose(ssim(x[None, None], y[None, None]), expected)


@pytest.mark.parametrize("side", [3, 4, 8, 10, 11, 28])
def test_ssim_of_equals_is_one_at_every_size(side: int) -> None:
    x = DRAW.random((3, 2, side, side))
    np.testing.assert_allclose(ssim(x, x), 1)
    assert (ssim(x, 1 - x) < 0.9).all()


def test_who_leaks_most() -> None:
    values = np.repeat([0.1, 0.2, 0.9], [5, 3, 2])
    found = users.by(values, np.repeat(["a", "b", "c"], [5, 3, 2]))
    assert float(most(found)) == pytest.approx(0.9), "a tenth of three users is one"
    assert float(most(found, 0.5)) == pytest.approx((0.9 + 0.2) / 2)
    leaked = by_user(values, np.repeat(["a", "b", "c"], [5, 3, 2]), (0,), n=50)
    assert leaked.mean.value == pytest.approx((0.1 + 0.2 + 0.9) / 3), "a user counts once, whatever they sent"
    assert leaked.mean.low <= leaked.mean.value <= leaked.mean.high
    assert leaked.most.value == pytest.approx(0.9)


def test_tpr_at_a_threshold_that_accuses_so_few() -> None:
    member = DRAW.random(3000) < 0.4
    scores = np.round(DRAW.normal(size=3000) + member, 1)  # with ties
    for fpr in (0.001, 0.01, 0.1, 1.0):
        best = 0.0
        for threshold in [*np.unique(scores), np.inf]:
            accused = scores >= threshold
            if accused[~member].mean() <= fpr:
                best = max(best, accused[member].mean())
        assert tpr_at(scores, member, fpr) == pytest.approx(best)
    pairs = scores[member][:, None] - scores[~member]
    assert auc(scores, member) == pytest.approx((pairs > 0).mean() + (pairs == 0).mean() / 2)


def test_a_score_that_says_nothing() -> None:
    member = np.arange(1000) % 2 == 0
    assert tpr_at(np.zeros(1000), member, 0.001) == 0
    assert auc(np.zeros(1000), member) == 0.5
    assert tpr_at(member * 1.0, member, 0.0) == 1


def test_bad_input_is_one_clear_line() -> None:
    with pytest.raises(DataError, match="one guess"):
        psnr(IMAGES, IMAGES[:2])
    with pytest.raises(ConfigError, match="above 0"):
        psnr(IMAGES, IMAGES, 0.0)
    with pytest.raises(DataError, match="use psnr"):
        ssim(IMAGES[:, 0], IMAGES[:, 0])
    with pytest.raises(DataError, match="both members"):
        tpr_at(np.ones(3), np.ones(3, bool), 0.1)
    with pytest.raises(DataError, match="not finite"):
        auc(np.array([math.inf, 0.0]), np.array([True, False]))
    assert leakage.CEILING == CEILING
