"""Spread: variance over members, width between quantiles."""

import numpy as np
import pytest

from duetto.errors import ConfigError, DataError
from duetto.policies import Spread
from duetto.types import Action, Outcomes, Seen

DRAW = np.random.default_rng(1)
N, K, STEPS = 200, 5, 7
TRUTH, NOISE = DRAW.normal(size=N), DRAW.random(N) * 3
MEMBERS = TRUTH[:, None] + NOISE[:, None] * DRAW.normal(size=(N, K))
SEEN = Seen(stage=1, scores=MEMBERS, size=N)


def test_spread_is_variance_or_width() -> None:
    quantiles = np.sort(MEMBERS, axis=1)
    assert Spread().scores({}, SEEN) == pytest.approx([-np.var(row) for row in MEMBERS])
    assert Spread("width").scores({}, Seen(scores=quantiles, size=N)) == pytest.approx(-np.ptp(MEMBERS, axis=1))
    assert Spread().scores({}, Seen(stage=1, answer=MEMBERS, size=N)) == pytest.approx(-MEMBERS.var(1))
    forecast = DRAW.normal(size=(N, K, STEPS))
    wanted = [np.mean([-np.var(one[:, t]) for t in range(STEPS)]) for one in forecast]
    assert Spread().scores({}, Seen(scores=forecast, size=N)) == pytest.approx(wanted)


def test_fitted_it_asks_where_the_error_is_worth_a_call() -> None:
    error = (MEMBERS.mean(1) - TRUTH) ** 2
    held = Spread(price=0.3).fit(Outcomes(-error, np.zeros(N), SEEN))
    asked = held.choose(SEEN, ()).action == Action.ASK
    assert 0 < asked.mean() < 1
    assert error[asked].mean() > 0.3 > error[~asked].mean()
    policy = Spread()
    assert (policy.choose(policy.init(), SEEN, ())[1].action == Action.ASK).all()


def test_predictions_that_agree_gain_nothing() -> None:
    alike = Seen(stage=1, scores=np.ones((N, K)), size=N)
    held = Spread(price=0.1).fit(Outcomes(np.zeros(N), np.zeros(N), alike))
    assert (held.choose(alike, ()).action == Action.STOP).all()


def test_bad_input_is_refused() -> None:
    for scores in (MEMBERS * np.nan, MEMBERS[:, 0], MEMBERS[:, :0], np.full((N, 2), "a")):
        with pytest.raises(DataError):
            Spread().scores({}, Seen(scores=scores, size=N))
    with pytest.raises(ConfigError, match="measure"):
        Spread("range")  # type: ignore[arg-type]
