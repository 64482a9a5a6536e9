"""Streams: every row in one task, the same tasks for all users."""

import numpy as np
import pytest

from duetto.errors import ConfigError
from duetto.tasks.by_user import by_name
from duetto.tasks.incremental import by_class, by_time, groups, stream

DRAW = np.random.default_rng(2)
NAMES = [f"u{i}" for i in DRAW.integers(0, 4, 90)]
Y = DRAW.integers(0, 7, 90)
DATA = by_name(DRAW.normal(size=(90, 3)), Y, NAMES, [f"c{i}" for i in range(7)])


def test_classes_are_dealt_to_tasks_of_about_one_size() -> None:
    found = groups(7, 3, seed=4)
    assert sorted(each for classes in found for each in classes) == list(range(7))
    assert sorted(len(classes) for classes in found) == [2, 2, 3]
    assert found == groups(7, 3, seed=4) != groups(7, 3, seed=5)


@pytest.mark.parametrize("parts", [by_class(DATA, 3, 4), by_time(DATA, 3)], ids=["class", "time"])
def test_every_row_is_in_one_task(parts) -> None:
    assert list(parts) == ["task-0", "task-1", "task-2"]
    np.testing.assert_array_equal(np.sort(np.concatenate(list(parts.values()))), np.arange(90))


def test_a_task_by_class_has_its_classes_and_one_by_time_its_turn() -> None:
    for classes, rows in zip(groups(7, 3, 4), by_class(DATA, 3, 4).values(), strict=True):
        np.testing.assert_array_equal(rows, [i for i in range(90) if Y[i] in classes])
    ends = dict.fromkeys(DATA.users, -1)
    for rows in by_time(DATA, 3).values():
        for user in DATA.users:
            own = np.intersect1d(rows, DATA.rows(user))
            assert abs(len(own) - NAMES.count(user) / 3) < 1
            assert own.min() > ends[user]
            ends[user] = own.max()


def test_a_device_holds_its_rows_with_the_parts() -> None:
    parts = by_class(DATA, 3, 4)
    held = stream(DATA, "u2", parts)
    np.testing.assert_array_equal(held.y, Y[[i for i in range(90) if NAMES[i] == "u2"]])
    for name, classes in zip(parts, groups(7, 3, 4), strict=True):
        assert set(held.part(name).y) <= set(classes)
    assert sum(len(held.part(name)) for name in parts) == NAMES.count("u2")


def test_no_task_and_too_many_are_refused() -> None:
    for tasks in (0, 8):
        with pytest.raises(ConfigError, match=rf"^7 classes cannot be {tasks} tasks: use 1 to 7$"):
            by_class(DATA, tasks, 0)
    with pytest.raises(ConfigError, match=r"^a stream of 0 tasks: use at least one$"):
        by_time(DATA, 0)
