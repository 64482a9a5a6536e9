"""An ONNX file of other names answers the same under ours."""

from pathlib import Path

import numpy as np
import pytest

from duetto.errors import DataError
from duetto.programs.renamed import renamed

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")

HEAD = '<ir_version: 8, opset_import: ["" : 17]> net '
WEIGHT = "<float[2, 2] w = {1, 2, 3, 4}>"


def saved(path: Path, text: str) -> Path:
    onnx.save(onnx.parser.parse_model(HEAD + text), path)
    return path


def logits(path: Path, x: np.ndarray) -> np.ndarray:
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found: np.ndarray = session.run(["logits"], {"x": x})[0]
    return found


@pytest.mark.parametrize(("takes", "gives"), [("input", "out"), ("x", "out"), ("input", "logits")])
def test_it_answers_the_same(takes: str, gives: str, tmp_path: Path) -> None:
    text = f"(float[n, 2] {takes}) => (float[n, 2] {gives}) {WEIGHT} {{ {gives} = MatMul({takes}, w) }}"
    made = renamed(saved(tmp_path / "own.onnx", text), tmp_path / "new" / "own.onnx")
    assert made == tmp_path / "new" / "own.onnx"
    x = np.array([[1, 1], [2, 0], [0, 0.5]], np.float32)
    np.testing.assert_array_equal(logits(made, x), x @ np.array([[1, 2], [3, 4]], np.float32))
    assert [each.name for each in tmp_path.joinpath("new").iterdir()] == ["own.onnx"]


def test_what_is_right_already_stays(tmp_path: Path) -> None:
    path = saved(tmp_path / "own.onnx", f"(float[n, 2] x) => (float[n, 2] logits) {WEIGHT} {{ logits = MatMul(x, w) }}")
    assert renamed(path, tmp_path / "new.onnx") == path
    assert not (tmp_path / "new.onnx").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("(float[n, 2] a, float[n, 2] b) => (float[n, 2] c) { c = Add(a, b) }", "takes a, b and gives c"),
        ("(float[n, 2] a) => (float[n, 2] b, float[n, 2] c) { b = Relu(a) c = Abs(a) }", "gives b, c"),
        ("(float[n, 2] a) => (float[n, 2] p) { logits = Relu(a) p = Softmax(logits) }", "something else logits"),
    ],
)
def test_what_cannot_be_named(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=said):
        renamed(saved(tmp_path / "own.onnx", text), tmp_path / "new.onnx")


def test_what_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "own.onnx").write_text("no model")
    with pytest.raises(DataError, match=r"own\.onnx is no model"):
        renamed(tmp_path / "own.onnx", tmp_path / "new.onnx")
    with pytest.raises(DataError, match="there is no file"):
        renamed(tmp_path / "none.onnx", tmp_path / "new.onnx")
