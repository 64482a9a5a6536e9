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


def said(path: Path, seed: int, wrong: float, users: int = 60, each: int = 40) -> Path:
    """Two classifiers' answers: the small one is wrong in this share, more often where it is less sure."""
    from safetensors.numpy import save_file

    draw = np.random.default_rng(seed)
    labels = draw.integers(0, 3, users * each)
    sure = draw.uniform(0.2, 6, len(labels))
    right = draw.random(len(labels)) >= wrong * 2 * (1 - sure / 6)
    small = np.eye(3)[np.where(right, labels, (labels + 1) % 3)] * sure[:, None]
    save_file({"small": small, "labels": labels, "users": np.arange(len(labels)) // each}, path)
    return path


@pytest.mark.parametrize("promise", ["approximate", "quantile"])
def test_a_threshold_keeps_its_promise_until_the_model_changes(
    run: Callable[..., Any], tmp_path: Path, promise: str
) -> None:
    words = ("--promise", promise, "--target", 0.05, "--out", "threshold")
    done = run("route", "calibrate", said(tmp_path / "a.safetensors", 0, 0.2), *words)
    assert done.code == 0, done.err
    assert "% confidence" in done.out
    about = json.loads((tmp_path / "threshold" / "router.json").read_text())
    assert about["promise"]["says"] in " ".join(done.out.split())
    assert 0.05 < about["fitted_on"]["offload_rate"] < 0.95
    kept = run("route", "check", "threshold", said(tmp_path / "b.safetensors", 1, 0.2))
    assert (kept.code, "the promise holds" in kept.out) == (0, True), kept.err
    worse = run("route", "check", "threshold", said(tmp_path / "c.safetensors", 2, 0.8), "--json")
    assert worse.code == 3
    (finding,) = json.loads(worse.out)["findings"]
    assert finding["worse_by"] > finding["allowed"]


def test_answers_that_cannot_be_read(run: Callable[..., Any], tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    words = ("--target", 0.05, "--out", "threshold")
    assert "cannot read" in run("route", "calibrate", tmp_path / "no.safetensors", *words).error
    save_file({"large": np.zeros((2, 2))}, tmp_path / "few.safetensors")
    assert "needs small" in run("route", "calibrate", tmp_path / "few.safetensors", *words).error
    from duetto.policies import Threshold
    from duetto.policies.artefact import Artefact, save
    from duetto.types import Held

    save(Artefact(Held.of(Threshold(0.5))), tmp_path / "plain")
    done = run("route", "check", "plain", said(tmp_path / "a.safetensors", 0, 0.2))
    assert "makes no promise" in done.error
