"""Ways to make a model small, side by side."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from duetto.device import Artefact
from duetto.errors import ConfigError, DataError
from duetto.evaluation import table, users
from duetto.evaluation.front import Priced, front, picture
from duetto.models import Residual
from duetto.programs import compress as program
from duetto.programs import compress_page
from duetto.programs.compress import Found, Limits, Outcome, Settings
from duetto.types import Local

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
SETTINGS = Settings("tiny", passes=2, rounds=3)
WAYS = ("8-bit weights", "int8, trained for it", "pruned")
ANY = Limits(100, 100, 1000, 1e6)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch, tiny_task: Callable[..., Any]) -> None:
    """Whatever the task is called."""
    monkeypatch.setattr(program, "load", lambda name, seed: tiny_task(seed, name=name))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, tiny_task: Callable[..., Any]) -> tuple[Path, Found, list[str]]:
    """A run, what it found, and what it said meanwhile."""
    folder, said = tmp_path_factory.mktemp("compress") / "run", []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(program, "load", lambda name, seed: tiny_task(seed, name=name))
        found = program.compress(SETTINGS, ANY, folder, lambda what, done, of: said.append(what), WAYS)
    return folder, found, said


def file(folder: Path, name: str) -> Path:
    return folder / f"{name.replace(', ', '-').replace(' ', '-')}.onnx"


def test_what_is_told_is_what_the_files_are(
    whole: tuple[Path, Found, list[str]], tiny_task: Callable[..., Any]
) -> None:
    folder, found, said = whole
    task = tiny_task(0, name="tiny")
    assert [line.outcome.name for line in found.lines] == ["original", *WAYS]
    original = found.lines[0].outcome
    for line in found.lines:
        made = line.outcome
        assert made.nbytes == file(folder, made.name).stat().st_size
        assert line.share == made.nbytes / original.nbytes
        for group, told in (("unseen", made.unseen), ("calibration", made.calibration)):
            rows, owners = task.group(group)
            logits = Artefact(str(file(folder, made.name)))(Local(), {"x": rows.x}, (0,), "me")[1]["logits"]
            each = users.by((logits.argmax(1) == rows.y).astype(float), owners)
            assert [list(pair) for pair in told] == np.stack([each.total, each.count], 1).astype(int).tolist()
        before, after = (np.mean([right / count for right, count in each.unseen]) for each in (original, made))
        assert line.loss.value == pytest.approx(100 * (before - after))
        assert line.loss.low <= line.loss.value <= line.loss.high
    assert found.lines[0].latency == table.Interval(1.0, 1.0, 1.0)
    assert found.lines[0].loss.value == found.lines[0].worst.value == 0
    assert found.chosen in WAYS
    assert (folder / "chosen.onnx").read_bytes() == file(folder, str(found.chosen)).read_bytes()
    assert "pruned" in said


@pytest.mark.usefixtures("tiny")
def test_what_is_there_is_not_done_again_and_other_limits_choose_anew(
    whole: tuple[Path, Found, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole[0], folder)
    (folder / "pruned.json").unlink()  # as if stopped before it
    names = ("8-bit weights", "pruned")
    again = program.compress(SETTINGS, ANY, folder, names=names)
    first = {line.outcome.name: line.outcome for line in whole[1].lines}
    assert all(line.outcome == first[line.outcome.name] for line in again.lines)
    monkeypatch.setattr(program, "_make", lambda *told: pytest.fail("made again"))
    monkeypatch.setattr(program, "latencies", lambda *told: pytest.fail("measured again"))
    none = program.compress(SETTINGS, Limits(100, 100, 1e-6, 1e6), folder, names=names)
    assert none.chosen is None
    assert not (folder / "chosen.onnx").exists()
    assert program.nearest(none) == "pruned comes nearest; loosen --max-bytes"
    with pytest.raises(ConfigError, match="holds another compression: give it another --name, or forget it"):
        program.compress(replace(SETTINGS, seed=1), ANY, folder)


def outcome(name: str, nbytes: int, right: Sequence[int], baseline: bool = False) -> Outcome:
    counts = [[each, 10] for each in right]
    return Outcome(name, "steps", baseline, "net", nbytes, nbytes, 1, 1.0, counts, counts)


def made(limits: Limits) -> Found:
    """Four ways, whose figures are plain to see."""
    outcomes = [
        outcome("original", 1000, [9, 8, 10], True),
        outcome("slow", 200, [9, 8, 10]),
        outcome("quick", 240, [9, 8, 9]),
        outcome("bad", 100, [5, 5, 5]),
        outcome("baseline", 90, [9, 8, 10], True),
    ]
    seconds = np.array([[10.0, 9.0, 4.0, 5.0, 12.0]] * 4) * 1e-6
    lines = program.compared(outcomes, seconds, limits, 0)
    return Found(SETTINGS, limits, lines, program.chosen(lines))


def test_the_best_within_the_limits_is_chosen() -> None:
    found = made(Limits(4, 1))
    lines = {line.outcome.name: line for line in found.lines}
    assert lines["quick"].loss.value == pytest.approx(100 / 30)
    assert lines["quick"].latency.value == pytest.approx(0.4)
    assert lines["quick"].seconds.value == pytest.approx(4e-6)
    assert lines["bad"].worst.value == pytest.approx(30)  # the worst tenth is one user
    assert {name for name, line in lines.items() if line.within} == {"quick"}
    assert {name for name, line in lines.items() if line.front} == {"slow", "quick", "bad", "baseline"}
    assert found.chosen == "quick"
    assert made(Limits(4, 1, 25, 100)).chosen == "slow"
    assert made(Limits(4, 1, 25, 200)).chosen == "baseline"  # loses as little, and is smaller
    assert made(Limits(3, 1)).chosen is None
    assert program.nearest(made(Limits(3, 1))) == "quick comes nearest; loosen --max-loss"


def test_the_page_is_one_file_with_pictures() -> None:
    page = compress_page.page(made(Limits(4, 1)))
    assert page.count("<svg") == 4  # two, each for desk and phone
    for words in (
        "quick",
        "tiny.small",
        "24 % of the bytes",
        "40 % of the latency",
        "lose 3.33 points, the worst 10 % lose 0.00",
        "What speaks against it",
        "3.33",
    ):
        assert words in page
    assert "http" not in page.replace("http-equiv", "")
    nothing = made(Limits(3, 1))
    assert (
        compress_page.headline(nothing)
        == "tiny.small: nothing keeps all limits; quick comes nearest; loosen --max-loss"
    )
    assert any("interval of the loss reaches" in note for note in compress_page.notes(made(Limits(4, 1))))


def test_the_front_is_who_is_beaten_by_nobody() -> None:
    table = np.array([[1, 1], [2, 0], [0, 2], [1, 0], [1, 1]])
    np.testing.assert_array_equal(front(table), [True, True, True, False, True])
    with pytest.raises(DataError, match="give finite numbers"):
        front(np.array([[np.nan]]))
    drawn = picture([Priced("a <b>", 0.2, 0.9, 0.8, 1.0, "own"), Priced("c", 1, 0.9, 0.8, 1.0, "base")], "bytes", 400)
    assert "a &lt;b&gt;: 90.00 %, bytes 20.0 % of the original" in drawn


def test_calibration_inputs_are_as_many_of_each_user(tiny_task: Callable[..., Any]) -> None:
    task = tiny_task(0)
    rows, owners = task.group("calibration")
    found = program.balanced(rows, owners, 12, (0,))
    assert found.shape == (12, 4)
    owner = [owners[int(np.flatnonzero((rows.x == row).all(1))[0])] for row in found]
    assert np.unique(owner, return_counts=True)[1].tolist() == [4, 4, 4]
    assert len(program.balanced(rows, owners, 10_000, (0,))) == len(rows.x)


def test_ways_without_a_smaller_design_are_left_out(tiny_task: Callable[..., Any]) -> None:
    task = tiny_task(0)
    every = program.ways(task, "small", 4, 1)
    assert {"pruned", "strided, hints", "scratch, narrow", "same design, taught again"} <= set(every)
    assert "the task's small model" in program.ways(task, "large", 4, 1)
    residual = program.ways(replace(task, small=Residual((1, 8, 8), 3)), "small", 4, 1)
    assert set(every) - set(residual) == {
        name for name in every if any(word in name for word in ("strided", "pruned", "int8, trained"))
    }
    first = every["strided, answers, int8"].steps
    assert first[0].epochs == 4  # type: ignore[attr-defined]
    assert first[1].epochs == 1  # type: ignore[attr-defined]


def test_a_median_and_its_interval() -> None:
    values = np.array([1.0, 2.0, 3.0, 4.0, 100.0])
    found = program.middle(values, (0,))
    assert found.value == 3
    assert 1 <= found.low < 3 < found.high <= 100


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Limits(max_loss=-1), "--max-loss -1: give points of accuracy, 0 or more"),
        (lambda: Limits(max_worst_loss=float("nan")), "--max-worst-loss nan: give points of accuracy, 0 or more"),
        (lambda: Limits(max_bytes=0), "--max-bytes 0: give percent of the original, above 0"),
        (lambda: Limits(max_latency=-5), "--max-latency -5: give percent of the original, above 0"),
        (lambda: Settings(role="middle"), "no model of a task is called 'middle': use small or large"),
        (lambda: Settings(rounds=1), "0 passes, 1 rounds: passes are 0 or more, rounds 3 or more"),
    ],
)
def test_faults_are_told_in_one_line(make: Any, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make()
    assert str(caught.value) == says


@pytest.mark.usefixtures("tiny")
def test_an_unknown_way_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no way is called 'magic': use some of original, float16, "):
        program.compress(SETTINGS, ANY, tmp_path / "run", names=("magic",))
    assert not (tmp_path / "run").exists()
