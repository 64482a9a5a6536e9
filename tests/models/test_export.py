"""ONNX files: the same answers as torch, in float32 and nearly so in eight bits."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from duetto import tasks
from duetto.device import Artefact
from duetto.errors import ConfigError, DataError
from duetto.models import Conv, Mixture, Mlp, Predict, export
from duetto.training import Adam, Client, CrossEntropy, sequential
from duetto.tree import Tree
from duetto.types import Local

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
DRAW = np.random.default_rng(0)
NOBODY = Local()
X = np.zeros((1, 3))


def answers(path: Path, x: np.ndarray) -> np.ndarray:
    """What the device would say."""
    logits: np.ndarray = Artefact(str(path))(NOBODY, {"x": x}, (0,), "me")[1]["logits"]
    return logits


@pytest.mark.parametrize(
    "net", [Mlp((3, 2), 4, (5,)), Conv((1, 8, 8), 3, (2, 3), (6,), dropout=0.5), Mixture((Mlp((3,), 2), Mlp((3,), 2)))]
)
def test_the_file_answers_as_torch_does(net: Mlp, tmp_path: Path) -> None:
    params = net.init(1)
    path = export.onnx(net, params, tmp_path / "net.onnx")
    for n in (1, 7, 600):
        x = DRAW.normal(size=(n, *net.shape)).astype(np.float32)
        np.testing.assert_allclose(answers(path, x), net.logits(params, x), atol=1e-5)
    message = {"x": np.zeros((4, *net.shape), np.float32)}
    assert Artefact(str(path)).work(NOBODY, message) == net.work(4)
    assert os.listdir(tmp_path) == ["net.onnx"]


def test_a_file_for_one_row_takes_rows_in_turn(tmp_path: Path) -> None:
    net = Mlp((3,), 2, (4,))
    params = net.init(0)
    path = export.onnx(net, params, tmp_path / "one.onnx", batch_dynamic=False)
    for n in (0, 1, 5):
        x = DRAW.normal(size=(n, 3)).astype(np.float32)
        np.testing.assert_allclose(answers(path, x), net.logits(params, x), atol=1e-6)
    small = export.quantised(path, tmp_path / "eight.onnx", DRAW.normal(size=(9, 3)))
    assert answers(small, x).shape == (5, 2)


@pytest.fixture(scope="module")
def digits() -> tuple[tasks.Task, Tree]:
    """The digits task and a small model that has learned something."""
    task = tasks.load("digits", 0)
    client = Client(task.small, (CrossEntropy(),), Adam(1e-2), 6, 32)
    start = task.small.init(0)
    public = task.public
    return task, sequential.run(client, {"params": start}, {"x": public.x, "y": public.y}, (0,)).params


def test_eight_bits_agree_on_digits_and_are_small(digits: tuple[tasks.Task, Tree], tmp_path: Path) -> None:
    task, params = digits
    rows = task.group("calibration")[0]
    full = export.onnx(task.small, params, tmp_path / "full.onnx")
    eight = export.quantised(full, tmp_path / "eight.onnx", task.public.x[:200])
    own = task.small.logits(params, rows.x)
    assert (own.argmax(1) == rows.y).mean() > 0.7, "the model has learned something"
    assert (answers(eight, rows.x).argmax(1) == own.argmax(1)).mean() > 0.97
    assert eight.stat().st_size < 40_000
    assert np.abs(answers(eight, rows.x) - own).max() > 1e-4, "these are eight bits"
    work = Artefact(str(eight)).work(NOBODY, {"x": rows.x})
    assert (work.flops, work.bytes) == (task.small.work(len(rows.x)).flops, task.small.parameters)
    assert set(os.listdir(tmp_path)) == {"full.onnx", "eight.onnx"}


def test_a_weight_channel_keeps_its_own_scale(tmp_path: Path) -> None:
    """One channel a thousand times the other: with a single scale the small one would vanish."""
    net = Mlp((4,), 2, ())
    weight = np.array([[1.0, -0.5, 0.25, 0.75], [1e-3, 5e-4, -1e-3, 2.5e-4]], np.float32)
    params = {"1": {"weight": weight, "bias": np.zeros(2, np.float32)}}
    assert net.init(0).keys() == params.keys()
    path = export.onnx(net, params, tmp_path / "a.onnx")
    x = DRAW.uniform(-1, 1, (50, 4)).astype(np.float32)
    graphs, numpy_helper = pytest.importorskip("onnx"), pytest.importorskip("onnx.numpy_helper")
    eight = graphs.load(str(export.quantised(path, tmp_path / "b.onnx", x)))
    arrays = {i.name: numpy_helper.to_array(i) for i in eight.graph.initializer}
    scales = next(a for a in arrays.values() if a.shape == (2,) and a.dtype == np.float32)
    np.testing.assert_allclose(scales, np.abs(weight).max(1) / 127, rtol=1e-2)


def test_parameters_of_another_network_write_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        export.onnx(Mlp((3,), 2), Mlp((3,), 3).init(0), tmp_path / "a.onnx")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("rows", [np.zeros((0, 3)), np.zeros((2, 4)), np.full((2, 3), np.nan)])
def test_calibration_rows_that_do_not_fit_are_told(rows: np.ndarray, tmp_path: Path) -> None:
    path = export.onnx(Mlp((3,), 2, ()), Mlp((3,), 2, ()).init(0), tmp_path / "a.onnx")
    with pytest.raises(DataError):
        export.quantised(path, tmp_path / "b.onnx", rows)
    assert os.listdir(tmp_path) == ["a.onnx"]


def test_what_is_no_model_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"no model at all")
    for name in ("a.onnx", "missing.onnx"):
        with pytest.raises(DataError, match=name):
            export.quantised(tmp_path / name, tmp_path / "b.onnx", np.zeros((1, 3)))


def test_a_missing_extra_names_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("onnx", "onnxscript", "onnxruntime"):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, name, None)
            net, path = Mlp((3,), 2), tmp_path / "a.onnx"
            with pytest.raises(ConfigError, match=r"pip install 'duetto\[onnx\]'"):
                _ = export.quantised(path, path, X) if name == "onnxruntime" else export.onnx(net, net.init(0), path)


def test_an_artefact_and_a_prediction_are_asked_alike(tmp_path: Path) -> None:
    net = Mlp((3,), 2)
    params = net.init(0)
    ours, theirs = Artefact(str(export.onnx(net, params, tmp_path / "a.onnx"))), Predict(net)
    local, message = Local(None, {"params": params}), {"x": np.ones((2, 3), np.float32)}
    mine, other = ours(local, message, (0,), "me")[1], theirs(local, message, (0,), "me")[1]
    assert {name: (a.shape, a.dtype) for name, a in mine.items()} == {n: (a.shape, a.dtype) for n, a in other.items()}
