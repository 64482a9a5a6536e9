"""A router of texts: learns which prompts gain, decides with numpy alone, and says no where it cannot."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from sklearn.ensemble import GradientBoostingRegressor

from duetto import tree as trees
from duetto.errors import ConfigError, DataError
from duetto.policies import Budgeted, Scored, TextGain
from duetto.policies.text_gain import quantile
from duetto.policies.text_views import Boosted, Hashed, Linear
from duetto.types import Action, Held, Outcomes, Seen

HARD, EASY = ("integral", "theorem", "matrix"), ("apple", "river", "garden")


def log(n: int = 240, seed: int = 0, answers: bool = False, users: int = 0) -> Outcomes:
    """Prompts on hard things gain, those on easy ones do not; or answers with a wrong sum do."""
    draw = np.random.default_rng(seed)
    hard = draw.random(n) < 0.5
    prompts = [
        f"Tell me of the {draw.choice(HARD if each else EASY)} number {draw.integers(100)}, please." for each in hard
    ]
    if answers:
        prompts = [f"Ann has {draw.integers(9)} and gets more." for _ in hard]
    sums = [(int(a), int(b)) for a, b in draw.integers(1, 50, (n, 2))]
    said = [f"It is {a} + {b} = {a + b + 3 * each}." for (a, b), each in zip(sums, hard, strict=True)]
    features = {"prompt": np.array(prompts, object)} | ({"answer": np.array(said, object)} if answers else {})
    noise = draw.random(n) < 0.1
    names = np.array([f"u{i % users}" for i in range(n)]) if users else None
    return Outcomes((hard == noise).astype(float), np.ones(n), Seen(features=features, size=n), names)


@cache
def fitted(answers: bool = False, **settings: float) -> Held:
    held = TextGain(bits=12, **settings).fit(log(answers=answers))
    trees.map(lambda leaf: leaf.setflags(write=False), held.state)
    return held


@pytest.mark.parametrize("answers", [False, True])
def test_what_gains_is_asked(answers: bool) -> None:
    held, fresh = fitted(answers=answers, price=0.5), log(seed=1, answers=answers)
    move = held.choose(fresh.seen, (0,))
    assert (move.action == Action.ASK)[fresh.gain > 0.5].mean() > 0.8
    assert (move.action == Action.ASK)[fresh.gain < 0.5].mean() < 0.2
    small, large = held.part.heads(held.state, fresh.seen)
    assert np.abs(large - 1).max() < 0.1
    assert held.part.scores(held.state, fresh.seen) == pytest.approx(small - large)
    assert isinstance(held.part, Scored)


def test_kept_is_go_before_the_small_model_and_stop_after_it() -> None:
    held, seen = fitted(offload_rate=0.5), log(seed=1).seen
    for stage, kept in ((0, Action.GO), (1, Action.STOP)):
        assert set(held.choose(replace(seen, stage=stage), (0,)).action.tolist()) == {kept, Action.ASK}


@pytest.mark.parametrize(("rate", "low", "high"), [(0.0, 0, 0), (0.3, 0.2, 0.4), (1.0, 1, 1)])
def test_the_offload_rate_is_met_on_fresh_prompts(rate: float, low: float, high: float) -> None:
    asked = fitted(offload_rate=rate).choose(log(300, seed=2).seen, (0,)).action == Action.ASK
    assert low <= asked.mean() <= high


def test_a_text_is_judged_alike_in_any_company() -> None:
    held, seen = fitted(offload_rate=0.5, explore=0.4), log(100, seed=1).seen
    together = held.choose(seen, (5,))
    for i in range(0, seen.size, 17):
        alone = held.choose(seen.rows([i]), (5,))
        assert (alone.action[0], alone.propensity[0]) == (together.action[i], together.propensity[i])
        assert held.part.scores(held.state, seen.rows([i]))[0] == held.part.scores(held.state, seen)[i]


def test_a_state_is_a_small_tree_that_survives_saving() -> None:
    for answers in (False, True):
        held, seen = fitted(answers=answers, price=0.5), log(60, seed=3, answers=answers).seen
        again = held.restore(held.save())
        assert trees.spec(again.state) == trees.spec(held.state)
        assert (held.part.scores(again.state, seen) == held.part.scores(held.state, seen)).all()
        assert len(held.save()) < 200_000


def test_fitting_twice_gives_the_same_bytes() -> None:
    policy = TextGain(bits=10, offload_rate=0.2)
    assert policy.fit(log(80)).save() == policy.fit(log(80)).save()


def test_exploring_says_its_propensity() -> None:
    held, seen = fitted(offload_rate=0.5, explore=0.4), log(300, seed=4).seen
    greedy = Held(replace(held.part, explore=0.0), held.state).choose(seen, (0,))
    moves = [held.choose(seen, (key,)) for key in range(3)]
    for move in moves:
        same = move.action == greedy.action
        assert move.propensity == pytest.approx(np.where(same, 0.8, 0.2))
        assert same.mean() == pytest.approx(0.8, abs=0.12)
    assert (moves[0].action != moves[1].action).any()


def test_held_out_scores_did_not_see_their_user() -> None:
    # A user's gain is their own and nothing in the prompt tells it but their name: held out, it is not known.
    draw = np.random.default_rng(0)
    users = np.repeat([f"ann{chr(97 + i)}" for i in range(24)], 10)
    gain = np.repeat(draw.permutation(24) % 2, 10)
    prompts = np.array([f"I am {user} and I ask" for user in users], object)
    outcomes = Outcomes(1.0 - gain, np.ones(240), Seen(features={"prompt": prompts}, size=240), users)
    policy = TextGain(bits=12, views=("words",))
    by_item, by_user = (replace(policy, by=by).crossfit(outcomes)[1] for by in ("item", "user"))
    assert np.corrcoef(-by_item, gain)[0, 1] > 0.9
    assert np.corrcoef(-by_user, gain)[0, 1] < 0.5


# ------------------------------------------------------------------------------------------------------ safe choices


def test_without_texts_or_a_fit_it_always_asks() -> None:
    for held in (Held.of(TextGain()), fitted(offload_rate=0.0)):
        move = held.choose(Seen(stage=1, answer=np.ones((3, 2)), size=3), (0,))
        assert (move.action == Action.ASK).all()
        assert "so asked" in move.why
    assert (Held.of(TextGain()).choose(log().seen, (0,)).action == Action.ASK).all()


def test_scores_without_texts_or_a_fit_are_errors() -> None:
    held = fitted(offload_rate=0.5)
    with pytest.raises(DataError, match="no prompts"):
        held.part.scores(held.state, Seen(stage=1, answer=np.ones((3, 2)), size=3))
    with pytest.raises(ConfigError, match="not fitted"):
        held.part.scores(held.part.init(), log().seen)
    cascade = fitted(answers=True, price=0.5)
    with pytest.raises(DataError, match="no answers"):
        cascade.choose(log().seen, (0,))
    assert len(held.part.scores(held.state, log(answers=True).seen)) == 240  # answers that it was not fitted with


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"small": np.ones(240)}, "equally good on every item"),
        ({"small": np.zeros(240), "large": np.zeros(240)}, "equally good on every item"),
        ({"seen": Seen(size=240)}, "without prompts"),
        ({"seen": Seen(features={"prompt": [None] * 240}, size=240)}, "no text"),
    ],
)
def test_logs_with_nothing_to_learn_are_told(change: dict, said: str) -> None:
    with pytest.raises(DataError, match=said):
        TextGain(bits=8).fit(replace(log(), **change))


def test_too_few_items_are_told() -> None:
    with pytest.raises(DataError, match="19 items"):
        TextGain(bits=8).fit(log(19))
    assert TextGain(bits=8, folds=10).fit(log(20)).choose(log().seen, (0,)).action.shape == (240,)


def test_one_prompt_for_all_is_kept_or_asked_together() -> None:
    same = Seen(features={"prompt": np.array(["hello"] * 240, object)}, size=240)
    outcomes = replace(log(), seen=same)
    for rate, asked in ((0.3, 1.0), (0.0, 0.0)):  # rather more calls than too few
        held = TextGain(bits=8, offload_rate=rate, by="item", folds=2, views=("words",)).fit(outcomes)
        assert (held.choose(same, (0,)).action == Action.ASK).mean() in (asked, 0.0)
        assert len(set(held.part.scores(held.state, same).tolist())) == 1


def test_one_class_alone_is_learned() -> None:
    outcomes = replace(log(), large=np.zeros(240))  # the large model is always wrong: asking never gains
    held = TextGain(bits=10).fit(outcomes)
    assert not (held.choose(log(seed=1).seen, (0,)).action == Action.ASK).any()


def test_qualities_may_be_scores() -> None:
    outcomes = log()
    scored = replace(outcomes, small=2 + 6 * outcomes.small, large=2 + 6 * outcomes.large)
    held = TextGain(bits=12, price=3.0).fit(scored)
    small, large = held.part.heads(held.state, outcomes.seen)
    assert abs(large.mean() - 8) < 0.5
    assert abs(small.mean() - scored.small.mean()) < 0.5
    asked = held.choose(log(seed=1).seen, (0,)).action == Action.ASK
    assert asked[log(seed=1).gain > 0].mean() > 0.8


@pytest.mark.parametrize(
    "settings",
    [
        {"offload_rate": 1.5},
        {"offload_rate": float("nan")},
        {"price": float("inf")},
        {"explore": -0.1},
        {"views": ("pixels",)},
        {"views": ()},
        {"views": ("linear",)},
        {"bits": 40},
        {"folds": 1},
        {"by": "country"},
    ],
)
def test_bad_settings_are_told(settings: dict) -> None:
    with pytest.raises(ConfigError):
        TextGain(**settings)


def test_a_budget_can_hold_it() -> None:
    held = fitted(price=0.5)
    budget = Budgeted(held.part, 0.25)
    seen = log(400, seed=6).seen
    state = {**budget.init(), "inner": held.state}
    # a budget judges answers; with one, it ranks by the texts
    _, move = budget.choose(state, replace(seen, stage=1, answer=np.zeros((400, 2))), (0,))
    assert (move.action == Action.ASK).mean() == pytest.approx(0.25, abs=0.15)


# ------------------------------------------------------------------------------------------------------------- parts


def test_quantile_asks_for_all_of_equal_score() -> None:
    scores = np.array([3.0, 1.0, 1.0, 2.0])
    assert [(scores < quantile(scores, share)).mean() for share in (0, 0.25, 0.5, 0.75, 1)] == [0, 0.5, 0.5, 0.75, 1]


def test_trees_are_sklearn_s() -> None:
    draw = np.random.default_rng(0)
    texts = [
        (" ".join(draw.choice(HARD + EASY, draw.integers(1, 30))) + "?" * int(draw.integers(4)), None)
        for _ in range(120)
    ]
    view = Boosted(20, 3)
    rows = [view.row(text) for text in texts]
    quality = np.stack([draw.random(120), np.array([len(text) for text, _ in texts]) / 400], 1)
    state = view.fit(rows, quality, 1.0)
    for head in range(2):
        model = GradientBoostingRegressor(
            learning_rate=0.05, n_estimators=20, max_depth=3, subsample=0.5, max_features=0.3, min_samples_leaf=6,
            random_state=0,
        ).fit(np.array(rows, np.float32), quality[:, head])  # fmt: skip
        expected = np.clip(model.predict(np.array(rows, np.float32)), 0, 1)
        assert [view.predict(state, row)[head] for row in rows] == pytest.approx(expected, abs=1e-5)


def test_hashed_heads_are_a_logistic_regression_of_tf_idf() -> None:
    outcomes = log(100)
    view = Hashed("words", 10)
    rows = [view.row((text, None)) for text in outcomes.seen.features["prompt"]]
    quality = np.stack([outcomes.small, outcomes.large], 1)
    state = view.fit(rows, quality, 1.0)
    dense = np.zeros((100, 1024))
    for i, ((buckets, counts),) in enumerate(rows):
        dense[i, buckets] = counts
    idf = np.log(101 / (1 + (dense > 0).sum(0))) + 1
    x = dense * idf / np.linalg.norm(dense * idf, axis=1, keepdims=True)
    logit = x @ state["weight"][0].astype(float) + state["bias"][0]
    assert [view.predict(state, row)[0] for row in rows] == pytest.approx(1 / (1 + np.exp(-logit)), abs=2e-3)
    gradient = x.T @ (1 / (1 + np.exp(-logit)) - outcomes.small) + state["weight"][0]  # zero at the optimum, C=1
    assert np.abs(gradient).max() < 0.1
    assert [view.predict(state, row)[1] for row in rows] == pytest.approx([100.5 / 101] * 100)
    assert view.predict(state, view.row(("", None))).shape == (2,)


def test_prompt_and_answer_do_not_mix() -> None:
    view = Hashed("words", 15)
    (asked, _), (said, _) = view.row(("same words", "same words"))
    assert not set(asked) & set(said)


def test_an_embedding_is_one_more_view() -> None:
    def embed(texts: list[str]) -> np.ndarray:
        return np.array([[any(word in text for word in HARD), len(text)] for text in texts], float)

    held = TextGain(views=(), embed=embed, price=0.5).fit(log())
    fresh = log(seed=1)
    assert (held.choose(fresh.seen, (0,)).action == Action.ASK)[fresh.gain > 0.5].mean() > 0.8
    assert list(held.state["views"]) == ["embedding"]
    assert Linear(embed).row(("a", "b")).shape == (4,)
