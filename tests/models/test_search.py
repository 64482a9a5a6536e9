"""The search over sub-networks: its laws on drawn tables, and what networks are measured at."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from duetto.errors import ConfigError, DataError
from duetto.models import Mlp, Slimmable, Sub
from duetto.models.search import Limits, Rated, best, front, predicted, timed

NUMBERS = st.floats(1e-6, 1e3)
TABLES = st.lists(
    st.tuples(NUMBERS, NUMBERS, st.integers(1, 10**6), st.floats(0, 1)),
    min_size=1,
    max_size=12,
    unique_by=lambda r: r[2],
).map(lambda rows: [Rated(Sub(1 / (i + 1)), *row) for i, row in enumerate(rows)])
LIMITS = st.builds(
    Limits,
    *[st.one_of(NUMBERS, st.just(float("inf")))] * 2,
    st.one_of(st.integers(1, 10**6), st.none().map(lambda _: float("inf"))),
)


@given(TABLES, LIMITS)
def test_what_is_found_keeps_the_limits_and_none_that_does_is_better(table: list[Rated], limits: Limits) -> None:
    borne = [
        each
        for each in table
        if each.seconds <= limits.seconds and each.joules <= limits.joules and each.nbytes <= limits.nbytes
    ]
    if not borne:
        with pytest.raises(ConfigError) as told:
            best(table, limits)
        least = min(table, key=lambda each: each.nbytes)
        assert str(least.sub) in str(told.value)
        assert f"{least.nbytes:,} bytes" in str(told.value)
        assert "\n" not in str(told.value)
        return
    found = best(table, limits)
    if limits == Limits():
        assert found.nbytes == max(each.nbytes for each in table)
    else:
        assert found in borne
        assert found.accuracy == max(each.accuracy for each in borne)


@given(TABLES, LIMITS, LIMITS)
def test_a_looser_limit_finds_nothing_worse(table: list[Rated], one: Limits, other: Limits) -> None:
    loose = Limits(*(max(getattr(one, name), getattr(other, name)) for name in ("seconds", "joules", "nbytes")))
    if loose == Limits():
        return
    try:
        strict = best(table, one)
    except ConfigError:
        return
    assert best(table, loose).accuracy >= strict.accuracy


@given(TABLES)
def test_the_front_is_what_no_other_beats(table: list[Rated]) -> None:
    kept = front(table)
    assert kept
    for each in table:
        costs = np.array([(other.seconds, other.joules, other.nbytes, -other.accuracy) for other in table])
        mine = np.array([each.seconds, each.joules, each.nbytes, -each.accuracy])
        beaten = ((costs <= mine).all(1) & (costs < mine).any(1)).any()
        assert (each in kept) == (not beaten)


def test_without_limits_the_largest_is_taken_though_chance_favours_another() -> None:
    table = [Rated(Sub(0.5), 1, 1, 10, 0.91), Rated(Sub(), 2, 2, 20, 0.90)]
    assert best(table).sub == Sub()
    assert best(table, Limits(seconds=5)).sub == Sub(0.5)


def test_of_equals_the_cheaper_is_taken() -> None:
    table = [Rated(Sub(), 2, 2, 20, 0.9), Rated(Sub(0.5), 1, 1, 10, 0.9)]
    assert best(table, Limits(nbytes=100)).sub == Sub(0.5)


def test_impossible_limits_name_the_smallest() -> None:
    table = [Rated(Sub(0.25), 1e-3, 2e-3, 1000, 0.8), Rated(Sub(), 4e-3, 8e-3, 9000, 0.9)]
    told = r"^no sub-network keeps 0.5 ms, 900 bytes: the smallest, 0.25, takes 1 ms, 2 mJ, 1,000 bytes$"
    with pytest.raises(ConfigError, match=told):
        best(table, Limits(seconds=5e-4, nbytes=900))


def test_faults_are_told() -> None:
    with pytest.raises(DataError, match="without sub-networks"):
        best([])
    with pytest.raises(ConfigError, match="joules"):
        Limits(joules=0)
    with pytest.raises(DataError, match="seconds of 1"):
        Rated(Sub(), float("nan"), 1, 1, 1)


@pytest.mark.slow  # ONNX files are exported
def test_every_sub_network_is_timed() -> None:
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    net = Slimmable(Mlp((5,), 3, (8,)), (0.5, 1.0))
    seconds = timed(net, net.init(0), np.zeros((2, 5), np.float32), repeats=3)
    assert tuple(seconds) == net.subs
    assert all(each > 0 for each in seconds.values())


def test_operations_of_every_sub_network_add_up() -> None:
    net = Slimmable(Mlp((5,), 3, (8, 8)), (0.5, 1.0), (1,))
    summed = predicted(net, lambda stages: np.array([each.work.flops for each in stages]))
    for sub in net.subs:
        wide, hidden = int(8 * sub.width), 1 if sub.depth else 2
        flops = 2 * (5 * wide + wide * wide * (hidden - 1) + wide * 3)
        assert summed[sub] == pytest.approx(flops, rel=0.5)  # beside the products, sums and activations
    assert summed[net.subs[-1]] == max(summed.values())
