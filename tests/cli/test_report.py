"""`duetto report`."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

RUN = ("simulate", "closed-loop", "--seeds", "0", "--days", "2", "--rounds", "4", "--cohort", "3")


@pytest.fixture
def two(tiny: None, run: Callable[..., Any]) -> None:
    """Two runs, slow and quick."""
    assert run(*RUN, "--name", "slow", "--network", "constant-1").code == 0
    assert run(*RUN, "--name", "quick", "--network", "constant-100").code == 0


@pytest.mark.usefixtures("two")
def test_one_several_and_event_files(run: Callable[..., Any], tmp_path: Path) -> None:
    pages = [tmp_path / "runs" / name for name in ("slow/report.html", "slow-and-quick.html")]
    pages[0].unlink()
    done = run("report", "slow")
    assert done.code == 0, done.err
    assert pages[0].is_file()
    assert "Report: runs/slow/report.html" in done.out
    assert "new users" in done.out
    assert "figures" not in done.out

    both = run("report", "slow", "runs/quick", "--tensorboard", "logs")
    assert both.code == 0, both.err
    assert pages[1].is_file()
    assert max(map(len, both.out.splitlines())) <= 80
    assert "A  slow" in both.out
    assert "B  quick" in both.out
    assert "…" not in both.out
    assert both.out.count("Events: logs/") == 2
    assert [path.parent.name for path in sorted((tmp_path / "logs").rglob("events.*"))] == ["quick", "slow"]

    found = json.loads(run("report", "quick", "--json", "--out", "new/page.html").out, parse_constant=pytest.fail)
    assert found["report"] == "new/page.html"
    assert (tmp_path / "new" / "page.html").is_file()
    assert [entry["name"] for entry in found["runs"]] == ["quick"]


@pytest.mark.usefixtures("two")
def test_bad_input_is_one_line(run: Callable[..., Any], tmp_path: Path) -> None:
    assert run("report", "fast").error == "error: no run is called 'fast': in runs/ there are quick, slow"
    assert run("report").error == "error: no run is named: in runs/ there are quick, slow"
    assert run("report", "slow", "runs/slow").error == "error: a run is named twice: name each once"
    assert "none yet; make one with `duetto demo`" in run("report", "x", "--runs-dir", "elsewhere").error
    folder = tmp_path / "runs" / "slow"
    (folder / "figures.json").write_text("[]")
    assert run("report", "slow", "--json").error.endswith("figures.json is damaged: run it again with --fresh")
    (folder / "figures.json").unlink()
    assert json.loads(run("report", "slow", "--json").out)["runs"][0]["figures"] == {}
    (folder / "records.jsonl").write_text("no record\n" * 2)
    assert "line 1 of runs/slow/records.jsonl is no record" in run("report", "slow").error
    (folder / "result.json").unlink()
    assert "let the run finish first" in run("report", "slow").error
    for path in tmp_path.rglob("*.part"):
        pytest.fail(f"{path} was left behind")
