"""`duetto elastic`."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch, tiny_task: Callable[..., Any]) -> None:
    from duetto import tasks

    known = tasks.load
    monkeypatch.setattr(
        tasks, "load", lambda name, seed=0: tiny_task(seed, name=name) if name == "digits" else known(name)
    )


def test_a_table_a_choice_and_a_report(run: Callable[..., Any], tmp_path: Path) -> None:
    done = run("elastic", "--passes", "2")
    assert done.code == 0, done.err
    for words in ("size", "kB", "ms", "mJ", "▸ 1", "one training, 4 sizes", "Report: runs/elastic-digits/report.html"):
        assert words in done.out
    assert max(map(len, done.out.splitlines())) <= 80
    assert "</html>" in (tmp_path / "runs/elastic-digits/report.html").read_text()
    before = (tmp_path / "runs/elastic-digits/weights.safetensors").read_bytes()
    found = json.loads(
        run("elastic", "--passes", "2", "--max-bytes", "100", "--out", "models", "--svg", "it.svg", "--json").out
    )
    assert (tmp_path / "it.svg").read_text().startswith("<svg")
    assert found["chosen"] == "0.25"
    assert [size["sub"] for size in found["sizes"]] == ["0.25", "0.5", "0.75", "1"]
    assert (tmp_path / "models/digits-0.25.safetensors").exists()
    assert before == (tmp_path / "runs/elastic-digits/weights.safetensors").read_bytes()


def test_what_is_wrong_is_one_line(run: Callable[..., Any]) -> None:
    assert "the smallest, 0.25, takes" in run("elastic", "--passes", "1", "--max-latency", "0.001").error
    assert "another settings" in run("elastic", "--passes", "3").error
    assert run("elastic", "--passes", "3", "--fresh").code == 0
    assert "widths of 'wide'" in run("elastic", "--widths", "wide").error
    assert "no device is called 'fridge'" in run("elastic", "--passes", "3", "--device", "fridge").error
    assert "0 seconds" in run("elastic", "--max-latency", "0").error
    assert "no task is called" in run("elastic", "--task", "nope").error
