"""What was lost is sent later: in the long run nothing is."""

import numpy as np
import pytest

from duetto import tree as trees
from duetto.codecs import Feedback, Quantise, TopK, Zstd
from duetto.errors import ConfigError
from duetto.types import Chain

DRAW = np.random.default_rng(0)
CODEC = Feedback(Chain((TopK(0.2), Quantise(4), Zstd())))


def test_messages_add_up_to_what_was_meant_but_for_the_last_loss() -> None:
    state, meant, heard = CODEC.init(), np.zeros(50), np.zeros(50)
    for step in range(30):
        x = DRAW.normal(size=50)
        state, coded = CODEC.encode(state, {"x": x, "n": np.int64(3), "s": np.float64(2.5)}, (step,))
        back = CODEC.decode(trees.decode(trees.encode(coded)))
        assert (int(back["n"]), float(back["s"])) == (3, 2.5)
        meant, heard = meant + x, heard + back["x"]
    np.testing.assert_allclose(meant - heard, state["/x"], atol=1e-9)
    plain = sum(TopK(0.2).decode(TopK(0.2).encode({}, {"x": DRAW.normal(size=50)}, ())[1])["x"] for _ in range(2))
    assert np.abs(plain).sum() > 0
    trees.decode(trees.encode(state))


def test_leaves_may_come_and_go() -> None:
    state, _ = CODEC.encode(CODEC.init(), {"a": DRAW.normal(size=20), "b": DRAW.normal(size=(3, 4))}, (0,))
    state, coded = CODEC.encode(state, {"a": DRAW.normal(size=30), "c": DRAW.normal(size=9)}, (1,))
    assert set(state) == {"/a", "/c"}
    assert CODEC.decode(coded)["a"].shape == (30,)
    alone, _ = CODEC.encode({}, DRAW.normal(size=6), (0,))
    assert set(alone) == {"(root)"}


def test_what_was_not_finite_is_forgotten() -> None:
    feedback = Feedback(TopK(0.5))
    state, coded = feedback.encode({}, {"x": np.array([np.nan, 1.0, 2.0, 3.0])}, ())
    assert np.isnan(feedback.decode(coded)["x"]).any()
    assert state == {}
    state, coded = feedback.encode(state, {"x": np.arange(4.0)}, ())
    assert np.isfinite(feedback.decode(coded)["x"]).all()


def test_it_remembers_and_holds_nothing_that_does() -> None:
    assert CODEC.remembers
    assert Chain((CODEC,)).remembers
    assert not Chain((TopK(0.1), Zstd())).remembers
    with pytest.raises(ConfigError, match="remembers"):
        Feedback(Chain((Feedback(TopK(0.1)),)))
