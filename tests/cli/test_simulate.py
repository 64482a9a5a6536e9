"""`duetto simulate`, `duetto demo`, and a run that is stopped and goes on."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from duetto.cli import demo, running, shown, simulate
from duetto.errors import ConfigError
from duetto.programs import runs

SMALL = ("--days", "2", "--rounds", "4", "--cohort", "3")
RUN = ("simulate", "closed-loop", *SMALL, "--tolerance-points", "5")


def files(folder: Path) -> dict[str, bytes]:
    """All files below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.usefixtures("tiny")
def test_a_run_shows_its_tables_and_figures(run: Callable[..., Any], tmp_path: Path) -> None:
    done = run(*RUN, "--task", "small", "--seeds", "0,1")
    assert done.code == 0, done.err
    assert max(map(len, done.out.splitlines())) <= 80
    for words in (
        "new users",
        "device users",
        "+ learning",
        "figures",
        "seed 1",
        "teaching and audit",
        "speaks against",
    ):
        assert words in done.out
    assert "…" not in done.out, "nothing is cut off"
    assert "small, seeds 0, 1, network synthetic (invented: DUETTO_DATA is not set)" in done.err
    folder = tmp_path / "runs" / "closed-loop-small"
    assert {"config.json", "records.jsonl", "result.json", "figures.json", "report.html"} <= set(os.listdir(folder))

    before = files(folder)
    again = run(*RUN, "--task", "small", "--seeds", "0,1")
    assert again.out.partition("\nReport:")[0] == done.out.partition("\nReport:")[0]
    assert "done before" in again.out
    assert files(folder) == before


@pytest.mark.usefixtures("tiny")
def test_json_is_one_document(run: Callable[..., Any]) -> None:
    done = run(*RUN, "--seeds", "0", "--name", "machine", "--json")
    found = json.loads(done.out, parse_constant=pytest.fail)
    assert found["name"] == "machine"
    assert found["network"] == "synthetic"
    assert Path(found["report"]).is_file()
    assert {"new users: cascade", "device users: cascade + learning"} <= {row["name"] for row in found["rows"]}
    assert set(found["figures"]["unseen_ask_after"]) == {"mean", "seeds"}


@pytest.mark.usefixtures("tiny")
def test_fresh_begins_again_and_other_settings_lose_nothing(run: Callable[..., Any], tmp_path: Path) -> None:
    assert run(*RUN, "--seeds", "0", "--name", "a").code == 0
    before = files(tmp_path)
    for other in (["--seeds", "1"], ["--seeds", "0", "--rounds", "5"], ["--seeds", "0", "--network", "wifi"]):
        done = run(*RUN, *other, "--name", "a")
        assert done.code == 2
        assert "holds a run with another" in done.error
        assert files(tmp_path) == before
    done = run(*RUN, "--seeds", "1", "--name", "a", "--fresh", "--json")
    assert json.loads(done.out)["seeds"] == [1]


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--task", "nope"], "no task is called 'nope': choose one of activity, cifar, digits, handwriting"),
        (["--network", "6g"], "no network is called '6g'"),
        (["--network", "constant-x"], "no network is called 'constant-x'"),
        (["--network", "4g-commute"], "no folder of network traces: set DUETTO_DATA"),
        (["--rounds", "-3"], "-3 rounds"),
        (["--rounds", "many"], "'many' is not a valid integer"),
        (["--days", "0"], "0 days"),
        (["--cohort", "0"], "0 devices"),
        (["--deadline", "-1"], "deadline -1"),
        (["--tolerance-points", "-1"], "tolerance_points=-1.0: use a number from 0"),
        (["--tolerance-points", "nan"], "tolerance_points=nan: use a number from 0"),
        (["--score", "luck"], "no score is called 'luck'"),
        (["--seeds", "0,x"], "the seeds '0,x': give whole numbers from 0"),
        (["--seeds", ""], "the seeds ''"),
        (["--seeds", "0,-1"], "the seeds '0,-1'"),
        (["--seeds", "0,0"], "the seeds (0, 0): give at least one, each once"),
        (["--name", "../up"], "a run called '../up'"),
        (["--name", ""], "a run called ''"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    run: Callable[..., Any], tmp_path: Path, words: list[str], expected: str
) -> None:
    done = run(*RUN, "--seeds", "0", *words)
    assert done.code == 2
    assert done.out == ""
    assert expected in done.error
    assert list(tmp_path.rglob("*.json")) == []


def test_data_that_is_not_there_says_what_to_do(
    run: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = run(*RUN, "--task", "handwriting")
    assert done.error.endswith("or run `duetto data get handwriting`")
    monkeypatch.setenv("DUETTO_DATA", str(tmp_path / "nowhere"))
    assert "which is no folder" in run(*RUN).error
    (tmp_path / "nowhere").write_text("a file")
    assert "which is no folder" in run(*RUN, "--task", "handwriting", "--network", "wifi").error
    assert not (tmp_path / "runs").exists()


def test_the_network_is_measured_where_traces_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert simulate._network() == ("synthetic", " (invented: DUETTO_DATA is not set)")
    monkeypatch.setenv("DUETTO_DATA", str(tmp_path))
    assert simulate._network() == ("synthetic", " (invented: DUETTO_DATA holds no traces)")
    (tmp_path / "traces").mkdir()
    (tmp_path / "traces" / "index.csv").touch()
    assert simulate._network()[0] == "4g-commute"


@pytest.mark.usefixtures("tiny")
def test_what_is_damaged_is_named_and_mended_by_what_is_said(run: Callable[..., Any], tmp_path: Path) -> None:
    words = (*RUN, "--seeds", "0", "--name", "a")
    first = run(*words, "--json").out
    folder = tmp_path / "runs" / "a"

    damaged = folder / "result.json"
    damaged.write_text("{")
    assert str(damaged.relative_to(tmp_path)) in run(*words).error
    damaged.unlink()
    state = folder / "seed-0" / "learning.safetensors"
    whole = state.read_bytes()
    state.write_bytes(whole[: len(whole) // 2])
    done = run(*words)
    assert done.code == 2
    assert "learning.safetensors is damaged: delete it" in done.error
    state.unlink()
    assert json.loads(run(*words, "--json").out) == json.loads(first), "done anew, it is the same"

    (folder / "config.json").write_text("[")
    assert "config.json is damaged" in run(*words).error
    (folder / "config.json").write_text("7")
    assert "config.json is damaged" in run(*words).error


@pytest.mark.usefixtures("tiny")
def test_a_damaged_cache_of_models_is_named(run: Callable[..., Any], monkeypatch: Any, tmp_path: Path) -> None:
    monkeypatch.setenv("DUETTO_CACHE", str(tmp_path / "cache"))
    assert run(*RUN, "--seeds", "0", "--name", "a").code == 0
    [models] = (tmp_path / "cache").rglob("*.safetensors")
    models.write_bytes(b"\0" * 20)
    done = run(*RUN, "--seeds", "0", "--name", "b")
    assert done.code == 2
    assert f"{models} are damaged: delete that file" in done.error
    models.unlink()
    assert run(*RUN, "--seeds", "0", "--name", "b").code == 0


@pytest.mark.usefixtures("tiny")
def test_ctrl_c_says_how_to_go_on(run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*given: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(runs, "_scored", stopped)
        done = run(*RUN, "--seeds", "0")
    assert (done.code, done.out) == (130, "")
    assert done.err.splitlines()[-1] == running.STOPPED
    assert run(*RUN, "--seeds", "0").code == 0


def test_figures_show_what_there_is_room_for(capsys: pytest.CaptureFixture[str]) -> None:
    figures = {
        "unseen_ask_before": {"mean": 0.1234, "seeds": [0.1234] * 9},
        "device_ask_after": {"mean": None, "seeds": [None] * 9},
        "break_even_inputs": {"mean": 5e8, "seeds": [1e9, *[7.4] * 8]},
        "learning_up_bytes": {"mean": 2.5e6, "seeds": [2.5e6] * 9},
    }
    shown.listed(range(2), {name: {**of, "seeds": of["seeds"][:2]} for name, of in figures.items()})
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert lines[0] == ["figures", "mean", "seed", "0", "seed", "1"]
    assert lines[2:] == [
        ["unseen_ask_before", "12.34", "%", "12.34", "%", "12.34", "%"],
        ["device_ask_after", "–", "–", "–"],
        ["break_even_inputs", "500,000,000", "never", "7"],
        ["learning_up_bytes", "2.50", "MB", "2.50", "MB", "2.50", "MB"],
    ]
    shown.listed(range(9), figures)
    said = capsys.readouterr().out
    assert "seed 8" not in said
    assert "Each seed's are in figures.json." in said
    assert max(map(len, said.splitlines())) <= 80


def test_seeds_are_whole_numbers() -> None:
    assert simulate.parse("0, 1,20") == (0, 1, 20)
    for text in ("", "a", "1-3", "1.5", "-1", "²", "1,"):
        with pytest.raises(ConfigError, match="the seeds"):
            simulate.parse(text)


# --------------------------------------------------------------------------------------------- on the demo's digits


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Where the digits' pair is kept, trained once for all of these, whichever worker is first."""
    return str(tmp_path_factory.getbasetemp().parent / "digits-cache")


OFTEN = (  # a shell that starts jobs in the background lets them ignore ctrl-C: take it back
    "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from duetto.programs import runs; runs.SAVE_EVERY = 0.0; from duetto.cli import main; "
)
DIGITS = ("simulate", "closed-loop", "--seeds", "0", "--days", "2", "--rounds", "16", "--name", "a")


def test_stopped_while_learning_and_resumed_is_the_same_run(cache: str, tmp_path: Path) -> None:
    def start(folder: str) -> subprocess.Popen[str]:
        (tmp_path / folder).mkdir(exist_ok=True)
        return subprocess.Popen(
            [sys.executable, "-c", f"{OFTEN} sys.exit(main())", *DIGITS],
            cwd=tmp_path / folder,
            env={**os.environ, "DUETTO_CACHE": cache},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    whole = start("whole")
    _, said = whole.communicate(timeout=240)
    assert whole.returncode == 0, said

    stopped = start("stopped")
    state = tmp_path / "stopped" / "runs" / "a" / "seed-0" / "learning.safetensors"
    give_up = time.monotonic() + 120
    while not state.exists() and stopped.poll() is None and time.monotonic() < give_up:
        time.sleep(0.005)
    stopped.send_signal(signal.SIGINT)
    out, said = stopped.communicate(timeout=120)
    assert (stopped.returncode, out) == (130, ""), said
    assert said.splitlines()[-1] == running.STOPPED
    assert "Traceback" not in said
    assert "never retrieved" not in said
    assert not (state.parents[1] / "result.json").exists(), "it was stopped too late to show anything"

    resumed = start("stopped")
    _, said = resumed.communicate(timeout=240)
    assert resumed.returncode == 0, said
    for name in ("records.jsonl", "figures.json", "result.json", "report.html"):
        one, other = (tmp_path / folder / "runs" / "a" / name for folder in ("whole", "stopped"))
        assert one.read_bytes() == other.read_bytes(), name


def test_the_demo_shows_everything(
    run: Callable[..., Any], cache: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from duetto.programs import closed_loop

    monkeypatch.setenv("DUETTO_CACHE", cache)
    short = closed_loop.Settings(days=2, rounds=4)
    monkeypatch.setattr(closed_loop, "Settings", lambda **given: short if not given else type(short)(**given))
    opened: list[str] = []
    monkeypatch.setattr(demo.typer, "launch", opened.append)
    done = run("demo", "--open")
    assert done.code == 0, done.err
    assert max(map(len, done.out.splitlines())) <= 80
    for words in ("24 devices", "2 such days", "new users", "device users", "Report: runs/demo/report.html", "Next"):
        assert words in done.out
    assert opened == [(tmp_path / "runs" / "demo" / "report.html").as_uri()]

    found = json.loads(run("demo", "--json").out, parse_constant=pytest.fail)
    assert (found["name"], found["task"], found["seeds"]) == ("demo", "digits", [0, 1, 2])
    assert "name without slashes" in run("demo", "--name", "a/b").error


def test_other_demos_have_other_names(run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    went: list[str] = []
    monkeypatch.setattr(running, "carry_out", lambda experiment, into, **how: went.append(str(into)))
    run("demo", "--json")
    run("demo", "--json", "--seed", "3", "--network", "wifi")
    run("demo", "--json", "--seed", "3", "--name", "mine", "--runs-dir", "there")
    assert went == ["runs/demo", "runs/demo-seed-3-wifi", "there/mine"]
