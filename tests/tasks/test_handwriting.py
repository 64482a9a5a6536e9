"""Handwriting: any folder in LEAF's layout whose users end in _0 (the cloud's) and _4 (with devices)."""

import json
from pathlib import Path

import numpy as np
import pytest

from duetto import tasks
from duetto.errors import ConfigError, DataError
from duetto.tasks import pair
from duetto.tasks.task import PARTS

DRAW = np.random.default_rng(0)


def written(root: Path, users: list[str], rows: int = 10) -> None:
    """A folder as LEAF writes it, with names that nobody has seen."""
    data = {
        user: {
            "x": (np.round(DRAW.integers(0, 256, (rows, 784)) / 255, 4)).tolist(),
            "y": DRAW.integers(0, 10, rows).tolist(),
        }
        for user in users
    }
    path = root / "mnist_by_writer" / "train" / "all.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"users": users, "num_samples": [rows] * len(users), "user_data": data}))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty data folder."""
    root = tmp_path / "data"
    root.mkdir()
    monkeypatch.setenv("DUETTO_DATA", str(root))
    return root


def test_other_people_work_as_well(folder: Path) -> None:
    clerks, pupils = [f"clerk {i}_0" for i in range(10)], [f"é{i}_4" for i in range(6)]
    written(folder, [*pupils, "someone_7", *clerks])
    task = tasks.load("handwriting", 3)
    groups = {group: len(names) for group, names in task.users.items()}
    assert groups == {"calibration": 2, "train": 8, "device": 3, "unseen": 3}
    assert set(task.users["train"]) | set(task.users["calibration"]) == set(clerks)
    assert set(task.users["device"]) | set(task.users["unseen"]) == set(pupils)
    assert len(task.public) == 80
    for user in task.users["device"]:
        rows = task.rows(user)
        assert sorted(np.concatenate([rows.parts[part] for part in PARTS]).tolist()) == list(range(10))
    logits = task.small.logits(task.small.init(0), task.public.x[:3])
    assert logits.shape == (3, 10)
    assert (task.small.parameters < 30_000, task.large.parameters > 1_000_000) == (True, True)


def test_the_seed_draws_the_people_and_nothing_else_does(folder: Path) -> None:
    written(folder, [f"{i}_{part}" for part in (4, 0) for i in range(8)])
    one, again, other = (tasks.load("handwriting", seed) for seed in (0, 0, 1))
    assert one.users == again.users != other.users
    assert pair.digest(one) == pair.digest(again) != pair.digest(other)


@pytest.mark.parametrize("users", [["a_0", "b_4", "c_4"], ["a_0", "b_0", "c_0", "d_4"], ["a", "b", "c"]])
def test_too_few_people_are_told(folder: Path, users: list[str]) -> None:
    written(folder, users)
    with pytest.raises((ConfigError, DataError), match="employees"):
        tasks.load("handwriting")


def test_people_who_are_too_few_to_calibrate_are_told(folder: Path) -> None:
    written(folder, ["a_0", "b_0", "c_4", "d_4"])
    with pytest.raises(DataError, match="2 employees"):
        tasks.load("handwriting")


def test_without_data_the_command_is_named(folder: Path) -> None:
    with pytest.raises(DataError, match="duetto data get handwriting"):
        tasks.load("handwriting")


def test_real_writers_are_one_person_each(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not (data_dir / "mnist_by_writer").is_dir():
        pytest.skip("no mnist_by_writer")
    monkeypatch.setenv("DUETTO_DATA", str(data_dir))
    task = tasks.load("handwriting", 0)
    names = [name for group in task.users.values() for name in group]
    assert len(set(names)) == len(names)
    assert {name[-2:] for name in (*task.users["train"], *task.users["calibration"])} == {"_0"}
    assert {name[-2:] for name in (*task.users["device"], *task.users["unseen"])} == {"_4"}
