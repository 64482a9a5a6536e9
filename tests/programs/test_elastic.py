"""The program: trained once and kept, rated by user, taken within limits, saved by itself."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from duetto import tree as trees
from duetto.errors import ConfigError, DataError
from duetto.models import Mlp, Sub
from duetto.models.costs import Regression
from duetto.models.search import Limits
from duetto.programs import elastic
from duetto.programs.elastic import Settings
from duetto.simulation import energy

SETTINGS = Settings(widths=(0.5, 1.0), depths=(1,), passes=4)


def quiet(what: str, done: float, of: float) -> None:
    assert what


@pytest.fixture
def task(tiny_task: Callable[..., Any]) -> Any:
    """A tiny task whose model has two layers, so that one can be left out."""
    return replace(tiny_task(0), small=Mlp((4,), 3, (12, 12)))


def test_it_is_trained_once(task: Any, tmp_path: Path) -> None:
    said: list[str] = []
    params = elastic.trained(task, SETTINGS, tmp_path, lambda what, done, of: said.append(what))
    assert set(said) == {"training all sizes"}
    said.clear()
    again = elastic.trained(task, SETTINGS, tmp_path, lambda what, done, of: said.append(what))
    assert not said
    assert trees.encode(again) == trees.encode(params)
    with pytest.raises(ConfigError, match="another settings"):
        elastic.trained(task, replace(SETTINGS, passes=2), tmp_path, quiet)
    other = elastic.trained(task, SETTINGS, tmp_path / "other", quiet)
    assert trees.encode(other) == trees.encode(params)  # the same seed
    (tmp_path / "weights.safetensors").write_bytes(b"nothing")
    with pytest.raises(DataError, match="damaged"):
        elastic.trained(task, SETTINGS, tmp_path, quiet)


def test_sizes_are_rated_by_user_and_taken_within_limits(task: Any, tmp_path: Path) -> None:
    params = elastic.trained(task, SETTINGS, tmp_path, quiet)
    lines = elastic.rated(task, SETTINGS, params, "mid-phone", quiet)
    net, profile = elastic.slimmable(task, SETTINGS), energy.profiles()["mid-phone"]
    assert [line.rated.sub for line in lines] == list(net.subs)
    for line in lines:
        own = net.sub(line.rated.sub)
        assert (line.rated.seconds, line.rated.joules) == energy.compute(profile, own.work(1))
        assert line.rated.nbytes == 4 * own.parameters
        right = {}
        for group in ("calibration", "unseen"):
            each = []
            for user in task.users[group]:
                rows = task.rows(user)
                each.append(np.mean(net.answers(params, rows.x, line.rated.sub).argmax(1) == rows.y))
            right[group] = np.mean(each)
        assert line.rated.accuracy == pytest.approx(right["calibration"])
        assert line.accuracy.value == pytest.approx(right["unseen"])
        assert line.accuracy.low <= line.accuracy.value <= line.accuracy.high
    assert elastic.chosen(lines, Limits()) is lines[-1]
    small = elastic.chosen(lines, Limits(nbytes=lines[0].rated.nbytes))
    assert small is lines[0]
    with pytest.raises(ConfigError, match=r"no sub-network keeps 1 bytes: the smallest, 0.5x1"):
        elastic.chosen(lines, Limits(nbytes=1))
    told = elastic.result("name", "tiny", SETTINGS, "mid-phone", lines, small, Limits(seconds=0.5))
    assert "less energy than the largest" in told.headline
    assert "limits 500 ms" in told.headline
    whole = elastic.result("name", "tiny", SETTINGS, "mid-phone", lines, lines[-1], Limits())
    assert "limits none: the largest" in whole.headline
    assert {row.name.split(",")[0] for row in told.rows} >= {"▸ 0.5x1", "1"}


def test_another_machine_s_operations_add_up(task: Any, tmp_path: Path) -> None:
    params = elastic.trained(task, SETTINGS, tmp_path, quiet)
    flat = Regression({"other": (1e-3, 0.0, 0.0)})  # a millisecond each
    lines = elastic.rated(task, SETTINGS, params, "mid-phone", quiet, flat)
    counts = [round((line.rated.seconds - energy.profiles()["mid-phone"].overhead_seconds) / 1e-3) for line in lines]
    assert all(line.rated.joules == line.rated.seconds * energy.profiles()["mid-phone"].compute_watts for line in lines)
    by_name = dict(zip([line.name for line in lines], counts, strict=True))
    assert by_name["0.5"] == by_name["1"] > by_name["0.5x1"] == by_name["1x1"]


def test_a_size_is_saved_by_itself(task: Any, tmp_path: Path) -> None:
    params = elastic.trained(task, SETTINGS, tmp_path, quiet)
    net, sub = elastic.slimmable(task, SETTINGS), Sub(0.5, 1)
    weights, *more = elastic.saved(task, SETTINGS, params, sub, tmp_path / "out")
    alone = trees.decode(weights.read_bytes())
    x = task.public.x[:9]
    np.testing.assert_array_equal(net.sub(sub).logits(alone, x), net.answers(params, x, sub))
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    (file,) = more
    (found,) = runtime.InferenceSession(str(file), providers=["CPUExecutionProvider"]).run(None, {"x": x})
    np.testing.assert_allclose(found, net.answers(params, x, sub), rtol=1e-4, atol=1e-5)


def test_faults_are_told(task: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="tiny"):
        Settings(model="tiny")
    with pytest.raises(ConfigError, match="passes"):
        Settings(passes=-1)
    with pytest.raises(ConfigError, match="no device is called 'fridge'"):
        elastic.rated(task, SETTINGS, elastic.slimmable(task, SETTINGS).init(0), "fridge", quiet)
    with pytest.raises(ConfigError, match="widths"):
        elastic.slimmable(task, replace(SETTINGS, widths=(0.5,)))
