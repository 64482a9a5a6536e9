"""A task: who plays which part, and which rows are for what."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from duetto import tasks
from duetto.errors import ConfigError, DataError
from duetto.tasks import Task
from duetto.tasks.by_user import in_order
from duetto.tasks.task import GROUPS, PARTS
from duetto.types import Rows


@pytest.fixture
def task(tiny_task: Callable[..., Task]) -> Task:
    """A small one."""
    return tiny_task()


def same(left: Rows, right: Rows) -> bool:
    """Bit for bit."""
    return left.x.tobytes() == right.x.tobytes() and left.y.tobytes() == right.y.tobytes()


def test_every_row_of_a_device_is_in_one_part(task: Task) -> None:
    for user in task.users["device"]:
        rows = task.rows(user)
        parts = [rows.parts[name] for name in PARTS]
        assert sorted(np.concatenate(parts).tolist()) == list(range(len(rows)))
        for name, part in zip(PARTS, parts, strict=True):
            assert abs(len(part) - PARTS[name] * len(rows)) <= 1, name
            assert same(rows.part(name), Rows(rows.x[part], rows.y[part]))
        own = task.data.rows(user)
        assert same(rows, Rows(task.data.x[own], task.data.y[own]))


def test_other_users_have_no_parts(task: Task) -> None:
    for group in ("train", "calibration", "unseen"):
        assert task.rows(task.users[group][0]).parts == {}


def test_a_group_is_its_users_rows_and_whose_they_are(task: Task) -> None:
    for group in GROUPS:
        rows, owner = task.group(group)
        assert sorted(set(owner.tolist())) == sorted(task.users[group])
        for user in task.users[group]:
            assert same(task.rows(user), Rows(rows.x[owner == user], rows.y[owner == user]))
    rows, owner = task.group("device", "held")
    for user in task.users["device"]:
        assert same(task.rows(user).part("held"), Rows(rows.x[owner == user], rows.y[owner == user]))


def test_the_cloud_s_rows_are_those_of_the_train_users_or_those_it_is_given(task: Task) -> None:
    assert same(task.public, task.group("train")[0])
    given = np.array([3, 1, 7])
    assert same(replace(task, train=given).public, Rows(task.data.x[given], task.data.y[given]))


def test_rows_that_the_cloud_trains_on_are_in_no_part(task: Task) -> None:
    user = task.users["device"][0]
    own = task.data.rows(user)
    rows = replace(task, train=own[:4]).rows(user)
    used = np.concatenate(list(rows.parts.values()))
    assert sorted(used.tolist()) == list(range(4, len(own)))


def test_other_seeds_draw_other_parts_and_the_same_seed_the_same(task: Task) -> None:
    user = task.users["device"][0]
    again, other = replace(task), replace(task, seed=1)
    for name in PARTS:
        assert np.array_equal(task.rows(user).parts[name], again.rows(user).parts[name])
    assert not np.array_equal(task.rows(user).parts["stream"], other.rows(user).parts["stream"])


def test_parts_may_follow_the_order_of_the_rows(task: Task) -> None:
    dealt = replace(task, dealt=in_order(task.data, PARTS))
    for user in task.users["device"]:
        rows = dealt.rows(user)
        assert np.concatenate([rows.parts[name] for name in PARTS]).tolist() == list(range(len(rows)))
        for name in PARTS:
            assert abs(len(rows.parts[name]) - PARTS[name] * len(rows)) <= 1


def test_what_a_user_gets_does_not_depend_on_the_others(task: Task) -> None:
    """Fewer users, in another order: the same rows in the same parts."""
    users = {group: names[::-1] for group, names in task.users.items()}
    kept = users["device"][:2]
    fewer = replace(
        task,
        data=task.data.only([*kept, *(name for group in ("train", "calibration", "unseen") for name in users[group])]),
        users={**users, "device": kept},
    )
    for user in kept:
        mine, theirs = task.rows(user), fewer.rows(user)
        assert same(mine, theirs)
        assert all(np.array_equal(mine.parts[name], theirs.parts[name]) for name in PARTS)


@pytest.mark.parametrize("group", GROUPS)
def test_a_group_without_users_is_told(task: Task, group: str) -> None:
    with pytest.raises(ConfigError, match=f"no {group} users"):
        replace(task, users={**task.users, group: ()})


def test_given_rows_stand_in_for_train_users(task: Task) -> None:
    assert len(replace(task, users={**task.users, "train": ()}, train=np.arange(5)).public) == 5


def test_a_user_in_two_groups_is_told(task: Task) -> None:
    with pytest.raises(ConfigError, match="two groups"):
        replace(task, users={**task.users, "unseen": task.users["device"]})


def test_a_user_whom_nobody_knows_is_told(task: Task) -> None:
    with pytest.raises(DataError, match="nobody"):
        task.rows("nobody")
    with pytest.raises(ConfigError, match="held"):
        task.rows(task.users["device"][0]).part("hold")


def test_a_task_whom_nobody_knows_is_told() -> None:
    with pytest.raises(ConfigError, match="digits"):
        tasks.load("didgits")
