"""What the bandits share: how a decision is described, what is heard, and the estimates, by hand."""

from typing import Any

import numpy as np
import pytest

from duetto.errors import ConfigError, DataError
from duetto.policies import EpsilonGreedy, LinUCB, Thompson
from duetto.policies.linear import ASK, STATISTICS, STOP, begun, described, estimated
from duetto.types import Action, Held, Move, Policy, Seen

DRAW = np.random.default_rng(4)
LOGITS = DRAW.normal(size=(40, 5)) * 3
SEEN = Seen(stage=1, answer=LOGITS, size=40)
BANDITS: list[Any] = [LinUCB, Thompson, EpsilonGreedy]
ASKING, STOPPING = (Move.sure(np.full(40, action), "") for action in (Action.ASK, Action.STOP))
WHOLE = len(STATISTICS)


def test_the_statistics_of_an_answer() -> None:
    x = described(SEEN, WHOLE + 2)
    assert x is not None
    p = np.exp(LOGITS) / np.exp(LOGITS).sum(axis=1, keepdims=True)
    top = np.sort(p, axis=1)[:, ::-1]
    entropy = 1 + (p * np.log(p)).sum(axis=1) / np.log(5)
    nines = -np.log10(np.maximum(1 - top[:, 0], 1e-6)) / 6
    expected = np.stack([np.ones(40), top[:, 0], top[:, 1], top[:, 0] - top[:, 1], entropy, nines], axis=1)
    np.testing.assert_allclose(x[:, :WHOLE], expected, atol=1e-12)
    assert (x[:, WHOLE:] == 0).all()


@pytest.mark.parametrize("width", [1, 2, 3, 50])
def test_features_of_any_width(width: int) -> None:
    features = DRAW.normal(size=(40, width)) * 0.01
    x = described(Seen(stage=1, answer=LOGITS, features=features, size=40), WHOLE + 3)
    assert x is not None
    assert x.shape == (40, WHOLE + 3)
    if width <= 3:
        np.testing.assert_array_equal(x[:, WHOLE : WHOLE + width], features)
    else:  # a projection is linear
        other = described(Seen(stage=1, answer=LOGITS, features=2 * features, size=40), WHOLE + 3)
        assert other is not None
        np.testing.assert_allclose(other[:, WHOLE:], 2 * x[:, WHOLE:])
    huge = described(Seen(features=features * 1e9, size=40), WHOLE + 3)
    assert huge is not None
    np.testing.assert_allclose(np.linalg.norm(huge[:, WHOLE:], axis=1), 1)


def test_columns_by_name_are_features_in_the_order_of_their_names() -> None:
    columns = {"b": DRAW.random(40) / 2, "a": DRAW.random(40) / 2}
    mine = described(Seen(features=columns, size=40), WHOLE + 2)
    other = described(Seen(features=np.stack([columns["a"], columns["b"]], axis=1), size=40), WHOLE + 2)
    np.testing.assert_array_equal(mine, other)


@pytest.mark.parametrize("bandit", BANDITS)
def test_what_is_kept_of_what_was_heard(bandit: Any) -> None:
    policy: Policy[Any] = bandit(ridge=0.7, price=0.2)
    state = policy.init()
    action = np.where(np.arange(40) % 3 == 0, Action.ASK, Action.STOP)
    reward = DRAW.random(40)
    reward[5:9] = np.nan
    state = policy.learn(state, SEEN, Move.sure(action, ""), reward)
    x = described(SEEN, 8)
    assert x is not None
    prior = np.zeros((2, 8))
    prior[STOP, 1], prior[ASK, 0] = 1, 0.8
    for arm, name in ((STOP, Action.STOP), (ASK, Action.ASK)):
        a, b = 0.7 * np.eye(8), 0.7 * prior[arm]
        for i in range(40):
            if action[i] == name and not np.isnan(reward[i]):
                a += np.outer(x[i], x[i])
                b += reward[i] * x[i]
        np.testing.assert_allclose(state["A"][arm], a)
        np.testing.assert_allclose(state["b"][arm], b)
        means, widths = estimated(state, x)
        np.testing.assert_allclose(means[:, arm], x @ np.linalg.solve(a, b))
        np.testing.assert_allclose(widths[:, arm] ** 2, np.diag(x @ np.linalg.solve(a, x.T)))


@pytest.mark.parametrize("bandit", BANDITS)
def test_asking_tells_of_both_arms_where_it_is_wanted(bandit: Any) -> None:
    both = DRAW.random((40, 2))
    one, two = bandit(), bandit(full_information_on_ask=True)
    alone, full = (each.learn(each.init(), SEEN, ASKING, both) for each in (one, two))
    begun_ = begun(8, one.ridge, 0.0)
    np.testing.assert_array_equal(alone["A"][STOP], begun_["A"][STOP])
    np.testing.assert_array_equal(full["b"][STOP], one.learn(one.init(), SEEN, STOPPING, both[:, 0])["b"][STOP])
    np.testing.assert_array_equal(alone["b"][ASK], full["b"][ASK])
    # Who stops is told no more than the stopping's reward.
    stopped = two.learn(two.init(), SEEN, STOPPING, both)
    np.testing.assert_array_equal(stopped["A"][ASK], begun_["A"][ASK])


def test_agreement_tells_what_stopping_would_have_earned() -> None:
    agreed = np.where(np.arange(40) % 2, 1.0, 0.0)
    agreed[3] = np.nan
    told = Seen(stage=1, answer=LOGITS, traits={"agreed": agreed}, size=40)
    policy = LinUCB(price=0.1, full_information_on_ask=True)
    reward = np.full(40, 0.9)
    reward[4] = np.nan
    state = policy.learn(policy.init(), told, ASKING, reward)
    both = np.stack([agreed, np.full(40, 0.9)], axis=1)
    both[4] = np.nan
    expected = policy.learn(policy.init(), SEEN, ASKING, both)
    for name in ("A", "b"):
        np.testing.assert_allclose(state[name], expected[name])
    nobody = policy.learn(policy.init(), SEEN, ASKING, reward)
    np.testing.assert_array_equal(nobody["A"][STOP], policy.init()["A"][STOP])


@pytest.mark.parametrize("bandit", BANDITS)
def test_it_learns_whom_to_ask_from_nothing(bandit: Any) -> None:
    """The device is right where it is sure, the cloud always; asking costs 0.3."""
    held = Held.of(bandit(price=0.3))
    sure = DRAW.random(3000) < 0.6
    logits = np.zeros((3000, 3))
    logits[:, 0] = np.where(sure, 5.0, 1.5)
    right, earned = np.where(sure, 0.99, 0.3) > DRAW.random(3000), []
    for i in range(3000):
        seen = Seen(stage=1, answer=logits[i : i + 1], size=1)
        move = held.choose(seen, (0,))
        reward = 0.7 if move.action[0] == Action.ASK else float(right[i])
        held.learn(seen, move, np.array([reward]))
        earned.append(reward)
    best = 0.6 * 0.99 + 0.4 * 0.7
    assert np.mean(earned[1500:]) > best - 0.03


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("bandit", BANDITS)
def test_a_restart_changes_nothing(bandit: Any, full: bool) -> None:
    policy = bandit(price=0.1, full_information_on_ask=full)
    one, other = Held.of(policy), Held.of(policy)
    for i in range(40):
        seen = SEEN.rows([i])
        mine, again = one.choose(seen, (3,)), other.choose(seen, (3,))
        assert (mine.action, mine.propensity) == (again.action, again.propensity)
        for held in (one, other):
            held.learn(seen, mine, np.array([[0.3, 0.9]]))
        other = other.restore(other.save())
    assert one.save() == other.save()


@pytest.mark.parametrize("bandit", BANDITS)
def test_before_anything_is_heard_the_prior_decides(bandit: Any) -> None:
    calm = {LinUCB: {"alpha": 0.0}, Thompson: {"spread": 1e-9}, EpsilonGreedy: {"epsilon": 0.0}}[bandit]
    policy = bandit(price=0.2, **calm)
    _, move = policy.choose(policy.init(), SEEN, (0,))
    x = described(SEEN, 8)
    assert x is not None
    assert ((move.action == Action.STOP) == (x[:, 1] > 0.8)).all()
    np.testing.assert_allclose(policy.scores(policy.init(), SEEN), x[:, 1] - 0.8)


def test_features_alone_are_enough_and_nothing_is_not() -> None:
    policy = LinUCB()
    _, move = policy.choose(policy.init(), Seen(features=np.ones((3, 2)), size=3), (0,))
    assert set(move.action.tolist()) <= {Action.STOP, Action.ASK}
    state = policy.learn(policy.init(), Seen(size=3), Move.sure(np.full(3, Action.GO), ""), np.ones(3))
    np.testing.assert_array_equal(state["A"], policy.init()["A"])
    with pytest.raises(DataError):
        policy.scores(policy.init(), Seen(size=3))


@pytest.mark.parametrize(
    "features",
    [
        np.full((40, 2), np.nan),
        np.zeros((39, 2)),
        np.zeros(40),
        np.full((40, 1), "text"),
        {"prompt": np.full(40, "text")},
        {"a": np.zeros(39)},
    ],
)
def test_features_that_are_none(features: Any) -> None:
    with pytest.raises(DataError):
        described(Seen(features=features, size=40), 9)


@pytest.mark.parametrize("reward", [np.zeros(39), np.zeros((40, 3)), np.full(40, np.inf)])
def test_rewards_that_are_none(reward: np.ndarray) -> None:
    with pytest.raises(DataError):
        LinUCB().learn(LinUCB().init(), SEEN, ASKING, reward)


def test_the_state_of_another_dimension() -> None:
    with pytest.raises(DataError):
        LinUCB(dimension=9).choose(LinUCB().init(), SEEN, (0,))


@pytest.mark.parametrize("bandit", BANDITS)
@pytest.mark.parametrize(
    "wrong",
    [{"dimension": 5}, {"ridge": 0.0}, {"ridge": np.nan}, {"ridge": np.inf}, {"price": -0.1}, {"price": np.nan}],
)
def test_numbers_out_of_range(bandit: Any, wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        bandit(**wrong)
