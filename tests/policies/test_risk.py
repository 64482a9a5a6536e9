"""RiskControlled: thresholds by brute force, the safe choice for everything that is bad, and one honest sentence."""

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from duetto import tree as trees
from duetto.errors import ConfigError, DataError
from duetto.policies import PROMISES, Calibrated, OnlyInCloud, RiskControlled, Threshold, confidence, promised
from duetto.types import Action, Held, Outcomes, Seen

DRAW = np.random.default_rng(2)
USERS, EACH, CLASSES = 120, 20, 4
LABELS = DRAW.integers(0, CLASSES, USERS * EACH)
OWNERS = np.repeat([f"user {i}" for i in range(USERS)], EACH)
SMALL = np.eye(CLASSES)[LABELS] * 3 + DRAW.normal(size=(len(LABELS), CLASSES))
LARGE = np.eye(CLASSES)[LABELS] * 4 + DRAW.normal(size=(len(LABELS), CLASSES))
MARGIN = Threshold(0.5, "margin")
KNOWN = Outcomes.of_classifiers(SMALL, LARGE, LABELS, OWNERS)


def keeps(held: Held[Any], logits: np.ndarray = SMALL) -> np.ndarray:
    """Which items it answers itself."""
    return held.choose(Seen(stage=1, answer=logits, size=len(logits)), ()).action == Action.STOP


def threshold(held: Held[Any]) -> float:
    return float(held.state["threshold"])


def lowest(test: Any) -> float:
    """The threshold of margins by testing one after the other, from the surest; ``test`` takes signed user gaps."""
    scores, at, most = confidence(SMALL, "margin"), math.inf, np.zeros(USERS)
    owner = np.repeat(np.arange(USERS), EACH)
    for score in np.sort(scores)[::-1]:
        gaps = np.bincount(owner, KNOWN.gain * (scores >= score)) / EACH
        most = np.maximum(most, gaps)
        if not test(gaps, most):
            return at
        at = score
    return at


def test_expected_is_conformal_risk_control() -> None:
    held = RiskControlled(MARGIN, "expected", 0.015).fit(KNOWN)
    assert threshold(held) == lowest(lambda gaps, most: (most.sum() + 1) / (USERS + 1) <= 0.015)
    assert 0.2 < keeps(held).mean() < 1


def test_approximate_is_a_t_bound_with_one_more_user() -> None:
    def test(gaps: np.ndarray, most: np.ndarray) -> bool:
        more = np.append(gaps, max(0.1, gaps.max()))
        bound = more.mean() + stats.t.ppf(0.9, USERS) * more.std(ddof=1) / math.sqrt(USERS + 1)
        return bool(bound <= 0.01)

    held = RiskControlled(MARGIN, "approximate", 0.01, delta=0.1).fit(KNOWN)
    assert threshold(held) == lowest(test)
    assert 0.2 < keeps(held).mean() < 1


def test_quantile_is_the_exact_binomial() -> None:
    held = RiskControlled(MARGIN, "quantile", 0.02, share=0.8).fit(KNOWN)
    at = lowest(lambda gaps, most: stats.binom.cdf((gaps > 0.02 + 1e-12).sum(), USERS, 0.2) <= 0.05)
    assert threshold(held) == at
    assert 0.2 < keeps(held).mean() < 1


def test_confident_is_between_asking_always_and_the_plug_in() -> None:
    tight, loose = (threshold(RiskControlled(MARGIN, "confident", t, worst_user=0.3).fit(KNOWN)) for t in (0.015, 0.03))
    assert loose <= tight < math.inf
    assert tight >= lowest(lambda gaps, most: gaps.mean() <= 0.015)
    assert threshold(RiskControlled(MARGIN, "confident", 0.015).fit(KNOWN)) == math.inf  # 120 of 199 users


def test_the_order_of_items_changes_nothing() -> None:
    shuffled = DRAW.permutation(len(LABELS))
    for promise in PROMISES:
        policy = RiskControlled(MARGIN, promise, 0.02, worst_user=0.2)  # type: ignore[arg-type]
        assert trees.encode(policy.fit(KNOWN).state) == trees.encode(policy.fit(KNOWN.rows(shuffled)).state)


def test_more_target_never_asks_more() -> None:
    for promise in PROMISES:
        at = [threshold(RiskControlled(MARGIN, promise, t).fit(KNOWN)) for t in (0.0, 0.01, 0.03, 0.1)]  # type: ignore[arg-type]
        assert at == sorted(at, reverse=True)


@pytest.mark.parametrize("promise", PROMISES)
def test_the_promise_is_kept_on_new_users(promise: Any) -> None:
    draw, broken, draws, target = np.random.default_rng(0), 0, 120, 0.06
    pool, hard = 4000, draw.beta(1, 6, 4000)  # the share of items that a user's small model gets wrong
    scores = draw.random((pool, 10))
    wrong = draw.random((pool, 10)) < hard[:, None] * 2 * (1 - scores)
    for _ in range(draws):
        users = draw.integers(pool, size=60)
        own, lost = scores[users].ravel(), wrong[users].ravel()
        logits = np.stack([own, np.zeros(600)], axis=1)
        known = Outcomes(1.0 - lost, np.ones(600), Seen(stage=1, answer=logits, size=600), np.repeat(np.arange(60), 10))
        at = threshold(RiskControlled(Threshold(0.0, "energy"), promise, target).fit(known))
        gaps = ((np.log1p(np.exp(scores)) >= at) * wrong).mean(axis=1)
        broken += (gaps > target).mean() > 0.1 if promise == "quantile" else gaps.mean() > target
    assert broken <= stats.binom.ppf(0.999, draws, 0.05)


# ------------------------------------------------------------------------------------------------------ bad inputs


def test_below_the_reachable_target_it_asks_always_and_says_who_is_missing() -> None:
    few = KNOWN.rows(np.arange(30 * EACH))
    held = RiskControlled(MARGIN, "expected", 0.01).fit(few)
    assert threshold(held) == math.inf
    assert not keeps(held, np.eye(CLASSES) * 1e6).any()
    assert "always asks" in promised(held.state)
    assert "30 calibration users are too few for anything else (69 of 99 are missing)" in promised(held.state)
    never = RiskControlled(MARGIN, "expected", 0.0).fit(few)
    assert "no number is enough" in promised(never.state)


def test_the_surest_losing_too_much_is_said_too() -> None:
    wrong = Outcomes.of_classifiers(np.ones_like(SMALL), None, np.ones(len(LABELS), int), OWNERS)
    held = RiskControlled(MARGIN, "expected", 0.02).fit(wrong)
    assert threshold(held) == math.inf
    assert "even the surest answers lose too much" in promised(held.state)


def test_before_fitting_it_always_asks() -> None:
    held = Held.of(RiskControlled(MARGIN, "confident", 0.01))
    assert not keeps(held, np.eye(CLASSES) * 1e6).any()
    assert "0 calibration users are too few" in promised(held.state)


@pytest.mark.parametrize("promise", PROMISES)
def test_constant_scores_are_all_kept_or_all_asked(promise: Any) -> None:
    right = DRAW.random(len(LABELS)) < 0.999
    for small, kept in ((right, True), (~right, False)):
        same = Outcomes(
            small * 1.0, np.ones(len(right)), Seen(stage=1, answer=np.ones((len(right), 3)), size=len(right)), OWNERS
        )
        held = RiskControlled(MARGIN, promise, 0.05).fit(same)
        assert set(keeps(held, np.ones((5, 3))).tolist()) == {kept}


@pytest.mark.parametrize("promise", PROMISES)
def test_one_class_and_all_correct(promise: Any) -> None:
    one = Outcomes.of_classifiers(SMALL[:, :1], LARGE[:, :1], np.zeros(len(LABELS), int), OWNERS)
    assert keeps(RiskControlled(MARGIN, promise, 0.05).fit(one), SMALL[:, :1]).all()
    correct = Outcomes.of_classifiers(SMALL, SMALL, SMALL.argmax(axis=1), OWNERS)
    assert keeps(RiskControlled(MARGIN, promise, 0.05).fit(correct)).all()


def test_no_data_and_nan_scores_are_errors() -> None:
    policy = RiskControlled(MARGIN, "expected", 0.01)
    with pytest.raises(DataError, match="no items"):
        policy.fit(KNOWN.rows(np.zeros(0, int)))
    nan = Outcomes(np.ones(2), np.ones(2), Seen(stage=1, answer=np.full((2, 3), np.nan), size=2))
    with pytest.raises(DataError, match="NaN"):
        policy.fit(nan)
    with pytest.raises(DataError, match="logits of shape"):
        policy.fit(Outcomes(np.ones(2), np.ones(2), Seen(size=2)))


def test_a_quality_needs_a_range() -> None:
    with pytest.raises(DataError, match="qualities of the large model outside"):
        RiskControlled(MARGIN, "expected", 0.1).fit(
            Outcomes(np.ones(2), np.full(2, 3.0), KNOWN.rows(np.arange(2)).seen)
        )


@pytest.mark.parametrize("settings", [{"target": 1.5}, {"promise": "sure"}, {"fitting": 0.0}, {"worst_user": 2.0}])
def test_settings_that_cannot_be_met(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        RiskControlled(**{"inner": MARGIN, "promise": "expected", "target": 0.01, **settings})
    with pytest.raises(ConfigError, match="OnlyInCloud has no score"):
        RiskControlled(OnlyInCloud(), "expected", 0.01)


# ----------------------------------------------------------------------------------------------------- inner, text


def test_an_inner_policy_is_fitted_on_other_users() -> None:
    held = RiskControlled(Calibrated(), "expected", 0.05, fitting=0.25).fit(KNOWN)
    assert int(held.state["promise"]["users"]) == USERS * 3 // 4
    temperatures = set()
    for user in np.unique(OWNERS):  # only the users of the fit change the temperature
        logits = np.where((user == OWNERS)[:, None], SMALL * 3, SMALL)
        again = Outcomes.of_classifiers(logits, LARGE, LABELS, OWNERS)
        state = RiskControlled(Calibrated(), "expected", 0.05, fitting=0.25).fit(again).state
        if state["inner"]["temperature"] == held.state["inner"]["temperature"]:
            temperatures.add(user)
    assert len(temperatures) == USERS * 3 // 4
    with pytest.raises(DataError, match="one user to fit Calibrated"):
        RiskControlled(Calibrated(), "expected", 0.05).fit(KNOWN.rows(np.arange(EACH)))


def test_the_score_is_the_inner_policy_s() -> None:
    held = RiskControlled(Calibrated("margin"), "expected", 0.05).fit(KNOWN)
    scaled = confidence(SMALL / held.state["inner"]["temperature"], "margin")
    assert held.part.scores(held.state, KNOWN.seen) == pytest.approx(scaled)  # type: ignore[attr-defined]


def test_the_state_says_what_the_promise_was_made_from() -> None:
    held = RiskControlled(MARGIN, "confident", 0.03, worst_user=0.3).fit(KNOWN)
    told = {name: value.item() for name, value in trees.decode(trees.encode(held.state))["promise"].items()}
    assert (told["target"], told["delta"], told["worst_user"], told["users"]) == (0.03, 0.05, 0.3, USERS)
    assert told["threshold"] == threshold(held)
    kept = keeps(held)
    gaps = np.bincount(np.repeat(np.arange(USERS), EACH), KNOWN.gain * kept) / EACH
    assert told["gap"] == pytest.approx(gaps.mean())
    assert told["kept"] == kept.mean()
    assert told["gap"] < told["bound"] <= 0.03 + 1e-9


def test_one_honest_sentence() -> None:
    said = {p: promised(RiskControlled(MARGIN, p, 0.03, worst_user=0.3).fit(KNOWN).state) for p in PROMISES}  # type: ignore[arg-type]
    for text in said.values():
        assert text.endswith(".")
        assert "\n" not in text
        assert "3 %" in text
        assert f"from {USERS}" in text
    assert "With 95 % confidence" in said["confident"]
    assert "if no user loses more than 30 %" in said["confident"]
    assert "not distribution-free" in said["approximate"]
    assert "also over the draw of the calibration users" in said["expected"]
    assert "90 % of new users" in said["quantile"]
    unlabelled = Outcomes.of_classifiers(SMALL, LARGE, None, OWNERS)
    assert "differ from the large model's" in promised(RiskControlled(MARGIN, "expected", 0.03).fit(unlabelled).state)
    by_item = Outcomes.of_classifiers(SMALL, LARGE, LABELS)
    assert f"from {len(LABELS)} of them" in promised(RiskControlled(MARGIN, "expected", 0.03).fit(by_item).state)
    assert "calibration items" in promised(RiskControlled(MARGIN, "expected", 0.03).fit(by_item).state)
    with pytest.raises(DataError, match="a state without a promise"):
        promised({})
