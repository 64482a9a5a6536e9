"""The exact protocol, by brute force; off-policy evaluation, by hand."""

import itertools
import math

import numpy as np
import pytest

from duetto.errors import ConfigError, DataError
from duetto.evaluation import pareto, routing
from duetto.evaluation.routing import Logged
from duetto.types import Outcomes, Seen

SMALL = np.array([1.0, 0.0, 0.0, 1.0, 0.0, 1.0])
LARGE = np.array([1.0, 1.0, 0.0, 0.0, 1.0, 1.0])
SCORE = np.array([0.1, 0.9, 0.9, 0.9, 0.1, 0.5])  # three and two of them tied
DRAW = np.random.default_rng(3)


def outcomes(n: int = 60, users: bool = True) -> Outcomes:
    texts = np.array(["x" * int(length) for length in DRAW.integers(1, 50, n)], object)
    small, large = DRAW.integers(0, 2, n), np.maximum(DRAW.integers(0, 2, n), DRAW.integers(0, 2, n))
    names = np.array([f"u{i % 12}" for i in range(n)]) if users else None
    return Outcomes(small, large, Seen(features={"prompt": texts}, size=n), names)


def orders(score: np.ndarray) -> list[np.ndarray]:
    """Every order in which items could be asked, equal scores in all their orders."""
    groups = [np.flatnonzero(score == value) for value in np.unique(score)[::-1]]
    mixed = itertools.product(*(itertools.permutations(group) for group in groups))
    return [np.concatenate(order) for order in mixed]


def test_apgr_is_the_mean_over_all_orders_of_equal_scores() -> None:
    def under(order: np.ndarray) -> float:
        quality = SMALL.mean() + np.append(0, np.cumsum((LARGE - SMALL)[order])) / len(order)
        recovered = (quality - SMALL.mean()) / (LARGE.mean() - SMALL.mean())
        return float((recovered[1:] + recovered[:-1]).mean() / 2)

    expected = np.mean([under(order) for order in orders(SCORE)])
    assert routing.apgr(SCORE, SMALL, LARGE) == pytest.approx(expected, abs=1e-12)
    assert routing.apgr(np.zeros(6), SMALL, LARGE) == pytest.approx(0.5, abs=1e-12)
    assert np.mean([under(order) for order in orders(np.zeros(6))]) == pytest.approx(0.5, abs=1e-12)


def test_weights_are_repetitions() -> None:
    weight = np.array([2, 0, 1, 3, 1, 1])
    again = [np.repeat(column, weight) for column in (SCORE, SMALL, LARGE + 0.5)]
    assert routing.apgr(SCORE, SMALL, LARGE + 0.5, weight) == pytest.approx(routing.apgr(*again), abs=1e-12)


def test_cpt_crosses_on_the_mean_curve() -> None:
    gain = np.mean([np.append(0, np.cumsum((LARGE - SMALL)[order])) for order in orders(SCORE)], axis=0)
    for recovered in (0.1, 0.5, 0.8, 1.0):
        at = np.linspace(0, 1, 60001)
        curve = np.interp(at, np.arange(7) / 6, gain)
        expected = at[np.argmax(curve >= recovered * gain[-1] - 1e-9)]
        assert routing.cpt(SCORE, SMALL, LARGE, recovered) == pytest.approx(expected, abs=1e-4)
    assert routing.cpt50(np.zeros(6), SMALL, LARGE) == pytest.approx(0.5)
    assert routing.cpt80(np.zeros(6), SMALL, LARGE) == pytest.approx(0.8)
    assert routing.cpt(SCORE, SMALL, LARGE, 0.0) == 0.0
    with pytest.raises(ConfigError):
        routing.cpt(SCORE, SMALL, LARGE, 80)


def test_without_a_gap_there_is_no_figure() -> None:
    for small, large in ((np.ones(4), np.ones(4)), (np.ones(4), np.zeros(4))):
        assert math.isnan(routing.apgr(np.arange(4.0), small, large))
        assert math.isnan(routing.cpt50(np.arange(4.0), small, large))
    every = Outcomes(np.ones(4), np.ones(4), Seen(size=4))
    assert math.isnan(routing.interval(routing.apgr, np.arange(4.0), every, key=(0,), n=5).low)


@pytest.mark.parametrize(
    "columns",
    [
        (np.zeros(0), np.zeros(0), np.zeros(0)),
        (np.array([np.nan, 0]), np.zeros(2), np.ones(2)),
        (np.zeros(3), np.zeros(2), np.ones(2)),
    ],
)
def test_bad_columns_are_told(columns: tuple[np.ndarray, ...]) -> None:
    with pytest.raises(DataError):
        routing.apgr(*columns)


def test_baselines_stand_beside_every_router() -> None:
    log = outcomes()
    lines = {line.name: line for line in routing.judge({"mine": DRAW.random(60)}, log, key=(0,), n=20)}
    assert list(lines) == ["mine", *routing.BASELINES]
    assert lines["random"].apgr.value == pytest.approx(0.5)
    assert lines["random"].apgr.low == pytest.approx(lines["random"].apgr.high)
    assert lines["oracle gain"].area.value == pytest.approx(1)
    length = np.array([len(text) for text in log.seen.features["prompt"]])
    assert lines["prompt length"].apgr.value == routing.apgr(length, log.small, log.large)
    assert lines["oracle weak wrong"].cpt50.value == routing.cpt50(-log.small, log.small, log.large)
    assert all(line.apgr.value <= lines["oracle gain"].apgr.value + 1e-12 for line in lines.values())
    assert "prompt length" not in routing.baselines(Outcomes(SMALL, LARGE, Seen(size=6)))


def test_intervals_redraw_users_with_all_their_items() -> None:
    log, score = outcomes(), DRAW.random(60)
    found = routing.interval(routing.apgr, score, log, key=(1,), n=200)
    draws = routing.redraws(log.users, key=(1,), n=200)
    # the same redraws, each as rows that are repeated
    order = np.argsort(-score, kind="stable")
    values = []
    for weight in routing.redraws(log.users[order], key=(1,), n=200):
        rows = np.repeat(order, weight)
        values.append(routing.apgr(score[rows], log.small[rows], log.large[rows]))
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(values, [0.025, 0.975])), abs=1e-9)
    assert found.low <= found.value <= found.high
    assert len(list(draws)) == 200
    by_item = routing.interval(routing.apgr, score, log, key=(1,), n=200, by_user=False)
    assert by_item.value == found.value
    assert (by_item.low, by_item.high) != (found.low, found.high)


def test_the_same_router_differs_by_nothing() -> None:
    log, score = outcomes(), DRAW.random(60)
    same = routing.difference(routing.apgr, score, 3 * score + 1, log, key=(1,), n=50)
    assert (same.value, same.low, same.high) == pytest.approx((0, 0, 0), abs=1e-12)
    better = routing.difference(pareto.area, log.gain, score, log, key=(1,), n=50)
    assert better.low > 0
    assert better.value == pytest.approx(1 - pareto.area(score, log.small, log.large))


# --------------------------------------------------------------------------------------------- off-policy evaluation

LOG = Logged(np.array([True, False, True, False]), np.array([0.5, 0.5, 0.8, 0.2]), np.array([1.0, 0.0, 0.5, 1.0]))
ASK = np.array([1.0, 1.0, 0.5, 0.0])


def test_values_by_hand() -> None:
    weight = np.array([1 / 0.5, 0 / 0.5, 0.5 / 0.8, 1 / 0.2])
    found = routing.ips(LOG, ASK, key=(0,), n=50)
    assert found.reward.value == pytest.approx((weight * LOG.reward).sum() / 4)
    assert found.effective == pytest.approx(weight.sum() ** 2 / (weight**2).sum())
    assert found.uncovered == pytest.approx(1 - weight.mean())
    assert routing.self_normalised(LOG, ASK, key=(0,), n=50).reward.value == pytest.approx(
        (weight * LOG.reward).sum() / weight.sum()
    )
    kept, asked = np.array([0.1, 0.2, 0.3, 0.4]), np.array([0.9, 0.8, 0.7, 0.6])
    corrected = [
        0.9 + 2.0 * (1.0 - 0.9),
        0.8 + 0.0,
        0.5 * 0.7 + 0.5 * 0.3 + 0.625 * (0.5 - 0.7),
        0.4 + 5.0 * (1.0 - 0.4),
    ]
    assert routing.doubly_robust(LOG, ASK, kept, asked, key=(0,), n=50).reward.value == pytest.approx(
        np.mean(corrected)
    )


def test_the_log_s_own_router_is_worth_what_it_earned() -> None:
    own = np.where(LOG.asked, LOG.propensity, 1 - LOG.propensity)
    assert routing.ips(LOG, own, key=(0,), n=20).reward.value == pytest.approx(LOG.reward.mean())
    assert routing.ips(LOG, own, key=(0,), n=20).uncovered == pytest.approx(0)


def test_estimates_are_right_on_average() -> None:
    n, runs = 400, 60
    small, large = DRAW.random(n), DRAW.random(n)
    chance, ask = DRAW.uniform(0.2, 0.8, n), (large > small).astype(float)
    truth = float(np.where(ask > 0, large, small).mean())
    kept, asked = small + 0.3, large - 0.2  # a model of the reward that is wrong
    found: dict[str, list[float]] = {"ips": [], "self": [], "double": []}
    covered = 0
    for _ in range(runs):
        did = DRAW.random(n) < chance
        log = Logged(did, np.where(did, chance, 1 - chance), np.where(did, large, small))
        value = routing.ips(log, ask, key=(0,), n=100).reward
        covered += value.low <= truth <= value.high
        found["ips"].append(value.value)
        found["self"].append(routing.self_normalised(log, ask, key=(0,), n=1).reward.value)
        found["double"].append(routing.doubly_robust(log, ask, kept, asked, key=(0,), n=1).reward.value)
    for name, values in found.items():
        assert abs(np.mean(values) - truth) < 4 * np.std(values) / math.sqrt(runs) + 0.002, name
    assert np.std(found["self"]) < np.std(found["ips"])
    assert covered >= 0.8 * runs


def test_users_are_redrawn_together() -> None:
    log = Logged(
        np.tile(LOG.asked, 20), np.tile(LOG.propensity, 20), np.tile(LOG.reward, 20), np.tile(np.arange(4), 20)
    )
    alone = Logged(log.asked, log.propensity, log.reward)
    wide, narrow = (routing.ips(each, np.tile(ASK, 20), key=(0,), n=300).reward for each in (log, alone))
    assert wide.value == narrow.value
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)


def test_what_was_never_done_has_no_value() -> None:
    log = Logged(np.ones(3, bool), np.ones(3), np.ones(3))
    never = routing.self_normalised(log, np.zeros(3), key=(0,), n=10)
    assert math.isnan(never.reward.value)
    assert (never.effective, never.uncovered) == (0, 1)


@pytest.mark.parametrize(
    ("asked", "propensity", "reward"),
    [
        ([True], [0.0], [1.0]),
        ([True], [1.5], [1.0]),
        ([True], [np.nan], [1.0]),
        ([True], [1.0], [np.nan]),
        ([True, False], [1.0], [1.0]),
        ([], [], []),
    ],
)
def test_bad_logs_are_told(asked: list[bool], propensity: list[float], reward: list[float]) -> None:
    with pytest.raises(DataError):
        Logged(np.array(asked, bool), np.array(propensity), np.array(reward))


def test_bad_probabilities_are_told() -> None:
    for ask in (ASK * 2, ASK[:2], np.full(4, np.nan)):
        with pytest.raises(DataError):
            routing.ips(LOG, ask, key=(0,), n=5)
    with pytest.raises(DataError):
        routing.doubly_robust(LOG, ASK, np.full(4, np.nan), ASK, key=(0,), n=5)
    with pytest.raises(DataError):
        routing.doubly_robust(LOG, ASK, ASK[:2], ASK, key=(0,), n=5)
    with pytest.raises(ConfigError):
        routing.ips(LOG, ASK, key=(0,), n=0)
    with pytest.raises(ConfigError):
        routing.ips(LOG, ASK, key=(0,), n=5, level=95)
