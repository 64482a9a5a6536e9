"""The sub-network for a device: the best by validation accuracy within limits of latency, energy and memory.

Cai, Gan, Wang, Zhang, Han: Once-for-All, ICLR 2020, look up in a table what a network costs on the device instead of
running it, and search among 10^19 of them with predictors and evolution. The sub-networks here are few enough to have
each in the table as a whole, so that the search is exact.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch

from duetto.errors import ConfigError, DataError
from duetto.models import export
from duetto.models.elastic import Slimmable, Sub
from duetto.models.graph import Stage
from duetto.models.net import Net, built
from duetto.models.staged import stage
from duetto.tree import Tree


@dataclass(frozen=True)
class Rated:
    """What a sub-network costs on a device, and how good it is.

    Attributes:
        sub: which one.
        seconds: of an answer.
        joules: of an answer.
        nbytes: of its weights.
        accuracy: on validation users, 0..1.

    Raises:
        DataError: a figure that is negative or not finite.
    """

    sub: Sub
    seconds: float
    joules: float
    nbytes: int
    accuracy: float

    def __post_init__(self) -> None:
        for name in ("seconds", "joules", "nbytes", "accuracy"):
            if not 0 <= getattr(self, name) < math.inf:
                raise DataError(f"{name} of {self.sub} is {getattr(self, name)}", "give a finite number, 0 or more")


@dataclass(frozen=True)
class Limits:
    """What a device can bear: at most so much of each; infinite is no limit.

    Raises:
        ConfigError: a limit that is not above 0.
    """

    seconds: float = math.inf
    joules: float = math.inf
    nbytes: float = math.inf

    def __post_init__(self) -> None:
        for each in fields(self):
            if not getattr(self, each.name) > 0:
                raise ConfigError(f"a limit of {getattr(self, each.name)} {each.name}", "give a number above 0")

    def bears(self, rated: Rated) -> bool:
        """Whether all are kept."""
        return all(getattr(rated, each.name) <= getattr(self, each.name) for each in fields(self))


def best(table: Sequence[Rated], limits: Limits = Limits()) -> Rated:
    """The most accurate within the limits; of equals the one of least joules, then least seconds and bytes.

    Where there is no limit nothing is to be spared, and it is the largest, whatever chance did to the validation.

    Args:
        table: of all sub-networks.

    Raises:
        DataError: an empty table.
        ConfigError: limits that none keeps; it names the least of each that there is.
    """
    if not table:
        raise DataError("a table without sub-networks", "rate one at least")
    if limits == Limits():
        return max(table, key=lambda each: (each.nbytes, each.joules, each.seconds))
    borne = [each for each in table if limits.bears(each)]
    if not borne:
        least = min(table, key=lambda each: (each.nbytes, each.joules, each.seconds))
        wanted = ", ".join(
            _told(each.name, getattr(limits, each.name))
            for each in fields(limits)
            if getattr(limits, each.name) < math.inf
        )
        has = ", ".join(_told(each.name, getattr(least, each.name)) for each in fields(limits))
        raise ConfigError(f"no sub-network keeps {wanted}", f"the smallest, {least.sub}, takes {has}")
    return max(borne, key=lambda each: (each.accuracy, -each.joules, -each.seconds, -each.nbytes))


def front(table: Sequence[Rated]) -> tuple[Rated, ...]:
    """Those of which no other is as good in everything and better in something, by what they cost."""

    def costs(each: Rated) -> tuple[float, ...]:
        return (each.seconds, each.joules, each.nbytes, -each.accuracy)

    def beaten(each: Rated) -> bool:
        mine = costs(each)
        return any(
            costs(other) != mine and all(b <= a for a, b in zip(mine, costs(other), strict=True)) for other in table
        )

    return tuple(sorted((each for each in table if not beaten(each)), key=costs))


def timed(net: Slimmable, params: Tree, x: np.ndarray, repeats: int = 200) -> dict[Sub, float]:
    """Seconds that each sub-network takes for one row on this machine, in ONNX Runtime with one thread.

    The median of ``repeats`` rounds; in a round each answers once, so that what else the machine does meets all alike.

    Args:
        net: whose sub-networks.
        params: of ``net``.
        x: some rows ``[n, *shape]``, which take turns.

    Raises:
        ConfigError: the extra ``onnx`` is not installed, or parameters of another network.
    """
    runtime = export.runtime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    rows = np.ascontiguousarray(x, np.float32)
    seconds = np.zeros((len(net.subs), repeats + 2))
    with tempfile.TemporaryDirectory() as folder:
        sessions = []
        for i, sub in enumerate(net.subs):
            path = export.onnx(net.sub(sub), net.cut(params, sub), Path(folder) / f"{i}.onnx")
            sessions.append(runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"]))
        for turn in range(repeats + 2):
            row = rows[turn % len(rows)][None]
            for i, session in enumerate(sessions):
                begin = time.perf_counter()
                session.run(None, {"x": row})
                seconds[i, turn] = time.perf_counter() - begin
    return dict(zip(net.subs, np.median(seconds[:, 2:], axis=1).tolist(), strict=True))


def predicted(net: Slimmable, seconds: Callable[[Sequence[Stage]], np.ndarray]) -> dict[Sub, float]:
    """Seconds of each sub-network, added up over its operations.

    Args:
        net: whose sub-networks.
        seconds: of each operation, such as :meth:`duetto.models.costs.Regression.predicted` of another machine.
    """
    return {sub: float(np.sum(seconds(_operations(net.sub(sub))))) for sub in net.subs}


def _operations(net: Net) -> tuple[Stage, ...]:
    staged = stage(built(net), torch.zeros((2, *net.shape)), proof="stages")
    return tuple(staged.stages)


def _told(name: str, value: float) -> str:
    return {"seconds": f"{1e3 * value:.3g} ms", "joules": f"{1e3 * value:.3g} mJ", "nbytes": f"{value:,.0f} bytes"}[
        name
    ]
