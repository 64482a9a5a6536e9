"""Executors as the command line names them."""

import importlib.util

import pytest

from duetto.cli import executors
from duetto.errors import ConfigError
from duetto.training.executors import NAMES, named


def test_the_names_of_training() -> None:
    assert [executors.executor(name) for name in NAMES] == [named(name) for name in NAMES]
    assert list(executors.NAMES) == [*NAMES, "ray", "ray:ADDRESS"]


def test_ray_with_and_without_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name == "ray")
    from duetto.worlds import Ray

    assert executors.executor("ray") == Ray()
    assert executors.executor("ray:auto") == Ray("auto")
    assert executors.executor("ray:10.0.0.1:6379") == Ray("10.0.0.1:6379")


def test_without_ray_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError) as caught:
        executors.executor("ray")
    assert str(caught.value) == "Ray is not installed: pip install 'duetto[ray]'"


@pytest.mark.parametrize("text", ["fast", "", "ray:", "rays", "cohort:2", "Auto"])
def test_other_names_are_refused_in_one_line(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        executors.executor(text)
    assert str(caught.value) == (
        f"no executor is called {text!r}: use one of auto, sequential, cohort, processes, ray, ray:ADDRESS"
    )
