"""A model by its name: whoever serves gets parameters that were trained, whoever plans need not wait for them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from duetto.cli.cloud import large_model
from duetto.cli.model import named
from duetto.errors import ConfigError
from duetto.tasks import Task, pair


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Tasks whose pair was asked for; parameters are those of seed 7."""
    asked: list[str] = []

    def trained(task: Task, *_: Any) -> pair.Pair:
        asked.append(task.name)
        return pair.Pair(task.small.init(7), task.large.init(7), pair.Path("nowhere"))

    monkeypatch.setattr(pair, "trained", trained)
    return asked


def test_a_plan_takes_what_is_there(trainings: list[str]) -> None:
    found = named("digits.small")
    assert trainings == []
    assert found.real


def test_who_serves_trains(trainings: list[str]) -> None:
    served = large_model("digits.large", "")
    assert trainings == ["digits"]
    found = named("digits.large")
    x = found.inputs[:3]
    logits = served[0:]({"x": x})["logits"]
    np.testing.assert_allclose(logits, found.net.logits(found.net.init(7), x), rtol=1e-4, atol=1e-5)


def test_random_parameters_are_not_served(run: Callable[..., Any]) -> None:
    with pytest.raises(ConfigError, match="resnet18 has random parameters here"):
        large_model("resnet18", "")
    done = run("cloud", "--large", "resnet18", "--state", "here")
    assert done.code == 2
    assert "resnet18 has random parameters here" in done.err
