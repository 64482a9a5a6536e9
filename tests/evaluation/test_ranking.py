"""Ranking: lists short enough to order by hand, and AUC by counting pairs."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from duetto.errors import ConfigError, DataError
from duetto.evaluation import ranking, users

SCORES = np.array([[0.9, 0.1, 0.5, 0.3], [0.2, 0.2, 0.1, 0.2], [4.0, 3.0, 2.0, 1.0]])


def test_a_rank_is_how_many_stand_before() -> None:
    # 0.5 has 0.9 before it; 0.2 is tied with two others, which count against it; 1.0 is last of four
    assert ranking.ranks(SCORES, np.array([2, 1, 3])).tolist() == [1, 2, 3]


def test_what_is_left_out_stands_before_nobody() -> None:
    out = np.zeros((3, 4), bool)
    out[0, 0] = out[1, 0] = out[2, 3] = True  # the last one is its target, which stays a candidate
    assert ranking.ranks(SCORES, np.array([2, 1, 3]), out).tolist() == [0, 1, 3]
    infinite = np.where(out, -np.inf, SCORES)
    infinite[2, 3] = 1.0
    assert ranking.ranks(infinite, np.array([2, 1, 3]), out).tolist() == [0, 1, 3]
    assert out.sum() == 3, "the caller's mask stays as it was"


def test_hits_and_gain_by_hand() -> None:
    ranks = np.array([0, 1, 2, 9, 10])
    assert ranking.hit_rate(ranks).tolist() == [1, 1, 1, 1, 0]
    assert ranking.hit_rate(ranks, 2).tolist() == [1, 1, 0, 0, 0]
    np.testing.assert_allclose(ranking.ndcg(ranks), [1, 1 / np.log2(3), 0.5, 1 / np.log2(11), 0])
    assert ranking.ndcg(ranks, 1).tolist() == [1, 0, 0, 0, 0]


def pairs(scores: np.ndarray, positive: np.ndarray) -> float:
    """The share of pairs in the right order, by looking at each."""
    above = scores[positive][:, None] - scores[~positive][None]
    return float(((above > 0) + 0.5 * (above == 0)).mean())


@given(st.integers(0, 2**32 - 1), st.integers(2, 60))
def test_auc_counts_pairs_and_gauc_weighs_by_impressions(seed: int, n: int) -> None:
    draw = np.random.default_rng(seed)
    scores, user = draw.integers(0, 5, n) / 4, draw.integers(0, 4, n)
    positive = draw.random(n) < 0.5
    mixed = [u for u in np.unique(user) if 0 < positive[user == u].mean() < 1]
    if not mixed:
        return
    got = ranking.auc(scores, positive, user)
    assert got.names.tolist() == mixed
    own = np.array([pairs(scores[user == u], positive[user == u]) for u in mixed])
    np.testing.assert_allclose(got.mean, own, atol=1e-12)
    weights = np.array([(user == u).sum() for u in mixed])
    np.testing.assert_allclose(users.example_weighted(got), (own * weights).sum() / weights.sum(), atol=1e-12)


def test_auc_takes_names_and_labels_of_one_and_zero() -> None:
    got = ranking.auc(np.array([1.0, 2, 3, 0, 5]), np.array([0, 1, 0, 1, 1]), np.array(["b", "b", "b", "a", "a"]))
    assert got.names.tolist() == ["b"]  # all of a's are positive
    assert (got.count.tolist(), got.mean.tolist()) == ([3], [0.5])  # 2 > 1, 2 < 3


def test_what_does_not_fit_is_told() -> None:
    with pytest.raises(DataError, match="targets"):
        ranking.ranks(SCORES, np.array([0, 1]))
    with pytest.raises(DataError, match="finite"):
        ranking.ranks(np.full((1, 2), np.nan), np.array([0]))
    with pytest.raises(ConfigError, match="k of at least 1"):
        ranking.hit_rate(np.array([0]), 0)
    with pytest.raises(DataError, match="impression"):
        ranking.auc(np.zeros(3), np.zeros(2), np.zeros(3))
    with pytest.raises(DataError, match="finite"):
        ranking.auc(np.array([np.inf, 0]), np.array([0, 1]), np.zeros(2))
    with pytest.raises(DataError, match="both kinds"):
        ranking.auc(np.zeros(2), np.ones(2), np.zeros(2))
