"""Ensemble: each measure against a loop over items and members."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from duetto.errors import ConfigError, DataError
from duetto.policies import OPINIONS, Ensemble, confidence
from duetto.policies.opinions import opinion
from duetto.policies.price import worthwhile
from duetto.types import Action, Outcomes, Seen

DRAW = np.random.default_rng(9)
N, K, CLASSES = 40, 4, 3
MEMBERS = DRAW.normal(size=(N, K, CLASSES)) * 2
OWN = MEMBERS[:, 0]
SEEN = Seen(stage=1, answer=OWN, scores=MEMBERS, size=N)
P = np.exp(MEMBERS) / np.exp(MEMBERS).sum(2, keepdims=True)


def entropy(p: np.ndarray) -> float:
    """In nats."""
    return float(-(p * np.log(p)).sum())


EXPECTED = {
    "own": [np.mean([P[i, k, OWN[i].argmax()] for k in range(K)]) for i in range(N)],
    "votes": [np.mean([MEMBERS[i, k].argmax() == OWN[i].argmax() for k in range(K)]) for i in range(N)],
    "agreement": [1 - entropy(P[i].mean(0)) / np.log(CLASSES) for i in range(N)],
    "information": [np.mean([entropy(P[i, k]) for k in range(K)]) - entropy(P[i].mean(0)) for i in range(N)],
    "pairs": [
        -np.mean([MEMBERS[i, a].argmax() != MEMBERS[i, b].argmax() for a, b in combinations(range(K), 2)])
        for i in range(N)
    ],
}


@pytest.mark.parametrize("measure", OPINIONS)
def test_a_measure_is_what_it_says(measure: str) -> None:
    assert Ensemble(measure).scores({}, SEEN) == pytest.approx(np.array(EXPECTED[measure]), abs=2e-6)


@pytest.mark.parametrize("measure", OPINIONS)
def test_members_that_agree_are_surer_than_members_that_do_not(measure: str) -> None:
    sure, split = np.tile([9.0, 0, 0], (1, K, 1)), np.tile(np.eye(3)[[0, 1, 2, 0]] * 9, (1, 1, 1))
    low, high = (opinion(np.array([0]), members, measure)[0] for members in (split, sure))
    assert low < high - 0.1


def test_alone_it_is_the_largest_probability() -> None:
    alone = replace(SEEN, scores=None)
    assert Ensemble().scores({}, alone) == pytest.approx(confidence(OWN))


def test_it_is_fitted_to_where_asking_pays() -> None:
    gain = DRAW.integers(-1, 2, N).astype(float)
    held = Ensemble("own", 0.1).fit(Outcomes(np.zeros(N), gain, SEEN))
    scores = Ensemble().scores({}, SEEN)
    won = [(gain - 0.1)[scores < at].sum() for at in (*scores, np.inf)]
    asked = held.choose(SEEN, ()).action == Action.ASK
    assert (gain - 0.1)[asked].sum() == pytest.approx(max(*won, 0))


def test_the_threshold_keeps_ties_together_and_is_safe_at_the_ends() -> None:
    scores, shares = np.array([1.0, 1, 2, 2]), np.full(4, 0.25)
    assert worthwhile(scores, np.array([1.0, -2, 1, 1]), shares, 0) == np.inf
    assert worthwhile(scores, np.array([1.0, 1, -1, -1]), shares, 0) == 2
    assert worthwhile(scores, -np.ones(4), shares, 0) == -np.inf
    assert worthwhile(scores, np.ones(4), shares, 1) == -np.inf, "what only breaks even is not asked"


def test_before_fitting_it_always_asks_and_all_right_never() -> None:
    policy = Ensemble()
    assert (policy.choose(policy.init(), SEEN, ())[1].action == Action.ASK).all()
    held = policy.fit(Outcomes(np.ones(N), np.ones(N), SEEN))
    assert (held.choose(SEEN, ()).action == Action.STOP).all()


def test_bad_input_is_refused() -> None:
    for scores in (MEMBERS * np.nan, MEMBERS[:, :, :2], MEMBERS[:5], MEMBERS[:, 0], MEMBERS[:, :0]):
        with pytest.raises(DataError):
            Ensemble().scores({}, replace(SEEN, scores=scores))
    with pytest.raises(ConfigError, match="measure"):
        Ensemble("luck")
    with pytest.raises(ConfigError, match="price"):
        Ensemble(price=float("nan"))
    with pytest.raises(ConfigError, match="measure"):
        opinion(np.array([0]), MEMBERS[:1], "luck")
