"""``duetto crowd`` with nobody to talk to: one line that says what is missing."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from duetto.cloud.site import Site
from duetto.programs import equipped


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        ((), "no cloud in .duetto/cloud: start one there, or name its folder with --cloud-state"),
        (("--insecure", "--task", "nothing"), "no task is called 'nothing'"),
        (("--count", "0"), "0 is not in the range"),
    ],
)
def test_what_cannot_be_is_one_line(words: tuple[str, ...], fault: str, run: Callable[..., Any]) -> None:
    done = run("crowd", *words)
    assert done.code == 2
    assert fault in " ".join(done.err.split())


def test_a_cloud_that_is_not_there(run: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nothing: Any = None
    monkeypatch.setattr(equipped, "equipped", lambda task, folder: equipped.Equipped(folder, nothing, ()))
    Site(tmp_path / "cloud").begin().engine.dispose()
    done = run("crowd", "--count", "1", "--cloud-state", str(tmp_path / "cloud"), "--enrol", "localhost:1")
    assert done.code == 2
    told = " ".join(done.err.split())
    assert "not enrolled" in told
    assert told.endswith("does a cloud enrol at localhost:1?")
