"""Krum: scores by hand, what it needs, and how far an attacker that it keeps can be."""

from functools import reduce

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from duetto.aggregation import Krum
from duetto.errors import ConfigError, DataError
from duetto.types import Reply


def krum(rows: np.ndarray, aggregator: Krum) -> np.ndarray:
    """Of one reply a row."""
    replies = [Reply(f"u{i:03d}", {"w": row[:2], "v": row[2:]}) for i, row in enumerate(rows)]
    tree = aggregator.finish(reduce(aggregator.add, replies, aggregator.init()))[1]
    return np.concatenate([tree["w"], tree["v"]])


def by_hand(rows: np.ndarray, attackers: int) -> np.ndarray:
    """The rows from the best score to the worst."""
    n = len(rows)
    scores = []
    for i in range(n):
        others = sorted(((rows[i] - rows[j]) ** 2).sum() for j in range(n) if j != i)
        scores.append(sum(others[: n - attackers - 2]))
    return np.argsort(scores)


@pytest.mark.parametrize(("n", "attackers"), [(3, 0), (5, 1), (9, 2), (12, 4)])
def test_it_is_the_reply_that_is_closest_to_its_neighbours(n: int, attackers: int) -> None:
    rows = np.random.default_rng(n).normal(size=(n, 6))
    best = by_hand(rows, attackers)
    assert krum(rows, Krum(attackers)).tolist() == rows[best[0]].tolist()
    for keep in range(2, n - attackers + 1):
        expected = rows[best[:keep]].mean(axis=0)
        np.testing.assert_allclose(krum(rows, Krum(attackers, keep)), expected, rtol=1e-12)


def test_of_equal_scores_the_first_name_wins() -> None:
    assert krum(np.array([[1.0] * 3, [0.0] * 3, [1.0] * 3, [0.0] * 3]), Krum(0)).tolist() == [1.0] * 3
    near = np.tile(np.eye(3), (32, 1))  # so many that an unstable sort would change their order
    rows = np.stack([near, 10 * near], axis=1).reshape(-1, 3)
    assert krum(rows, Krum(0, keep=3)).tolist() == pytest.approx([1 / 3] * 3)


def test_to_keep_everybody_is_the_mean() -> None:
    rows = np.random.default_rng(0).normal(size=(6, 4))
    np.testing.assert_allclose(krum(rows, Krum(0, keep=6)), rows.mean(axis=0), rtol=1e-12)


@given(st.integers(0, 3), st.integers(0, 4), st.integers(0, 2**32), st.floats(-3, 300), st.data())
def test_whoever_is_kept_is_near_an_honest_one(f: int, more: int, seed: int, power: float, data: st.DataObject) -> None:
    """A kept attacker has a score of at most that of some honest one that is not kept: (n - f - 2) r^2, for honest
    ones no further than r apart. At least n - 2f - 1 of its neighbours are honest, so one is within the bound."""
    n, draw = 2 * f + 3 + more, np.random.default_rng(seed)
    keep = data.draw(st.integers(1, n - f))
    rows = draw.normal(size=(n, 5))
    honest, centre = rows[f:], rows[f:].mean(axis=0)
    rows[:f] = centre + draw.normal(size=(1, 5)) * 10**power + draw.normal(size=(f, 5)) * 1e-3  # close to each other
    radius = max(np.linalg.norm(a - b) for a in honest for b in honest)
    bound = radius * np.sqrt((n - f - 2) / (n - 2 * f - 1))
    furthest = max(np.linalg.norm(row - centre) for row in honest)
    assert np.linalg.norm(krum(rows, Krum(f, keep)) - centre) <= (bound + furthest) * (1 + 1e-9)


@pytest.mark.parametrize(("krums", "least"), [(Krum(0), 3), (Krum(2), 7), (Krum(1, 3), 5), (Krum(1, 8), 9)])
def test_it_says_how_many_replies_it_needs(krums: Krum, least: int) -> None:
    assert krums.least == least
    rows = np.random.default_rng(0).normal(size=(least, 3))
    krum(rows, krums)
    with pytest.raises(DataError, match=f"^{least - 1} replies, where .* needs {least}: ask more peers") as caught:
        krum(rows[1:], krums)
    assert repr(krums) in str(caught.value)


@pytest.mark.parametrize("numbers", [(-1, 1), (1, 0)])
def test_bad_numbers_are_errors(numbers: tuple[int, int]) -> None:
    with pytest.raises(ConfigError, match="use at least 0 and at least 1"):
        Krum(*numbers)


def test_attackers_have_no_default() -> None:
    with pytest.raises(TypeError):
        Krum()
