"""Watched: an alarm soon after a change, fresh answers, a new calibration that says so, and a state that is a tree."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from duetto import tree as trees
from duetto.errors import ConfigError
from duetto.policies import DETECTORS, Audited, Calibrated, OnlyInCloud, RiskControlled, Threshold, Watched
from duetto.policies.drift import SIGNALS
from duetto.types import Action, Held, Outcomes, Seen

CLASSES = 3
PROMISE = RiskControlled(Threshold(0.5, "margin"), "approximate", 0.1)


def drawn(n: int, noise: float, key: int, users: bool = True) -> tuple[Seen, np.ndarray]:
    """n items of a small model as good as ``noise`` lets it be, and where the cloud's answer differs."""
    draw = np.random.default_rng(key)
    labels = draw.integers(0, CLASSES, n)
    logits = np.eye(CLASSES)[labels] * 6 + draw.normal(size=(n, CLASSES)) * noise
    traits = {"user": np.arange(n) % 50} if users else None
    return Seen(stage=1, answer=logits, traits=traits, size=n), 1.0 * (logits.argmax(1) != labels)


def fitted(policy: Watched, noise: float = 1.0) -> Held[Any]:
    seen, differs = drawn(2000, noise, 0)
    return policy.fit(Outcomes(1 - differs, np.ones(2000), seen, np.arange(2000) % 100))


def live(held: Held[Any], seen: Seen, differs: np.ndarray, chunk: int = 10) -> list[str]:
    """Chunk by chunk; the reasons that were given, each once."""
    reasons: list[str] = []
    for begin in range(0, seen.size, chunk):
        rows = np.arange(begin, min(begin + chunk, seen.size))
        move = held.choose(seen.rows(rows), (3,))
        held.learn(seen.rows(rows), move, np.where(move.action == Action.ASK, differs[rows], np.nan))
        if move.why not in reasons:
            reasons.append(move.why)
    return reasons


@pytest.fixture
def river() -> None:
    """The extra ``drift``."""
    pytest.importorskip("river")


@pytest.mark.usefixtures("river")
@pytest.mark.parametrize("detector", DETECTORS)
def test_a_change_is_noticed_and_mended(detector: Any) -> None:
    window = 200 if detector == "kswin" else 2000
    held = fitted(Watched(PROMISE, detector, fresh=400, every=50, window=window))
    before = float(held.state["inner"]["threshold"])
    live(held, *drawn(600, 1.0, 1))
    assert int(held.state["alarms"]) <= (1 if detector == "kswin" else 0)  # one value in 200 is a false alarm of it
    reasons = live(held, *drawn(4000, 6.0, 2), 50)
    assert int(held.state["alarms"]) >= 1
    assert int(held.state["recalibrated"]) >= 1
    if detector == "adwin":
        assert int(held.state["asking"]) == 0
        assert any(why.startswith("drift in ") and "fresh answers" in why for why in reasons)
        assert reasons[-1].startswith("calibrated anew after drift in ")
        after = float(held.state["inner"]["threshold"])
        assert after > before  # more is asked of a worse model
        seen, differs = drawn(20_000, 6.0, 4)
        kept = held.choose(seen, ()).action == Action.STOP
        assert 0.1 < kept.mean() < 1
        assert (kept * differs).mean() <= 0.1 + 0.02


@pytest.mark.usefixtures("river")
@pytest.mark.parametrize("signal", SIGNALS)
def test_either_signal_is_enough(signal: str) -> None:
    held = fitted(Watched(Audited(PROMISE, 0.1, share=0.3), on=(signal,)))
    seen, differs = drawn(1500, 1.0, 1)
    live(held, seen, differs)
    assert int(held.state["alarms"]) == 0
    if signal == "disagreement":  # the same inputs, another cloud
        reasons = live(held, *(drawn(3000, 1.0, 5)[0], np.ones(3000)))
    else:
        reasons = live(held, *drawn(3000, 8.0, 5))
    assert any(why.startswith(f"drift in {signal}") for why in reasons)


@pytest.mark.usefixtures("river")
def test_a_saved_state_goes_on_as_if_nothing_had_happened() -> None:
    one, two = (fitted(Watched(PROMISE, fresh=300)) for _ in range(2))
    for noise, key in ((1.0, 1), (8.0, 2), (8.0, 3)):
        for part in range(3):
            seen, differs = drawn(150, noise, 10 * key + part)
            live(one, seen, differs)
            two = two.restore(two.save())
            live(two, seen, differs)
            assert one.save() == two.save()
    assert int(one.state["alarms"]) == 1


@pytest.mark.usefixtures("river")
def test_a_promise_out_of_reach_goes_on_asking() -> None:
    policy = Watched(RiskControlled(Threshold(0.5, "margin"), "expected", 0.01), fresh=40, every=10)
    held = Held.of(policy)
    seen, differs = drawn(80, 1.0, 1, users=False)
    held.state = {**held.state, "asking": np.array(1), "alarms": np.array(1)}
    reasons = live(held, seen, differs)
    assert int(held.state["asking"]) == 1  # 80 of 99 items
    assert reasons[0] == "drift in confidence after 0 items (alarm 1): asking, 0 of 40 fresh answers"
    live(held, *drawn(600, 0.1, 2, users=False))
    assert int(held.state["recalibrated"]) == 1
    assert int(held.state["inner"]["promise"]["by_user"]) == 0


def test_after_an_alarm_it_asks_without_judging() -> None:
    held = fitted(Watched(PROMISE))
    held.state = {**held.state, "asking": np.array(1)}
    seen, _ = drawn(20, 1.0, 1)
    assert (held.choose(seen, ()).action == Action.ASK).all()
    assert held.choose(Seen(stage=0, size=2), ()).action.tolist() == [Action.GO] * 2


def test_fresh_answers_are_what_was_heard_and_no_more_than_is_needed() -> None:
    held = Held.of(Watched(RiskControlled(Threshold(0.5, "margin"), "expected", 0.0), fresh=10))
    held.state = {**held.state, "asking": np.array(1)}
    seen, differs = drawn(30, 1.0, 1)
    move = held.choose(seen, ())
    held.learn(seen, move, np.where(np.arange(30) < 20, np.nan, differs))
    assert held.state["answers"] == pytest.approx(np.asarray(seen.answer)[20:])
    for key in range(20):
        seen, differs = drawn(30, 1.0, key)
        held.learn(seen, held.choose(seen, ()), differs)
    assert len(held.state["gains"]) == 80
    assert int(held.state["asking"]) == 1


@pytest.mark.parametrize(("owners", "by_user"), [(np.arange(60) % 6, 1), (np.zeros(60, int), 0), (None, 0)])
def test_fresh_answers_of_several_users_are_by_user(owners: Any, by_user: int) -> None:
    held = Held.of(Watched(RiskControlled(Calibrated(), "expected", 0.4), fresh=60))
    held.state = {**held.state, "asking": np.array(1)}
    seen, differs = drawn(60, 0.1, 1)
    seen = replace(seen, traits=None if owners is None else {"user": owners})
    held.learn(seen, held.choose(seen, ()), differs)
    assert int(held.state["recalibrated"]) == 1
    assert int(held.state["inner"]["promise"]["by_user"]) == by_user


def test_a_signed_gain_is_a_pair_of_qualities() -> None:
    held = Held.of(Watched(Calibrated(tolerance_points=50.0, scaling="none"), fresh=4))
    held.state = {**held.state, "asking": np.array(1)}
    seen, _ = drawn(4, 0.1, 1)
    held.learn(seen, held.choose(seen, ()), np.array([1.0, -1.0, 0.0, 0.5]))
    assert int(held.state["recalibrated"]) == 1  # the mean gain, 0.125, is within the tolerance
    assert (held.choose(seen, ()).action == Action.STOP).all()


def test_what_was_not_answered_here_tells_nothing() -> None:
    held = fitted(Watched(PROMISE, every=10_000))
    before = trees.encode(held.state)
    held.learn(Seen(stage=1, size=2), Held.of(OnlyInCloud()).choose(Seen(stage=1, size=2), ()), np.ones(2))
    assert trees.encode(held.state) == before


def test_settings_that_cannot_be_met() -> None:
    for inner in (OnlyInCloud(), Threshold(0.5)):
        with pytest.raises(ConfigError, match="cannot be calibrated anew"):
            Watched(inner)
    bad: list[dict[str, Any]] = [
        {"detector": "cusum"},
        {"on": ()},
        {"on": ("loss",)},
        {"fresh": 0},
        {"every": 0},
        {"window": 0},
    ]
    for settings in bad:
        with pytest.raises(ConfigError):
            Watched(PROMISE, **settings)
