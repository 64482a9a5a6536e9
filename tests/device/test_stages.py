"""The first stages on a device without torch: the same features as torch's, in float32 and int8, and in the walk."""

import importlib.util
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from duetto import tree as trees
from duetto.device import Stages
from duetto.errors import ConfigError, DataError
from duetto.models import Inception, Net, Residual, Staged, Text, Vit, attached, export, stage
from duetto.protocols import Advance
from duetto.types import Local

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
NETS: dict[str, Net] = {
    "residual": Residual((3, 16, 16), 5, (8, 16), 1),
    "inception": Inception((3, 16, 16), 5, 8, (4, 8)),
    "vit": Vit((3, 16, 16), 5, 8, 16, 1, 2),
    "text": Text((6,), 3, 20, 16, 1, 2),
}
DRAW = np.random.default_rng(0)
WITHOUT_TORCH = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "onnx", "onnxscript", "sklearn", "scipy"):
            raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Blocked())
import numpy as np
from duetto import tree as trees
from duetto.device import Stages
from duetto.protocols import Advance
from duetto.types import Local
net = Stages(sys.argv[1])
tree, start = trees.decode(open(sys.argv[2], "rb").read()), 0
for stop in net.cuts:
    found = Advance(start, stop)(Local(memory={"net": net}), tree, (0,), "phone")[1]
    tree, start = found.get("carried", found), stop
open(sys.argv[3], "wb").write(trees.encode(tree))
"""


def made(name: str) -> tuple[Staged, Any]:
    """A staged network and inputs."""
    net = NETS[name]
    rows: Any = DRAW.integers(0, 20, (3, 6)) if name == "text" else DRAW.normal(size=(3, *net.shape)).astype(np.float32)
    return stage(net.module(), torch.tensor(rows[:1]), proof="stages"), rows


@pytest.fixture(scope="module", params=NETS)
def written(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Staged, Any, Path, list[int]]:
    """A folder."""
    net, x = made(request.param)
    inner = net.cuts()[1:-1]
    cuts = [inner[len(inner) // 3], inner[2 * len(inner) // 3], len(net)]
    return net, x, export.stages(net, tmp_path_factory.mktemp(request.param), cuts), cuts


def test_the_same_features_at_every_cut(written: Any) -> None:
    net, x, folder, cuts = written
    device, tree, start = Stages(str(folder)), {"x": x}, 0
    assert len(device) == len(net)
    assert device.cuts == tuple(cuts)
    for stop in cuts:
        found = device[start:stop](tree)
        wanted = net[:stop]({"x": x})
        assert trees.spec(found) == trees.spec(wanted)
        for name, leaf in wanted.items():
            np.testing.assert_allclose(found[name], leaf, atol=1e-4)
        assert device[start:stop].work(3).flops == net[start:stop].work(3).flops
        tree, start = found, stop


def test_without_torch(written: Any, tmp_path: Path) -> None:
    net, x, folder, _ = written
    (tmp_path / "x").write_bytes(trees.encode({"x": x}))
    asked = [sys.executable, "-W", "error", "-c", WITHOUT_TORCH, str(folder), str(tmp_path / "x"), str(tmp_path / "y")]
    done = subprocess.run(asked, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    found = trees.decode((tmp_path / "y").read_bytes())
    np.testing.assert_allclose(found["logits"], net({"x": x})["logits"], atol=1e-4)


def test_int8_and_exits(tmp_path: Path) -> None:
    net, x = made("residual")
    cut = net.cuts()[5]
    net = replace(net, exits={cut: net[cut:]})  # the rest of the model is an exit as any other half is
    folder = export.stages(net, tmp_path, [cut], {"x": x})
    device = Stages(str(folder))
    found = Advance(0, cut)(Local(memory={"net": device}), {"x": x}, (0,), "phone")[1]
    exact = Advance(0, cut)(Local(memory={"net": net}), {"x": x}, (0,), "phone")[1]
    for name, leaf in exact["carried"]["features"].items():
        error = np.abs(found["carried"]["features"][name] - leaf).max()
        assert 0 < error < 0.1 * np.abs(leaf).max(), "int8, and close"
    assert np.abs(found["logits"] - exact["logits"]).max() < 0.5 * np.ptp(exact["logits"])
    assert device[0:cut].work().bytes == pytest.approx(net[:cut].work().bytes / 4)
    plain = export.stages(replace(net, exits={}), tmp_path / "plain", [cut])
    assert sum(f.stat().st_size for f in plain.glob("stages*")) > 0


def test_heads_that_were_attached_are_written(tmp_path: Path) -> None:
    net, x = made("vit")
    cut = next(k for k in net.cuts()[5:] if len(net.frontier(k)) == 1)
    (value,) = net.frontier(cut)
    head = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(int(np.prod(net.frontier(cut)[value].shape)), 5))
    net = attached(net, {cut: head})
    device = Stages(str(export.stages(net, tmp_path, [cut])))
    found = Advance(0, cut)(Local(memory={"net": device}), {"x": x}, (0,), "phone")[1]
    wanted = Advance(0, cut)(Local(memory={"net": net}), {"x": x}, (0,), "phone")[1]
    np.testing.assert_allclose(found["logits"], wanted["logits"], atol=1e-5)
    assert device.exits[cut].work().flops == net.exits[cut].work().flops


@pytest.mark.filterwarnings("ignore")  # ExecuTorch 1.5 warns of its own code
@pytest.mark.parametrize("bits", [32, 8])
def test_executorch(tmp_path: Path, bits: int) -> None:
    pytest.importorskip("executorch")
    net, x = made("residual")
    inner = net.cuts()[1:-1]
    cuts = [inner[len(inner) // 2], len(net)]
    folder = export.stages(net, tmp_path, cuts, {"x": x} if bits == 8 else None, runtime="executorch")
    device, tree, start = Stages(str(folder)), {"x": x[:1]}, 0
    for stop in cuts:
        tree, start = device[start:stop](tree), stop
        for name, leaf in net[:stop]({"x": x[:1]}).items():
            assert np.abs(tree[name] - leaf).max() < (1e-4 if bits == 32 else 0.25 * np.abs(leaf).max())
    with pytest.raises(DataError, match="x of"):
        device[0 : cuts[0]]({"x": x})


def test_without_executorch(tmp_path: Path) -> None:
    if importlib.util.find_spec("executorch"):
        pytest.skip("it is installed")
    net, _ = made("residual")
    with pytest.raises(ConfigError, match="ExecuTorch is not installed"):
        export.stages(net, tmp_path, [4], runtime="executorch")
    folder = export.stages(net, tmp_path, [4])
    told = json.loads((folder / "stages.json").read_text())
    told["parts"][0]["file"] = "stages-0-4.pte"
    (folder / "stages.json").write_text(json.dumps(told))
    with pytest.raises(ConfigError, match="give this device ONNX files"):
        Stages(str(folder))[0:4]({"x": np.zeros((1, 3, 16, 16), np.float32)})


def test_bad_folders_and_features(tmp_path: Path) -> None:
    net, x = made("inception")
    with pytest.raises(ConfigError, match="give numbers of stages that grow"):
        export.stages(net, tmp_path, [3, 3])
    with pytest.raises(DataError, match=r"stages\.json cannot be read"):
        Stages(str(tmp_path / "nowhere"))
    device = Stages(str(export.stages(net, tmp_path, [4])))
    with pytest.raises(ConfigError, match=r"stages 0 to 3: this device was given the cuts \(4,\)"):
        device[0:3]
    with pytest.raises(DataError, match="these stages take"):
        device[0:4]({"y": x})
    with pytest.raises(DataError, match="x of"):
        device[0:4]({"x": x[:, :1]})
    with pytest.raises(ConfigError, match="onnxruntime without NoProvider"):
        Stages(str(tmp_path), providers=("NoProvider",))[0:4]({"x": x})
    told = json.loads((tmp_path / "stages.json").read_text())
    (tmp_path / "stages.json").write_text(json.dumps({**told, "format": 2}))
    with pytest.raises(DataError, match="another format"):
        Stages(str(tmp_path))
    (tmp_path / "stages.json").write_text(json.dumps(told))
    (tmp_path / told["parts"][0]["file"]).write_bytes(b"nothing")
    with pytest.raises(DataError, match="is no model"):
        Stages(str(tmp_path), threads=2)[0:4]({"x": x})
