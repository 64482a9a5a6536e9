"""Heads: numpy's evaluation against the library that fitted them, and against a few lines of arithmetic."""

from typing import Any

import numpy as np
import pytest

from duetto import tree as trees
from duetto.errors import ConfigError, DataError
from duetto.policies import Boosted, Head, Logistic, Neighbours, Network

DRAW = np.random.default_rng(2)
N = 400
X = DRAW.normal(size=(N, 3))
ODDS = 2 * X[:, 0] - X[:, 1]
RIGHT = (DRAW.random(N) < 1 / (1 + np.exp(-ODDS))).astype(float)
VALUE = ODDS + 0.1 * DRAW.normal(size=N)
SHARES = np.full(N, 1 / N)
HEADS: list[Head] = [Logistic(), Neighbours(20), Boosted(40, 3), Network(8)]


@pytest.mark.parametrize("head", HEADS, ids=lambda head: type(head).__name__)
def test_it_learns_a_chance_and_a_value(head: Head) -> None:
    chance = head.predict(head.fit(X, RIGHT, SHARES), X)
    assert ((chance >= 0) & (chance <= 1)).all()
    assert np.corrcoef(chance, 1 / (1 + np.exp(-ODDS)))[0, 1] > 0.85
    assert chance.mean() == pytest.approx(RIGHT.mean(), abs=0.05)
    value = head.predict(head.fit(X, VALUE, SHARES), X)
    assert np.corrcoef(value, ODDS)[0, 1] > 0.9


@pytest.mark.parametrize("head", HEADS, ids=lambda head: type(head).__name__)
def test_it_is_a_tree_and_one_item_is_as_many(head: Head) -> None:
    fitted = trees.decode(trees.encode(head.fit(X, RIGHT, SHARES)))
    whole = head.predict(fitted, X[:20])
    assert np.concatenate([head.predict(fitted, X[i : i + 1]) for i in range(20)]) == pytest.approx(whole, abs=1e-6)
    assert head.predict(fitted, X[:0]).shape == (0,)


@pytest.mark.parametrize("head", HEADS, ids=lambda head: type(head).__name__)
def test_one_quality_is_predicted_as_it_is(head: Head) -> None:
    fitted = head.fit(X, np.full(N, 0.25), SHARES)
    assert head.predict(fitted, X[:3]).tolist() == [0.25] * 3


@pytest.mark.parametrize("quality", [RIGHT, VALUE], ids=["chance", "value"])
@pytest.mark.parametrize("depth", [1, 3])
def test_boosted_trees_say_what_scikit_learn_says(quality: np.ndarray, depth: int) -> None:
    from sklearn.ensemble import GradientBoostingClassifier, GradientBoostingRegressor

    head = Boosted(30, depth)
    fitted = head.fit(X, quality, SHARES)
    kind: Any = GradientBoostingClassifier if quality is RIGHT else GradientBoostingRegressor
    theirs = kind(n_estimators=30, max_depth=depth, learning_rate=0.1, min_samples_leaf=20, subsample=0.5,
                  max_features="sqrt", random_state=0).fit(X, quality, sample_weight=SHARES * N)  # fmt: skip
    wanted = theirs.predict_proba(X)[:, 1] if quality is RIGHT else theirs.predict(X)
    assert head.predict(fitted, X) == pytest.approx(wanted, abs=1e-9)


def test_ridge_is_its_normal_equation() -> None:
    fitted = Logistic(50.0).fit(X, VALUE, SHARES)["plain"]
    centred, wanted = X - X.mean(0), VALUE - VALUE.mean()
    weight = np.linalg.solve(centred.T @ centred + 50.0 * N / 1000 * np.eye(3), centred.T @ wanted)
    assert fitted["weight"] == pytest.approx(weight)
    assert float(fitted["bias"]) == pytest.approx(VALUE.mean() - X.mean(0) @ weight)


def test_logistic_is_where_its_loss_is_flat() -> None:
    strength = 20.0
    fitted = Logistic(strength).fit(X, RIGHT, SHARES)["logit"]
    off = 1 / (1 + np.exp(-(X @ fitted["weight"] + fitted["bias"]))) - RIGHT
    slope = X.T @ off / N + strength / 1000 * fitted["weight"]
    assert slope == pytest.approx(np.zeros(3), abs=1e-4)
    assert off.mean() == pytest.approx(0, abs=1e-4)


def test_neighbours_are_the_nearest_shrunk_to_the_mean() -> None:
    fitted = Neighbours(5).fit(X, VALUE, SHARES)
    near = np.argsort(((X - X[0]) ** 2).sum(1))[:5]
    assert Neighbours(5).predict(fitted, X[:1])[0] == pytest.approx((VALUE[near].sum() + VALUE.mean()) / 6)
    everybody = Neighbours(N + 1)
    assert everybody.predict(everybody.fit(X, VALUE, SHARES), X[:1])[0] == pytest.approx(VALUE.mean())
    assert len(Neighbours(5, 100).fit(X, VALUE, SHARES)["plain"]["items"]) == 100


def test_bad_numbers_are_refused() -> None:
    for made in (lambda: Logistic(0), lambda: Neighbours(0), lambda: Boosted(0), lambda: Network(0)):
        with pytest.raises(ConfigError):
            made()
    with pytest.raises(DataError, match="NaN"):
        Logistic().fit(X * np.nan, RIGHT, SHARES)
    with pytest.raises(DataError, match="NaN"):
        Logistic().fit(X, RIGHT * np.nan, SHARES)
    with pytest.raises(DataError, match="one row"):
        Logistic().fit(X[:0], RIGHT[:0], SHARES[:0])
