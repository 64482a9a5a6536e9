"""Partitions: the same laws for all of them, and what each of them promises."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from duetto.errors import ConfigError
from duetto.tasks import partition
from duetto.tasks.by_user import ByUser, by_name
from duetto.tasks.partition import Dirichlet, FeatureShift, Natural, Partition, Quantity, Shards, named

Y = np.random.default_rng(0).permutation(np.repeat([0, 1, 2, 3], [500, 300, 200, 200]))
IMAGES = np.arange(len(Y) * 4, dtype=np.float32).reshape(-1, 1, 2, 2)  # every row is told by any of its pixels


def made(users: int, shape: float) -> list[Partition]:
    """One of each that invents users."""
    return [
        Dirichlet(users, shape),
        Quantity(users, shape),
        Shards(users, 1 + round(shape) % 3),
        FeatureShift(users),
        FeatureShift(users, "rotation"),
    ]


# -------------------------------------------------------------------------------------------------------------- laws


@given(
    st.lists(st.integers(0, 4), min_size=3, max_size=60),
    st.integers(1, 20),
    st.sampled_from([1e-9, 0.1, 1.0, 1e9]),
    st.integers(0, 5),
)
def test_every_row_has_one_user_and_every_user_a_row(labels: list[int], users: int, shape: float, seed: int) -> None:
    users = min(users, len(labels) // 3)
    x = IMAGES[: len(labels)]
    for how in made(users, shape):
        people = how((x, labels), seed)  # ByUser itself refuses users without rows
        assert people.users == tuple(f"user-{k:0{len(str(users - 1))}d}" for k in range(users))
        assert people.y.tolist() == labels
        assert sorted(np.concatenate([people.rows(user) for user in people.users])) == list(range(len(labels)))
        if not isinstance(how, FeatureShift):
            assert np.array_equal(people.x, x)


def test_the_same_seed_is_the_same_partition_and_another_is_another() -> None:
    for how in made(10, 1.0):
        one, again, other = (how((IMAGES, Y), seed) for seed in (0, 0, 1))
        assert np.array_equal(one.user, again.user)
        assert np.array_equal(one.x, again.x)
        assert not np.array_equal(one.user, other.user)


def test_the_users_that_data_have_change_nothing_but_for_natural() -> None:
    names = np.random.default_rng(1).choice(["ann", "ben", "eve"], len(Y))
    data = by_name(IMAGES, Y, names, tuple("abcd"))
    for how in made(10, 1.0):
        people = how(data, 3)
        assert np.array_equal(people.user, how((IMAGES, Y), 3).user)
        assert people.classes == data.classes
    assert Natural()(data, 0) is data


def test_more_users_than_rows_are_refused() -> None:
    for how in made(11, 1.0):
        with pytest.raises(ConfigError, match="10 rows are too few for"):
            how((IMAGES[:10], Y[:10]), 0)
    with pytest.raises(ConfigError, match="10 rows are too few for 12 shards: ask for fewer shards"):
        Shards(4, 3)((IMAGES[:10], Y[:10]), 0)
    with pytest.raises(ConfigError, match="no users of their own"):
        Natural()((IMAGES, Y), 0)


def test_settings_that_mean_nothing_are_refused() -> None:
    for bad in (0.0, -1.0, 1e-12, 1e12, math.inf, math.nan):
        for call in (Dirichlet, Quantity):
            with pytest.raises(ConfigError, match=r"alpha is .*: give a number from 1e-09 to 1e\+09"):
                call(3, bad)
        with pytest.raises(ConfigError, match="strength is"):
            FeatureShift(3, "noise", bad)
    for call in (Dirichlet, Quantity, Shards, FeatureShift):
        with pytest.raises(ConfigError, match="users is 0: give a number from 1 to"):
            call(0)
    with pytest.raises(ConfigError, match="per_user is 0"):
        Shards(3, 0)
    with pytest.raises(ConfigError, match="no shift is called 'fog'"):
        FeatureShift(3, "fog")


# --------------------------------------------------------------------------------------------------- what each promises


def test_dirichlet_deals_equally_many_rows() -> None:
    for users in (1, 7, 100):
        for alpha in (1e-9, 0.3, 1e9):
            rows = Dirichlet(users, alpha)((IMAGES, Y), 0).counts()
            assert rows.max() - rows.min() <= 1


def test_dirichlet_goes_from_one_class_a_user_to_the_common_mix() -> None:
    shares = np.bincount(Y) / len(Y)

    def mixes(alpha: float) -> np.ndarray:
        table = partition.counts(Dirichlet(12, alpha)((IMAGES, Y), 1))
        return table / table.sum(1, keepdims=True)

    # With a large alpha a user's 100 rows are a multinomial sample of the shares: 5 standard deviations bound it.
    assert (np.abs(mixes(1e6) - shares) < 5 * np.sqrt(shares * (1 - shares) / 100)).all()
    assert (mixes(1e-4).max(1) > 0.95).sum() >= 8  # all but those who come when their class is used up


def test_dirichlet_states_alpha_a_class() -> None:
    """The first user's mix of k equal classes is a draw from Dirichlet(alpha, ..., alpha), seen through 2,000 rows."""
    y = np.tile(np.arange(5), 4000)
    x = np.zeros((len(y), 1), np.float32)
    alpha, seeds = 0.7, 300
    first = np.array([partition.counts(Dirichlet(10, alpha)((x, y), seed))[0] / 2000 for seed in range(seeds)])
    # Of Dirichlet(a, ..., a) over k classes, a share has the variance (1/k)(1 - 1/k) / (k a + 1).
    expected = 0.2 * 0.8 / (5 * alpha + 1)
    assert abs(first.var() / expected - 1) < 0.15
    assert abs(first.var() / (0.2 * 0.8 / (alpha + 1)) - 1) > 0.4, "which is Hsu's own alpha"


def test_quantity_deals_shares_of_the_rows_with_labels_alike() -> None:
    def sizes(alpha: float, seed: int) -> np.ndarray:
        return Quantity(10, alpha)((IMAGES, Y), seed).counts()

    assert sizes(1e9, 0).tolist() == [120] * 10
    assert all(sizes(1e-9, seed).max() == len(Y) - 9 for seed in range(5)), "one has all, the others their one row"
    # A share of Dirichlet(a, ..., a) over n users has the variance (1/n)(1 - 1/n) / (n a + 1), here of all rows but 10.
    drawn = np.array([(sizes(0.5, seed) - 1) / (len(Y) - 10) for seed in range(300)])
    assert abs(drawn.var() / (0.1 * 0.9 / 6) - 1) < 0.15
    people = Quantity(3, 5.0)((IMAGES, Y), 0)
    table = partition.counts(people)
    mixes, shares = table / table.sum(1, keepdims=True), np.bincount(Y) / len(Y)
    assert (np.abs(mixes - shares) < 5 * np.sqrt(shares * (1 - shares) / table.sum(1, keepdims=True))).all()


def test_shards_are_runs_of_the_rows_sorted_by_label() -> None:
    y = np.random.default_rng(0).permutation(np.repeat(np.arange(10), 60))
    x = np.arange(600, dtype=np.float32)[:, None]
    people = Shards(30, 2)((x, y), 0)  # 60 shards of 10: none has two classes
    table = partition.counts(people)
    assert (people.counts() == 20).all()
    assert set(table.ravel().tolist()) <= {0, 10, 20}
    assert (table > 0).sum(1).max() == 2
    assert (partition.counts(Shards(30, 1)((x, y), 0)) > 0).sum(1).tolist() == [1] * 30
    assert np.array_equal(Shards(1, 5)((x, y), 0).user, np.zeros(600))
    # Within a class, who has which row is by chance and not by the order of the file.
    first = people.user[np.flatnonzero(y == 0)]
    assert len(set(first[:10].tolist())) > 1


def test_noise_grows_from_user_to_user() -> None:
    x = np.full((400, 1, 10, 10), 0.5, np.float32)
    people = FeatureShift(4, strength=0.2)((x, np.arange(400) % 4), 0)
    for k in range(4):
        noise = people.x[people.rows(k)] - 0.5
        variance = 0.2 * (k + 1) / 4
        n = noise.size
        assert abs(noise.var() / variance - 1) < 5 * math.sqrt(2 / n)
        assert abs(noise.mean()) < 5 * math.sqrt(variance / n)
    assert people.counts().tolist() == [100] * 4
    assert (x == 0.5).all(), "what was given is left as it was"


def test_rotation_turns_a_quarter_of_the_users_each() -> None:
    people = FeatureShift(6, "rotation")((IMAGES, Y), 0)
    for row, k in enumerate(people.user):
        (a, b), (c, d) = IMAGES[row, 0]
        turned = {0: [[a, b], [c, d]], 1: [[b, d], [a, c]], 2: [[d, c], [b, a]], 3: [[c, a], [d, b]]}
        assert people.x[row, 0].tolist() == turned[k % 4]
    for x in (np.zeros((9, 4), np.float32), np.zeros((9, 1, 2, 3), np.float32)):
        with pytest.raises(ConfigError, match="cannot be turned"):
            FeatureShift(2, "rotation")((x, [0] * 9), 0)


# -------------------------------------------------------------------------------------------------------------- names


def test_partitions_are_named() -> None:
    assert named("natural", 5) == Natural()
    assert named("dirichlet:0.1", 5) == Dirichlet(5, 0.1)
    assert named("quantity:2", 5) == Quantity(5, 2.0)
    assert named("shards:3", 5) == Shards(5, 3)
    assert named("shift:0.3", 5) == FeatureShift(5, "noise", 0.3)
    assert named("shift:rotation", 5) == FeatureShift(5, "rotation")
    for text in partition.NAMES:  # the numbers there are the defaults
        if text != "shift:rotation":
            assert named(text, 5) == named(text.partition(":")[0], 5)


@pytest.mark.parametrize(
    "text", ["", "dirichlet:", "dirichlet:x", "shards:2.5", "natural:1", "shift:fog", "Dirichlet", ":0.1"]
)
def test_names_that_mean_nothing_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="no partition is called") as caught:
        named(text, 5)
    assert "natural, dirichlet:0.5" in caught.value.remedy


def test_a_setting_out_of_range_is_told_as_such() -> None:
    with pytest.raises(ConfigError, match="alpha is -1"):
        named("dirichlet:-1", 5)


def test_each_says_in_a_sentence_what_it_does() -> None:
    said = [str(how) for how in (Natural(), *made(7, 0.25))]
    assert len(set(said)) == len(said)
    assert all("7 users" in sentence and "\n" not in sentence for sentence in said[1:])
    assert "0.25" in said[1]


# --------------------------------------------------------------------------------------------------------------- skew


def test_skew_is_what_its_words_say() -> None:
    # ann: 2 of a, 2 of b; ben: 4 of a; cid: 1 of c.
    data = by_name(np.zeros((9, 1), np.float32), [0, 0, 1, 1, 0, 0, 0, 0, 2], list("aaaabbbbc"), tuple("abc"))
    assert partition.counts(data).tolist() == [[2, 2, 0], [4, 0, 0], [0, 0, 1]]
    whole = np.array([6, 2, 1]) / 9
    shares = np.array([[0.5, 0.5, 0], [1, 0, 0], [0, 0, 1]])
    found = partition.skew(data)
    assert (found.rows_median, found.rows_ratio) == (4, 4)
    assert found.distance == pytest.approx((np.abs(shares - whole).sum(1) / 2).mean())
    assert found.classes == pytest.approx((2 + 1 + 1) / 3)


def test_users_alike_have_no_skew() -> None:
    one = ByUser(
        np.zeros((4, 1), np.float32), np.array([0, 1, 0, 1]), np.array([0, 0, 1, 1], np.int32), ("a", "b"), ("x", "y")
    )
    assert partition.skew(one) == partition.Skew(2.0, 1.0, 0.0, pytest.approx(2.0))
