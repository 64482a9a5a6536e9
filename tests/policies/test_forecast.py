"""The forecast: what it believes at first, after measurements, and as they grow old."""

import numpy as np
import pytest

from duetto import tree as trees
from duetto.errors import ConfigError
from duetto.policies import Jumps
from duetto.policies.forecast import PLACES


def test_chances_sum_to_one_for_any_shape() -> None:
    jumps, draw = Jumps(), np.random.default_rng(0)
    state = jumps.begun((2, 3))
    for step in range(5):
        state = jumps.heard(state, 2.0 * step, draw.lognormal(size=(2, 3)))
        rates, chances = jumps.ahead(state, 2.0 * step + 1)
        assert rates.shape == chances.shape == (2, 3, 3 + len(PLACES))
        assert np.allclose(chances.sum(-1), 1)
        assert (rates > 0).all()
    assert trees.spec(trees.decode(trees.encode(state))) == trees.spec(state)


def test_a_steady_link_is_believed_and_doubt_grows_with_age() -> None:
    jumps = Jumps(lead=0.0)
    state = jumps.begun()
    for step in range(30):
        state = jumps.heard(state, 2.0 * step, np.array(5.0))
    assert np.isclose(np.exp(state["level"]), 5.0)
    kept = [float(jumps.kept(state, 58.0 + age)) for age in (0.0, 2.0, 20.0, 1000.0)]
    assert kept == sorted(kept, reverse=True)
    assert kept[0] == 1
    # Thirty measurements fade to a rate of one jump in lived / jumps seconds.
    assert np.isclose(kept[2], np.exp(-20 * state["jumps"] / state["lived"]))
    rates, chances = jumps.ahead(state, 1e9)
    assert abs(float((np.log(rates) * chances).sum()) - np.log(5)) < 0.5


def test_a_link_that_jumps_is_believed_to() -> None:
    jumps, steady, wild = Jumps(), Jumps().begun(), Jumps().begun()
    for step in range(30):
        steady = jumps.heard(steady, 2.0 * step, np.array(5.0))
        wild = jumps.heard(wild, 2.0 * step, np.array(5.0 if step % 3 else 0.0))
    assert wild["jumps"] / wild["lived"] > 3 * steady["jumps"] / steady["lived"]
    _, chances = jumps.ahead(wild, 1e9)
    assert 0.2 < chances[3] < 0.5  # of an outage, the first place


def test_nothing_measured_changes_nothing() -> None:
    jumps = Jumps()
    state = jumps.heard(jumps.begun(), 1.0, np.array(2.0))
    after = jumps.heard(state, 5.0, np.array(np.nan))
    assert trees.encode(after) == trees.encode(state)


@pytest.mark.parametrize("wrong", [{"seconds": 0.0}, {"memory": 1.0}, {"outage": 1.5}, {"lead": -1.0}])
def test_numbers_out_of_range(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        Jumps(**wrong)
