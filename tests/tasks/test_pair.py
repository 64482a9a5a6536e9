"""The pair of a task: trained once, kept under what made it."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from duetto import tree as trees
from duetto.errors import DataError
from duetto.tasks import Task, pair
from duetto.training import SGD, Adam, CrossEntropy, sequential


@pytest.fixture
def task(tiny_task: Callable[..., Task]) -> Task:
    """A small one, taught quickly."""
    task = tiny_task()
    return replace(
        task, teach_large=replace(task.teach_large, epochs=2), teach_small=replace(task.teach_small, epochs=1)
    )


def test_the_large_model_learns_labels_and_the_small_one_from_it(task: Task) -> None:
    made = pair.train(task)
    start = task.large.init(0)
    public = task.public
    large = sequential.run(task.teach_large, {"params": start}, {"x": public.x, "y": public.y}, (0, "large")).params
    start, teacher = task.small.init(0), task.large.logits(large, public.x)
    data = {"x": public.x, "y": public.y, "teacher": teacher}
    small = sequential.run(task.teach_small, {"params": start}, data, (0, "small")).params
    assert trees.encode(made) == trees.encode({"small": small, "large": large})


def test_the_second_call_loads_the_same_bytes_and_trains_nothing(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    first = pair.trained(task, tmp_path, lambda what, step, steps: told.append(what))
    assert list(dict.fromkeys(told)) == ["large model", "small model"]
    kept = first.path.read_bytes()
    monkeypatch.setattr(pair, "train", None)
    second = pair.trained(task, tmp_path)
    assert second.path == first.path
    assert first.path.is_relative_to(tmp_path)
    assert trees.encode({"s": second.small, "l": second.large}) == trees.encode({"s": first.small, "l": first.large})
    assert first.path.read_bytes() == kept
    assert os.listdir(first.path.parent) == [first.path.name]


def test_without_a_folder_the_cache_is_the_user_s(task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUETTO_CACHE", str(tmp_path / "kept"))
    assert pair.trained(task).path.is_relative_to(tmp_path / "kept")


def test_whatever_made_it_changes_its_name(task: Task, tiny_task: Callable[..., Task]) -> None:
    x = task.data.x.copy()
    x[task.data.rows(task.users["train"][0])[0], 0] += 1
    y = task.data.y.copy()
    y[task.data.rows(task.users["train"][0])[0]] ^= 1
    others = [
        replace(task, seed=1),
        replace(task, data=replace(task.data, x=x)),
        replace(task, data=replace(task.data, y=y)),
        replace(task, teach_large=replace(task.teach_large, epochs=3)),
        replace(task, teach_small=replace(task.teach_small, optimiser=Adam(0.02))),
        replace(task, teach_small=replace(task.teach_small, loss=(CrossEntropy(0.2),))),
        replace(task, teach_large=replace(task.teach_large, optimiser=SGD(0.01))),
        replace(task, small=replace(task.small, hidden=(6,))),
        replace(task, large=replace(task.large, hidden=(33,))),
    ]
    digests = [pair.digest(each) for each in (task, *others)]
    assert len(set(digests)) == len(digests)
    x = task.data.x.copy()
    x[task.data.rows(task.users["device"][0])] += 1
    unread = replace(task, data=replace(task.data, x=x), learn=replace(task.learn, epochs=9))
    assert pair.digest(unread) == digests[0], "devices have no say in it"
    assert pair.digest(replace(task)) == digests[0]


def test_another_seed_is_another_file(task: Task, tmp_path: Path) -> None:
    one, two = pair.trained(task, tmp_path), pair.trained(replace(task, seed=1), tmp_path)
    assert one.path != two.path
    assert trees.encode(one.large) != trees.encode(two.large)


@pytest.mark.parametrize(
    "damage",
    [
        lambda kept: kept[: len(kept) // 2],
        lambda kept: b"",
        lambda kept: b"no model" * 20,
        lambda kept: trees.encode({"small": np.zeros(2)}),
        lambda kept: trees.encode(np.zeros(3)),
    ],
    ids=["cut", "empty", "garbage", "half", "bare"],
)
def test_a_damaged_file_is_named(task: Task, tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = pair.trained(task, tmp_path).path
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=path.name):
        pair.trained(task, tmp_path)
    path.unlink()
    assert pair.trained(task, tmp_path).path.exists()


def test_a_write_that_breaks_off_leaves_nothing(task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Path.write_bytes

    def half(self: Path, data: bytes) -> int:
        whole(self, data[: len(data) // 2])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", half)
        with pytest.raises(KeyboardInterrupt):
            pair.trained(task, tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    pair.trained(task, tmp_path)
