"""LearnedCascade: an answer that is often wrong is asked about sooner than its confidence says."""

from dataclasses import replace

import numpy as np
import pytest

from duetto.errors import ConfigError, DataError
from duetto.policies import LearnedCascade, Logistic, confidence
from duetto.types import Action, Outcomes, Seen

DRAW = np.random.default_rng(4)
N, CLASSES = 2000, 3
SAID = DRAW.integers(0, CLASSES, N)
LOGITS = np.eye(CLASSES)[SAID] * 2 + DRAW.normal(size=(N, CLASSES)) * 0.3
SAID = LOGITS.argmax(1)
RIGHT = (DRAW.random(N) < np.array([0.95, 0.9, 0.4])[SAID]).astype(float)  # the answer 2 is not to be trusted
USERS = DRAW.integers(0, 20, N)
SEEN = Seen(stage=1, answer=LOGITS, size=N)
OUTCOMES = Outcomes(RIGHT, np.full(N, 0.9), SEEN, USERS)


def test_it_learns_which_answers_to_trust() -> None:
    held = LearnedCascade(0.2).fit(OUTCOMES)
    asked = held.choose(SEEN, ()).action == Action.ASK
    assert [round(float(asked[c == SAID].mean()), 1) for c in range(3)] == [0, 0, 1]
    gain = -LearnedCascade().scores(held.state, SEEN)
    for c in range(CLASSES):
        assert gain[c == SAID].mean() == pytest.approx(0.9 - RIGHT[c == SAID].mean(), abs=0.03)


def test_with_a_strong_penalty_all_answers_are_alike() -> None:
    policy = LearnedCascade(head=Logistic(1e9))
    scores = policy.scores(policy.fit(OUTCOMES).state, SEEN)
    assert np.ptp(scores) < 1e-3


def test_nothing_learned_and_nothing_to_learn() -> None:
    policy = LearnedCascade(0.1)
    assert (policy.choose(policy.init(), SEEN, ())[1].action == Action.ASK).all()
    assert policy.scores(policy.init(), SEEN) == pytest.approx(confidence(LOGITS))
    always = policy.fit(Outcomes(np.ones(N), np.ones(N), SEEN, USERS))
    assert (always.choose(SEEN, ()).action == Action.STOP).all()
    alike = replace(SEEN, answer=np.ones((N, CLASSES)))
    held = policy.fit(Outcomes(np.arange(N) % 2 * 1.0, np.ones(N), alike, None))
    assert (held.choose(alike, ()).action == Action.ASK).all()


def test_bad_input_is_refused() -> None:
    held = LearnedCascade().fit(OUTCOMES)
    with pytest.raises(DataError, match="NaN"):
        held.choose(replace(SEEN, answer=LOGITS * np.nan), ())
    with pytest.raises(DataError, match="classes"):
        held.choose(replace(SEEN, answer=LOGITS[:, :2]), ())
    with pytest.raises(DataError, match="no answers"):
        LearnedCascade().fit(Outcomes(RIGHT, RIGHT, replace(SEEN, answer=None, features=LOGITS)))
    with pytest.raises(ConfigError, match="price"):
        LearnedCascade(float("inf"))
