"""Executors by name."""

import pytest

from duetto.errors import ConfigError
from duetto.training import Auto, Cohort, Processes, Sequential
from duetto.training.executors import NAMES, named


def test_each_name_gives_its_executor() -> None:
    assert {name: named(name) for name in NAMES} == {
        "auto": Auto(),
        "sequential": Sequential(),
        "cohort": Cohort(),
        "processes": Processes(),
    }


def test_another_name_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        named("fast")
    assert str(caught.value) == "no executor is called 'fast': use one of auto, sequential, cohort, processes"
