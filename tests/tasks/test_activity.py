"""Activity by person: features are standardised by the people whom the cloud knows."""

from pathlib import Path

import numpy as np
import pytest

from duetto import tasks
from duetto.errors import ConfigError, DataError
from duetto.tasks import pair


def written(root: Path, people: int, rows: int = 7) -> None:
    """A file as WISDM writes it, with names and classes of its own."""
    draw = np.random.default_rng(0)
    names = [f"p{i}" for i in range(people)]
    head = ["@relation any", f'@attribute "user" {{{" , ".join(names)}}}']
    head += [f"@attribute X{i} numeric" for i in range(5)] + ["@attribute class { Up , Down }", "@data"]
    lines = [
        f"{name},{','.join(f'{v:.3f}' for v in draw.normal(i, 1 + i, 5))},{'Up' if draw.random() < 0.5 else 'Down'}"
        for i, name in enumerate(names)
        for _ in range(rows)
    ]
    path = root / "wisdm_ar_v1.1" / "any_transformed.arff"
    path.parent.mkdir(parents=True)
    path.write_text("\n".join([*head, *lines]) + "\n")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty data folder."""
    root = tmp_path / "data"
    root.mkdir()
    monkeypatch.setenv("DUETTO_DATA", str(root))
    return root


def test_a_fifth_of_the_people_each_and_two_to_train(folder: Path) -> None:
    written(folder, 10)
    task = tasks.load("activity", 0)
    assert {group: len(names) for group, names in task.users.items()} == {
        "train": 4,
        "calibration": 2,
        "device": 2,
        "unseen": 2,
    }
    names = [name for group in task.users.values() for name in group]
    assert sorted(names) == sorted(task.data.users)
    assert task.small.logits(task.small.init(0), task.public.x).shape == (28, 2)


def test_only_people_of_the_cloud_set_the_scale(folder: Path) -> None:
    written(folder, 10)
    task = tasks.load("activity", 0)
    np.testing.assert_allclose(task.public.x.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(task.public.x.std(0), 1, atol=1e-5)
    others = task.group("device")[0].x
    assert np.abs(others.mean(0)).max() > 0.05


def test_the_seed_draws_the_people(folder: Path) -> None:
    written(folder, 10)
    one, again, other = (tasks.load("activity", seed) for seed in (0, 0, 1))
    assert one.users == again.users != other.users
    assert pair.digest(one) == pair.digest(again) != pair.digest(other)


def test_too_few_people_are_told(folder: Path) -> None:
    written(folder, 2)
    with pytest.raises((ConfigError, DataError), match="users"):
        tasks.load("activity")


def test_without_data_the_command_is_named(folder: Path) -> None:
    with pytest.raises(DataError, match="duetto data get activity"):
        tasks.load("activity")
