"""What all tests share: one thread a worker, a home of its own, and the real data."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import numpy as np
import pytest

if TYPE_CHECKING:
    from duetto.tasks import Task

# Before anything loads numpy or torch: two workers on two cores, and sums that do not depend on the threads.
for _library in ("OMP", "MKL", "OPENBLAS"):
    os.environ.setdefault(f"{_library}_NUM_THREADS", "1")

# No deadline: a shared machine stalls. In CI every run draws the same examples.
hypothesis.settings.register_profile("duetto", deadline=None, derandomize="CI" in os.environ)
hypothesis.settings.load_profile("duetto")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever uses the real data bears the mark."""
    for item in items:
        if "data_dir" in getattr(item, "fixturenames", ()):
            item.add_marker("data")


def _move_home(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    for name, folder in {
        "HOME": "",
        "USERPROFILE": "",
        "XDG_CACHE_HOME": ".cache",
        "XDG_CONFIG_HOME": ".config",
        "XDG_DATA_HOME": ".local/share",
        "XDG_STATE_HOME": ".local/state",
    }.items():
        monkeypatch.setenv(name, str(home / folder))
    monkeypatch.delenv("DUETTO_CACHE", raising=False)  # the developer's own models would be found


@pytest.fixture(scope="session", autouse=True)
def _home_of_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing that a shared fixture caches reaches the developer's home."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        _move_home(monkeypatch, tmp_path_factory.mktemp("home"))
        yield


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that one test caches reaches another."""
    _move_home(monkeypatch, tmp_path)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of the real data sets."""
    named = os.environ.get("DUETTO_DATA")
    if not named:
        pytest.skip("DUETTO_DATA is not set: real-data tests skipped")
    folder = Path(named)
    assert folder.is_dir(), f"DUETTO_DATA names no folder: {folder}"
    return folder


@pytest.fixture(scope="session")
def tiny_task() -> "Callable[..., Task]":
    """Builds a whole task that learns in a second: three clouds of points, each user's a little elsewhere."""

    def build(seed: int = 0, *, name: str = "tiny", device_labels: int | None = None, sizes: int = 20) -> "Task":
        """``device_labels`` draws the labels of device users by chance instead."""
        from duetto.models import Mlp
        from duetto.tasks.by_user import ByUser
        from duetto.tasks.task import Task
        from duetto.training import SGD, Adam, Client, CrossEntropy, Distil

        groups = {"train": 4, "calibration": 3, "device": 4, "unseen": 3}
        users = {group: tuple(f"{group}-{i}" for i in range(n)) for group, n in groups.items()}
        names = tuple(sorted(user for own in users.values() for user in own))
        draw = np.random.default_rng(seed)
        counts = [sizes + i % 3 for i in range(len(names))]
        user = np.repeat(np.arange(len(names)), counts).astype(np.int32)
        y = draw.integers(0, 3, len(user))
        shift = draw.normal(size=(len(names), 4)) * 0.5
        x = np.eye(3, 4)[y] * 2 + shift[user] + draw.normal(size=(len(user), 4)) * 0.6
        if device_labels is not None:
            own = np.isin(np.array(names)[user], users["device"])
            y[own] = np.random.default_rng(device_labels).integers(0, 3, own.sum())
        small, large = Mlp((4,), 3, (5,)), Mlp((4,), 3, (32,))
        return Task(
            name=name,
            seed=seed,
            data=ByUser(x.astype(np.float32), y, user, names, ("a", "b", "c")),
            users=users,
            small=small,
            large=large,
            teach_large=Client(large, (CrossEntropy(),), Adam(1e-2, schedule="cosine"), 20, 16),
            teach_small=Client(small, (CrossEntropy(0.1), Distil(0.9, 2.0)), Adam(1e-2), 3, 16),
            learn=Client(small, (Distil(1.0, 1.0),), SGD(0.05, 0.9), 2, 8, lessons="lessons", own=0.5),
            tune=Client(small, (Distil(1.0, 1.0),), SGD(0.02, 0.9), 2, 8, lessons="lessons", own=0.5),
        )

    return build
