"""What all tests share: one thread a worker, a home of its own, and the real data."""

import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

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
