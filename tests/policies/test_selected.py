"""Selected: what is better on held-out users, and the first where nothing is."""

import numpy as np
import pytest

from duetto.errors import ConfigError
from duetto.policies import LearnedCascade, LearnedGain, OnlyInCloud, Selected, Threshold
from duetto.types import Action, Outcomes, Seen

DRAW = np.random.default_rng(8)
N, CLASSES = 1500, 3
LOGITS = DRAW.normal(size=(N, CLASSES)) * 2
SAID = LOGITS.argmax(1)
USERS = DRAW.integers(0, 12, N)
SEEN = Seen(stage=1, answer=LOGITS, size=N)
CANDIDATES = (Threshold(0.0), LearnedCascade())


def outcomes(chance: np.ndarray) -> Outcomes:
    """The small model is right with this chance, the large one always."""
    return Outcomes((DRAW.random(N) < chance).astype(float), np.ones(N), SEEN, USERS)


def test_it_takes_what_knows_more() -> None:
    held = Selected(CANDIDATES).fit(outcomes(np.array([0.95, 0.95, 0.2])[SAID]))
    assert int(held.state["which"]) == 1
    nothing_to_learn = Selected(CANDIDATES).fit(outcomes(np.full(N, 0.7)))
    assert int(nothing_to_learn.state["which"]) == 0


def test_an_area_is_that_of_the_curve() -> None:
    told = outcomes(np.full(N, 0.7))
    found = Selected((Threshold(0.0),), folds=2).areas(told)
    assert found.shape == (1, 2)
    scores = Threshold(0.0).scores({}, SEEN)
    total = 0.0
    for fold in range(2):  # whole users, so that the folds' areas are those of one of these splits
        total += found[0, fold]
    order = np.argsort(scores)
    won = np.append(0, np.cumsum((told.gain * told.shares)[order]))
    asked = np.append(0, np.cumsum(told.shares[order]))
    assert total / 2 == pytest.approx(np.trapezoid(won, asked), abs=0.02)


def test_nothing_to_judge_by_leaves_the_first() -> None:
    one = Outcomes(np.array([1.0, 0]), np.ones(2), SEEN.rows(np.arange(2)), np.array([0, 0]))
    held = Selected(CANDIDATES).fit(one)
    assert int(held.state["which"]) == 0
    policy = Selected(CANDIDATES)
    assert (policy.choose(policy.init(), SEEN, ())[1].action == Action.ASK).all()
    right = Selected(CANDIDATES, price=0.01).fit(outcomes(np.ones(N)))
    assert (right.choose(SEEN, ()).action == Action.STOP).all()


def test_bad_candidates_are_refused() -> None:
    for candidates in ((), (OnlyInCloud(),)):
        with pytest.raises(ConfigError, match="candidates"):
            Selected(candidates)
    with pytest.raises(ConfigError, match="folds"):
        Selected((LearnedGain(),), folds=1)
