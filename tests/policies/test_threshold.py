"""Threshold: the walk, and its limits."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from duetto.errors import ConfigError
from duetto.policies import SCORES, Threshold, confidence
from duetto.types import Action, Seen

LOGITS = np.random.default_rng(0).normal(size=(200, 5)) * 4


def actions(policy: Threshold, seen: Seen) -> list[int]:
    """What it chose."""
    return policy.choose(policy.init(), seen, ())[1].action.tolist()


def answered(logits: np.ndarray) -> Seen:
    """After the model has run."""
    return Seen(stage=1, answer=logits, size=len(logits))


@given(st.floats(0, 1), st.sampled_from(["entropy", "margin", "max_softmax"]))
def test_it_stops_where_the_score_reaches_the_threshold(at: float, score: str) -> None:
    sure = confidence(LOGITS, score) >= at
    assert actions(Threshold(at, score), answered(LOGITS)) == np.where(sure, Action.STOP, Action.ASK).tolist()


def test_a_score_just_at_the_threshold_is_sure() -> None:
    assert actions(Threshold(0.5), answered(np.zeros((1, 2)))) == [Action.STOP]
    assert actions(Threshold(np.nextafter(0.5, 1)), answered(np.zeros((1, 2)))) == [Action.ASK]


@pytest.mark.parametrize("score", SCORES)
def test_limits(score: str) -> None:
    extreme = np.concatenate([LOGITS, np.zeros((1, 5)), np.eye(5) * 1e4])
    lowest, above = (-np.inf, np.inf) if score == "energy" else (0.0, np.nextafter(1, 2))
    assert set(actions(Threshold(lowest, score), answered(extreme))) == {Action.STOP}
    assert set(actions(Threshold(above, score), answered(extreme))) == {Action.ASK}


def test_without_an_answer_it_goes_on_first_and_asks_later() -> None:
    assert actions(Threshold(0.5), Seen(stage=0, size=2)) == [Action.GO] * 2
    assert actions(Threshold(0.0), Seen(stage=1, size=2)) == [Action.ASK] * 2


@pytest.mark.parametrize(("at", "score"), [(np.nan, "margin"), (0.5, "sureness")])
def test_settings_that_cannot_be_met(at: float, score: str) -> None:
    with pytest.raises(ConfigError):
        Threshold(at, score)
