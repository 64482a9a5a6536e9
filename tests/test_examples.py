"""Every example runs as it stands; its ``main`` takes what makes it short."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))
SHORT = {"01_closed_loop": {"rounds": 6}, "02_promise": {}, "03_split": {"inputs": 4}}


def loaded(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{path.stem}", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_it_runs(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = loaded(path).main(**SHORT[path.stem])
    printed = capsys.readouterr().out
    if path.stem == "03_split":
        assert found["planned"]["ms"] < min(found["device only"]["ms"], found["cloud only"]["ms"])
        assert 0 < found["planned"]["asked"] < 1
        return
    for name, accuracy in found.items():
        assert 0.5 < accuracy <= 1
        assert f"{name:14} {accuracy:.1%}" in printed
