"""Membership: the scores by hand, and a model that has learned by heart betrays whom it has seen."""

import numpy as np
import pytest
from scipy import stats

from duetto.attacks.membership import Shadows, by_loss, by_user, confidence, offline, online
from duetto.errors import ConfigError, DataError
from duetto.evaluation.leakage import auc, tpr_at
from duetto.models import Mlp
from duetto.training import Adam, Client, CrossEntropy, sequential

DRAW = np.random.default_rng(0)


def test_confidence_is_the_logit_of_the_label() -> None:
    logits, y = DRAW.normal(size=(50, 4)) * 3, DRAW.integers(0, 4, 50)
    p = (np.exp(logits) / np.exp(logits).sum(1, keepdims=True))[np.arange(50), y]
    np.testing.assert_allclose(confidence(logits, y), np.log(p / (1 - p)), rtol=1e-9)
    np.testing.assert_allclose(by_loss(logits, y), np.log(p), rtol=1e-9)
    assert np.isfinite(confidence(np.array([[1e4, -1e4]]), np.array([0]))).all()


def test_scores_are_those_of_normal_distributions() -> None:
    shadows, inside = DRAW.normal(size=(12, 30)), np.arange(12)[:, None] % 2 == np.arange(30) % 2
    target = DRAW.normal(size=30)
    found, plain = online(target, shadows, inside, common=False), offline(target, np.where(inside, np.nan, shadows))
    for i in range(30):
        had, lacked = shadows[inside[:, i], i], shadows[~inside[:, i], i]
        one = stats.norm(had.mean(), had.std(ddof=1)).logpdf(target[i])
        two = stats.norm(lacked.mean(), lacked.std(ddof=1)).logpdf(target[i])
        assert found[i] == pytest.approx(one - two)
        assert plain[i] == pytest.approx((target[i] - lacked.mean()) / lacked.std(ddof=1))
    spread = [np.sqrt(np.mean([shadows[w[:, i], i].var(ddof=1) for i in range(30)])) for w in (inside, ~inside)]
    mean = [np.array([shadows[w[:, i], i].mean() for i in range(30)]) for w in (inside, ~inside)]
    expected = stats.norm(mean[0], spread[0]).logpdf(target) - stats.norm(mean[1], spread[1]).logpdf(target)
    np.testing.assert_allclose(online(target, shadows, inside), expected)


def test_rows_that_are_hard_for_all_are_no_members_to_it() -> None:
    """Why one threshold for all rows is weak: what is easy for everybody is taken for a member."""
    n, members = 4000, np.arange(4000) % 2 == 0
    ease = DRAW.normal(size=n) * 5
    target = ease + members + 0.3 * DRAW.normal(size=n)
    inside = DRAW.random((16, n)) < 0.5
    shadows = ease + inside + 0.3 * DRAW.normal(size=(16, n))
    assert auc(target, members) < 0.6
    assert tpr_at(target, members, 0.001) < 0.02
    assert auc(online(target, shadows, inside), members) > 0.95
    assert tpr_at(online(target, shadows, inside), members, 0.001) > 0.2
    assert auc(offline(target, np.where(inside, np.nan, shadows)), members) > 0.95


def test_a_model_that_learned_by_heart_is_found_out() -> None:
    x = DRAW.normal(size=(80, 5)).astype(np.float32)
    y = DRAW.integers(0, 2, 80)  # nothing to learn but by heart
    client = Client(Mlp((5,), 2, (64,)), (CrossEntropy(),), Adam(1e-2), 40, 20)
    member = np.arange(80) < 40
    params = sequential.run(client, {"params": client.net.init(1)}, {"x": x[member], "y": y[member]}, (0,)).params
    logits = client.net.logits(params, x)
    shadows, inside = Shadows(client, 4).train(x, y, (1,))
    assert (inside.sum(0) == 2).all()
    assert (inside.sum(1) == 40).all()
    scores = online(confidence(logits, y), shadows, inside)
    assert auc(scores, member) > 0.7
    assert auc(by_loss(logits, y), member) > 0.7
    again, _ = Shadows(client, 4).train(x, y, (1,))
    np.testing.assert_array_equal(again, shadows)


def test_users_are_means_of_their_rows() -> None:
    names, found = by_user(np.array([1.0, 3.0, 5.0]), np.array(["b", "a", "b"]))
    assert names.tolist() == ["a", "b"]
    np.testing.assert_allclose(found, [3, 3])


def test_bad_input_is_one_clear_line() -> None:
    with pytest.raises(DataError, match="classes"):
        confidence(np.zeros((2, 3)), np.zeros(3, int))
    with pytest.raises(DataError, match="more shadows"):
        offline(np.zeros(2), np.full((3, 2), np.nan))
    with pytest.raises(ConfigError, match="even"):
        Shadows(Client(Mlp((5,), 2), (CrossEntropy(),), Adam(1e-2), 1, 1), 3)
    with pytest.raises(DataError, match="one each"):
        by_user(np.zeros(2), np.zeros(3))
