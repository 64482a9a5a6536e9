"""The benchmark of decisions runs, and finds no growth."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def deciding() -> ModuleType:
    """The script as a module."""
    path = Path(__file__).parents[2] / "benchmarks" / "routing" / "deciding.py"
    spec = importlib.util.spec_from_file_location("deciding", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_a_thousand_decisions_leave_nothing_behind(deciding: ModuleType) -> None:
    for name, (kind, held, seen) in deciding.routers().items():
        microseconds, growth = deciding.measured(held, seen, 1000)
        assert kind in ("score", "learned")
        assert microseconds > 0
        # The window of a budget fills up before it stays as it is.
        assert growth < (1 << 14 if name == "budgeted" else 4096), name
