"""The skill of answering with a model."""

from typing import Any

import numpy as np
import pytest

from duetto.errors import ConfigError, DataError
from duetto.models import Mixture, Mlp, Predict
from duetto.types import Local, Work

NET = Mlp((2, 2), 3, (4,))
PREDICT = Predict(NET)
DRAW = np.random.default_rng(0)
HOLDS = [Local(None, {"params": NET.init(seed)}) for seed in (0, 1)]


def rows(n: int) -> dict[str, np.ndarray]:
    """A message."""
    return {"x": DRAW.normal(size=(n, 2, 2)).astype(np.float32)}


def test_it_answers_with_what_the_party_remembers() -> None:
    for local in HOLDS:
        message = rows(3)
        after, said = PREDICT(local, message, (0,), "me")
        assert after is local
        np.testing.assert_array_equal(said["logits"], NET.logits(local.memory["params"], message["x"]))


def test_it_reads_the_slot_it_is_told() -> None:
    both = Mixture((NET,))
    local = Local(None, {"params": NET.init(0), "large": {"0": NET.init(7)}})
    message = rows(2)
    _, said = Predict(both, "large")(local, message, (0,), "me")
    np.testing.assert_array_equal(said["logits"], both.logits({"0": NET.init(7)}, message["x"]))


def test_many_are_one_by_one() -> None:
    messages = [rows(n) for n in (1, 4, 0, 2)]
    locals_ = [HOLDS[0]] * 4
    together = PREDICT.many(locals_, messages, [(i,) for i in range(4)], ["a", "b", "c", "d"])
    for local, message, (after, said) in zip(locals_, messages, together, strict=True):
        assert after is local
        alone = PREDICT(local, message, (0,), "a")[1]["logits"]
        assert said["logits"].shape == alone.shape == (len(message["x"]), 3)
        np.testing.assert_allclose(said["logits"], alone, atol=1e-6)


def test_only_holders_of_the_very_same_parameters_share_a_pass() -> None:
    one, other = HOLDS
    again = Local("other data", {"params": one.memory["params"], "more": 1})
    assert PREDICT.group(one, rows(1)) == PREDICT.group(again, rows(2))
    assert PREDICT.group(one, rows(1)) != PREDICT.group(other, rows(1))


def test_work_is_the_network_s() -> None:
    assert PREDICT.work(HOLDS[0], rows(5)) == NET.work(5)
    assert PREDICT.work(HOLDS[0], {"x": np.float32(1)}).flops == 0
    assert PREDICT.work(HOLDS[0], {}) == Work(0, NET.work(0).bytes)
    assert (PREDICT.writes, PREDICT.name) == (False, "Predict")


@pytest.mark.parametrize(
    "message",
    [
        {},
        np.zeros((1, 2, 2)),
        {"x": np.zeros((2, 2))},
        {"x": np.zeros((1, 4))},
        {"x": np.float32(1)},
        {"x": np.full((1, 2, 2), np.nan)},
        {"x": np.full((1, 2, 2), -np.inf)},
        {"x": np.full((1, 2, 2), 1e300)},
    ],
    ids=["nothing", "no mapping", "no batch", "shape", "scalar", "nan", "infinity", "overflow"],
)
def test_a_bad_message_names_its_sender(message: Any) -> None:
    with pytest.raises(DataError, match="phone-7"):
        PREDICT(HOLDS[0], message, (0,), "phone-7")
    with pytest.raises(DataError, match="phone-7"):
        PREDICT.many(HOLDS[:1] * 2, [rows(1), message], [(0,)] * 2, ["good", "phone-7"])


def test_a_party_without_the_model_says_so() -> None:
    nobody = Local(None, {})
    with pytest.raises(ConfigError, match="params"):
        PREDICT(nobody, rows(1), (0,), "me")
    assert PREDICT.group(nobody, rows(1)) != PREDICT.group(HOLDS[0], rows(1))
