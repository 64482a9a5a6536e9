"""What the cloud sends down changes what a device knows."""

import numpy as np
import pytest

from duetto import tree as trees
from duetto.errors import ConfigError, DataError
from duetto.models import Mlp, Neighbours, Prototypes, embedded
from duetto.models.returns import by_prototype, mixed, nearest, prototypes
from duetto.types import Local, Rows

DRAW = np.random.default_rng(3)
CENTRES = np.array([[0, 0, 8], [0, 8, 0], [8, 0, 0], [8, 8, 8]], float)
LABELS = np.arange(80) % 4
X = (CENTRES[LABELS] + DRAW.normal(size=(80, 3))).astype(np.float32)
NET = Mlp((3,), 4, (16,))
PARAMS, LARGE = NET.init(0), NET.init(5)
CLOUD = Local(Rows(X, LABELS), {"params": PARAMS, "large": LARGE})


def test_prototypes_are_the_means_of_the_classes() -> None:
    known = prototypes(X, LABELS, 5)
    for each in range(4):
        np.testing.assert_allclose(known["sums"][each] / known["counts"][each], X[each == LABELS].mean(axis=0), 1e-5)
    assert known["counts"].tolist() == [20, 20, 20, 20, 0]


def test_a_device_whose_last_layer_knows_nothing_classifies_by_prototypes() -> None:
    _, sent = Prototypes(NET)(CLOUD, {}, (0,), "phone")
    sent = trees.decode(trees.encode(sent))
    new = (CENTRES[LABELS] + DRAW.normal(size=(80, 3))).astype(np.float32)
    mine = embedded(NET, PARAMS, new)
    before = (NET.logits(PARAMS, new).argmax(axis=1) == LABELS).mean()
    after = (by_prototype(sent, mine).argmax(axis=1) == LABELS).mean()
    assert after > 0.95 > before + 0.3


def test_prototypes_of_two_parties_add_up() -> None:
    parts = [prototypes(X[i::2], LABELS[i::2], 4) for i in (0, 1)]
    both = trees.add(*parts)
    whole = prototypes(X, LABELS, 4)
    np.testing.assert_allclose(both["sums"], whole["sums"])
    assert (both["counts"] == whole["counts"]).all()


def test_a_class_without_prototype_is_never_answered() -> None:
    known = prototypes(X[LABELS < 2], LABELS[LABELS < 2], 4)
    logits = by_prototype(known, X)
    assert np.isneginf(logits[:, 2:]).all()
    expected = -((X[7].astype(float) - X[LABELS == 1].astype(float).mean(axis=0)) ** 2).sum()
    assert logits[7, 1] == pytest.approx(expected)


def test_the_nearest_by_brute_force() -> None:
    points, queries = DRAW.normal(size=(30, 4)), DRAW.normal(size=(7, 4))
    for query, found in zip(queries, nearest(points, queries, 3), strict=True):
        assert found.tolist() == sorted(range(30), key=lambda i: ((points[i] - query) ** 2).sum())[:3]
    assert nearest(points[:2], queries, 5).shape == (7, 2)


def test_neighbours_come_with_the_large_models_answers() -> None:
    shown = embedded(NET, PARAMS, X[:2] + 0.01)
    local, sent = Neighbours(NET, NET, 5)(CLOUD, {"embedding": shown}, (0,), "phone")
    assert local is CLOUD
    rows = np.unique(nearest(embedded(NET, PARAMS, X), shown, 5))
    np.testing.assert_array_equal(sent["x"], X[rows])
    np.testing.assert_allclose(sent["logits"], NET.logits(LARGE, X[rows]), atol=1e-6)
    assert Neighbours(NET, NET, 5).work(CLOUD, {}) == NET.work(80)


def test_mixtures_lie_between_their_rows() -> None:
    x, logits = np.array([[0.0], [1.0]], np.float32), np.array([[30.0, 0.0], [0.0, 30.0]])
    rows, labels = mixed(x, logits, 500, 1.0, (1,))
    assert ((rows >= 0) & (rows <= 1)).all()
    # A row's share of the second is its second class's probability.
    np.testing.assert_allclose(np.exp(labels[:, 1]), rows[:, 0], atol=1e-6)
    assert rows.std() > 0.3
    again, _ = mixed(x, logits, 500, 1.0, (1,))
    np.testing.assert_array_equal(rows, again)


def test_bad_input() -> None:
    with pytest.raises(DataError):
        prototypes(X, LABELS[:-1], 4)
    with pytest.raises(DataError):
        prototypes(X, LABELS, 3)
    with pytest.raises(DataError):
        prototypes(X[:0], LABELS[:0], 4)
    with pytest.raises(DataError):
        by_prototype(prototypes(X, LABELS, 4), X[:, :2])
    with pytest.raises(DataError):
        by_prototype({"sums": np.zeros((4, 3)), "counts": np.zeros(4, int)}, X)
    with pytest.raises(DataError):
        nearest(X, X[:, :2], 1)
    with pytest.raises(DataError):
        nearest(X, X * np.nan, 1)
    with pytest.raises(ConfigError):
        Neighbours(NET, NET, 0)
    with pytest.raises(DataError):
        Neighbours(NET, NET, 1)(CLOUD, {}, (0,), "phone")
    with pytest.raises(DataError):
        Prototypes(NET)(Local(None, {"params": PARAMS}), {}, (0,), "phone")
    with pytest.raises(ConfigError):
        Prototypes(NET, "other")(CLOUD, {}, (0,), "phone")
    with pytest.raises(ConfigError):
        mixed(X, np.zeros((80, 4)), 3, 0.0, (0,))
    with pytest.raises(DataError):
        mixed(X, np.zeros((3, 4)), 3, 1.0, (0,))
