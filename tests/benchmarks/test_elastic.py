"""The arithmetic of the elastic benchmark: paired intervals by user, and a device's day by hand."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from duetto.simulation.energy import Battery

FOLDER = Path(__file__).parents[2] / "benchmarks" / "elastic"


@pytest.fixture
def energy(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """``benchmarks/elastic/energy.py`` and the files beside it."""
    monkeypatch.syspath_prepend(str(FOLDER))
    found: Any = None
    for name in ("train", "report", "energy"):
        spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        found = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, found)
        spec.loader.exec_module(found)
    assert isinstance(found, ModuleType)
    return found


def test_a_difference_is_paired_by_user_and_seed(energy: ModuleType) -> None:
    one = {0: {"ann": 0.9, "bob": 0.8}, 1: {"ann": 1.0, "cat": 0.5}}
    other = {0: {"ann": 0.8, "bob": 0.8}, 1: {"ann": 0.8, "cat": 0.6}}
    middle, low, high, seeds = energy.difference(one, other)
    np.testing.assert_allclose(seeds, [0.05, 0.05])
    assert middle == pytest.approx(0.05)
    # Ann alone gains 0.1 and 0.2, cat alone loses 0.1: means over seeds of whoever is drawn lie between.
    assert -0.1 <= low < middle < high <= 0.15 + 1e-12


def test_a_day_by_hand(energy: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(energy, "MINUTES", 4)
    monkeypatch.setattr(energy, "DEADLINE", 2.0)
    right = np.array([[True, False], [True, True]])
    rows = energy.Answers(np.zeros((2, 2, 3)), right, np.array(["ann", "ann"]))
    cell = Battery(0.1, 1.0, 1.0, 1e-3, 1.0, 0.0)  # 360 J
    joules, seconds = np.array([1.0, 2.0]), np.array([0.5, 1.0])
    asked = np.array([30, 80, 30, 30])
    narrow = energy._lived(None, 0, rows, asked, joules, seconds, cell, 0.1)
    # 170 answers of 1 J, and 4 minutes of 0.1 W; all in time, half of them right.
    assert narrow["joules"] == pytest.approx(170)
    assert narrow["left"] == pytest.approx(1 - (170 + 24) / 360)
    assert (narrow["in time"], narrow["right"], narrow["hours"]) == (1.0, 0.5, 4 / 60)
    wide = energy._lived(None, 1, rows, asked, joules, seconds, cell, 0.1)
    # 30 + 60 + 50 + 30 answers of 2 J are 340; with 24 J at rest the battery is empty 4 J before the end of the last.
    alive = 1 - 4 / 66
    assert wide["hours"] == pytest.approx((3 + alive) / 60)
    assert wide["left"] == 0
    assert wide["in time"] == pytest.approx((30 + 30 + alive * 30) / 170)  # 20 s wait behind the second
    assert wide["right"] == wide["in time"]
