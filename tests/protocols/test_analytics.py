"""Analytics against numpy on everybody's values in one place."""

from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest

from duetto.aggregation import Gate, Mean
from duetto.errors import ConfigError, DataError
from duetto.protocols.analytics import Spell, Survey, Tally
from duetto.protocols.tiers import Tiers
from duetto.simulation.engine import simulate
from duetto.simulation.fleet import fleet
from duetto.types import Group, Local, Party, Record, Rows, rng

USERS = [f"u{i}" for i in range(12)]
WORDS = ["ja", "jam", "jamón", "nein", "no", "non", "oui", "sí"]


def held(user: str) -> Any:
    """From 3 to 25 numbers, labels and words."""
    i = USERS.index(user)
    draw = np.random.default_rng(i)
    n = 3 + 2 * i
    return {"age": draw.normal(40 + i, 20, n), "label": draw.integers(0, 5, n), "said": draw.choice(WORDS, n).tolist()}


DATA = {user: held(user) for user in USERS}
ALL, SURVEY = 10**6, Survey(Mean(), Gate(norm=None))


def asked(question: Callable[[Group], Awaitable[Any]], *skills: Any, data: Any = None) -> Any:
    """What the cloud comes to know."""
    found = []

    async def role(fleet: Group) -> Any:
        found.append(await question(fleet))
        yield Record("analytics")

    everyone = fleet("phones", USERS, data=data or DATA.__getitem__)
    simulate(fleet=everyone, device=Party(skills=skills), cloud=role)
    return found[0]


def pooled(column: str) -> np.ndarray:
    return np.concatenate([DATA[user][column] for user in USERS])


@pytest.mark.parametrize("collect", [None, Tiers((tuple(USERS[:5]), tuple(USERS[5:9])))], ids=["plain", "tiers"])
def test_a_histogram_is_numpy_s(collect: Any) -> None:
    survey = SURVEY if collect is None else Survey(Mean(), Gate(norm=None), collect)
    edges, tally = [0.0, 20.0, 30.5, 60.0], Tally("age", ALL)
    found = asked(lambda fleet: survey.histogram(fleet, edges, tally=tally, key=(0,)), tally)
    np.testing.assert_array_equal(found, np.histogram(pooled("age"), edges)[0])


def test_edges_belong_where_numpy_puts_them() -> None:
    tally, data = Tally("x", ALL), {"x": np.array([0.0, 1.0, 1.0, 2.0, 2.5, -1.0])}
    found = asked(
        lambda fleet: SURVEY.histogram(fleet, [0, 1, 2], tally=tally, key=(0,)), tally, data=lambda user: data
    )
    np.testing.assert_array_equal(found, 12 * np.histogram(data["x"], [0, 1, 2])[0])


def test_counts_are_of_values_or_of_users() -> None:
    for once in (False, True):
        tally = Tally("label", ALL, once)
        found = asked(lambda fleet, tally=tally: SURVEY.counts(fleet, 5, tally=tally, key=(0,)), tally)
        each = [np.bincount(DATA[user]["label"], minlength=5) for user in USERS]
        np.testing.assert_array_equal(found, np.sum([np.minimum(one, 1) if once else one for one in each], axis=0))


def test_labels_of_rows_are_a_column() -> None:
    tally = Tally("y", ALL)
    rows = Rows(np.zeros((3, 1), np.float32), np.array([1, 0, 1]))
    found = asked(lambda fleet: SURVEY.counts(fleet, 2, tally=tally, key=(0,)), tally, data=lambda user: rows)
    np.testing.assert_array_equal(found, [12, 24])


def test_of_each_user_only_so_many_values_count() -> None:
    tally = Tally("label", 4)
    found = asked(lambda fleet: SURVEY.counts(fleet, 5, tally=tally, key=(7,)), tally)
    expected = np.zeros(5, int)
    for user in USERS:
        values = DATA[user]["label"]
        if len(values) > 4:
            values = values[rng((7, user, "drawn")).choice(len(values), 4, replace=False)]
        expected += np.bincount(values, minlength=5)
    np.testing.assert_array_equal(found, expected)
    assert found.sum() == 3 + 4 * 11


def test_a_device_offers_no_looser_bound_than_its_own() -> None:
    wide = Tally("label", ALL)
    found = asked(lambda fleet: SURVEY.counts(fleet, 5, tally=wide, key=(0,)), Tally("label", 4))
    np.testing.assert_array_equal(found, np.zeros(5))


def test_quantiles_are_numpy_s_to_the_resolution() -> None:
    shares, tally = [0.0, 0.1, 0.5, 0.9, 1.0], Tally("age", ALL)
    found = asked(
        lambda fleet: SURVEY.quantiles(fleet, shares, low=-50, high=150, resolution=1e-3, tally=tally, key=(0,)), tally
    )
    np.testing.assert_allclose(found, np.quantile(pooled("age"), shares, method="inverted_cdf"), atol=1e-3)


def test_quantiles_outside_the_range_are_at_its_ends() -> None:
    tally = Tally("age", ALL)
    found = asked(
        lambda fleet: SURVEY.quantiles(fleet, [0.0, 1.0], low=40, high=45, resolution=0.01, tally=tally, key=(0,)),
        tally,
    )
    np.testing.assert_allclose(found, [40, 45], atol=0.01)


@pytest.mark.parametrize("threshold", [1, 12, 17, 40])
def test_heavy_hitters_are_exactly_those(threshold: int) -> None:
    spell = Spell("said", ALL)
    found = asked(lambda fleet: SURVEY.heavy_hitters(fleet, threshold, spell=spell, key=(0,)), spell)
    counted = Counter(word for user in USERS for word in DATA[user]["said"])
    assert found == {word: n for word, n in counted.items() if n >= threshold}
    assert list(found.values()) == sorted(found.values(), reverse=True)


def test_heavy_hitters_by_users() -> None:
    spell = Spell("said", ALL, once=True)
    found = asked(lambda fleet: SURVEY.heavy_hitters(fleet, 8, spell=spell, key=(0,)), spell)
    counted = Counter(word for user in USERS for word in set(DATA[user]["said"]))
    assert found == {word: n for word, n in counted.items() if n >= 8}


def test_one_vote_a_user_adds_up_to_the_users() -> None:
    spell = Spell("said", 1)
    found = asked(lambda fleet: SURVEY.heavy_hitters(fleet, 1, spell=spell, key=(3,)), spell)
    assert sum(found.values()) == len(USERS)


def test_a_device_that_lies_is_stopped_by_the_gate() -> None:
    """A bound of the norm at what an honest device can send; u11 has more values than that."""
    survey = Survey(Mean(), Gate(norm=20.0))
    tally, data = Tally("x", ALL), {user: {"x": np.zeros(21 if user == "u11" else 3)} for user in USERS}
    found = asked(lambda fleet: survey.counts(fleet, 1, tally=tally, key=(0,)), tally, data=data.__getitem__)
    np.testing.assert_array_equal(found, [33])


def test_questions_that_cannot_be_are_refused() -> None:
    tally, spell = Tally("age", 3), Spell("said", ALL)
    for shares, low, high, resolution, fault in (
        ([1.5], 0, 1, 0.1, r"quantiles \[1.5\]"),
        ([0.5], 1, 1, 0.1, "1 to 1 at a resolution of 0.1"),
        ([0.5], 0, 1, 0.0, "0 to 1 at a resolution of 0.0"),
    ):
        how: Any = {"low": low, "high": high, "resolution": resolution, "tally": tally, "key": (0,)}
        with pytest.raises(ConfigError, match=rf"^{fault}: "):
            asked(lambda fleet, shares=shares, how=how: SURVEY.quantiles(fleet, shares, **how), tally)
    with pytest.raises(ConfigError, match=r"^edges of shape \(2,\) that do not rise: "):
        asked(lambda fleet: SURVEY.histogram(fleet, [1, 1], tally=tally, key=(0,)), tally)
    with pytest.raises(ConfigError, match=r"^0 values of a user count: let one count at least$"):
        Tally("age", 0)
    with pytest.raises(ConfigError, match=r"^texts that are there 0 times: "):
        asked(lambda fleet: SURVEY.heavy_hitters(fleet, 0, spell=spell, key=(0,)), spell)
    with pytest.raises(DataError, match=r"^\d+ prefixes are frequent: "):
        asked(lambda fleet: SURVEY.heavy_hitters(fleet, 1, spell=spell, key=(0,), widest=2), spell)
    nothing: Any = {"age": np.zeros(0)}
    with pytest.raises(DataError, match=r"^quantiles of no values: "):
        asked(
            lambda fleet: SURVEY.quantiles(fleet, [0.5], low=0, high=1, resolution=0.1, tally=tally, key=(0,)),
            tally,
            data=lambda user: nothing,
        )


def test_a_device_refuses_what_it_cannot_read() -> None:
    with pytest.raises(DataError, match=r"^cloud asked for bins whose edges do not rise: "):
        Tally("age", 3)(Local(DATA["u0"]), {"edges": np.array([1.0, 0.0])}, (0,), "cloud")
    with pytest.raises(DataError, match=r"^cloud asked for prefixes that are float64: "):
        Spell("said", 3)(Local(DATA["u0"]), {"prefixes": np.zeros((1, 1))}, (0,), "cloud")
    with pytest.raises(DataError, match=r"^the data has no column 'name': "):
        Tally("name", 3)(Local(DATA["u0"]), {"edges": np.array([0.0, 1.0])}, (0,), "cloud")
