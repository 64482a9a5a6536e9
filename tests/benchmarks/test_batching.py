"""The benchmark of dynamic batching runs, and its accounts are right; how fast it is depends on the machine."""

import asyncio
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from duetto.models import Mlp, Predict
from duetto.types import Local

FOLDER = str(Path(__file__).parents[2] / "benchmarks" / "runtime")


@pytest.fixture(scope="module")
def batching() -> Iterator[ModuleType]:
    """The script as a module."""
    sys.path.insert(0, FOLDER)
    yield importlib.import_module("batching")
    sys.path.remove(FOLDER)


def test_everybody_who_asks_is_accounted_for(batching: ModuleType) -> None:
    net = Mlp((4,), 3, (8,))
    skill, cell = Predict(net), Local(None, {"params": net.init(0)})
    x = np.random.default_rng(0).normal(size=(128, 4)).astype(np.float32)
    assert all(figure > 0 for figure in batching.offline(skill, cell, x, 0.02, 64))
    assert all(figure > 0 for figure in asyncio.run(batching.served(skill, cell, x, 0.02)))
    told = asyncio.run(batching.overload(skill, cell, x, 0.1, 1000.0, 60.0, seed=0))
    assert (told["shed"], told["not_in_time"]) == (0, 0), "with a minute of time nobody is refused"
    assert told["p50_ms"] <= told["p99_ms"] <= told["most_ms"]


def test_turns_are_taken(batching: ModuleType) -> None:
    order: list[str] = []

    def measure(name: str) -> tuple[float]:
        order.append(name)
        return (float(len(order)),)

    columns, _, taken = batching.turns(2, np.inf, 5, lambda: measure("a"), lambda: measure("b"))
    assert (order, columns) == (["a", "b", "a", "b"], [[(1.0,), (3.0,)], [(2.0,), (4.0,)]])
    assert taken == 2
    assert batching.turns(1, -1.0, 3, lambda: measure("c"))[2] == 3, "the machine was never quiet"
