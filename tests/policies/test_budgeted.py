"""Budgeted: the rate holds for every sequence of scores, adversaries included."""

from dataclasses import replace
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from duetto.errors import ConfigError, DataError
from duetto.policies import Budgeted, Calibrated, OnlyInCloud, Threshold
from duetto.types import Action, Held, Outcomes, Seen

RATES, STEPS = st.floats(0, 1), st.floats(0.005, 1)
ENERGY = Threshold(0.0, "energy")  # the score of a single logit is that logit


def answered(scores: Any) -> Seen:
    """Items of just these scores under ENERGY."""
    logits = np.asarray(scores, float).reshape(-1, 1)
    return Seen(stage=1, answer=logits, size=len(logits))


def outcomes(scores: Any) -> Outcomes:
    """Calibration items of just these scores; who is right does not matter here."""
    seen = answered(scores)
    return Outcomes(np.zeros(seen.size), np.ones(seen.size), seen)


def asked(held: Held[Any], scores: Any) -> np.ndarray:
    """Which of the items it asks for."""
    return held.choose(answered(scores), ()).action == Action.ASK


def within(asked: np.ndarray, rate: float, step: float) -> bool:
    """The bound of the docstring, at every time."""
    excess = np.cumsum(asked) - rate * np.arange(1, len(asked) + 1)
    slack = 1e-9 * len(asked)
    return bool(
        (excess <= rate / step + 1 - rate + slack).all() and (-excess <= (1 - rate) / step + rate + slack).all()
    )


@given(RATES, STEPS, st.lists(st.floats(-1e300, 1e300), min_size=1, max_size=300), st.integers(1, 20))
def test_the_rate_holds_for_any_scores(rate: float, step: float, scores: list[float], repeat: int) -> None:
    assert within(asked(Held.of(Budgeted(ENERGY, rate, step)), scores * repeat), rate, step)


@given(
    RATES, STEPS, st.lists(st.floats(-100, 100), min_size=1, max_size=50), st.lists(st.floats(-200, 200), min_size=1)
)
def test_the_rate_holds_after_fitting(rate: float, step: float, fitted: list[float], scores: list[float]) -> None:
    held = Budgeted(ENERGY, rate, step).fit(outcomes(np.array(fitted)))
    assert within(asked(held, scores * 10), rate, step)


@settings(max_examples=30)
@given(RATES, STEPS, st.sampled_from(["tease", "waste", "turn"]), st.booleans())
def test_the_rate_holds_against_who_knows_the_state(rate: float, step: float, attack: str, fitted: bool) -> None:
    policy = Budgeted(ENERGY, rate, step)
    held = policy.fit(outcomes(np.linspace(-3, 3, 40))) if fitted else Held.of(policy)
    seen = []
    for i in range(400):
        below, above = rate * i - sum(seen) > 0, i < 200
        score = {
            "tease": 1e300 if below else -1e300,
            "waste": -1e300 if below else 1e300,
            "turn": 1e9 if above else -1e9,
        }
        seen.append(bool(asked(held, [score[attack]])[0]))
    assert within(np.array(seen), rate, step)


def test_the_bound_is_nearly_met() -> None:
    rate, step = 0.2, 0.02
    over = asked(Held.of(Budgeted(ENERGY, rate, step)), -np.arange(12.0))  # ever less sure
    assert over.sum() - rate * 12 == pytest.approx(rate / step, abs=2)
    under = asked(Held.of(Budgeted(ENERGY, rate, step)), np.arange(199.0))  # ever surer
    assert rate * 199 - under.sum() == pytest.approx((1 - rate) / step, abs=1)


@given(STEPS, st.lists(st.floats(-1e300, 1e300), min_size=1, max_size=100), st.booleans())
def test_never_and_always(step: float, scores: list[float], fitted: bool) -> None:
    scores = [*scores, 1e300, -1e300]
    for rate in (0.0, 1.0):
        policy = Budgeted(ENERGY, rate, step)
        held = policy.fit(outcomes(np.array(scores) / 10)) if fitted else Held.of(policy)
        assert set(asked(held, scores * 5).tolist()) == {bool(rate)}


@pytest.mark.parametrize("drift", [-50.0, -3.0, 0.0, 3.0, 50.0])
def test_the_rate_holds_through_drift(drift: float) -> None:
    draw = np.random.default_rng(0)
    held = Budgeted(ENERGY, 0.3).fit(outcomes(draw.normal(size=500)))
    before, after = asked(held, draw.normal(size=2000)), asked(held, draw.normal(size=2000) + drift)
    assert before.mean() == pytest.approx(0.3, abs=0.01)
    assert after.mean() == pytest.approx(0.3, abs=0.03)


@pytest.mark.parametrize("drift", [-50.0, 0.0, 50.0])
def test_the_least_sure_are_asked_even_beyond_the_calibration(drift: float) -> None:
    draw = np.random.default_rng(0)
    held = Budgeted(ENERGY, 0.3).fit(outcomes(draw.normal(size=500)))
    scores = draw.normal(size=20000) + drift
    ask = asked(held, scores)[10000:]
    scores = scores[10000:]
    assert scores[ask].mean() < scores[~ask].mean() - 1.6  # the best possible is 1.66 apart, chance 0


@pytest.mark.parametrize("rate", [0.1, 0.37, 0.9])
@pytest.mark.parametrize(("items", "off"), [(301, 1), (20000, 20000 / 512 + 1)])
def test_it_starts_at_the_calibration_quantile(rate: float, items: int, off: float) -> None:
    scores = np.sort(np.random.default_rng(1).gamma(2, size=items))
    held = Budgeted(ENERGY, rate).fit(outcomes(scores))
    assert len(held.state["window"]) == min(items, 512)
    last = round(rate * items)  # of those asked
    assert not asked(held.fork(), scores[min(last + int(off), items - 1)])[0]
    assert asked(held.fork(), scores[max(last - 1 - int(off), 0)])[0]


def test_the_window_forgets_evenly() -> None:
    scores = np.linspace(0, 1, 512)
    held = Budgeted(ENERGY, 0.5).fit(outcomes(scores))
    asked(held, np.full(256, 2.0))
    left = held.state["window"][:256]
    assert np.abs(np.sort(left) - np.linspace(0, 1, 256)).max() < 0.02
    assert (held.state["window"][256:] == 2).all()


def test_the_inner_policy_is_fitted_and_kept() -> None:
    draw = np.random.default_rng(2)
    logits, labels, users = draw.normal(size=(60, 3)), draw.integers(0, 3, 60), draw.integers(0, 4, 60)
    known = Outcomes.of_classifiers(logits, None, labels, users)
    held, alone = Budgeted(Calibrated(), 0.5).fit(known), Calibrated().fit(known)
    assert held.state["inner"] == alone.state
    held.choose(Seen(stage=1, answer=logits, size=60), ())
    assert held.state["inner"] == alone.state
    assert int(held.state["seen"]) == 60


def test_what_has_no_answer_is_not_counted() -> None:
    held = Held.of(Budgeted(ENERGY, 0.0))
    assert held.choose(Seen(stage=0, size=2), ()).action.tolist() == [Action.GO] * 2
    assert held.choose(Seen(stage=1, size=2), ()).action.tolist() == [Action.ASK] * 2
    assert int(held.state["seen"]) == int(held.state["asked"]) == 0


@pytest.mark.parametrize(
    ("rate", "step"), [(-0.1, 0.02), (1.1, 0.02), (np.nan, 0.02), (0.5, 0.0), (0.5, 1.5), (0.5, np.nan)]
)
def test_numbers_out_of_range(rate: float, step: float) -> None:
    with pytest.raises(ConfigError):
        Budgeted(ENERGY, rate, step)


def test_a_window_holds_something() -> None:
    with pytest.raises(ConfigError):
        Budgeted(ENERGY, 0.5, window=0)


def test_an_inner_policy_without_a_score() -> None:
    with pytest.raises(ConfigError, match="OnlyInCloud has no score"):
        Budgeted(OnlyInCloud(), 0.5)


def test_outcomes_without_logits_cannot_be_ranked() -> None:
    with pytest.raises(DataError):
        Budgeted(ENERGY, 0.5).fit(Outcomes(np.zeros(3), np.ones(3), Seen(size=3)))


def test_the_rate_can_change_on_the_way() -> None:
    held = Held.of(Budgeted(ENERGY, 0.2))
    asked(held, np.zeros(500))
    later = Held(replace(held.part, offload_rate=0.6), held.state)
    assert np.concatenate([asked(later, np.zeros(1)) for _ in range(2000)]).mean() == pytest.approx(0.7, abs=0.02)
