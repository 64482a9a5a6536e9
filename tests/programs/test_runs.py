"""Runs in a folder: what is there, and that stopping anywhere changes nothing."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from duetto import tree as trees
from duetto.errors import ConfigError, DataError, Error
from duetto.evaluation import records as log
from duetto.evaluation.result import Result
from duetto.programs import runs
from duetto.programs.closed_loop import Settings
from duetto.programs.runs import Experiment
from duetto.tasks import Task

EXPERIMENT = Experiment("tiny", (1,), settings=Settings(days=2, rounds=4, cohort=3, tolerance_points=5.0))
RESULTS = ("config.json", "figures.json", "records.jsonl", "result.json", "seed-1")


@pytest.fixture(scope="module")
def world(tiny_task: Callable[..., Task]) -> Any:
    """Only the tiny task can be loaded, whatever its seed."""
    patch = pytest.MonkeyPatch()
    patch.setattr(runs, "load", lambda name, seed: tiny_task(seed))
    patch.setattr(runs.findings, "REDRAWS", 20)
    yield patch
    patch.undo()


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pair is trained once for all runs."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def done(world: Any, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result, list[str]]:
    """A run that nobody has stopped, its result, and all that was told about it."""
    told: list[str] = []
    folder = tmp_path_factory.mktemp("runs") / "whole"
    result = runs.run(EXPERIMENT, folder, lambda what, at, of: told.append(what), cache)
    return folder, result, told


def alike(left: Path, right: Path) -> bool:
    """Byte for byte; nobody wants to read the difference."""
    return left.read_bytes() == right.read_bytes()


def test_the_folder_holds_everything(done: tuple[Path, Result, list[str]], tmp_path: Path) -> None:
    folder, result, told = done
    assert sorted(os.listdir(folder)) == sorted(RESULTS)
    assert list(folder.rglob("*.part")) == []
    config = json.loads((folder / "config.json").read_text())
    assert config["settings"]["rounds"] == 4
    assert {"duetto", "torch", "numpy"} <= set(config["versions"])
    result.save(tmp_path / "again.json")
    assert alike(tmp_path / "again.json", folder / "result.json")
    records = log.read(folder / "records.jsonl")
    parts = [log.read(path) for path in sorted((folder / "seed-1").glob("*.jsonl"))]
    assert sorted(map(log.line, records)) == sorted(log.line(record) for part in parts for record in part)
    assert {"answer", "teach", "audit", "tune", "rounds", "publish"} == {record.protocol for record in records}
    figures = json.loads((folder / "figures.json").read_text(), parse_constant=pytest.fail)
    assert 0 <= figures["unseen_large_before"]["mean"] <= 1
    for stage in ("living and learning", "scoring"):
        assert any(stage in what for what in told)


def test_every_system_answered_every_row_it_is_scored_on(
    done: tuple[Path, Result, list[str]], tiny_task: Callable[..., Task]
) -> None:
    task, records = tiny_task(1), log.read(done[0] / "records.jsonl")
    wanted = {"unseen": len(task.group("unseen")[0]), "device": len(task.group("device", "held")[0])}
    counts: dict[tuple[Any, ...], int] = {}
    for record in records:
        if "system" in record.metrics:
            tag = tuple(record.metrics[name] for name in ("group", "stage", "system"))
            counts[tag] = counts.get(tag, 0) + 1
    systems = {"before": 5, "after": 3}
    assert len(counts) == 2 * sum(systems.values())
    assert all(count == wanted[group] for (group, _, _), count in counts.items())


def test_a_run_that_is_done_is_not_done_again(
    done: tuple[Path, Result, list[str]], cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, result, _ = done
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}
    for name in ("simulate", "answers", "trained"):
        monkeypatch.setattr(runs, name, None)
    again = runs.run(EXPERIMENT, folder, cache=cache)
    for name, each in (("first", result), ("again", again)):
        each.save(tmp_path / name)
    assert alike(tmp_path / "first", tmp_path / "again")
    assert again == Result.load(folder / "result.json")
    after = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}
    assert {path: kept[0] for path, kept in before.items()} == {path: kept[0] for path, kept in after.items()}


@pytest.mark.parametrize("share", [0.02, 0.3, 0.55, 0.8, 0.97])
def test_a_run_that_is_killed_goes_on_and_ends_alike(
    share: float, done: tuple[Path, Result, list[str]], cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed at a share of all that is told; learning is saved whenever it can be."""
    whole, _, told = done
    monkeypatch.setattr(runs, "SAVE_EVERY", -1.0)
    left = int(share * sum("training" not in what for what in told))  # the pair is in the cache by now

    def killing(what: str, at: float, of: float) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        runs.run(EXPERIMENT, tmp_path / "whole", killing, cache)
    assert not (tmp_path / "whole" / "result.json").exists()
    runs.run(EXPERIMENT, tmp_path / "whole", cache=cache)
    for name in ("records.jsonl", "result.json", "figures.json"):
        assert alike(tmp_path / "whole" / name, whole / name), name


def test_learning_that_is_killed_again_and_again_ends_alike(
    done: tuple[Path, Result, list[str]], cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At every save it lives for a few records more; it gets on, and the log is that of one life."""
    whole, _, _ = done
    monkeypatch.setattr(runs, "SAVE_EVERY", -1.0)
    kills = 0
    while kills < 60:
        left = 70

        def killing(what: str, at: float, of: float) -> None:
            nonlocal left
            left -= "living" in what
            if left < 0:
                raise KeyboardInterrupt

        try:
            runs.run(EXPERIMENT, tmp_path / "whole", killing, cache)
            break
        except KeyboardInterrupt:
            kills += 1
    assert 0 < kills < 60
    assert alike(tmp_path / "whole" / "records.jsonl", whole / "records.jsonl")


def test_another_experiment_needs_another_folder(done: tuple[Path, Result, list[str]], cache: Path) -> None:
    folder = done[0]
    others = {
        "seeds": replace(EXPERIMENT, seeds=(1, 2)),
        "network": replace(EXPERIMENT, network="constant-1"),
        "settings": replace(EXPERIMENT, settings=replace(EXPERIMENT.settings, rounds=5)),
        "task": replace(EXPERIMENT, task="digits"),
    }
    for what, other in others.items():
        with pytest.raises(ConfigError, match=what):
            runs.run(other, folder, cache=cache)


def test_other_versions_need_another_folder(
    done: tuple[Path, Result, list[str]], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "versions", lambda: {"numpy": "0.0"})
    with pytest.raises(ConfigError, match="versions"):
        runs.run(EXPERIMENT, done[0], cache=cache)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", b"{"),
        ("config.json", b"[1]"),
        ("seed-1/learning.safetensors", b"no tree"),
        ("seed-1/learning.safetensors", trees.encode({"other": np.zeros(2)})),
        ("seed-1/learning.jsonl", b"no record\n{}\n"),
        ("seed-1/unseen-before-cascade.jsonl", b"no record\n{}\n"),
    ],
)
def test_a_damaged_file_is_named(
    name: str, content: bytes, done: tuple[Path, Result, list[str]], cache: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "whole"
    shutil.copytree(done[0], folder)
    for result in ("result.json", "records.jsonl", "figures.json"):
        (folder / result).unlink()
    (folder / name).write_bytes(content)
    with pytest.raises(DataError, match=Path(name).name.split(".", maxsplit=1)[0]):
        runs.run(EXPERIMENT, folder, cache=cache)


def test_a_damaged_result_is_named(done: tuple[Path, Result, list[str]], cache: Path, tmp_path: Path) -> None:
    shutil.copytree(done[0], tmp_path / "whole")
    (tmp_path / "whole" / "result.json").write_text("{")
    with pytest.raises(DataError, match=r"result\.json"):
        runs.run(EXPERIMENT, tmp_path / "whole", cache=cache)


def test_two_seeds_are_two_runs_under_one_roof(
    done: tuple[Path, Result, list[str]], cache: Path, tmp_path: Path
) -> None:
    both = runs.run(replace(EXPERIMENT, seeds=(1, 2)), tmp_path / "both", cache=cache)
    one, two = done[0], tmp_path / "both"
    for path in (one / "seed-1").iterdir():
        assert alike(path, two / "seed-1" / path.name)
    assert (two / "seed-2").is_dir()
    assert both.seeds == (1, 2)
    assert both.users is not None
    assert len(set(both.users.names_hashed)) == len(both.users.names_hashed) == 8


def test_only_a_run_is_forgotten(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    runs.forget(tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.tex").exists()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{}")
    runs.forget(tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "setting", [{"seeds": ()}, {"seeds": (1, 1)}, {"settings": Settings(score="luck")}, {"network": "pigeons"}]
)
def test_what_cannot_be_run_leaves_no_folder(setting: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(Error):
        runs.run(replace(Experiment(), **setting), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_users_with_a_few_rows_are_scored_as_far_as_they_can_be(
    world: Any, tiny_task: Callable[..., Task], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "load", lambda name, seed: tiny_task(seed, sizes=3))
    runs.run(EXPERIMENT, tmp_path / "few", cache=tmp_path)
    assert (tmp_path / "few" / "result.json").exists()


def test_users_with_one_row_each_leave_nothing_to_score(
    world: Any, tiny_task: Callable[..., Task], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "load", lambda name, seed: tiny_task(seed, sizes=1))
    with pytest.raises(DataError, match="no device user has a row to be scored on"):
        runs.run(EXPERIMENT, tmp_path / "few", cache=tmp_path)
    assert not (tmp_path / "few").exists()


def test_killed_between_the_log_and_the_state_it_ends_alike(
    done: tuple[Path, Result, list[str]], cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then the log tells more than the state knows."""
    monkeypatch.setattr(runs, "SAVE_EVERY", -1.0)
    whole, left = runs._write, 3

    def dying(path: Path, tree: trees.Tree) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        whole(path, tree)

    with monkeypatch.context() as patch:
        patch.setattr(runs, "_write", dying)
        with pytest.raises(KeyboardInterrupt):
            runs.run(EXPERIMENT, tmp_path / "whole", cache=cache)
    kept = trees.decode((tmp_path / "whole" / "seed-1" / "learning.safetensors").read_bytes())
    assert len(log.read(tmp_path / "whole" / "seed-1" / "learning.jsonl")) > int(kept["records"])
    runs.run(EXPERIMENT, tmp_path / "whole", cache=cache)
    assert alike(tmp_path / "whole" / "records.jsonl", done[0] / "records.jsonl")
