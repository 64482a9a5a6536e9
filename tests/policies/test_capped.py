"""A cap that no stream, no price, no clock and no restart exceeds."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from duetto.errors import ConfigError, DataError
from duetto.policies import Capped, Dual, OnlyInCloud, Thompson, Threshold
from duetto.types import Action, Held, Seen

ASKS = OnlyInCloud()
LOGITS = np.zeros((1, 2))


def items(n: int, **columns: Any) -> Seen:
    """Items that the device has answered."""
    left = columns.pop("budget_left", None)
    return Seen(stage=1, answer=np.repeat(LOGITS, n, axis=0), traits=columns, budget_left=left, size=n)


def asked(held: Held[Any], seen: Seen) -> np.ndarray:
    """Which of the items it asks for."""
    return held.choose(seen, (0,)).action == Action.ASK


STREAM = st.lists(st.tuples(st.floats(-50, 300), st.floats(0, 4)), min_size=1, max_size=60)


@given(st.floats(0, 20), st.floats(0.5, 100), st.floats(0, 1), STREAM, st.integers(1, 7))
def test_no_period_costs_more(cap: float, period: float, ahead: float, stream: list[Any], chunk: int) -> None:
    held, spent, latest = Held.of(Capped(ASKS, cap, period, ahead)), dict[int, float](), -np.inf
    for i in range(0, len(stream), chunk):
        held = held.restore(held.save())
        time, price = np.array(stream[i : i + chunk]).T
        ask = asked(held, items(len(time), time=time, price=price))
        for at, cost, one in zip(time.tolist(), price.tolist(), ask, strict=True):
            latest = max(latest, at)  # a clock set back opens no second budget
            spent[int(latest // period)] = spent.get(int(latest // period), 0.0) + cost * one
    assert all(each <= cap for each in spent.values())


@given(st.lists(st.integers(0, 9), min_size=1, max_size=30), st.integers(1, 5))
def test_what_is_left_elsewhere_is_obeyed(left: list[int], n: int) -> None:
    held = Held.of(Capped(ASKS, 1000, 1000, 1.0))
    for each in left:
        assert asked(held, items(n, budget_left=np.full(n, float(each)))).sum() == min(n, each)


def test_it_spends_along_the_period() -> None:
    time = np.arange(1000) / 10  # a period of 100
    ask = asked(Held.of(Capped(ASKS, 50, 100, 0.1)), items(1000, time=time))
    spent = np.cumsum(ask)
    allowed = 50 * (0.1 + 0.9 * time / 100)
    assert (spent <= allowed).all()
    assert (spent >= allowed - 1)[5:].all()
    at_once = asked(Held.of(Capped(ASKS, 50, 100, 1.0)), items(1000, time=time))
    assert at_once[:50].all()
    assert not at_once[50:].any()


def test_a_new_period_has_a_new_cap() -> None:
    held = Held.of(Capped(ASKS, 3, 10, 1.0))  # items are the time
    np.testing.assert_array_equal(np.flatnonzero(asked(held, items(25))), [0, 1, 2, 10, 11, 12, 20, 21, 22])
    assert held.state["spent"] == 3


def test_a_cap_in_dollars_takes_what_fits() -> None:
    ask = asked(Held.of(Capped(ASKS, 1.0, 1e9, 1.0)), items(4, price=np.array([0.5, 0.75, 0.25, 0.5])))
    assert ask.tolist() == [True, False, True, False]


def test_a_cap_of_nothing_keeps_even_what_has_no_answer() -> None:
    held = Held.of(Capped(ASKS, 0, 10))
    assert held.choose(Seen(stage=0, size=2), ()).action.tolist() == [Action.GO] * 2
    assert held.choose(Seen(stage=1, size=2), ()).action.tolist() == [Action.STOP] * 2
    assert held.choose(items(2), ()).action.tolist() == [Action.STOP] * 2


def test_a_dual_price_within_a_cap_keeps_the_best_for_the_whole_period() -> None:
    """The price spreads the calls over the least sure; the cap holds where the price overshoots."""
    draw = np.random.default_rng(0)
    p = draw.uniform(0.5, 1, 4000)
    seen = Seen(stage=1, answer=np.log(np.stack([p, 1 - p], axis=1)), size=4000)
    ask = asked(Held.of(Capped(Dual(Threshold(0.5), 0.1), 400, 4000)), seen)
    first_come = asked(Held.of(Capped(ASKS, 400, 4000)), seen)
    assert 350 <= ask.sum() <= 400
    assert p[ask].mean() < p[first_come].mean() - 0.15


def test_who_does_not_want_to_ask_is_not_made_to() -> None:
    held = Held.of(Capped(Threshold(0.4), 10, 10, 1.0))
    assert not asked(held, items(5)).any()
    assert held.state["spent"] == 0


def test_what_may_not_be_asked_is_certain_and_the_inner_policy_learns() -> None:
    policy = Capped(Thompson(), 2, 1e6, 1.0)
    state, move = policy.choose(policy.init(), items(200), (0,))
    assert (move.action == Action.ASK).sum() == 2
    last = np.flatnonzero(move.action == Action.ASK)[-1]
    assert (move.propensity[last + 1 :] == 1).all()
    assert (move.propensity[: last + 1] < 1).all()
    after = policy.learn(state, items(200), move, np.ones(200))
    expected = Thompson().learn(state["inner"], items(200), move, np.ones(200))
    np.testing.assert_array_equal(after["inner"]["b"], expected["b"])


@pytest.mark.parametrize(
    "columns",
    [
        {"time": np.array([0.0, np.nan])},
        {"time": np.zeros(3)},
        {"price": np.array([1.0, -1.0])},
        {"price": np.zeros(1)},
        {"budget_left": np.array([1.0, np.nan])},
        {"budget_left": np.ones(3)},
    ],
)
def test_columns_that_are_none(columns: dict[str, Any]) -> None:
    with pytest.raises(DataError):
        asked(Held.of(Capped(ASKS, 3, 10)), items(2, **columns))


@pytest.mark.parametrize(
    "wrong", [{"cap": -1}, {"cap": np.nan}, {"period": 0}, {"period": np.inf}, {"ahead": -0.1}, {"ahead": np.nan}]
)
def test_numbers_out_of_range(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Capped(**{"inner": ASKS, "cap": 5, "period": 10, **wrong})
