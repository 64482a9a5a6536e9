"""Planned, Static and LearnedPlan: which plan, how patient, when to probe."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from duetto.codecs import Quantise, Zstd
from duetto.errors import ConfigError, DataError
from duetto.policies import Coding, Jumps, LearnedPlan, Options, Planned, Static
from duetto.policies.cuts import chained, priced
from duetto.policies.planned import Weighed, figures
from duetto.simulation.energy import Radio
from duetto.types import Action, Held, Move, Plan, Seen

RADIO = Radio(up_watts=2.6, down_watts=1.0, tail_watts=0.2, tail_seconds=10.0)
CODECS = {"int8": Quantise(8), "input": Zstd()}
SURE = Jumps(seconds=1e6, trust=1e3, outage=0.0, tremble=0.1, lead=0.0)


def options(**settings: Any) -> Options:
    """Device 0.5 s; cloud 0.02 s; a cut after a tenth of it sends 6 kB."""
    return chained(
        [0.0, 0.05, 0.5],
        [0.0, 0.001, 0.01],
        [600_000, 60_000, 4_000],
        (0, 1, 2),
        input_bytes=150_000,
        compressed_bytes=15_000,
        answer_bytes=200,
        watts=3.0,
        cloud_overhead_seconds=0.01,
        codings=(Coding("int8", 10.0),),
        **settings,
    )


def told(held: Held[Any], mbps: float, time: float = 0.0, times: int = 1) -> None:
    """Measurements of a bandwidth, one a second."""
    for i in range(times):
        traits = {"up_mbps": np.array([mbps]), "time": np.array([time + i]), "rtt_seconds": np.array([0.05])}
        held.learn(Seen(traits=traits), Move.sure([Action.STOP], ""), np.array([np.nan]))


@pytest.mark.parametrize("objective", ["latency", "energy"])
@pytest.mark.parametrize("mbps", [0.05, 0.4, 3.0, 40.0, 250.0])
def test_a_known_link_gets_the_plan_of_least_price(objective: Any, mbps: float) -> None:
    held = Planned(objective=objective, rescue=False, stay=0.0, forecast=SURE).given(options(), RADIO, CODECS)
    told(held, mbps, times=20)
    costs = priced(options(), mbps, None, 0.05, radio=RADIO).of(objective)
    row = int(held.part.wanted(held.state, Seen(traits={"time": np.array([19.0])}))[0])
    assert costs[row] <= 1.03 * costs.min()


def test_a_move_carries_the_plan() -> None:
    held = Planned(forecast=SURE).given(options(), RADIO, CODECS)
    told(held, 40.0, times=20)
    move = held.choose(Seen(traits={"time": np.array([19.0])}), ())
    assert move.action.tolist() == [Action.ASK]
    assert move.plan.cut == 0
    told(held, 0.02, 20.0, times=40)
    assert held.choose(Seen(traits={"time": np.array([59.0])}), ()).action.tolist() == [Action.GO]
    # Later stages stop with the answer, and ask only without a model.
    assert held.choose(Seen(stage=2, answer=np.zeros((1, 3))), ()).action.tolist() == [Action.STOP]
    assert held.choose(Seen(stage=1), ()).action.tolist() == [Action.ASK]


def test_a_monitor_is_believed_at_once() -> None:
    held = Planned(forecast=SURE).given(options(), RADIO, CODECS)
    told(held, 0.02, times=20)
    fast = Seen(link={"up_mbps": np.array([50.0, 0.02]), "rtt_seconds": np.array([0.02, 0.02])}, size=2)
    assert held.choose(fast, ()).action.tolist() == [Action.ASK, Action.GO]
    busy = replace(fast, queue=np.array([9.0, 9.0]))
    assert held.choose(busy, ()).action.tolist() == [Action.GO, Action.GO]


def test_patience_is_finite_where_the_link_may_stall_and_infinite_without_rescue() -> None:
    for objective in ("latency", "energy"):
        held = Planned(objective=objective).given(options(), RADIO, CODECS)  # type: ignore[arg-type]
        told(held, 20.0, times=20)
        seen = Seen(traits={"time": np.array([20.0])})
        patience = held.choose(seen, ()).plan.patience
        assert 0 <= patience < 2
        alone = Held(replace(held.part, rescue=False), held.state)
        assert alone.choose(seen, ()).plan.patience == np.inf


def test_the_radio_is_given_up_within_bounds_of_the_ski_rental() -> None:
    chosen, trust = options(), 0.5
    held = Planned(objective="energy", trust=trust).given(chosen, RADIO, CODECS)
    told(held, 20.0, times=5)
    found = held.part.weigh(held.state, Seen(traits={"time": np.array([5.0])}))
    for row in np.flatnonzero(chosen.sends & np.isfinite(found.patience[0])):
        rental = chosen.rest_joules[row] / RADIO.up_watts
        wait = 1.6 * (float(held.state["rtt"]) + chosen.cloud_seconds[row])
        assert trust * rental <= found.patience[0, row] - wait + 1e-9
        assert found.patience[0, row] - wait <= rental / trust + 1e-9


def test_a_probe_is_worth_it_where_knowing_changes_the_plan() -> None:
    held = Planned(objective="energy").given(options(), RADIO, CODECS)
    told(held, 0.05)
    told(held, 30.0, 1.0)
    told(held, 0.05, 2.0)
    seen = Seen(traits={"time": np.array([30.0])})
    assert held.part.probe(held.state, seen).tolist() == [True]
    alone = Planned(objective="energy").given(options().rows([0]), RADIO, CODECS)
    told(alone, 0.05)
    assert alone.part.probe(alone.state, seen).tolist() == [False]


def test_before_a_question_that_is_asked_anyway_a_probe_informs_that_one_alone() -> None:
    part = Planned(objective="energy", informs=6.0)
    mbps, waits = np.array([0.8]), np.array([0.1])  # 2 kB in 20 ms, and the wait for the answer
    joules = 0.02 * RADIO.up_watts + 0.1 * RADIO.tail_watts
    for gain, asks, pays in ((0.5, True, False), (0.5, False, True), (1.1, True, True), (0.1, False, False)):
        known = np.array([5.0 - gain * joules])
        found = Weighed(np.array([[5.0, 6.0]]), np.array([[np.inf, np.inf]]), known, np.array([asks, not asks]))
        assert part.probes(found, mbps, figures(RADIO), waits).tolist() == [pays]
    chosen = options()
    for rate, better in ((20.0, True), (0.02, False)):
        held = Planned(objective="energy").given(chosen, RADIO, CODECS)
        told(held, rate, times=20)
        found = held.part.weigh(held.state, Seen(traits={"time": np.array([20.0])}), True)
        assert found.sends.tolist() == chosen.sends.tolist()
        assert chosen.sends[found.costs.argmin(-1)].tolist() == [better]


def test_it_stays_with_a_plan_that_is_hardly_dearer() -> None:
    part = Planned(stay=0.1)
    costs = np.array([[1.0, 1.05, 2.0]])
    assert part.taken(costs, np.array([1])).tolist() == [1]
    assert part.taken(costs, np.array([2])).tolist() == [0]
    assert part.taken(costs, np.array([-1])).tolist() == [0]


def test_what_was_used_last_is_remembered() -> None:
    held = Planned().given(options(), RADIO, CODECS)
    move = Move.sure([Action.ASK], "", plan=Plan(0, None, None, 0.3))
    held.learn(Seen(), move, np.array([np.nan]))
    assert int(held.state["last"]) == 1
    held.learn(Seen(), Move.sure([Action.GO], ""), np.array([np.nan]))
    assert int(held.state["last"]) == 0


def test_a_state_goes_on_after_saving() -> None:
    held = Planned().given(options(), RADIO, CODECS)
    told(held, 3.0, times=5)
    other = held.restore(held.save())
    told(held, 9.0, 6.0)
    told(other, 9.0, 6.0)
    assert held.save() == other.save()


def test_static_keeps_the_plan_of_its_link() -> None:
    fast = Static.best(options(), "latency", 50.0, codecs=CODECS)
    slow = Static.best(options(), "latency", 0.01, codecs=CODECS)
    assert fast.choose(Seen(), ()).plan.cut == 0
    assert fast.choose(Seen(), ()).action.tolist() == [Action.ASK]
    assert slow.choose(Seen(), ()).action.tolist() == [Action.GO]
    with pytest.raises(DataError):
        Static.best(options(), "latency", np.array([1.0, 2.0]))  # type: ignore[arg-type]


def test_a_cloud_that_is_slower_than_told_is_noticed() -> None:
    held = LearnedPlan(Planned(rescue=False, forecast=SURE)).given(options(), RADIO, CODECS)
    for step in range(60):
        seen = Seen(link={"up_mbps": np.array([1.0])}, traits={"time": np.array([float(step)])})
        move = held.choose(seen, ())
        seconds = 2.0 if move.action[0] == Action.ASK else 0.5
        held.learn(seen, move, np.array([-seconds]))
    assert move.action.tolist() == [Action.GO]
    planned = Held(held.part.planned, held.state["planned"])
    assert planned.choose(seen, ()).action.tolist() == [Action.ASK]


def test_bad_input() -> None:
    for wrong in ({"objective": "speed"}, {"waste": -1.0}, {"trust": 0.0}, {"informs": np.inf}):
        with pytest.raises(ConfigError):
            Planned(**wrong)  # type: ignore[arg-type]
    for wrong in ({"alpha": -1.0}, {"ridge": 0.0}):
        with pytest.raises(ConfigError):
            LearnedPlan(**wrong)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="codec"):
        Planned().given(options(), RADIO)
    held = Planned().given(options(), RADIO, CODECS)
    with pytest.raises(DataError, match="column"):
        held.choose(Seen(link={"up_mbps": np.zeros(3)}, size=2), ())
    with pytest.raises(DataError, match="rewards"):
        LearnedPlan().learn(LearnedPlan().init(), Seen(), Move.sure([Action.GO], ""), np.zeros(2))
