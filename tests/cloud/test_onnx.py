"""A large model in an ONNX file, as a device's question reaches it."""

from pathlib import Path

import numpy as np
import pytest

from duetto.cloud.onnx import Whole
from duetto.errors import ConfigError, DataError
from duetto.models import Mlp, export
from duetto.protocols.stages import Finish
from duetto.types import Local

NET = Mlp((4,), 3, (8,))
PARAMS = NET.init(0)
X = np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32)


@pytest.fixture(scope="module", params=[True, False], ids=["any rows", "one row"])
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    path = tmp_path_factory.mktemp("model") / "large.onnx"
    return Whole(export.onnx(NET, PARAMS, path, batch_dynamic=request.param), 1)


def test_it_answers_as_torch_does_alone_and_together(whole: Whole) -> None:
    local, skill = Local(None, {"large": whole}), Finish("large")
    wanted = NET.logits(PARAMS, X)
    np.testing.assert_allclose(skill(local, {"x": X}, ("k",), "a")[1]["logits"], wanted, atol=1e-5)
    parts = [{"x": X[:1]}, {"x": X[1:4]}, {"x": X[4:]}]
    found = skill.many([local] * 3, parts, [("k",)] * 3, ["a"] * 3)
    assert [len(each[1]["logits"]) for each in found] == [1, 3, 2]
    np.testing.assert_allclose(np.concatenate([each[1]["logits"] for each in found]), wanted, atol=1e-5)
    assert skill.work(local, {"x": X}).flops == NET.work(6).flops


@pytest.mark.parametrize(
    ("tree", "why"),
    [
        ({"x": X[:, :3]}, "rows of shape"),
        ({"x": X[0]}, "rows of shape"),
        ({"y": X}, "neither rows nor features"),
        ({"cut": np.int64(2), "features": {"a": X}}, "cut 2"),
    ],
)
def test_what_it_does_not_take_is_told(whole: Whole, tree: dict[str, np.ndarray], why: str) -> None:
    with pytest.raises(DataError, match=why):
        Finish("large")(Local(None, {"large": whole}), tree, ("k",), "a")


def test_a_file_that_is_no_model_is_told(tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"not a model")
    for name in ("broken.onnx", "missing.onnx"):
        with pytest.raises(DataError, match="is no model"):
            Whole(tmp_path / name)
    path = export.onnx(NET, PARAMS, tmp_path / "large.onnx")
    with pytest.raises(ConfigError, match="onnxruntime without Nobodys"):
        Whole(path, providers=("Nobodys",))
