"""The rule of promotion: by hand, as often wrong as promised, and the same whoever computes it again."""

import json
from statistics import NormalDist

import numpy as np
import pytest

from duetto.cloud.promotion import DAY, Promotion, Said, record
from duetto.errors import ConfigError

RULE = Promotion(window=400, margin=0.05, looks=4, devices=4)
OLD, NEW = 7, 9


def fleet(draw: np.random.Generator, old: float, new: float, each: int = 100, asked: float = 1.0) -> list[Said]:
    """Four devices with each release, answer after answer."""
    said = []
    for _ in range(each):
        for i in range(4):
            for release, rate in ((OLD, old), (NEW, new)):
                asks = draw.random() < asked
                agreed = bool(draw.random() < rate) if asks else None
                said.append(Said(f"{release}-{i}", release, asks, agreed, False))
    return said


def test_by_hand() -> None:
    rule = Promotion(window=80, margin=0.1, failing=0.1, looks=1, devices=2, confidence=0.95)
    before = [Said(f"a{i % 2}", OLD, True, i >= 8, False) for i in range(80)]  # 72 of 80, the two alike
    good = [Said(f"b{i % 2}", NEW, True, i >= 6, False) for i in range(80)]  # 74 of 80
    old, new = (73 / 82, 73 / 82 * 9 / 82 / 82), (75 / 82, 75 / 82 * 7 / 82 / 82)
    z = (0.1 - (old[0] - new[0])) / np.sqrt(old[1] + new[1])
    assert z > NormalDist().inv_cdf(0.95)
    # the cloud was always asked and nothing failed, 1 and 81 of 82 on both sides: (0.05 - 0) / 0.0171 and 0.1 / 0.0171
    verdict = rule.judged([*before, *good], NEW, OLD, 0.0)
    assert verdict.move == "promote"
    assert "agreement 91.5% against 89.0%" in verdict.why

    bad = [Said(f"b{i % 2}", NEW, True, i >= 30, False) for i in range(80)]  # 50 of 80
    new = (51 / 82, 51 / 82 * 31 / 82 / 82)
    z = (old[0] - new[0] - 0.1) / np.sqrt(old[1] + new[1])
    assert z > NormalDist().inv_cdf(1 - 0.05 / 3)
    assert rule.judged([*before, *bad], NEW, OLD, 0.0).move == "back"

    middling = [Said(f"b{i % 2}", NEW, True, i >= 14, False) for i in range(80)]  # 66 of 80: nothing is shown
    new = (67 / 82, 67 / 82 * 15 / 82 / 82)
    z = (0.1 - (old[0] - new[0])) / np.sqrt(old[1] + new[1])
    assert abs(z) < 1.645
    verdict = rule.judged([*before, *middling], NEW, OLD, 0.0)
    assert (verdict.move, "not shown" in verdict.why) == ("back", True)


@pytest.mark.parametrize("old", [0.95, 0.8])
def test_it_is_wrong_as_rarely_as_promised_and_right_mostly(old: float) -> None:
    draw, runs = np.random.default_rng(0), 60
    moves = {  # no two fleets are the same, and 60 of them tell 0.05 from 0.2
        name: [RULE.judged(fleet(draw, old, new), NEW, OLD, 0.0).move for _ in range(runs)]
        for name, new in (
            ("worse", old - 0.05),
            ("same", old),
            ("much worse", old - 0.25),
            ("better", min(1.0, old + 0.1)),
        )
    }
    shares = {name: {move: each.count(move) / runs for move in ("promote", "back")} for name, each in moves.items()}
    limit = 0.05 + 2.6 * np.sqrt(0.05 * 0.95 / runs)
    assert shares["worse"]["promote"] <= limit  # by its margin
    assert shares["much worse"] == {"promote": 0.0, "back": 1.0}
    assert shares["better"]["promote"] > 0.9


def test_a_model_that_asks_more_or_fails_goes_back() -> None:
    draw = np.random.default_rng(1)
    lazy = fleet(draw, 0.9, 0.9, asked=0.3)
    more = [each for each in fleet(draw, 0.9, 0.9, each=200, asked=1.0) if each.model == NEW]
    mixed = [
        each for pair in zip([each for each in lazy if each.model == OLD] * 3, more, strict=False) for each in pair
    ]
    verdict = RULE.judged(mixed, NEW, OLD, 0.0)
    assert (verdict.move, "answered alone" in verdict.why) == ("back", True)
    failing = []
    for each in fleet(draw, 0.9, 0.9):
        failing.append(each)
        if each.model == NEW:
            failing.append(Said(each.device, NEW, True, None, True))
    verdict = RULE.judged(failing, NEW, OLD, 0.0)
    assert (verdict.move, "working" in verdict.why) == ("back", True)


def test_few_prove_nothing_and_one_does_not_speak_for_all() -> None:
    said = fleet(np.random.default_rng(2), 0.9, 0.0, each=20)
    assert RULE.judged([], NEW, OLD, 0.0).move == "wait"
    assert RULE.judged(said, NEW, OLD, 0.0).move == "wait"
    assert RULE.judged(said, NEW, OLD, RULE.patience + 1).move == "back"
    assert f"{RULE.patience / DAY:.1f} days" in RULE.judged(said, NEW, OLD, RULE.patience + 1).why
    old = [each for each in fleet(np.random.default_rng(3), 0.9, 0.9) if each.model == OLD]
    flood = [Said("liar", NEW, True, False, False)] * 5000
    assert RULE.judged([*old, *flood], NEW, OLD, 0.0).move == "wait"


def test_a_verdict_stands_whatever_comes_later() -> None:
    said = fleet(np.random.default_rng(4), 0.9, 0.6)
    first = RULE.judged(said, NEW, OLD, 0.0)
    assert first.move == "back"
    assert RULE.judged([*said, *fleet(np.random.default_rng(5), 0.1, 1.0)], NEW, OLD, 1e9) == first


def test_what_a_record_tells() -> None:
    told = {"asked": True, "by": "cloud", "own": 1, "base": 1, "label": 1, "model": 3}
    assert record("p", json.dumps(told).encode()) == Said("p", 3, True, True, False)
    assert record("p", json.dumps({**told, "label": 2}).encode()) == Said("p", 3, True, False, False)
    assert record("p", json.dumps({**told, "by": "p"}).encode()) == Said("p", 3, True, None, False)
    assert record("p", json.dumps({**told, "base": None}).encode()) == Said("p", 3, True, None, True)
    for bad in (b"", b"[]", b"{}", b"\xff", json.dumps({**told, "model": "3"}).encode(), b"[" * 5000):
        assert record("p", bad) is None
    assert record("p", json.dumps({**told, "asked": 1}).encode()) is None


@pytest.mark.parametrize("bad", [{"margin": 0.0}, {"confidence": 1.0}, {"looks": 0}, {"devices": 401}, {"patience": 0}])
def test_rules_that_cannot_be(bad: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="margins and confidence"):
        Promotion(**bad)  # type: ignore[arg-type]
