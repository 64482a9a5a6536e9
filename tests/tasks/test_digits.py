"""The digits task."""

import numpy as np
import pytest

from duetto import tasks
from duetto.programs.closed_loop import MODEL
from duetto.tasks import Task, pair
from duetto.tree import encode


@pytest.fixture(scope="module")
def task() -> Task:
    """As it is loaded."""
    return tasks.load("digits", 0)


def test_it_has_the_promised_users_and_rows(task: Task) -> None:
    assert {group: len(names) for group, names in task.users.items()} == {
        "train": 0,
        "device": 24,
        "calibration": 8,
        "unseen": 8,
    }
    assert (task.data.x.shape, task.data.classes) == ((1797, 1, 8, 8), tuple("0123456789"))
    assert (task.data.x.min(), task.data.x.max()) == (0, 1)
    assert task.data.counts().min() >= 10


def test_what_the_cloud_trains_on_belongs_to_devices_and_is_used_for_nothing_else(task: Task) -> None:
    assert task.train is not None
    owners = np.array(task.data.users)[task.data.user[task.train]]
    assert set(owners) <= set(task.users["device"])
    in_parts = []
    for user in task.users["device"]:
        rows, own = task.rows(user), task.data.rows(user)
        used = np.concatenate(list(rows.parts.values()))
        assert len(set(used.tolist())) == len(used)
        in_parts.append(own[used])
    everything = np.concatenate([task.train, *in_parts])
    owned = np.concatenate([task.data.rows(user) for user in task.users["device"]])
    assert sorted(everything.tolist()) == sorted(owned.tolist())
    assert abs(len(task.train) / len(owned) - 0.4) < 0.02


def test_another_seed_is_another_task_and_the_same_the_same(task: Task) -> None:
    again, other = tasks.load("digits", 0), tasks.load("digits", 1)
    assert pair.digest(again) == pair.digest(task) != pair.digest(other)
    assert again.users == task.users != other.users


def test_users_differ_in_their_classes(task: Task) -> None:
    shares = np.array([np.bincount(task.rows(user).y, minlength=10) for user in task.data.users], float)
    shares /= shares.sum(1, keepdims=True)
    assert np.median(shares.max(1)) > 0.25, "an equal mix would be 0.1"


def test_the_pair_is_a_pair(task: Task) -> None:
    coded = MODEL.encode(MODEL.init(), task.small.init(0), (0,))[1]
    assert len(encode(coded)) < 40_000
    assert task.large.parameters > 100 * task.small.parameters
