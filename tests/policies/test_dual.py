"""The dual price: its bound for every stream, its costs, and what it leaves unspent."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from duetto.errors import ConfigError, DataError
from duetto.policies import Calibrated, Dual, LinUCB, OnlyInCloud, Threshold
from duetto.types import Action, Held, Move, Outcomes, Seen

SURE = Threshold(0.5)
RATES, STEPS = st.floats(0, 1), st.floats(0.001, 1)


def answered(confidence: Any, **columns: Any) -> Seen:
    """Two classes, the first with these probabilities, 0.5..1."""
    p = np.clip(np.asarray(confidence, float), 0.5, 1 - 1e-12)
    return Seen(stage=1, answer=np.log(np.stack([p, 1 - p], axis=1)), size=len(p), **columns)


def outcomes(confidence: Any) -> Outcomes:
    """Answers as sure as this, the large model's the same."""
    answer = answered(confidence).answer
    assert answer is not None
    return Outcomes.of_classifiers(answer, answer)


def asked(held: Held[Any], seen: Seen) -> np.ndarray:
    """Which of the items it asks for."""
    return held.choose(seen, ()).action == Action.ASK


@given(RATES, STEPS, st.floats(0, 1), st.lists(st.floats(0.5, 1), min_size=1, max_size=60), st.integers(1, 20))
def test_the_rate_holds_for_any_stream(rate: float, step: float, start: float, stream: list[float], n: int) -> None:
    ask = asked(Held.of(Dual(SURE, rate, step, start)), answered(stream * n))
    excess = np.cumsum(ask) - rate * np.arange(1, len(ask) + 1)
    assert np.abs(excess).max() <= 1 / step + 1 + 1e-6


@given(RATES, STEPS, st.lists(st.floats(0.5, 1), min_size=1, max_size=60), st.integers(1, 20))
def test_without_spending_all_the_rate_is_an_upper_bound(rate: float, step: float, stream: list[float], n: int) -> None:
    ask = asked(Held.of(Dual(SURE, rate, step, spend_all=False)), answered(stream * n))
    assert (np.cumsum(ask) - rate * np.arange(1, len(ask) + 1)).max() <= 1 / step + 1 + 1e-6


def test_the_price_by_hand() -> None:
    confidence = np.array([0.6, 0.9, 0.55, 0.99, 0.7])
    held = Held.of(Dual(SURE, 0.3, 0.2, 0.35))
    price, expected = 0.35, []
    for each in confidence:
        expected.append(1 - each > price)
        price += 0.2 * (expected[-1] - 0.3)
    assert asked(held, answered(confidence)).tolist() == expected
    assert float(held.state["price"]) == pytest.approx(price)


def test_dear_calls_must_gain_more() -> None:
    dollars = np.where(np.arange(6000) % 2, 0.001, 0.004)
    confidence = np.random.default_rng(0).uniform(0.5, 1, 6000)
    held = Held.of(Dual(SURE, 0.0005, step=2e3, start=100.0))
    ask = asked(held, answered(confidence, traits={"price": dollars}))
    assert (dollars * ask)[1000:].mean() == pytest.approx(0.0005, rel=0.05)
    cheap, dear = (ask[1000:][dollars[1000:] == each].mean() for each in (0.001, 0.004))
    assert cheap > 2 * dear
    # A call of twice the price needs twice the gain: the gains asked begin at price * cost.
    late = np.arange(6000) > 1000
    least = [(1 - confidence)[late & ask & (dollars == each)].min() for each in (0.001, 0.004)]
    assert least[1] > 2 * least[0]


def test_nothing_is_asked_that_gains_nothing() -> None:
    certain = Seen(stage=1, answer=np.tile([0.0, -np.inf], (500, 1)), size=500)
    assert asked(Held.of(Dual(SURE, 0.5)), certain).mean() > 0.4
    assert not asked(Held.of(Dual(SURE, 0.5, spend_all=False)), certain)[25:].any()  # the first price is gone by then


@pytest.mark.parametrize("shift", [-0.2, 0.0, 0.2])
def test_the_rate_holds_through_drift(shift: float) -> None:
    draw = np.random.default_rng(1)
    before, after = draw.uniform(0.7, 0.8, 3000), draw.uniform(0.7, 0.8, 3000) + shift
    held = Dual(SURE, 0.3, 0.05).fit(outcomes(before))
    assert asked(held, answered(before)).mean() == pytest.approx(0.3, abs=0.02)
    assert asked(held, answered(after)).mean() == pytest.approx(0.3, abs=0.02)


def test_it_starts_at_the_quantile_of_what_it_was_fitted_on() -> None:
    confidence = np.random.default_rng(2).uniform(0.5, 1, 999)
    held = Dual(SURE, 0.2).fit(outcomes(confidence))
    assert float(held.state["price"]) == pytest.approx(np.quantile(1 - confidence, 0.8))


def test_the_inner_policy_is_fitted_and_learns() -> None:
    draw = np.random.default_rng(3)
    logits, labels = draw.normal(size=(60, 3)), draw.integers(0, 3, 60)
    found = Outcomes.of_classifiers(logits, labels=labels)
    assert Dual(Calibrated(), 0.5).fit(found).state["inner"] == Calibrated().fit(found).state
    bandit, seen = LinUCB(), Seen(stage=1, answer=logits, size=60)
    move = Move.sure(np.full(60, Action.ASK), "")
    policy = Dual(bandit, 0.5)
    after = policy.learn(policy.init(), seen, move, np.ones(60))
    np.testing.assert_array_equal(after["inner"]["b"], bandit.learn(bandit.init(), seen, move, np.ones(60))["b"])
    np.testing.assert_array_equal(policy.scores(after, seen), bandit.scores(after["inner"], seen))


def test_what_has_no_answer_is_not_counted() -> None:
    held = Held.of(Dual(SURE, 0.0))
    assert held.choose(Seen(stage=0, size=2), ()).action.tolist() == [Action.GO] * 2
    assert held.choose(Seen(stage=1, size=2), ()).action.tolist() == [Action.ASK] * 2
    assert float(held.state["price"]) == 0.5


@pytest.mark.parametrize("price", [np.array([1.0]), np.array([1.0, -1.0]), np.array([1.0, np.nan])])
def test_prices_that_are_none(price: np.ndarray) -> None:
    with pytest.raises(DataError):
        asked(Held.of(Dual(SURE, 0.5)), answered([0.6, 0.7], traits={"price": price}))


@pytest.mark.parametrize(
    "wrong", [{"budget": -0.1}, {"budget": np.nan}, {"step": 0}, {"step": np.inf}, {"start": -1}, {"start": np.nan}]
)
def test_numbers_out_of_range(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Dual(**{"inner": SURE, "budget": 0.5, **wrong})


def test_an_inner_policy_without_a_score() -> None:
    with pytest.raises(ConfigError, match="OnlyInCloud has no score"):
        Dual(OnlyInCloud(), 0.5)
