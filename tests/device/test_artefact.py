"""Answering without torch."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from duetto.device import Artefact
from duetto.errors import ConfigError, DataError
from duetto.models import Mlp, export
from duetto.types import Local

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
NET = Mlp((3,), 2, (4,))
PARAMS = NET.init(0)
DRAW = np.random.default_rng(0)
ON_A_DEVICE = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "onnx", "onnxscript", "sklearn", "scipy"):
            raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Blocked())
import asyncio, json
import numpy as np
from duetto import protocols
from duetto.device import Artefact
from duetto.policies import Threshold
from duetto.types import Held, Local, Peer, Reply

class Me(Peer):
    name, traits = "phone", {}
    async def ask(self, skill, tree, *, key, deadline=None):
        return Reply(self.name, skill(Local(), tree, key, self.name)[1])

class Nobody(Peer):
    name, traits = "cloud", {}
    async def ask(self, skill, tree, *, key, deadline=None):
        return Reply(self.name, failure="not reached")

skill = Artefact(sys.argv[1])
async def main():
    said = []
    for i, x in enumerate(json.loads(sys.argv[2])):
        given = await protocols.answer(np.array(x, np.float32), me=Me(), exits={0: skill}, peers={"cloud": Nobody()},
            question=skill, policy=Held.of(Threshold(float(i % 2))), key=(0, i))
        said.append((given.tree["logits"].tolist(), given.party, given.asked))
    print(json.dumps([said, "torch" in sys.modules]))
asyncio.run(main())
"""


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A file."""
    return str(export.onnx(NET, PARAMS, tmp_path_factory.mktemp("artefact") / "net.onnx"))


def test_a_device_answers_while_torch_cannot_be_imported(path: str) -> None:
    x = DRAW.normal(size=(4, 3)).astype(np.float32)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", ON_A_DEVICE, path, json.dumps(x.tolist())],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said, torch_is_there = json.loads(done.stdout)
    assert not torch_is_there
    np.testing.assert_allclose([logits for logits, _, _ in said], NET.logits(PARAMS, x), atol=1e-5)
    assert [(party, asked) for _, party, asked in said] == [("phone", False), ("phone", True)] * 2


def test_many_are_one_by_one(path: str) -> None:
    skill = Artefact(path)
    locals_ = [Local(i) for i in range(3)]
    messages = [{"x": DRAW.normal(size=(n, 3)).astype(np.float32)} for n in (2, 0, 3)]
    together = skill.many(locals_, messages, [(0,)] * 3, ["a", "b", "c"])
    for local, message, (after, said) in zip(locals_, messages, together, strict=True):
        assert after is local
        np.testing.assert_allclose(said["logits"], skill(local, message, (0,), "a")[1]["logits"], atol=1e-6)
        assert said["logits"].shape == (len(message["x"]), 2)
    assert skill.group(locals_[0], messages[0]) == skill.group(locals_[1], messages[1]) is not None


def test_a_file_is_loaded_once(path: str) -> None:
    from duetto.device import artefact

    skill, message = Artefact(path), {"x": np.zeros((1, 3), np.float32)}
    skill(Local(), message, (0,), "me")
    before = artefact.session.cache_info().misses
    Artefact(path)(Local(), message, (0,), "me")
    assert artefact.session.cache_info().misses == before


@pytest.mark.parametrize(
    "message",
    [{}, np.zeros((1, 3)), {"x": np.zeros((1, 4))}, {"x": np.zeros(3)}, {"x": [[np.nan] * 3]}, {"x": [[1e300] * 3]}],
)
def test_a_bad_message_names_its_sender(path: str, message: Any) -> None:
    with pytest.raises(DataError, match="phone-7"):
        Artefact(path)(Local(), message, (0,), "phone-7")


def test_a_file_that_is_missing_or_damaged_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"\x08\x07" + bytes(range(90)))
    for name in ("bad.onnx", "missing.onnx"):
        with pytest.raises(DataError, match=name) as told:
            Artefact(str(tmp_path / name))(Local(), {"x": np.zeros((1, 3))}, (0,), "me")
        assert "\n" not in str(told.value)


def test_without_the_extra_the_command_is_named(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ConfigError, match=r"pip install 'duetto\[onnx\]'"):
        Artefact(path, threads=2)(Local(), {"x": np.zeros((1, 3))}, (0,), "me")
