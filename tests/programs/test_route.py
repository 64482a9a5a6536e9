"""A router's promise: what it rests on, and when it is broken."""

import numpy as np
import pytest

from duetto.errors import DataError
from duetto.policies import Router, TextGain
from duetto.programs import route
from duetto.types import Outcomes, Seen


def log(seed: int, flipped: bool = False, n: int = 120) -> Outcomes:
    draw = np.random.default_rng(seed)
    hard = draw.random(n) < 0.5
    prompts = np.array([f"{'prove' if each else 'greet'} {draw.choice(list('abcdef'))}" for each in hard], object)
    small = (hard == flipped) ^ (draw.random(n) < 0.1)
    return Outcomes(small, draw.random(n) < 0.95, Seen(features={"prompt": prompts}, size=n))


@pytest.fixture(scope="module")
def router() -> Router:
    return route.fit(TextGain(price=0.4, bits=8, views=("words",)), log(0), redrawn=100)


def test_figures_are_those_of_the_threshold() -> None:
    scores, outcomes = np.array([0.1, -0.5, -0.2]), Outcomes([1, 0, 0], [1, 1, 1], Seen(size=3))
    found = route.figures(scores, -0.2, outcomes, redrawn=50)
    assert found["offload_rate"].value == pytest.approx(1 / 3)  # only the second
    assert found["excess"].value == pytest.approx(1 / 3)  # the third is kept and lost
    assert found["excess"].low <= 1 / 3 <= found["excess"].high


def test_the_promise_rests_on_held_out_scores(router: Router) -> None:
    held, scores = router.policy.crossfit(log(0))
    expected = route.figures(scores, float(held.state["threshold"]), log(0), redrawn=100)
    assert router.promise["apgr"]["value"] == expected["apgr"].value
    assert router.fitted_on["items"] == 120


def test_fresh_data_keep_it_and_another_world_breaks_it(router: Router) -> None:
    kept = {each.name: each for each in route.check(router, log(1), redrawn=100)}
    assert list(kept) == list(route.FIGURES)
    assert all(each.holds for each in kept.values())
    broken = {each.name: each for each in route.check(router, log(2, flipped=True), redrawn=100)}
    assert not broken["apgr"].holds
    assert broken["apgr"].worse_by == pytest.approx(router.promise["apgr"]["value"] - broken["apgr"].found.value)
    assert not broken["excess"].holds


def test_a_large_model_that_became_bad_breaks_it(router: Router) -> None:
    fresh = log(3)
    worse = Outcomes(fresh.small, np.zeros(120), fresh.seen)
    assert not all(each.holds for each in route.check(router, worse, redrawn=50))


def test_the_same_data_or_no_promise_are_errors(router: Router) -> None:
    with pytest.raises(DataError, match="fitted on"):
        route.check(router, log(0))
    with pytest.raises(DataError, match="without a promise"):
        route.check(Router(router.held), log(1))
