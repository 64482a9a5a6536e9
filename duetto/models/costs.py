"""What each stage of a network costs on a machine: measured here, or predicted from what others were measured at.

The prediction is Neurosurgeon's (Kang et al. 2017): a regression for each kind of operation over what it computes and
moves, ``seconds = a + b * flops + c * bytes`` with nothing below zero, fitted to relative errors, so that a short
operation counts as much as a long one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from duetto.errors import DataError
from duetto.models.graph import Stage
from duetto.models.net import Net, built
from duetto.models.staged import Staged, stage
from duetto.models.zoo import Chained, Conv, Inception, Mlp, Mobile, Residual, Text, Vit
from duetto.tree import Tree

OTHER = "other"
"""The kind of every operation of which fewer than :data:`FEW` were measured."""
FEW = 6

KINDS = {
    "conv1d": "convolution",
    "conv2d": "convolution",
    "linear": "dense",
    "addmm": "dense",
    "matmul": "dense",
    "scaled_dot_product_attention": "attention",
    "group_norm": "norm",
    "layer_norm": "norm",
    "max_pool2d": "pooling",
    "adaptive_avg_pool2d": "pooling",
}


def kind(of: Stage) -> str:
    """What a stage is like: a kind of :data:`KINDS`, else "elementwise" or, where nothing moves, "view"."""
    if of.work.bytes == 0:
        return "view"
    return KINDS.get(of.operation.split(".")[1] if "." in of.operation else of.operation, "elementwise")


def measured(net: Staged, inputs: Tree, repeats: int = 7) -> np.ndarray:
    """Seconds of each stage ``[stages]`` for these inputs on this machine: the median of some repeats.

    The stages run one after the other in one pass, as a whole model does, so that caches are as they will be.
    """
    graph = net.graph
    half = net[:]
    rows = half.rows(inputs)
    known = {value: graph.layouts[value].restored(torch.as_tensor(inputs[name])) for name, value in half.inputs.items()}
    parts = [graph.part([i], {n: n for n in graph.stages[i].reads}, _made(net, i)) for i in range(len(net))]
    seconds = np.zeros((repeats + 1, len(net)))
    with torch.inference_mode():
        for turn in range(repeats + 1):
            values = dict(known)
            for i, part in enumerate(parts):
                taken = [values[name] for name in graph.stages[i].reads]
                begin = time.perf_counter()
                found = part(rows, *taken)
                seconds[turn, i] = time.perf_counter() - begin
                values |= found
    medians: np.ndarray = np.median(seconds[1:], axis=0)
    return medians


def _made(net: Staged, index: int) -> dict[str, str]:
    """The values of a stage that can cross."""
    return {node.name: node.name for node in net.graph.members[index] if node.name in net.graph.layouts}


@dataclass(frozen=True)
class Regression:
    """Seconds of a stage on a machine: (a call, a floating-point operation, a byte) for each kind.

    Attributes:
        seconds: by kind; :data:`OTHER` stands in for what is not there.
    """

    seconds: Mapping[str, tuple[float, float, float]]

    def predicted(self, stages: Sequence[Stage], rows: int = 1) -> np.ndarray:
        """Seconds of each stage ``[stages]``."""
        found = []
        for each in stages:
            call, flop, byte = self.seconds.get(kind(each), self.seconds[OTHER])
            found.append(call + rows * (flop * each.work.flops + byte * each.work.bytes))
        return np.array(found)


def fitted(stages: Sequence[Stage], seconds: Sequence[float]) -> Regression:
    """The regression that predicts these measurements, of any networks, best.

    Args:
        stages: n of them.
        seconds: ``[n]`` that each took for one row.

    Raises:
        DataError: fewer than :data:`FEW` stages, or seconds that are not above 0.
    """
    from scipy.optimize import nnls

    took = np.asarray(seconds, np.float64)
    if len(stages) < FEW or took.shape != (len(stages),) or not (took > 0).all():
        raise DataError(f"{len(stages)} stages and seconds of shape {took.shape}", f"measure {FEW} stages at least")
    features = np.array([(1.0, each.work.flops, each.work.bytes) for each in stages])
    kinds = np.array([kind(each) for each in stages])
    scale = np.maximum(features.max(axis=0), 1e-30)

    def fit(rows: np.ndarray) -> tuple[float, float, float]:
        # Each row is divided by what it took: the error is then a share.
        found, _ = nnls(features[rows] / scale / took[rows, None], np.ones(rows.sum()))
        call, flop, byte = (float(each) for each in found / scale)
        return call, flop, byte

    names = [name for name in dict.fromkeys(kinds.tolist()) if (kinds == name).sum() >= FEW]
    every = np.ones(len(kinds), bool)
    return Regression({OTHER: fit(every), **{name: fit(kinds == name) for name in names}})


@dataclass(frozen=True)
class Profiled:
    """What this machine was measured at.

    Attributes:
        regression: that predicts other networks.
        error: median over the stages measured of |predicted - measured| as a share of what was measured.
        stages: how many were measured.
        torch, threads: its version, and the threads of an operation.
    """

    regression: Regression
    error: float
    stages: int
    torch: str
    threads: int


def profiled(repeats: int = 7, progress: Callable[[int, int], None] = lambda done, of: None) -> Profiled:
    """Measure networks of all kinds of the zoo on this machine, and fit the regression to them."""
    stages: list[Stage] = []
    seconds: list[float] = []
    nets = _nets()
    for i, net in enumerate(nets):
        progress(i, len(nets))
        torch.manual_seed(0)
        rows = torch.randint(0, 1_000, (1, *net.shape)) if isinstance(net, Text) else torch.randn(1, *net.shape)
        staged = stage(built(net), rows, proof="stages")
        stages += staged.stages
        seconds += np.maximum(measured(staged, {"x": rows.numpy()}, repeats), 1e-9).tolist()
    found = fitted(stages, seconds)
    errors = np.abs(found.predicted(stages) - seconds) / seconds
    return Profiled(found, float(np.median(errors)), len(stages), torch.__version__, torch.get_num_threads())


def _nets() -> list[Net]:
    """Small and large, so that weights and activations fit the caches of some of them and not of others."""
    return [
        Conv((3, 32, 32), 10, (16, 32, 64)),
        Chained((3, 96, 96), 100, ((48, 7, 2, 3), (3, 2), (96, 3, 1, 1), (3, 2)), (1024, 512)),
        Residual((3, 64, 64), 10, (16, 32, 64), 2),
        Residual((3, 128, 128), 100, (32, 64, 128), 2, 7),
        Mobile((3, 96, 96), 100, ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 2, 2), (6, 64, 2, 2))),
        Inception((3, 64, 64), 10, 32, (16, 32, 48)),
        Vit((3, 96, 96), 100, 8, 128, 4, 4),
        Vit((3, 160, 160), 100, 16, 384, 2, 6),
        Text((64,), 2, 1_000, 256, 4, 4),
        Mlp((784,), 10, (1024, 256)),
    ]
