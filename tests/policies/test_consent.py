"""Consent and limits hold for every pool, selection and order of calls."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from duetto.errors import ConfigError, DataError
from duetto.policies import Balanced, Consented, KCentre, LeastSure, RandomSample, Threshold
from duetto.types import Action, Held, Seen

DRAW = np.random.default_rng(6)
POOLS = st.lists(
    st.tuples(st.floats(-20, 99), st.lists(st.tuples(st.booleans(), st.integers(0, 30)), max_size=12)), max_size=12
)


def pool(n: int, **columns: Any) -> Seen:
    """Samples that the device has answered."""
    logits = np.random.default_rng(n).normal(size=(n, 3))
    return Seen(stage=1, answer=logits, traits=columns, size=n)


def sent(held: Held[Any], seen: Seen) -> np.ndarray:
    """Who is sent, ``[n]`` bool."""
    return np.asarray(held.choose(seen, (0,)).action == Action.ASK)


@given(
    st.sampled_from([LeastSure(5), KCentre(4), Balanced(9), RandomSample(3)]),
    st.integers(0, 9),
    st.none() | st.integers(0, 60),
    st.floats(0.5, 40),
    POOLS,
)
def test_no_period_sends_more_and_nothing_goes_without_consent(
    inner: Any, samples: int, limit: int | None, period: float, pools: list[Any]
) -> None:
    held = Held.of(Consented(inner, False, samples, limit, period))
    counts, sums, latest = dict[int, int](), dict[int, int](), -np.inf
    for time, rows in pools:
        held = held.restore(held.save())
        consent, sizes = np.array([row[0] for row in rows], bool), np.array([row[1] for row in rows], int)
        chosen = sent(held, pool(len(rows), consent=consent, bytes=sizes, time=np.full(len(rows), time)))
        assert not (chosen & ~consent).any()
        if rows:
            latest = max(latest, time)
            at = int(latest // period)
            counts[at] = counts.get(at, 0) + int(chosen.sum())
            sums[at] = sums.get(at, 0) + int(sizes[chosen].sum())
    assert all(each <= samples for each in counts.values())
    assert limit is None or all(each <= limit for each in sums.values())


def test_nobody_has_consented_by_default() -> None:
    with pytest.raises(TypeError):
        Consented(LeastSure(3), samples=5)  # type: ignore[call-arg]
    assert not sent(Held.of(Consented(LeastSure(3), False, 5)), pool(9)).any()
    assert sent(Held.of(Consented(LeastSure(3), True, 5)), pool(9)).sum() == 3


def test_consent_can_be_withdrawn() -> None:
    held = Held.of(Consented(RandomSample(9), True, 100))
    assert sent(held, pool(9)).all()
    assert not sent(held, pool(9, consent=np.zeros(9, bool))).any()


def test_the_selection_sees_only_what_may_leave() -> None:
    consent = np.arange(20) % 2 == 0
    seen = pool(20, consent=consent)
    chosen = sent(Held.of(Consented(LeastSure(4), True, 100)), seen)
    _, move = LeastSure(4).choose({}, seen.rows(consent), (0,))
    assert (chosen[consent] == (move.action == Action.ASK)).all()
    assert chosen.sum() == 4


def test_a_period_is_a_number_of_selections_where_there_is_no_time() -> None:
    held = Held.of(Consented(RandomSample(4), True, 6, period=3))
    assert [sent(held, pool(8)).sum() for _ in range(6)] == [4, 2, 0, 4, 2, 0]


def test_what_is_too_large_is_passed_over() -> None:
    sizes = np.array([50, 7, 4, 3, 2])
    chosen = sent(Held.of(Consented(RandomSample(9), True, 9, bytes=10)), pool(5, bytes=sizes))
    assert chosen.tolist() == [False, True, False, True, False]


def test_propensities() -> None:
    consent = np.arange(20) < 10
    _, move = Consented(RandomSample(5), True, 100).choose(
        Consented(RandomSample(5), True, 100).init(), pool(20, consent=consent), (0,)
    )
    np.testing.assert_allclose(move.propensity, np.where(consent, 0.5, 1.0))


@pytest.mark.parametrize(
    "columns",
    [
        {},
        {"bytes": np.zeros(8, int)},
        {"bytes": np.full(9, -1)},
        {"bytes": np.zeros(9)},
        {"bytes": np.zeros(9, int), "consent": np.ones(9)},
        {"bytes": np.zeros(9, int), "consent": np.ones(8, bool)},
        {"bytes": np.zeros(9, int), "time": np.full(9, np.nan)},
    ],
)
def test_columns_that_are_none(columns: dict[str, Any]) -> None:
    with pytest.raises(DataError):
        sent(Held.of(Consented(RandomSample(3), True, 5, bytes=10)), pool(9, **columns))


@pytest.mark.parametrize("wrong", [{"samples": -1}, {"bytes": -1}, {"period": 0}, {"period": np.nan}])
def test_numbers_out_of_range(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Consented(**{"inner": RandomSample(3), "given": True, "samples": 5, **wrong})


def test_what_selects_no_samples() -> None:
    with pytest.raises(ConfigError, match="Threshold selects no samples"):
        Consented(Threshold(0.5), True, 5)
