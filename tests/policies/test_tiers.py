"""Tiers: the best peer after price and latency, item by item."""

from dataclasses import replace

import numpy as np
import pytest

from duetto.errors import ConfigError, DataError
from duetto.policies import Logistic, Tier, Tiers
from duetto.types import Action, Outcomes, Seen

DRAW = np.random.default_rng(3)
N = 900
KIND = DRAW.integers(0, 3, N)  # 0: the device knows, 1: the edge does, 2: only the cloud does
SEEN = Seen(stage=1, answer=DRAW.normal(size=(N, 2)), features=np.eye(3)[KIND], size=N)
SMALL, EDGE, CLOUD = ((kind >= KIND).astype(float) for kind in (0, 1, 2))
OF = {"edge": Outcomes(SMALL, EDGE, SEEN), "cloud": Outcomes(SMALL, CLOUD, SEEN)}
EDGE_TIER, CLOUD_TIER = Tier("edge", 0.1, 0.1), Tier("cloud", 0.2, 1.0)
POLICY = Tiers((EDGE_TIER, CLOUD_TIER), 0.1, Logistic(0.1))


def test_every_item_goes_where_it_gains_most() -> None:
    held = POLICY.fit(OF)
    wanted = np.array(["device", "edge", "cloud"])[KIND]
    parts = POLICY.parts(held.state, SEEN, ())
    assert sorted(np.concatenate([at for at, _ in parts.values()]).tolist()) == list(range(N))
    for peer, (at, move) in parts.items():
        asked = at[move.action == Action.ASK]
        assert (wanted[asked] == peer).all()
        assert move.peer == peer or not len(asked)
        assert (wanted[at[move.action == Action.STOP]] == "device").all()
    move = held.choose(SEEN, ())
    assert ((move.action == Action.ASK) == (KIND > 0)).all()
    assert move.peer == "", "an array whose items want different peers names none"
    assert held.choose(SEEN.rows(KIND == 2), ()).peer == "cloud"
    assert held.choose(SEEN.rows(np.flatnonzero(KIND == 1)[:1]), ()).peer == "edge"


def test_what_waiting_costs_is_subtracted() -> None:
    held = POLICY.fit(OF)
    plain = POLICY.scores(held.state, SEEN)
    waiting = replace(SEEN, queue=np.full(N, 2.0), link={"rtt_seconds": np.full(N, 1.0)})
    assert POLICY.scores(held.state, waiting) == pytest.approx(plain + 0.1 * 3)
    assert (held.choose(replace(SEEN, queue=np.full(N, 1e6)), ()).action == Action.STOP).all()
    dear = replace(POLICY, peers=(EDGE_TIER, replace(CLOUD_TIER, price=2.0)))
    assert set(dear.wanted(dear.fit(OF).state, SEEN)) == {"edge"}


def test_before_fitting_the_last_peer_is_asked() -> None:
    _, move = POLICY.choose(POLICY.init(), SEEN, ())
    assert (move.action == Action.ASK).all()
    assert move.peer == "cloud"
    assert (POLICY.choose(POLICY.init(), Seen(stage=0, size=3), ())[1].action == Action.GO).all()


def test_outcomes_alone_hold_for_every_peer_and_the_cheapest_wins() -> None:
    held = POLICY.fit(OF["cloud"])
    assert set(POLICY.wanted(held.state, SEEN)) == {"edge"}


def test_bad_input_is_refused() -> None:
    for peers in ((), (EDGE_TIER, EDGE_TIER), (Tier(""),), (Tier("a", -1),), (Tier("a", 0, float("inf")),)):
        with pytest.raises(ConfigError):
            Tiers(peers)
    with pytest.raises(ConfigError, match="cloud"):
        POLICY.fit({"edge": OF["edge"]})
    with pytest.raises(DataError, match="other columns"):
        POLICY.fit({**OF, "cloud": Outcomes(SMALL, CLOUD, replace(SEEN, features=None))})
    with pytest.raises(DataError, match="NaN"):
        POLICY.fit(OF).choose(replace(SEEN, answer=np.full((N, 2), np.nan)), ())
