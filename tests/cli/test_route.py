"""`duetto route`: fit, eval, serve, check."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

HARD, EASY = ("integral", "theorem", "matrix"), ("apple", "river", "garden")


def write(path: Path, seed: int, n: int = 150, flipped: bool = False) -> Path:
    """A log in which prompts on hard things gain; flipped, those on easy ones do."""
    draw = np.random.default_rng(seed)
    lines = []
    for _ in range(n):
        hard = bool(draw.random() < 0.5)
        prompt = f"Tell me of the {draw.choice(HARD if hard else EASY)} {draw.choice(list('abcdefgh'))}, please"
        small = hard == (flipped != (draw.random() < 0.1))
        lines.append(json.dumps({"prompt": prompt, "small": small, "large": bool(draw.random() < 0.95)}))
    path.write_text("\n".join(lines))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A router that was fitted once, from Python."""
    from duetto.policies import TextGain
    from duetto.policies import router as artefacts
    from duetto.programs import route

    home = tmp_path_factory.mktemp("route")
    fitted = route.fit(TextGain(price=0.5, bits=10), route.log(write(home / "log.jsonl", 0)), redrawn=100)
    return artefacts.save(fitted, home / "router")


def test_fit_writes_a_router_with_its_promise(run: Callable[..., Any], tmp_path: Path) -> None:
    log = write(tmp_path / "log.jsonl", 0, 60)
    done = run("route", "fit", log, "--out", "router", "--rate", 0.4)
    assert done.code == 0, done.err
    about = json.loads((tmp_path / "router" / "router.json").read_text())
    assert about["fitted_on"]["items"] == 60
    assert about["settings"]["offload_rate"] == 0.4
    assert f"{about['promise']['apgr']['value']:.3f}" in done.out
    found = json.loads(run("route", "fit", log, "--out", "router", "--rate", 0.4, "--json").out)
    assert found["promise"] == about["promise"], "the same log gives the same promise"


def test_eval_shows_every_baseline(run: Callable[..., Any], folder: Path, tmp_path: Path) -> None:
    log = write(tmp_path / "new.jsonl", 1)
    shown = run("route", "eval", folder, log)
    assert shown.code == 0, shown.err
    for name in ("router", "random", "prompt length", "oracle gain", "oracle weak wrong", "offload_rate", "excess"):
        assert name in shown.out
    found = json.loads(run("route", "eval", folder, log, "--json").out)
    lines = {line["name"]: line for line in found["routers"]}
    assert lines["router"]["apgr"]["low"] > lines["random"]["apgr"]["value"]
    assert lines["random"]["apgr"]["value"] == pytest.approx(0.5)
    assert not found["fitted_on_these"]
    own = run("route", "eval", folder, folder.parent / "log.jsonl")
    assert "fitted on" in own.err
    assert own.code == 0
    assert found["at_threshold"]["offload_rate"]["value"] == pytest.approx(0.5, abs=0.15)


def test_serve_answers_line_by_line(run: Callable[..., Any], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ['{"prompt": "Tell me of the theorem a, please"}', "", '"Tell me of the apple b, please"', "{", "[]"]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(lines) + "\n"))
    done = run("route", "serve", folder)
    assert done.code == 0, done.err
    hard, easy, cut, empty = [json.loads(line) for line in done.out.splitlines()]
    assert (hard["ask"], easy["ask"]) == (True, False)
    assert hard["score"] < hard["threshold"] <= easy["score"]
    assert hard["propensity"] == 1
    assert "gain" in hard["why"]
    assert cut["ask"]
    assert "input, line 4 is no JSON" in cut["error"]
    assert cut["line"] == 4
    assert empty["ask"]
    assert empty["line"] == 5


def test_check_holds_on_fresh_data_and_breaks_when_the_world_changed(
    run: Callable[..., Any], folder: Path, tmp_path: Path
) -> None:
    kept = run("route", "check", folder, write(tmp_path / "fresh.jsonl", 2))
    assert kept.code == 0, kept.out + kept.err
    assert "the promise holds" in kept.out
    changed = write(tmp_path / "changed.jsonl", 3, flipped=True)
    broken = run("route", "check", folder, changed, "--json")
    assert broken.code == 3
    found = json.loads(broken.out)
    assert not found["holds"]
    assert not {each["name"]: each["holds"] for each in found["findings"]}["apgr"]
    assert "no longer holds" in run("route", "check", folder, changed).out


def test_check_refuses_the_log_it_was_fitted_on(run: Callable[..., Any], folder: Path) -> None:
    done = run("route", "check", folder, folder.parent / "log.jsonl")
    assert done.code == 2
    assert "fitted on" in done.error


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("fit", "none.csv", "--out", "r"), "there is no none.csv"),
        (("fit", "empty.csv", "--out", "r"), "no rows"),
        (("fit", "few.csv", "--out", "r"), "2 items to learn from"),
        (("fit", "few.csv", "--out", "r", "--columns", "small=mixtral"), "no column 'mixtral'"),
        (("fit", "few.csv", "--out", "r", "--columns", "tiny=x"), "--columns 'tiny=x'"),
        (("fit", "few.csv", "--out", "r", "--rate", "2"), "2"),
        (("fit", "few.csv", "--out", "r", "--embed", "none.onnx"), "there is no none.onnx"),
        (("eval", "nowhere", "few.csv"), "cannot read"),
        (("serve", "nowhere"), "cannot read"),
        (("check", "nowhere", "few.csv"), "cannot read"),
        (("teach",), "teach"),
    ],
)
def test_errors_are_one_line(run: Callable[..., Any], tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    (tmp_path / "empty.csv").write_text("prompt,small,large\n")
    (tmp_path / "few.csv").write_text("prompt,small,large\na,1,0\nb,0,1\n")
    done = run("route", *words)
    assert done.code == 2
    assert said in done.error
