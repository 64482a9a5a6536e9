"""The reinforced policy: numpy decides as torch learned, and it learns what a threshold cannot see."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from duetto.errors import ConfigError, DataError
from duetto.policies import Reinforced, Thompson, Threshold
from duetto.policies.reinforced import SIGHTS, sights
from duetto.types import Action, Held, Key, Move, Seen, rng

N = 300
DRAW = np.random.default_rng(8)
SEEN = Seen(
    stage=1,
    answer=DRAW.normal(size=(N, 3)) * 3,
    queue=DRAW.random(N),
    battery=DRAW.random(N),
    link={"up_mbps": DRAW.random(N) * 20, "rtt_seconds": DRAW.random(N) / 5},
    size=N,
)


@dataclass(frozen=True)
class Queued:
    """Asking pays 1 where nobody waits at the peer and costs 1 where somebody does; stopping pays nothing."""

    def begin(self, devices: int, key: Key) -> tuple[np.ndarray, Seen]:
        """The state is the queue."""
        queue = rng((*key, "queue")).integers(0, 2, devices) * 1.0
        return queue, Seen(stage=1, answer=np.zeros((devices, 2)), queue=queue, size=devices)

    def step(self, state: np.ndarray, asked: np.ndarray, key: Key) -> tuple[np.ndarray, Seen, np.ndarray]:
        """Items are independent."""
        return *self.begin(len(state), key), np.where(asked, 1 - 2 * state, 0.0)


def test_what_it_sees_is_about_one_and_what_is_not_known_is_nothing() -> None:
    x = sights(SEEN)
    assert x.shape == (N, len(SIGHTS))
    assert np.abs(x).max() <= 1
    bare = sights(Seen(stage=1, answer=SEEN.answer, size=N))
    assert (bare[:, 3:] == 0).all()
    np.testing.assert_array_equal(bare[:, :3], x[:, :3])
    assert (x[:, 8] == 0.8).all()


def test_it_learns_from_the_queue_what_no_threshold_sees() -> None:
    held = Reinforced(8).train(Queued(), (0,), devices=64, steps=5, updates=60, lr=0.05)
    state, seen = Queued().begin(400, ("new",))
    move = held.choose(seen, (0,))
    assert ((move.action == Action.ASK) == (state == 0)).all()
    again = Reinforced(8).train(Queued(), (0,), devices=64, steps=5, updates=60, lr=0.05)
    assert Held(held.part, again.state).save() == Held(held.part, {**held.state, "decided": np.array(0)}).save()


def test_numpy_decides_by_the_two_layers() -> None:
    policy = Reinforced(5)
    state = {**policy.init(), "w1": DRAW.normal(size=(9, 5)), "b1": DRAW.normal(size=5), "w2": DRAW.normal(size=5)}
    _, move = policy.choose(state, SEEN, (0,))
    odds = np.tanh(sights(SEEN) @ state["w1"] + state["b1"]) @ state["w2"] + state["b2"]
    assert ((move.action == Action.ASK) == (odds >= 0)).all()
    _, drawn = Reinforced(5, sampled=True).choose(state, SEEN, (0,))
    chance = 1 / (1 + np.exp(-odds))
    np.testing.assert_allclose(drawn.propensity, np.where(drawn.action == Action.ASK, chance, 1 - chance))


def test_before_it_is_fitted_it_asks() -> None:
    assert (Reinforced().choose(Reinforced().init(), SEEN, (0,))[1].action == Action.ASK).all()


def test_it_learns_from_a_log() -> None:
    """A log of coins, where asking pays on a full battery only."""
    chance = np.where(DRAW.random(N) < 0.5, 0.3, 0.7)
    ask = DRAW.random(N) < chance
    move = Move(np.where(ask, Action.ASK, Action.STOP).astype(np.int8), np.where(ask, chance, 1 - chance))
    reward = np.where(ask, np.where(SEEN.battery > 0.5, 1.0, -1.0), 0.0)
    held = Reinforced(8).fit_log(SEEN, move, reward, (1,), lr=0.05)
    asks = held.choose(SEEN, (0,)).action == Action.ASK
    assert (asks == (SEEN.battery > 0.5)).mean() > 0.9


def test_logs_that_teach_nothing() -> None:
    _, fair = Thompson().choose(Thompson().init(), SEEN, (0,))
    _, certain = Threshold(0.5).choose({}, SEEN, (0,))
    for move, reward in (
        (certain, np.ones(N)),
        (fair, np.full(N, np.nan)),
        (fair, np.ones(N - 1)),
        (fair, np.full(N, np.inf)),
    ):
        with pytest.raises(DataError):
            Reinforced().fit_log(SEEN, move, reward, (0,))


@pytest.mark.parametrize("wrong", [{"devices": 0}, {"steps": 0}, {"updates": 0}, {"discount": 1.1}, {"lr": 0.0}])
def test_fits_out_of_range(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Reinforced().train(Queued(), (0,), **wrong)


def test_bad_input() -> None:
    with pytest.raises(ConfigError):
        Reinforced(0)
    for queue in (np.full(N, np.nan), np.zeros(N - 1)):
        with pytest.raises(DataError):
            sights(Seen(stage=1, answer=SEEN.answer, queue=queue, size=N))
    with pytest.raises(DataError):
        sights(Seen(size=3))
