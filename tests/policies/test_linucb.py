"""LinUCB: bounds by hand, and who has a bonus."""

from typing import Any

import numpy as np
import pytest

from duetto.errors import ConfigError
from duetto.policies import LinUCB
from duetto.policies.linear import described
from duetto.types import Action, Move, Seen

DRAW = np.random.default_rng(1)
LOGITS = DRAW.normal(size=(60, 4)) * 2
SEEN = Seen(stage=1, answer=LOGITS, size=60)


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 2.0])
def test_the_bounds_decide(alpha: float, full: bool) -> None:
    policy = LinUCB(alpha, full_information_on_ask=full)
    action = np.where(DRAW.random(60) < 0.3, Action.ASK, Action.STOP)
    state = policy.learn(policy.init(), SEEN, Move.sure(action, ""), DRAW.random(60))
    x = described(SEEN, 8)
    assert x is not None
    bounds = []
    for arm in (0, 1):
        inverse = np.linalg.inv(state["A"][arm])
        width = np.sqrt(np.einsum("ni,ij,nj->n", x, inverse, x))
        bounds.append(x @ inverse @ state["b"][arm] + (0 if full and arm == 0 else alpha) * width)
    after, move = policy.choose(state, SEEN, (0,))
    assert ((move.action == Action.ASK) == (bounds[1] >= bounds[0])).all()
    assert (move.propensity == 1).all()
    assert int(after["seen"]) == 60


@pytest.mark.parametrize("alpha", [-0.1, np.nan, np.inf])
def test_numbers_out_of_range(alpha: Any) -> None:
    with pytest.raises(ConfigError):
        LinUCB(alpha)
