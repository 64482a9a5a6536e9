"""Costs of stages: a regression finds the machine that made the measurements; every stage is measured."""

import numpy as np
import pytest
import torch

from duetto.errors import DataError
from duetto.models import Conv, Inception, Vit, stage
from duetto.models.costs import OTHER, Regression, fitted, kind, measured
from duetto.models.graph import Stage
from duetto.types import Work

DRAW = np.random.default_rng(0)


def made(operation: str, n: int) -> list[Stage]:
    """Stages of one operation, of all sizes."""
    flops = 0.0 if operation == "aten.relu.default" else 1.0
    return [
        Stage(f"s{i}", operation, Work(flops * 10 ** DRAW.uniform(4, 8), 10 ** DRAW.uniform(3, 7)), "", (), 4)
        for i in range(n)
    ]


def test_it_finds_the_machine() -> None:
    machine = {"convolution": (2e-5, 1e-11, 2e-10), "elementwise": (5e-6, 0.0, 1e-10)}
    stages = made("aten.conv2d.default", 30) + made("aten.relu.default", 20)
    true = Regression({**machine, OTHER: (1.0, 1.0, 1.0)})
    found = fitted(stages, true.predicted(stages).tolist())
    others = made("aten.conv2d.default", 10) + made("aten.relu.default", 10)
    np.testing.assert_allclose(found.predicted(others), true.predicted(others), rtol=1e-6)
    np.testing.assert_allclose(
        found.predicted(others, rows=3) - found.predicted(others, rows=2),
        found.predicted(others) - found.predicted(others, 0),
    )


def test_a_rare_kind_is_predicted_by_all() -> None:
    stages = made("aten.conv2d.default", 30) + made("aten.layer_norm.default", 2)
    found = fitted(stages, np.full(32, 1e-3).tolist())
    assert set(found.seconds) == {OTHER, "convolution"}
    call, flop, byte = found.seconds[OTHER]
    (norm,) = made("aten.layer_norm.default", 1)
    assert found.predicted([norm])[0] == call + flop * norm.work.flops + byte * norm.work.bytes


def test_too_little_to_fit() -> None:
    with pytest.raises(DataError, match="measure 6 stages at least"):
        fitted(made("aten.relu.default", 5), [1.0] * 5)
    with pytest.raises(DataError, match="measure 6 stages at least"):
        fitted(made("aten.relu.default", 8), [0.0] * 8)


def test_every_stage_is_measured() -> None:
    for net in (Inception((3, 16, 16), 5, 8, (4,)), Vit((3, 8, 8), 5, 4, 8, 1, 2), Conv((1, 8, 8), 3, (4,))):
        x = torch.randn(1, *net.shape)
        staged = stage(net.module(), x, proof="stages")
        seconds = measured(staged, {"x": x.numpy()}, repeats=2)
        assert seconds.shape == (len(staged),)
        assert (seconds > 0).all()


def test_kinds() -> None:
    net = Vit((3, 8, 8), 5, 4, 8, 1, 2)
    kinds = {kind(each) for each in stage(net.module(), torch.randn(1, 3, 8, 8), proof="stages").stages}
    assert kinds == {"convolution", "dense", "attention", "norm", "elementwise", "view"}
