"""``duetto cloud --page`` and ``publish --policy``: what stands in their way is told in one line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from duetto.cloud import browser
from duetto.cloud.site import Site
from duetto.models import Mlp, export
from duetto.policies import Calibrated, artefact
from duetto.protocols.channels import POLICY
from duetto.types import Held


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DUETTO_DB", "DUETTO_BLOBS", "DUETTO_CLOUD"):
        monkeypatch.delenv(name, raising=False)


def test_a_page_that_is_not_built(run: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = Mlp((4,), 3, (8,))
    export.onnx(net, net.init(0), tmp_path / "large.onnx")
    monkeypatch.setattr(browser.serving, "__kwdefaults__", {"files": tmp_path / "nothing"})
    done = run("cloud", "--large", "large.onnx", "--state", "here", "--page", "8090")
    assert (done.code, done.error) == (2, "error: the page is not built: make page (it needs npm)")


def test_a_page_beside_a_program(run: Callable[..., Any]) -> None:
    done = run("cloud", "--program", "closed-loop", "--page", "8090", "--state", "here")
    assert done.code == 2
    assert "--page beside a --program" in done.error


def test_a_policy_is_signed_beside_its_model(run: Callable[..., Any], tmp_path: Path) -> None:
    net = Mlp((4,), 3, (8,))
    export.onnx(net, net.init(0), tmp_path / "small.onnx")
    held = Held(Calibrated(), {"temperature": np.array(1.5), "threshold": np.array(0.75)})
    artefact.save(artefact.Artefact(held), tmp_path / "policy")
    words = ["cloud", "publish", "small.onnx", "--version", "1", "--policy", "policy", "--state", "here"]
    assert run(*words).code == 0
    site = Site(tmp_path / "here")
    [release] = site.releases.releases()
    told = release.told["told"]
    read = artefact.heard(json.loads(told)[POLICY])
    assert read.part == held.part
    assert float(read.state["threshold"]) == 0.75
    site.engine.dispose()
