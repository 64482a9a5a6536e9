"""When a new model agrees too little: the error that is promised, and what is noticed."""

import numpy as np
import pytest

from duetto.device.agreement import Agreement
from duetto.errors import ConfigError

RULE = Agreement(window=400, margin=0.02, confidence=0.95, looks=4)


def sent_back(rule: Agreement, before: float, after: float, runs: int = 2000) -> float:
    """How often a model is, over simulated windows."""
    draw, step = np.random.default_rng(0), rule.window // rule.looks
    old = draw.binomial(rule.window, before, runs)
    new = draw.binomial(step, after, (runs, rule.looks)).cumsum(1)
    return float(
        np.mean(
            [
                any(rule.worse((old[i], rule.window), (new[i, j], step * (j + 1))) for j in range(rule.looks))
                for i in range(runs)
            ]
        )
    )


@pytest.mark.parametrize("before", [0.98, 0.9, 0.7, 0.5])
def test_a_model_within_the_margin_is_kept_as_often_as_promised(before: float) -> None:
    limit = 0.05 + 2.6 * np.sqrt(0.05 * 0.95 / 2000)  # binomial error of 2,000 runs, 99.5 %
    assert sent_back(RULE, before, before) < 0.02
    assert sent_back(RULE, before, before - RULE.margin) <= limit


def test_one_that_is_much_worse_goes() -> None:
    assert sent_back(RULE, 0.9, 0.75) > 0.98
    assert sent_back(RULE, 0.9, 0.5) == 1.0
    assert sent_back(RULE, 0.9, 0.99) == 0.0


def test_by_hand() -> None:
    rule = Agreement(window=100, margin=0.1, confidence=0.95, looks=1)
    # Agresti-Caffo: (90 + 1) / 102 and (72 + 1) / 102, each with p (1 - p) / 102; z of 0.95 is 1.645
    before, after = 91 / 102, 73 / 102
    error = np.sqrt((before * (1 - before) + after * (1 - after)) / 102)
    assert (before - after - 0.1) / error < 1.645
    assert not rule.worse((90, 100), (72, 100))
    before, after = 91 / 102, 66 / 102
    error = np.sqrt((before * (1 - before) + after * (1 - after)) / 102)
    assert (before - after - 0.1) / error > 1.645
    assert rule.worse((90, 100), (65, 100))


def test_few_answers_prove_nothing() -> None:
    assert not RULE.worse((0, 0), (0, 400))
    assert not RULE.worse((99, 99), (0, 400))
    assert not RULE.worse((400, 400), (0, 99))
    assert RULE.worse((100, 100), (0, 100))
    assert [RULE.look(asked) for asked in (0, 99, 100, 250, 399, 400, 4000)] == [0, 0, 1, 2, 3, 4, 4]
    assert RULE.kept(300, 800) == (150, 400)
    assert RULE.kept(30, 80) == (30, 80)
    assert RULE.kept(0, 0) == (0, 0)


@pytest.mark.parametrize(
    "bad", [{"window": 3}, {"looks": 0}, {"margin": -0.1}, {"margin": 1.0}, {"confidence": 1.0}, {"confidence": 0.0}]
)
def test_rules_that_cannot_be(bad: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="0 <= margin"):
        Agreement(**bad)  # type: ignore[arg-type]
