"""Exits by brute force; the last exit in time; stop when sure or ask where the plan cuts."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from duetto import tree as trees
from duetto.errors import ConfigError, DataError
from duetto.policies import Anytime, Calibrated, ExitOrCut, Exits, RiskControlled, Threshold, confidence
from duetto.types import Action, Held, Key, Move, Outcomes, Plan, Policy, Seen

DRAW = np.random.default_rng(4)
USERS, EACH, CLASSES = 150, 20, 4
LABELS = DRAW.integers(0, CLASSES, USERS * EACH)
OWNERS = np.repeat([f"user {i}" for i in range(USERS)], EACH)
LOGITS = [np.eye(CLASSES)[LABELS] * s + DRAW.normal(size=(len(LABELS), CLASSES)) for s in (2, 3, 5)]
KNOWN = {
    stage: Outcomes.of_classifiers(small, LOGITS[2], LABELS, OWNERS)
    for stage, small in zip((3, 7), LOGITS, strict=False)
}
MARGIN = Threshold(0.5, "margin")


def seen(stage: int, logits: np.ndarray | None, size: int = len(LABELS), **more: Any) -> Seen:
    return Seen(stage=stage, answer=logits, size=size, **more)


def left_at(held: Held[Any]) -> np.ndarray:
    """[n] 0 or 1 for the exit that answers, 2 for the final one, by walking."""
    found = np.full(len(LABELS), 2)
    for i, stage in reversed(list(enumerate((3, 7)))):
        stops = held.choose(seen(stage, LOGITS[i]), ()).action == Action.STOP
        found[stops] = i
    return found


def gaps(left: np.ndarray) -> np.ndarray:
    """[users] share of the final exit's right answers that they lose."""
    right = np.stack([logits.argmax(1) == LABELS for logits in LOGITS]).astype(float)
    lost = right[2] - right[left, np.arange(len(left))]
    return np.bincount(np.repeat(np.arange(USERS), EACH), lost) / EACH


def by_hand(test: Any) -> float:
    """The lowest of all scores down to which every threshold passes, from the surest; walks anew for each."""
    scores = np.stack([confidence(logits, "margin") for logits in LOGITS[:2]])
    at, most = math.inf, np.zeros(USERS)
    for score in np.sort(scores.ravel())[::-1]:
        early = scores >= score
        left = np.where(early[0], 0, np.where(early[1], 1, 2))
        lost = gaps(left)
        most = np.maximum(most, lost)
        if not test(lost, most):
            return at
        at = float(score)
    return at


@pytest.mark.parametrize("target", [0.02, 0.05])
def test_the_promise_is_tested_along_the_way_of_all_exits(target: float) -> None:
    held = Exits(RiskControlled(MARGIN, "expected", target)).fit(KNOWN)
    at = by_hand(lambda lost, most: (most.sum() + 1) / (USERS + 1) <= target)
    left = left_at(held)
    scores = np.stack([confidence(logits, "margin") for logits in LOGITS[:2]])
    early = scores >= at
    assert (left == np.where(early[0], 0, np.where(early[1], 1, 2))).all()
    assert {0, 1, 2} <= set(left.tolist())
    assert 0 < gaps(left).mean() <= target
    assert held.state["promise"]["gap"] >= gaps(left).mean()
    assert held.state["promise"]["kept"] == (left < 2).mean()


def test_exits_with_a_t_bound() -> None:
    held = Exits(RiskControlled(MARGIN, "approximate", 0.05)).fit(KNOWN)
    assert 0 < gaps(left_at(held)).mean() <= 0.05
    assert float(held.state["promise"]["gap"]) == pytest.approx(gaps(left_at(held)).mean())


def test_scores_are_fitted_exit_by_exit_on_other_users() -> None:
    held = Exits(RiskControlled(Calibrated(), "expected", 0.05)).fit(KNOWN)
    temperatures = [float(held.state["inner"][stage]["temperature"]) for stage in ("3", "7")]
    assert temperatures[0] != temperatures[1]
    assert int(held.state["promise"]["users"]) == 0.8 * USERS
    assert gaps(left_at(held)).mean() < 0.05
    restored = held.restore(held.save())
    assert (left_at(restored) == left_at(held)).all()
    with pytest.raises(DataError, match="one user"):
        held.part.fit({3: replace(KNOWN[3], users=np.zeros(len(LABELS)))})


def test_more_exits_never_help_a_promise_that_none_keeps() -> None:
    part = Exits(RiskControlled(MARGIN, "expected", 0.001))
    held = part.fit(KNOWN)
    assert (left_at(held) == 2).all()
    assert "it never exits early" in part.promised(held.state)


def test_an_exit_that_was_not_fitted_goes_on() -> None:
    held = Exits(RiskControlled(MARGIN, "expected", 0.1)).fit(KNOWN)
    for stage in (0, 5):
        assert (held.choose(seen(stage, LOGITS[1]), ()).action == Action.GO).all()
    assert (held.choose(seen(3, None), ()).action == Action.GO).all()
    assert (Held.of(held.part).choose(seen(3, LOGITS[0]), ()).action == Action.GO).all()


def test_a_lone_exit_is_the_cascade_s_promise() -> None:
    risk = RiskControlled(MARGIN, "expected", 0.05)
    lone, cascade = Exits(risk).fit(KNOWN[7]), risk.fit(KNOWN[7])
    assert float(lone.state["threshold"]) == float(cascade.state["threshold"])
    assert trees.encode(lone.state["promise"]) == trees.encode(cascade.state["promise"])


def test_the_sentence_is_about_exits() -> None:
    part = Exits(RiskControlled(MARGIN, "expected", 0.05))
    text = part.promised(part.fit(KNOWN).state)
    assert "lose at most 5 % of their answers against the final exit alone" in text
    assert "of answers early" in text
    assert "large model" not in text


def test_what_cannot_be_fitted_is_told() -> None:
    part = Exits(RiskControlled(MARGIN, "expected", 0.05))
    with pytest.raises(DataError, match="no exits"):
        part.fit({})
    for wrong in (KNOWN[7].rows(slice(1, None)), replace(KNOWN[7], users=None), replace(KNOWN[7], judged=False)):
        with pytest.raises(DataError, match="other items or users at the exit after stage 7"):
            part.fit({**KNOWN, 7: wrong})
    with pytest.raises(DataError, match=r"outside 0\.\.1"):
        part.fit({3: replace(KNOWN[3], small=KNOWN[3].small * 2)})


# ---------------------------------------------------------------------------------------------------------- in time


@pytest.mark.parametrize(("deadline", "last"), [(0.02, 3), (0.045, 3), (0.05, 7), (0.08, 9), (9.0, 9)])
def test_the_last_exit_in_time_answers(deadline: float, last: int) -> None:
    """Exits at 30, 50 and 80 ms; the first one answers even where it is late."""
    policy = Anytime(Threshold(2.0), deadline, ((3, 0.03), (7, 0.05), (9, 0.08)))
    logits = LOGITS[0][:2]
    never = replace(policy, inner=Exits(RiskControlled(MARGIN, "expected", 0.1)))  # not fitted: goes on
    assert (Held.of(never).choose(seen(0, None, 2), ()).action == Action.GO).all()
    for stage in (3, 7):
        action = Held.of(never).choose(seen(stage, logits, 2), ()).action
        assert (action == (Action.STOP if stage >= last else Action.GO)).all()
    assert (Held.of(policy).choose(seen(3, logits, 2), ()).action == Action.ASK).all()  # whoever asks is not stopped


def test_what_is_known_of_the_time_counts() -> None:
    policy = Anytime(Exits(RiskControlled(MARGIN, "expected", 0.1)), 0.01, ((3, 0.03), (7, 0.05)))
    left = {"seconds_left": np.array([0.015, 0.025])}
    move = Held.of(policy).choose(seen(3, LOGITS[0][:2], 2, traits=left), ())
    assert move.action.tolist() == [Action.STOP, Action.GO]
    assert "0.02 s away" in move.why


def test_anytime_stops_where_the_inner_policy_does() -> None:
    policy = Anytime(Exits(RiskControlled(MARGIN, "expected", 0.05)), 9.0, ((3, 0.03), (7, 0.05)))
    held, inner = policy.fit(KNOWN), policy.inner.fit(KNOWN)  # type: ignore[attr-defined]
    assert (left_at(held) == left_at(inner)).all()


def test_deadlines_and_seconds_are_numbers() -> None:
    with pytest.raises(ConfigError, match="deadline"):
        Anytime(MARGIN, 0.0, ())
    for wrong in (((3, 0.1), (3, 0.2)), ((3, 0.1), (7, 0.05)), ((0, 0.1),), ((3, math.nan),)):
        with pytest.raises(ConfigError, match="exits at"):
            Anytime(MARGIN, 1.0, wrong)


# ------------------------------------------------------------------------------------------------------ exit or cut


@dataclass(frozen=True)
class Cutting(Policy[Mapping[str, Any]]):
    """Asks with a plan for those who are online; counts what it learned."""

    plan: Plan

    def init(self) -> Mapping[str, Any]:
        return {"learned": np.array(0)}

    def choose(self, state: Mapping[str, Any], seen: Seen, key: Key) -> tuple[Mapping[str, Any], Move]:
        online = np.ones(seen.size, bool) if seen.link is None else seen.link["online"]
        action = np.where(online, Action.ASK, Action.STOP)
        return state, Move.sure(action, "a plan", "edge", self.plan)

    def learn(self, state: Mapping[str, Any], seen: Seen, move: Move, reward: Any) -> Mapping[str, Any]:
        return {"learned": state["learned"] + 1}


SURE, UNSURE = np.array([9.0, 0.0, 0.0]), np.zeros(3)


def test_stop_when_sure_else_ask_at_the_cut() -> None:
    plan = Plan(7, patience=0.5)
    held = Held.of(ExitOrCut(Cutting(plan), 0.9))
    assert held.choose(seen(0, None, 2), ()).action.tolist() == [Action.GO, Action.GO]
    both = np.stack([SURE, UNSURE])
    assert held.choose(seen(3, both, 2), ()).action.tolist() == [Action.STOP, Action.GO]
    move = held.choose(seen(7, both, 2), ())
    assert (move.action.tolist(), move.peer, move.plan) == ([Action.STOP, Action.ASK], "edge", plan)
    offline = {"online": np.array([True, False])}
    move = held.choose(seen(7, np.stack([UNSURE, UNSURE]), 2, link=offline), ())
    assert move.action.tolist() == [Action.ASK, Action.GO]


def test_past_the_cut_it_asks_from_where_it_is() -> None:
    move = Held.of(ExitOrCut(Cutting(Plan(3)))).choose(seen(7, UNSURE[None], 1), ())
    assert (move.action.tolist(), move.plan.cut) == ([Action.ASK], 7)


def test_a_cut_at_the_input_asks_at_once() -> None:
    assert Held.of(ExitOrCut(Cutting(Plan(0)))).choose(seen(0, None, 1), ()).action.tolist() == [Action.ASK]


@pytest.mark.parametrize(("at", "stops"), [(0.0, True), (1.001, False)])
def test_at_the_ends_it_is_one_of_its_two_parts(at: float, stops: bool) -> None:
    held = Held.of(ExitOrCut(Cutting(Plan(3)), at))
    action = held.choose(seen(3, LOGITS[0]), ()).action
    assert (action == (Action.STOP if stops else Action.ASK)).all()


def test_exits_with_a_promise_judge_in_its_place() -> None:
    exits = Exits(RiskControlled(MARGIN, "expected", 0.05))
    planned = Held(Cutting(Plan(7)), {"learned": np.array(5)})
    held = ExitOrCut(Cutting(Plan(7)), exits=exits).fit(KNOWN, planned)
    alone = exits.fit(KNOWN)
    assert (left_at(held) == left_at(alone)).all()
    asked = held.choose(seen(7, LOGITS[1]), ()).action == Action.ASK
    assert (asked == (alone.choose(seen(7, LOGITS[1]), ()).action == Action.GO)).all()
    move = held.choose(seen(7, LOGITS[1]), ())
    held.learn(seen(7, LOGITS[1]), move, np.ones(len(LABELS)))
    assert int(held.state["inner"]["learned"]) == 6
    with pytest.raises(ConfigError, match="a state of"):
        held.part.fit(KNOWN, Held.of(Cutting(Plan(3))))


def test_a_plan_by_names_and_a_confidence_that_is_none_are_told() -> None:
    with pytest.raises(ConfigError, match="NaN"):
        ExitOrCut(MARGIN, math.nan)
    with pytest.raises(ConfigError, match="a set of stages"):
        Held.of(ExitOrCut(Cutting(Plan(frozenset({"conv"}))))).choose(seen(0, None, 1), ())
