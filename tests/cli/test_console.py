"""Progress and JSON."""

import json
import math

import pytest

from duetto.cli import console


def test_json_has_no_numbers_that_are_not(capsys: pytest.CaptureFixture[str]) -> None:
    console.emit({"a": [math.nan, math.inf, 1.5, None, True], 2: ("x", -math.inf)})
    assert json.loads(capsys.readouterr().out) == {"a": [None, None, 1.5, None, True], "2": ["x", None]}


def test_progress_without_a_terminal_is_a_line_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    with console.Progressing() as progress:
        for second in range(30):
            now[0] = second
            progress("learning [1]", second, 100)
        for i in range(3):  # one stage, although each is called otherwise
            progress(f"scoring {i}", i, 3)
        progress("reading", 0, 1)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "learning [1]",
        "learning [1] 11%, 11 s",
        "learning [1] 22%, 22 s",
        "scoring 0",
        "reading",
    ]


def test_progress_in_a_terminal_is_a_bar(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    with console.Progressing() as progress:
        monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
        progress._began = 0.0
        for second in range(3):
            now[0] = second
            progress("learning", second, 2)
        progress("a moment", 0, None)
    said = capsys.readouterr().err
    assert "learning" in said
    assert "2 s" in said
    assert "✓\x1b[0m a moment" not in said, "what took no time is not worth a line"


def test_bytes_have_their_own_bar(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    with console.Progressing("bytes") as progress:
        progress("file.gz", 500, 2000)
        progress("file.gz", 2000, 2000)
    assert "kB" in capsys.readouterr().err
