import itertools

import numpy as np
import pytest

from duetto.errors import ConfigError, DataError
from duetto.evaluation import users

KEY = (0, "test")


def fleet(u=25, seed=0):
    g = np.random.default_rng(seed)
    user = np.repeat(np.arange(u), g.integers(5, 30, u))
    g.shuffle(user)
    skill = g.uniform(0.5, 1, u)
    return (g.random(len(user)) < skill[user]).astype(int), user


def test_statistics_are_what_a_loop_over_users_gives():
    correct, user = fleet()
    each = np.array([correct[user == name].mean() for name in sorted(set(user.tolist()))])
    by = users.by(correct, user)
    np.testing.assert_allclose(by.mean, each)
    assert users.example_weighted(by) == correct.mean()
    assert users.user_mean(by) == pytest.approx(each.mean())
    assert users.worst(by, 0.1) == pytest.approx(np.sort(each)[:3].mean())  # 2.5 users are 3
    assert users.deviation(by) == pytest.approx(np.sqrt(((each - each.mean()) ** 2).mean()))
    assert users.jain(by) == pytest.approx(each.sum() ** 2 / (25 * (each**2).sum()))


def test_names_may_be_texts_and_order_is_theirs():
    by = users.by([1, 0, 1], ["b", "a", "b"])
    assert by.names.tolist() == ["a", "b"]
    assert by.count.tolist() == [1, 2]
    assert by.total.tolist() == [0, 2]
    assert len(by) == 2


@pytest.mark.parametrize(("u", "share", "group"), [(8, 0.1, 1), (30, 0.1, 3), (31, 0.1, 4), (10, 0.3, 3), (5, 1.0, 5)])
def test_the_worst_share_is_rounded_up(u, share, group):
    accuracy = np.arange(u) / u
    by = users.PerUser(np.arange(u), np.ones(u), accuracy)
    assert users.worst(by, share) == pytest.approx(accuracy[:group].mean())


def test_fairness_at_its_ends():
    def index(values):
        return float(users.jain(users.PerUser(np.arange(4), np.ones(4), np.array(values))))

    assert index([0.7] * 4) == pytest.approx(1)
    assert index([1.0, 0, 0, 0]) == pytest.approx(0.25)
    assert index([0.0] * 4) == 1


@pytest.mark.parametrize(
    ("correct", "user"), [([], []), ([1, 0], [1]), ([1, np.nan], [1, 1]), ([[1], [0]], [[1], [1]])]
)
def test_what_cannot_be_added_up_is_refused(correct, user):
    with pytest.raises(DataError):
        users.by(correct, user)


@pytest.mark.parametrize("share", [0, -0.1, 1.1])
def test_no_share_is_refused(share):
    with pytest.raises(ConfigError, match="share"):
        users.worst(users.by(*fleet()), share)


def test_gain_is_per_user_and_needs_the_same_users():
    after, before = users.by([1, 1, 0], [0, 1, 1]), users.by([0, 1, 0], [0, 1, 1])
    assert users.gain(after, before).tolist() == [1, 0]
    with pytest.raises(DataError, match="different users"):
        users.gain(after, users.by([1, 1], [0, 2]))


def test_percentiles():
    assert users.percentiles(np.arange(101.0)) == (50.0, 95.0)
    with pytest.raises(DataError):
        users.percentiles([])
    with pytest.raises(DataError):
        users.percentiles([1.0, np.inf])


def test_signs_of_a_failure():
    assert users.noniid_gap([0.9, 0.8], [0.5, 0.7]) == pytest.approx(0.25)
    assert users.forgetting([0.9, 0.8], [0.5, 0.9]) == pytest.approx(0.15)
    assert users.communication_share([1, 2], [4, 2]) == pytest.approx(0.5)
    assert np.isnan(users.communication_share([0.0], [0.0]))
    with pytest.raises(DataError, match="communicating"):
        users.communication_share([2.0], [1.0])
    with pytest.raises(DataError):
        users.forgetting([1.0], [1.0, 1.0])
    with pytest.raises(DataError):
        users.noniid_gap([], [])


@pytest.mark.parametrize(
    "statistic", [users.example_weighted, users.user_mean, users.worst, users.deviation, users.jain]
)
def test_a_redraw_holds_all_examples_of_the_users_drawn(statistic):
    """Every statistic over redraws at once equals that statistic of each redrawn fleet, built example by example."""
    correct, user = fleet(6)
    by = users.by(correct, user)
    index = np.random.default_rng(1).integers(6, size=(20, 6))
    slow = []
    for row in index:
        examples = [correct[user == name] for name in row]
        names = np.repeat(np.arange(6), [len(each) for each in examples])
        slow.append(statistic(users.by(np.concatenate(examples), names)))
    np.testing.assert_allclose(statistic(by.drawn(index)), slow)


def test_the_interval_is_the_percentiles_over_redrawn_users():
    by = users.by(*fleet())
    means = (
        np.array([by.mean[weight > 0] @ weight[weight > 0] for weight in users.redraws(by.names, key=KEY, n=500)]) / 25
    )
    assert users.bootstrap(users.user_mean, by, key=KEY, n=500) == pytest.approx(np.percentile(means, [2.5, 97.5]))
    wide, narrow = (users.bootstrap(users.user_mean, by, key=KEY, level=level) for level in (0.95, 0.5))
    assert wide[0] < narrow[0] < users.user_mean(by) < narrow[1] < wide[1]


def test_the_interval_covers_the_truth_as_often_as_it_says():
    """Users clustered as in ``fleet``: an interval over examples would be much too narrow."""
    covered, runs = 0, 200
    for seed in range(runs):
        g = np.random.default_rng(seed)
        skill = np.where(g.random(40) < 0.5, 0.6, 1.0)
        correct = (g.random((40, 50)) < skill[:, None]).astype(int)
        by = users.by(correct.ravel(), np.repeat(np.arange(40), 50))
        low, high = users.bootstrap(users.user_mean, by, key=KEY, n=400)
        covered += low <= 0.8 <= high
    assert 0.90 <= covered / runs <= 0.985


def test_the_same_key_gives_the_same_interval_whatever_the_chunk(monkeypatch):
    by = users.by(*fleet())
    whole = users.bootstrap(users.worst, by, key=KEY)
    assert users.bootstrap(users.worst, by, key=KEY) == whole
    assert users.bootstrap(users.worst, by, key=(1, "test")) != whole
    monkeypatch.setattr(users, "_CHUNK", 100)
    assert users.bootstrap(users.worst, by, key=KEY) == whole


def test_a_paired_interval_draws_the_same_users_on_both_sides():
    correct, user = fleet()
    before = users.by(correct, user)
    after = users.PerUser(before.names, before.count, before.total + 0.1 * before.count)  # everybody gains 0.1
    low, high = users.paired(users.user_mean, before, after, key=KEY, n=300)
    assert low == pytest.approx(0.1) == high
    with pytest.raises(DataError, match="different users"):
        users.paired(users.user_mean, before, users.by([1], [0]), key=KEY)


def test_redraws_weigh_examples_by_how_often_their_user_was_drawn():
    user = np.array(["b", "a", "b", "c"])
    drawn = list(users.redraws(user, key=KEY, n=50))
    assert len(drawn) == 50
    for weight in drawn:
        assert weight[0] == weight[2]
        assert weight[0] + weight[1] + weight[3] == 3
    assert len({tuple(weight) for weight in drawn}) > 5


@pytest.mark.parametrize("bad", [{"n": 0}, {"level": 0}, {"level": 1.0}])
def test_no_interval_is_refused(bad):
    with pytest.raises(ConfigError):
        users.bootstrap(users.user_mean, users.by(*fleet()), key=KEY, **bad)


def halves(seed, gain):
    """Users of different skill, 40 inputs to choose by and 40 to measure on; after learning all are better by gain."""
    g = np.random.default_rng(seed)
    skill = np.tile(g.uniform(0.7, 0.95, 60), (40, 1)).T
    name = np.repeat(np.arange(60), 40)
    u = g.random((60, 40))
    return [
        users.by(each.ravel().astype(int), name)
        for each in (g.random((60, 40)) < skill, u < skill, u < np.minimum(1, skill + gain))
    ]


def test_regression_to_the_mean_is_not_taken_for_a_gain():
    """Nothing was learned: the naive gain is well above 0, the control is as high, and the interval holds 0."""
    select, before, after = halves(0, 0.0)
    found = users.worst_group_gain(select, before, after, key=KEY)
    order = np.argsort(select.mean, kind="stable")
    border = select.mean[order[5]]
    sure = select.mean < border
    tied = select.mean == border
    weight = sure + tied * (6 - sure.sum()) / tied.sum()
    assert found.gain == pytest.approx(weight @ (after.mean - select.mean) / 6)
    assert found.gain > 0.02
    assert found.control == found.gain
    assert found.difference == 0
    assert found.low <= 0 <= found.high
    assert set(found.names) == {str(name) for name in np.flatnonzero(sure | tied)}


def test_a_real_gain_of_the_worst_is_found():
    found = users.worst_group_gain(*halves(1, 0.1), 0.1, key=KEY)
    assert found.difference == pytest.approx(found.gain - found.control)
    assert found.low > 0
    assert found.low <= found.difference <= found.high


def test_users_tied_at_the_border_share_the_places_whatever_their_names():
    """Group of 1 of 4; three tied: the expected figure over all ways to break the tie."""
    select = users.PerUser(np.arange(4), np.ones(4), np.array([0.5, 0.9, 0.5, 0.5]))
    before = users.PerUser(np.arange(4), np.ones(4), np.array([0.6, 0.9, 0.7, 0.8]))
    after = users.PerUser(np.arange(4), np.ones(4), np.array([0.7, 0.9, 0.9, 1.0]))
    found = users.worst_group_gain(select, before, after, 0.25, key=KEY, n=10)
    ways = list(itertools.combinations([0, 2, 3], 1))
    assert found.gain == pytest.approx(np.mean([after.mean[i] - select.mean[i] for (i,) in ways]))
    assert found.control == pytest.approx(np.mean([before.mean[i] - select.mean[i] for (i,) in ways]))
    assert found.names == ("0", "2", "3")


def test_the_worst_group_needs_the_same_users():
    select, before, after = halves(0, 0.0)
    with pytest.raises(DataError, match="different users"):
        users.worst_group_gain(select, before, users.by([1], [0]), key=KEY)
    with pytest.raises(ConfigError):
        users.worst_group_gain(select, before, after, 0, key=KEY)
