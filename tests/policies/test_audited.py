"""Audited: the bound for every sequence, propensities, and the repair of a shift."""

import math
from dataclasses import replace
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from duetto.errors import ConfigError, DataError
from duetto.policies import Audited, OnlyInCloud, RiskControlled, Threshold
from duetto.policies.audited import audits
from duetto.types import Action, Held, Move, Outcomes, Seen

ENERGY = Threshold(0.0, "energy")  # the score of a single logit is that logit
SCORES = np.linspace(0, 1, 501)


def answered(scores: Any) -> Seen:
    """Items of just these scores under ENERGY."""
    logits = np.asarray(scores, float).reshape(-1, 1)
    return Seen(stage=1, answer=logits, size=len(logits))


def fitted(at: float, target: float = 0.05, share: float = 0.2, step: float = 0.02) -> Held[Any]:
    """Calibrated on SCORES, where an item loses if its score is below ``at``."""
    known = Outcomes(np.where(at > SCORES, 0.0, 1.0), np.ones(len(SCORES)), answered(SCORES))
    return Audited(RiskControlled(ENERGY, "expected", 0.01), target, share, step).fit(known)


def lived(held: Held[Any], scores: np.ndarray, loses: Any, key: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Item by item: what was lost, what was asked, and d / s."""
    lost, asked, paid = [], [], []
    for score in scores.tolist():
        loss = float(loses(score))
        seen = answered([score])
        move = held.choose(seen, (key,))
        ask = bool(move.action[0] == Action.ASK)
        held.learn(seen, move, np.array([loss if ask else np.nan]))
        lost.append(0.0 if ask else loss)
        asked.append(ask)
        paid.append(loss / held.part.share if audits(move)[0] else 0.0)  # type: ignore[attr-defined]
    return np.array(lost), np.array(asked), np.array(paid)


@settings(max_examples=40, deadline=None)
@given(
    st.floats(0, 0.5),
    st.floats(0.02, 0.9),
    st.floats(0.005, 0.5),
    st.lists(st.tuples(st.floats(-1, 2), st.integers(0, 1)), min_size=1, max_size=60),
    st.booleans(),
)
def test_the_bound_holds_for_every_sequence(target: float, share: float, step: float, items: Any, begun: bool) -> None:
    held = fitted(0.3 if begun else math.inf, target, share, step)
    start = float(held.state["threshold"])
    losses = iter([float(loss) for _, loss in items])
    _, _, paid = lived(held, np.array([score for score, _ in items]), lambda score: next(losses))
    n = np.arange(1, len(items) + 1)
    assert (np.cumsum(paid) / n <= target + (1 + step / share - start) / (step * n) + 1e-9).all()
    assert float(held.state["paid"]) == pytest.approx(paid.sum())
    assert int(held.state["learned"]) == len(items)


def test_it_starts_where_the_promise_put_the_threshold() -> None:
    held = fitted(0.4)
    at = float(held.state["inner"]["threshold"])
    assert float(held.state["threshold"]) == pytest.approx((np.sum(at > SCORES) + 0.5) / len(SCORES))
    move = held.choose(answered(SCORES), (1,))
    below = at > SCORES
    assert (move.action[below] == Action.ASK).all()
    assert (move.propensity[below] == 1).all()
    assert set(move.propensity[~below]) == {0.2, 0.8}
    assert ((move.propensity == 0.2) == (audits(move))).all()
    assert audits(move)[~below].mean() == pytest.approx(0.2, abs=0.08)
    assert int(held.state["audits"]) == audits(move).sum()


def test_audits_are_drawn_by_key_and_position() -> None:
    one, same, other, later = (fitted(0.0) for _ in range(4))
    later.choose(answered([0.9]), (1,))
    moves = [
        audits(held.choose(answered(SCORES), (key,))) for held, key in ((one, 1), (same, 1), (other, 2), (later, 1))
    ]
    assert (moves[0] == moves[1]).all()
    assert (moves[0] != moves[2]).any()
    assert (moves[0][1:] == moves[3][:-1]).all()


def test_an_unreachable_promise_starts_by_asking_always() -> None:
    known = Outcomes(SCORES >= 0.1, np.ones(len(SCORES)), answered(SCORES))
    held = Audited(RiskControlled(ENERGY, "expected", 0.0), 0.05, 0.2, 0.02).fit(known)
    assert (held.choose(answered(SCORES), ()).action == Action.ASK).all()
    assert not audits(held.choose(answered(SCORES), ())).any()
    lost, asked, _ = lived(held, np.random.default_rng(0).random(6000), lambda score: score < 0.1)
    assert asked[-2000:].mean() < 0.35  # and finds out that it may keep most
    assert lost.mean() <= 0.05


@pytest.mark.parametrize("worse", [0.0, 0.3])
def test_a_shift_is_repaired(worse: float) -> None:
    draw = np.random.default_rng(1)
    held = fitted(0.2)
    scores = draw.random(8000)
    hard = iter(draw.random(len(scores)))
    lost, asked, _ = lived(held, scores, lambda score: next(hard) < (0.4 if score < 0.2 + worse else 0.0))
    assert lost[4000:].mean() <= 0.05 + 0.01
    # The oracle keeps what never loses and as many others as cost 0.05; audits are a fifth of what is kept.
    oracle = max(0.0, 0.2 + worse - 0.05 / 0.4)
    assert asked[4000:].mean() <= oracle + 0.2 * (1 - oracle) + 0.03


def test_what_was_not_heard_moves_nothing() -> None:
    held = fitted(0.0, share=0.5)
    seen = answered(SCORES[:100])
    move = held.choose(seen, ())
    held.learn(seen, move, np.full(100, np.nan))
    kept = (~audits(move)).sum()
    assert int(held.state["learned"]) == kept
    start = float(fitted(0.0, share=0.5).state["threshold"])
    assert float(held.state["threshold"]) == pytest.approx(max(0, start - 0.02 * 0.05 * kept))


def test_only_audits_are_learned_from() -> None:
    held = fitted(0.4)
    seen = answered(SCORES[:100])
    move = Move.sure(np.full(100, Action.ASK), "asked")
    before = float(held.state["threshold"])
    held.learn(seen, move, np.ones(100))
    assert float(held.state["threshold"]) == pytest.approx(before - 100 * 0.02 * 0.05)


def test_a_factor_is_what_a_disagreement_costs() -> None:
    one, half = fitted(0.0), fitted(0.0)
    half = Held(replace(half.part, factor=0.5), half.state)  # type: ignore[type-var]
    seen = answered(SCORES)
    for held in (one, half):
        held.learn(seen, held.choose(seen, ()), np.ones(len(SCORES)))
    assert float(half.state["paid"]) == float(one.state["paid"]) / 2 > 0


def test_an_unfitted_one_learns_nothing() -> None:
    held = Held.of(Audited(ENERGY, 0.1))
    move = held.choose(answered([5.0]), ())
    assert move.action.tolist() == [Action.ASK]
    held.learn(answered([5.0]), move, np.ones(1))
    assert int(held.state["learned"]) == 0


def test_an_inner_policy_without_a_threshold_starts_by_asking() -> None:
    held = Audited(ENERGY, 0.1).fit(Outcomes(np.ones(501), np.ones(501), answered(SCORES)))
    assert (held.choose(answered(SCORES), ()).action == Action.ASK).all()


def test_bad_input() -> None:
    held = fitted(0.0, share=0.5)
    seen = answered(SCORES)
    move = held.choose(seen, ())
    with pytest.raises(DataError, match="a reward outside"):
        held.learn(seen, move, np.full(501, 3.0))
    with pytest.raises(DataError):
        Audited(ENERGY, 0.1).fit(Outcomes(np.ones(1), np.ones(1), answered([np.nan])))
    for arguments in ((-0.1,), (1.0,), (math.nan,), (0.1, 0.0), (0.1, 1.0), (0.1, 0.05, 0.0), (0.1, 0.05, 0.1, 0.0)):
        with pytest.raises(ConfigError):
            Audited(ENERGY, *arguments)
    with pytest.raises(ConfigError, match="OnlyInCloud has no score"):
        Audited(OnlyInCloud(), 0.1)
