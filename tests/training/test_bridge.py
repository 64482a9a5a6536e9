"""The device's end of a bridge: what it learns, remembers and says."""

from typing import Any

import numpy as np
import pytest
import torch

from duetto import tree as trees
from duetto.errors import ConfigError
from duetto.models import Mlp
from duetto.models.principal import decoded, encoded, principal
from duetto.training import SGD, Bridged, Client, CrossEntropy, Distil, Heard, Sequential, sequential
from duetto.training.bridge import beside
from duetto.types import Local, Rows, rng

NET = Mlp((3,), 2, (4,))
DRAW = np.random.default_rng(3)
DATA = Rows(DRAW.normal(size=(7, 3)).astype(np.float32), np.arange(7) % 2)
CODER = principal(DRAW.normal(size=(9, 3)), 2)
BRIDGE = Bridged(NET, (CrossEntropy(), Heard(0.5, 2.0)), SGD(0.2), 2, 4, executor=Sequential(), bridge=3)
NOTHING = np.zeros((3, 2), np.float32)


def asked(memory: Any, answers: np.ndarray, key: Any) -> tuple[Any, Any]:
    local, said = BRIDGE(Local(DATA, memory), {"answers": answers}, key, "edge")
    return local.memory, said


def test_only_what_was_heard_is_distilled() -> None:
    logits, teacher = (torch.from_numpy(DRAW.normal(size=(4, 2))) for _ in range(2))
    heard = torch.tensor([1.0, 0.0, 1.0, 0.0])
    plain = Distil(0.5, 2.0)(logits, {"teacher": teacher}, {}, {})
    told = Heard(0.5, 2.0)(logits, {"teacher": teacher, "heard": heard}, {}, {})
    np.testing.assert_array_equal(told, np.where([1, 0, 1, 0], plain, 0))
    np.testing.assert_array_equal(Heard(0.5, 2.0)(logits, {}, {}, {}), np.zeros(4))


def test_it_first_learns_its_rows_and_then_what_it_hears_beside_them() -> None:
    memory, said = asked({"autoencoder": CODER}, np.ones((3, 2), np.float32), (0, "a"))  # too early to mean its samples
    drawn = rng((0, "a", "bridge")).choice(7, 3, replace=False)
    np.testing.assert_array_equal(memory["labels"], DATA.y[drawn])
    np.testing.assert_allclose(memory["codes"], encoded(CODER, DATA.x[drawn]), rtol=1e-6)
    plain = Client(NET, (CrossEntropy(),), SGD(0.2), 2, 4)
    own = {"x": DATA.x, "y": DATA.y}
    first = sequential.run(plain, {"params": NET.init(0)}, own, (0, "a")).params
    trees.map(np.testing.assert_array_equal, memory["model"], first)
    samples = decoded(CODER, memory["codes"], (3,))
    assert sorted(said["delta"]) == ["answers", "codes", "labels"]
    np.testing.assert_array_equal(said["delta"]["answers"], NET.logits(first, samples))

    answers = DRAW.normal(size=(3, 2)).astype(np.float32)
    after, _ = asked(memory, answers, (1, "a"))
    rows = {
        "x": np.concatenate([samples, DATA.x]),
        "y": np.concatenate([memory["labels"], DATA.y]),
        "teacher": np.concatenate([answers, np.zeros((7, 2), np.float32)]),
        "heard": np.array([1] * 3 + [0] * 7, np.float32),
    }
    trees.map(np.testing.assert_array_equal, after["codes"], memory["codes"])
    np.testing.assert_array_equal(
        beside({"x": samples, "y": memory["labels"], "teacher": answers}, own)["heard"], rows["heard"]
    )
    second = sequential.run(BRIDGE, {"params": first}, rows, (1, "a")).params
    trees.map(np.testing.assert_array_equal, after["model"], second)
    silent, _ = asked(memory, NOTHING, (1, "a"))
    third = sequential.run(plain, {"params": first}, own, (1, "a")).params
    trees.map(np.testing.assert_array_equal, silent["model"], third)
    np.testing.assert_array_equal(BRIDGE.logits({}, after, DATA.x), NET.logits(second, DATA.x))
    np.testing.assert_array_equal(BRIDGE.logits({}, {}, DATA.x), NET.logits(NET.init(0), DATA.x))


def test_who_has_few_rows_says_some_twice() -> None:
    few = Rows(DATA.x[:2], DATA.y[:2])
    local, said = BRIDGE(Local(few, {"autoencoder": CODER}), {"answers": NOTHING}, (0,), "edge")
    assert said["delta"]["codes"].shape == (3, 2)
    assert set(local.memory["labels"].tolist()) <= {0, 1}


def test_faults_are_told() -> None:
    with pytest.raises(ConfigError, match=r"^bridge=0: use at least one sample$"):
        Bridged(NET, (CrossEntropy(),), SGD(0.2), 2, 4, bridge=0)
    with pytest.raises(ConfigError, match=r"^a device without an autoencoder: give all the same one, as memory"):
        asked({}, NOTHING, (0,))
