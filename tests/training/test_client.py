"""A client's side of learning: what it reads, what it sends, and what it refuses."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from duetto import tree as trees
from duetto.codecs import Quantise
from duetto.errors import ConfigError, DataError
from duetto.models import Mlp
from duetto.training import SGD, Client, CrossEntropy, Distil, Tune, sequential
from duetto.types import Chain, Local, Rows, Work

DRAW = np.random.default_rng(0)
NET = Mlp((3,), 4, (5,))
PARAMS = NET.init(0)
X, Y = DRAW.normal(size=(12, 3)).astype(np.float32), DRAW.integers(0, 4, 12)
LESSONS = {"rows": np.array([1, 4, 5, 9]), "logits": DRAW.normal(size=(4, 4)).astype(np.float32)}
LABELLED = Client(NET, (CrossEntropy(),), SGD(0.1), 2, 5)
TAUGHT = Client(NET, (Distil(1.0, 1.0),), SGD(0.1), 2, 3, lessons="lessons")
SENT = {"params": PARAMS}


def party(x: np.ndarray = X, y: np.ndarray = Y, **memory: Any) -> Local:
    """A device with data in two parts."""
    rows = np.arange(len(y))
    return Local(Rows(x, y, {"stream": rows[::2], "held": rows[1::2]}), {"params": PARAMS, **memory})


def test_it_sends_the_change_and_how_many_examples_it_has() -> None:
    local = party()
    after, said = LABELLED(local, SENT, ("k",), "cloud")
    trained = sequential.run(LABELLED, SENT, {"x": X, "y": Y}, ("k",))
    assert trees.encode(said["delta"]) == trees.encode(trees.subtract(trained.params, PARAMS))
    assert (float(said["weight"]), float(said["metrics"]["loss"])) == (12.0, trained.loss)
    assert after.memory == local.memory
    assert trees.norm(said["delta"]) > 1e-3


def test_it_trains_on_its_part() -> None:
    _, said = replace(LABELLED, part="stream")(party(), SENT, ("k",), "cloud")
    trained = sequential.run(LABELLED, SENT, {"x": X[::2], "y": Y[::2]}, ("k",))
    assert trees.encode(said["delta"]) == trees.encode(trees.subtract(trained.params, PARAMS))
    assert float(said["weight"]) == 6


def test_lessons_are_learned_and_labels_stay_unread() -> None:
    """Labels that would be refused, were they looked at."""
    _, said = TAUGHT(party(lessons=LESSONS), SENT, ("k",), "cloud")
    _, garbage = TAUGHT(party(y=np.full(12, -99), lessons=LESSONS), SENT, ("k",), "cloud")
    trained = sequential.run(TAUGHT, SENT, {"x": X[LESSONS["rows"]], "teacher": LESSONS["logits"]}, ("k",))
    assert trees.encode(said) == trees.encode(garbage)
    assert trees.encode(said["delta"]) == trees.encode(trees.subtract(trained.params, PARAMS))
    assert float(said["weight"]) == 4
    with pytest.raises(DataError):
        LABELLED(party(y=np.full(12, -99)), SENT, ("k",), "cloud")


@pytest.mark.parametrize("own", [0.25, 0.9])
def test_a_share_of_the_target_is_its_own_answer(own: float) -> None:
    """(1 - own) * softmax(teacher) + own * softmax(what it says now), as logits."""

    def softmax(logits: np.ndarray) -> np.ndarray:
        shares: np.ndarray = np.exp(logits.astype(float)) / np.exp(logits.astype(float)).sum(1, keepdims=True)
        return shares

    local = party(lessons=LESSONS)
    data = replace(TAUGHT, own=own).examples(local, NET.init(3))
    now = NET.logits(NET.init(3), X[LESSONS["rows"]])
    np.testing.assert_allclose(
        softmax(data["teacher"]), (1 - own) * softmax(LESSONS["logits"]) + own * softmax(now), rtol=1e-5
    )
    assert data["teacher"].dtype == np.float32
    assert sorted(data) == ["teacher", "x"]


def test_work_is_a_forward_and_two_backwards_a_row_and_epoch() -> None:
    assert LABELLED.work(party(), SENT).flops == 3 * 2 * NET.work(12).flops
    assert replace(LABELLED, part="held").work(party(), SENT).flops == 3 * 2 * NET.work(6).flops
    assert TAUGHT.work(party(lessons=LESSONS), SENT).flops == 3 * 2 * NET.work(4).flops
    assert TAUGHT.work(party(), SENT).flops == 0


@pytest.mark.parametrize(
    ("client", "local", "said"),
    [
        (LABELLED, party(X[:0], Y[:0]), "without examples"),
        (LABELLED, party(np.where(np.arange(12)[:, None] == 3, np.nan, X)), "finite"),
        (LABELLED, party(np.where(np.arange(12)[:, None] == 3, np.inf, X)), "finite"),
        (LABELLED, party(y=np.where(np.arange(12) == 2, 4, Y)), r"outside 0\.\.3"),
        (LABELLED, party(y=np.where(np.arange(12) == 2, -1, Y)), r"outside 0\.\.3"),
        (TAUGHT, party(), "without examples"),
        (TAUGHT, party(lessons={"rows": np.zeros(0, np.int64), "logits": np.zeros((0, 4))}), "without examples"),
        (TAUGHT, party(np.full((12, 3), np.nan), lessons=LESSONS), "finite"),
    ],
)
def test_data_that_cannot_be_learned_from_is_told(client: Client, local: Local, said: str) -> None:
    with pytest.raises(DataError, match=said):
        client(local, SENT, ("k",), "cloud")


@pytest.mark.parametrize(
    "setting",
    [
        {"epochs": -1},
        {"batch_size": 0},
        {"loss": ()},
        {"own": 0.5},
        {"own": -0.1, "lessons": "lessons"},
        {"own": 1.0, "lessons": "lessons"},
        {"own": float("nan"), "lessons": "lessons"},
    ],
)
def test_a_setting_that_cannot_be_is_told(setting: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        replace(LABELLED, **setting)


def test_a_part_that_is_not_there_is_told() -> None:
    with pytest.raises(ConfigError, match="stream"):
        replace(LABELLED, part="strem")(party(), SENT, ("k",), "cloud")


def test_a_loss_that_is_no_number_is_left_out() -> None:
    """A record holds finite numbers only."""
    still = replace(LABELLED, epochs=0)(party(), SENT, ("k",), "cloud")[1]
    assert still["metrics"] == {}
    assert trees.norm(still["delta"]) == 0
    wild = replace(LABELLED, optimiser=SGD(1e30))(party(), SENT, ("k",), "cloud")[1]
    assert wild["metrics"] == {}
    assert not trees.finite(wild["delta"]), "for the gate to see"


def test_tuning_stores_what_the_codec_leaves() -> None:
    client, codec = replace(TAUGHT, own=0.5), Chain((Quantise(4, "channel"),))
    local = party(lessons=LESSONS)
    after, said = Tune(client, codec)(local, {}, ("k",), "me")
    trained = sequential.run(client, SENT, client.examples(local, PARAMS), ("k",))
    left = codec.decode(codec.encode(codec.init(), trained.params, ("k",))[1])
    assert trees.encode(after.memory["params"]) == trees.encode(left)
    assert trees.encode(left) != trees.encode(trained.params)
    assert float(said["loss"]) == trained.loss
    assert local.memory["params"] is PARAMS
    exact, _ = Tune(client)(local, {}, ("k",), "me")
    assert trees.encode(exact.memory["params"]) == trees.encode(trained.params)
    assert Tune(client).work(local, {}) == client.work(local, SENT)


@pytest.mark.parametrize("lessons", [{}, {"lessons": {"rows": np.zeros(0, np.int64), "logits": np.zeros((0, 4))}}])
def test_without_lessons_tuning_changes_nothing(lessons: dict[str, Any]) -> None:
    local = party(**lessons)
    after, _ = Tune(TAUGHT, Chain((Quantise(4),)))(local, {}, ("k",), "me")
    assert after is local
    assert Tune(TAUGHT).work(local, {}) == Work()
