"""Figures against brute force, on scores that are made by hand."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from duetto.evaluation.result import Result
from duetto.programs import findings
from duetto.programs.closed_loop import Settings
from duetto.programs.findings import Finding
from duetto.programs.scoring import Scores
from duetto.types import Cost, Record

SETTINGS = Settings(tolerance_points=2.0)
DRAW = np.random.default_rng(0)
N, CLASSES = 200, 3


def scores(small_right: float, large_right: float) -> Scores:
    """Answers that are right with these probabilities, of five users."""
    truth = DRAW.integers(0, CLASSES, N)

    def logits(right: float) -> np.ndarray:
        said = np.where(DRAW.random(N) < right, truth, (truth + 1) % CLASSES)
        return (np.eye(CLASSES)[said] * DRAW.uniform(0.5, 3.0, (N, 1)) + 0.1).astype(np.float32)

    return Scores(np.array([f"u{i % 5}" for i in range(N)]), truth, logits(small_right), logits(large_right))


BEFORE, AFTER = (
    {g: scores(0.6, 0.95) for g in ("unseen", "device")},
    {g: scores(0.8, 0.97) for g in ("unseen", "device")},
)


def unsure(of: Scores) -> np.ndarray:
    """One minus the confidence."""
    shares = np.exp(of.small.astype(float))
    return 1 - (shares / shares.sum(1, keepdims=True)).max(1)


UNSURE = {(g, stage): unsure(of[g]) for stage, of in (("before", BEFORE), ("after", AFTER)) for g in BEFORE}


def cheapest(of: Scores, aim: float) -> float:
    """The smallest share over every threshold, tried one by one."""
    found = [1.1]
    at = unsure(of)
    for threshold in (*np.unique(at), np.inf):
        asked = at >= threshold
        right = np.where(asked, of.large.argmax(1) == of.truth, of.small.argmax(1) == of.truth)
        if right.mean() >= aim - 1e-12:
            found.append(asked.mean())
    return min(found)


@pytest.fixture(scope="module")
def figures() -> dict[str, float]:
    """Of the new users."""
    return findings._group("unseen", BEFORE, AFTER, UNSURE, SETTINGS)


def test_the_ask_share_is_the_cheapest_of_all_thresholds(figures: dict[str, float]) -> None:
    before, after = BEFORE["unseen"], AFTER["unseen"]
    target = float((before.large.argmax(1) == before.truth).mean()) - 0.02
    assert figures["target"] == pytest.approx(target, abs=1e-12)
    old, new = cheapest(before, target), cheapest(after, target)
    assert 0 < new < old < 1
    assert figures["ask_before"] == pytest.approx(old, abs=1e-12)
    assert figures["ask_after"] == pytest.approx(new, abs=1e-12)
    assert figures["fewer_calls"] == pytest.approx(1 - new / old, abs=1e-12)


def test_accuracies_are_means_over_answers(figures: dict[str, float]) -> None:
    for stage, of in (("before", BEFORE["unseen"]), ("after", AFTER["unseen"])):
        assert figures[f"large_{stage}"] == pytest.approx((of.large.argmax(1) == of.truth).mean())
        assert figures[f"small_{stage}"] == pytest.approx((of.small.argmax(1) == of.truth).mean())
        assert of.small_correct.tolist() == (of.small.argmax(1) == of.truth).astype(float).tolist()


def test_intervals_hold_what_they_are_of(figures: dict[str, float]) -> None:
    assert figures["fewer_calls_low"] <= figures["fewer_calls"] <= figures["fewer_calls_high"]
    gain = figures["large_after"] - figures["large_before"]
    assert figures["large_gain_low"] <= gain <= figures["large_gain_high"]
    assert figures["fewer_calls_low"] < figures["fewer_calls_high"]


def test_nothing_gained_is_no_fewer_calls() -> None:
    same = findings._group("unseen", BEFORE, BEFORE, {k: UNSURE[k[0], "before"] for k in UNSURE}, SETTINGS)
    assert (same["fewer_calls"], same["fewer_calls_low"], same["fewer_calls_high"]) == (0, 0, 0)
    assert (same["large_gain_low"], same["large_gain_high"]) == (0, 0)


def test_calls_and_bytes_are_added_up() -> None:
    learning = [
        Record("teach", metrics={"calls": 7}),
        Record("teach", metrics={"calls": 5}),
        Record("audit", metrics={"calls": 4}),
        Record("rounds", cost=Cost(up_bytes=10, down_bytes=20)),
        Record("publish", cost=Cost(down_bytes=3)),
        Record("answer", cost=Cost(up_bytes=1000)),
    ]
    shares = {"device_ask_before": 0.5, "device_ask_after": 0.3}
    task: Any = SimpleNamespace(users={"device": ("a", "b")})
    found = findings._calls(task, learning, shares)
    assert (found["teaching_calls"], found["audit_calls"], found["devices"]) == (12, 4, 2)
    assert (found["learning_up_bytes"], found["learning_down_bytes"]) == (10, 23)
    # Sixteen calls for two devices are paid back at 0.2 calls an input after 40 inputs of each.
    assert found["break_even_inputs"] == pytest.approx(8 / 0.2)


def finding(seed: int, figures: dict[str, float]) -> Finding:
    """As one seed leaves it."""
    full = {f"{group}_{name}": value for group in ("unseen", "device") for name, value in figures.items()}
    for group in ("unseen", "device"):
        for stage in ("before", "after"):
            full |= {f"{group}_chosen_share_{stage}": 0.25, f"{group}_chosen_accuracy_{stage}": 0.9}
    full |= {"teaching_calls": 12.0, "audit_calls": 4.0, "devices": 2.0}
    rounds = [{"round": 0, "accuracy": 0.5 + seed / 10, "accuracy_low": 0.4, "accuracy_high": 0.9}]
    extra = {"worst": []} if "worst" in Finding.__dataclass_fields__ else {}
    return Finding(seed, full, BEFORE, AFTER, UNSURE, rounds, **extra)


def record(user: str, system: str, seed: int, stage: str = "before", right: int = 1) -> Record:
    """One scored answer."""
    tags = {"group": "unseen", "stage": stage, "system": system, "seed": seed}
    return Record("answer", 0, {**tags, "asked": 0, "correct": right, "by": user}, Cost(seconds=0.1), 0.0, user, user)


def test_a_result_pools_the_seeds(figures: dict[str, float]) -> None:
    found = [finding(0, figures), finding(1, figures)]
    scored = [record(user, "only_on_device", seed, right=seed) for seed in (0, 1) for user in ("a", "b")]
    result: Result = findings.result("run", "task", (0, 1), "constant-10", found, scored)
    curve = next(each for each in result.curves if each.label == "before learning")
    assert curve.ask_share[0] == 0
    assert curve.ask_share[-1] == 1
    assert curve.accuracy[0] == pytest.approx(figures["small_before"])
    assert curve.accuracy[-1] == pytest.approx(figures["large_before"])
    assert [curve.reference for curve in result.curves] == [False, False, True, True]
    assert result.target is not None
    assert result.target.accuracy == pytest.approx(figures["target"])
    assert result.rounds[0]["accuracy"] == pytest.approx(0.55)
    assert f"{figures['ask_before']:.1%}" in result.headline
    assert result.users is not None
    before = BEFORE["device"]
    expected = [float(before.small_correct[before.user == f"u{i}"].mean()) for i in range(5)]
    assert sorted(result.users.before) == pytest.approx(sorted(expected * 2))
    assert len(set(result.users.names_hashed)) == 10, "another seed is another fleet"
    assert not set(result.users.names_hashed) & {f"u{i}" for i in range(5)}


def test_a_promise_that_is_missed_is_noted(figures: dict[str, float]) -> None:
    low = {**figures, "target": 0.95}
    scored = [record(user, "only_on_device", 0) for user in ("a", "b")]
    noted = " ".join(findings.result("run", "task", (0,), "n", [finding(0, low)], scored).notes)
    assert "before learning missed its promise on new users by 5.00%" in noted
    fine = " ".join(findings.result("run", "task", (0,), "n", [finding(0, {**figures, "target": 0.9})], scored).notes)
    assert "missed" not in fine
    worse = {**figures, "large_after": figures["large_before"] - 0.1}
    assert "got worse" in " ".join(findings.result("run", "task", (0,), "n", [finding(0, worse)], scored).notes)
