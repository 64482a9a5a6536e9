"""The bounds against products, sums and scipy; the descent against every threshold one by one."""

import math
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from scipy import stats

from duetto.errors import ConfigError, DataError
from duetto.policies.promises import (
    PROMISES,
    Terms,
    betting_bound,
    betting_wealth,
    crc_bound,
    descend,
    quantile_bound,
    t_bound,
    t_quantile,
)

DRAW = np.random.default_rng(11)
GAPS = np.clip(DRAW.normal(0.01, 0.02, (7, 60)), -0.2, 0.2)


@pytest.mark.parametrize("level", [0.9, 0.95, 0.999])
def test_the_t_quantile_is_scipy_s(level: float) -> None:
    for degrees in (1, 2, 5, 29, 30, 31, 300, 50_000):
        assert t_quantile(level, degrees) == pytest.approx(stats.t.ppf(level, degrees), rel=1e-8)


def test_the_crc_bound_is_a_mean_with_one_more_user() -> None:
    worst = np.full(len(GAPS), 0.7)
    assert crc_bound(GAPS, worst) == pytest.approx([np.append(row, 0.7).mean() for row in GAPS])


def test_the_t_bound_is_that_of_one_more_user() -> None:
    for row, bound in zip(GAPS, t_bound(GAPS, 0.1, np.full(len(GAPS), 0.3)), strict=True):
        more = np.append(row, 0.3)
        assert bound == pytest.approx(more.mean() + stats.t.ppf(0.9, 60) * more.std(ddof=1) / math.sqrt(61))


def direct_wealth(gaps: np.ndarray, target: float, delta: float, worst: float) -> float:
    """The gambler's largest wealth, user after user."""
    wealth = most = 1.0
    for i, gap in enumerate(gaps):
        variance = np.var(gaps[:i]) if i else 0.0
        bet = 1 / (worst - target)
        if variance > 0:
            bet = min(bet, math.sqrt(2 * math.log(1 / delta) / (len(gaps) * variance)))
        wealth *= max(0.0, 1 + bet * (target - gap))
        most = max(most, wealth)
    return most


@pytest.mark.parametrize(("target", "delta", "worst"), [(0.02, 0.05, 0.2), (0.05, 0.3, 1.0), (0.015, 0.01, 0.5)])
def test_the_wealth_is_a_product(target: float, delta: float, worst: float) -> None:
    found = betting_wealth(GAPS, target, delta, np.full(len(GAPS), worst))
    assert np.exp(found) == pytest.approx([direct_wealth(row, target, delta, worst) for row in GAPS])


def test_who_loses_more_than_the_worst_user_ruins_the_gambler() -> None:
    gaps = np.append(0.3, np.full(1000, -0.01))
    assert betting_wealth(gaps, 0.02, 0.05, np.array(0.2)) == 0
    assert betting_wealth(np.full(100, -0.01), 0.2, 0.05, np.array(0.2)) == np.inf


def test_the_betting_bound_is_where_the_wealth_is_enough() -> None:
    bound = betting_bound(GAPS, 0.05, np.full(len(GAPS), 0.5))
    for row, at in zip(GAPS, bound, strict=True):
        assert direct_wealth(row, at + 1e-6, 0.05, 0.5) >= 20 > direct_wealth(row, at - 1e-6, 0.05, 0.5)


@pytest.mark.parametrize(("mean", "worst"), [(0.02, 0.2), (0.05, 1.0)])
def test_a_false_bet_is_rarely_won(mean: float, worst: float) -> None:
    draw = np.random.default_rng(5)
    gaps = np.where(draw.random((4000, 80)) < mean / worst, worst, 0.0)  # the mean is the target: nothing may be won
    won = betting_wealth(gaps, mean, 0.05, np.full(4000, worst)) >= math.log(20)
    assert won.mean() <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 4000)


@pytest.mark.parametrize(("n", "share"), [(28, 0.9), (29, 0.9), (60, 0.9), (300, 0.8)])
def test_the_quantile_bound_is_the_binomial_s(n: int, share: float) -> None:
    gaps = DRAW.normal(size=(3, n))
    allowed = [k for k in range(n) if stats.binom.cdf(k, n, 1 - share) <= 0.05]
    expected = np.sort(gaps, axis=1)[:, ::-1][:, allowed[-1]] if allowed else np.ones(3)
    assert quantile_bound(gaps, 0.05, share) == pytest.approx(expected)


@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.integers(0, 2), st.sampled_from([-1.0, 0.0, 0.0, 1.0])), min_size=3, max_size=20
    ),
    st.integers(0, 12),
    st.booleans(),
)
def test_the_descent_stops_at_the_first_failure(items: Any, allowed: int, rising: bool) -> None:
    items = [*items, (5, 0, 0.0), (4, 1, 0.0), (3, 2, 0.0)]
    scores, users, losses = np.array(items).T
    users = users.astype(int)
    limit = allowed / 12 + 1e-9

    def passes(gaps: np.ndarray) -> np.ndarray:
        return np.asarray(gaps.mean(axis=1) <= limit)

    at, most = math.inf, np.zeros(3)
    for threshold in sorted(set(scores), reverse=True):
        gaps = np.array(
            [losses[(users == user) & (scores >= threshold)].sum() / (users == user).sum() for user in range(3)]
        )
        reached = np.maximum(most, gaps) if rising else gaps
        if reached.mean() > limit:
            break
        at, most = threshold, reached
    found, gaps = descend(scores, losses, users, passes, rising)
    assert found == at
    assert gaps == pytest.approx(most)


def test_many_steps_are_taken_in_pieces() -> None:
    n, users = 3000, 40
    scores, losses, which = DRAW.random(n), DRAW.choice([-1.0, 0, 0, 1.0], n), np.arange(n) % users
    order = np.argsort(-scores)
    gaps = np.cumsum(losses[order] / 75)[:, None] / users
    last = int(np.argmax(gaps[:, 0] > 0.0041)) if (gaps > 0.0041).any() else n
    at, _ = descend(scores, losses, which, lambda gaps: gaps.mean(axis=1) <= 0.0041)
    assert at == scores[order][last - 1]


def test_nothing_passes_where_even_no_loss_does_not() -> None:
    at, gaps = descend(np.arange(4.0), np.zeros(4), np.arange(4), lambda gaps: np.zeros(len(gaps), bool))
    assert at == math.inf
    assert not gaps.any()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_scores_must_be_finite(bad: float) -> None:
    with pytest.raises(DataError, match="scores that are NaN or infinite"):
        descend(np.array([0.1, bad]), np.zeros(2), np.arange(2), lambda gaps: np.ones(len(gaps), bool))


@pytest.mark.parametrize("promise", PROMISES)
@pytest.mark.parametrize("target", [0.005, 0.01, 0.05, 0.3])
@pytest.mark.parametrize("worst", [None, 0.2])
def test_needed_is_the_fewest_users_that_can_pass(promise: Any, target: float, worst: float | None) -> None:
    terms = Terms(promise, target, worst_user=worst)
    needed = int(terms.needed)
    assert terms.passes(np.zeros((1, needed)))[0]
    assert needed == 1 or not terms.passes(np.zeros((1, needed - 1)))[0]


def test_the_fewest_users_of_the_research_note() -> None:
    assert Terms("expected", 0.01).needed == 99
    assert Terms("confident", 0.01).needed == math.ceil(math.log(0.05) / math.log(0.99))
    assert Terms("quantile", 0.01).needed == 29
    for promise in ("expected", "confident", "approximate"):
        assert Terms(promise, 0.0).needed == math.inf  # type: ignore[arg-type]


def test_a_target_of_a_millionth_needs_millions() -> None:
    terms = Terms("approximate", 1e-8)
    assert terms.needed == pytest.approx(0.1 * (1 + stats.norm.ppf(0.95)) / 1e-8, rel=1e-3)


@pytest.mark.parametrize("promise", PROMISES)
def test_the_bound_is_the_smallest_target_that_passes(promise: Any) -> None:
    bound = Terms(promise, 0.1, worst_user=0.3).bound(GAPS)
    for row, at in zip(GAPS, bound, strict=True):
        assert Terms(promise, max(at, 0) + 1e-6, worst_user=0.3).passes(row[None])[0]
        if at > 1e-6:
            assert not Terms(promise, at - 1e-6, worst_user=0.3).passes(row[None])[0]


@pytest.mark.parametrize(
    "settings",
    [
        {"promise": "sure"},
        {"target": -0.01},
        {"target": 1.0},
        {"target": math.nan},
        {"delta": 0.0},
        {"delta": 1.0},
        {"share": 1.0},
        {"worst_user": 0.0},
        {"worst_user": 1.1},
    ],
)
def test_settings_that_cannot_be_met(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Terms(**{"promise": "expected", "target": 0.01, **settings})
