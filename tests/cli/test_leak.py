"""`duetto leak`, and a plan within its limit."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

QUICK = ("--cuts", "4", "--rows", "64", "--steps", "20", "--scored", "2")


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models that nobody waits for."""
    from duetto.programs import leak
    from duetto.tasks.pair import Pair

    monkeypatch.setattr(leak, "trained", lambda task, *rest: Pair(task.small.init(0), task.large.init(0), Path()))


def test_leakage_then_a_plan_by_it(run: Callable[..., Any], untrained: None, tmp_path: Path) -> None:
    done = run("leak", "small", "--task", "digits", "--codecs", "int4+zstd", *QUICK)
    assert done.code == 0, done.err
    assert max(map(len, (line for line in done.out.splitlines() if "int4" in line and "-" not in line[:2]))) <= 80
    for words in (
        "adaptive",
        "worst",
        "Known without features",
        "lower bounds",
        "Report: runs/leak-digits/report.html",
    ):
        assert words in done.out
    assert (tmp_path / "runs" / "leak-digits" / "report.html").read_text().startswith("<!doctype html>")
    told = json.loads(run("leak", "digits.small", "--task", "digits", "--codecs", "int4+zstd", *QUICK, "--json").out)
    worst = {(line["cut"], line["codec"]): line["most"]["value"] for line in told["lines"]}
    limit = sorted(worst.values())[len(worst) // 2]
    asked = ("plan", "digits.small", "--leakage", "runs/leak-digits", "--codec", "int4+zstd", "--json")
    ways = json.loads(run(*asked, "--max-leakage", limit).out)["ways"]
    assert "device" in {way["way"] for way in ways}
    for way in ways:
        assert way["way"] == "device" or worst[way["cut"], way["codec"]] <= limit
    assert [way["way"] for way in json.loads(run(*asked, "--max-leakage", "-1").out)["ways"]] == ["device"]


def test_a_limit_needs_what_was_measured(run: Callable[..., Any]) -> None:
    assert "both" in run("plan", "digits.small", "--max-leakage", "0.5").error
    assert "no leakage" in run("plan", "digits.small", "--leakage", "nowhere", "--max-leakage", "0.5").error


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("medium",), "small"),
        (("small", "--task", "nope"), "nope"),
        (("small", "--codecs", "int3"), "int3"),
        (("small", "--seeds", "x"), "whole numbers"),
        (("small", "--task", "tweets"), "tweets"),
        (("nowhere:net",), "cannot be imported"),
    ],
)
def test_errors_are_one_line(run: Callable[..., Any], words: tuple[str, ...], said: str) -> None:
    done = run("leak", *words)
    assert done.code == 2
    assert said in done.error


def test_help_has_examples(run: Callable[..., Any]) -> None:
    assert "duetto leak small --task handwriting" in run("leak", "--help").out
