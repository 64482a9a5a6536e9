"""A device that learns by itself, and tells what its first stages make of rows: a cloud's model goes on from there.

The device's end of group knowledge transfer (He et al. 2020, see ``algorithms.fedgkt``): what the cloud answered about
these rows teaches the device; no slope crosses, so it never waits within a training.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from duetto import tree as trees
from duetto.errors import ConfigError
from duetto.models.net import Net, built, to_tensor, to_tensors, to_tree
from duetto.models.staged import Half, stage
from duetto.training import sequential
from duetto.training.client import Client
from duetto.training.split import forward
from duetto.tree import Tree
from duetto.types import Key, Local, Trained, rng


@dataclass(frozen=True)
class Extractor(Client):
    """Trains a ``model`` of its own, and speaks of the rows that are ``shown``: so many, which it draws once.

    Takes ``{"answers": [shown, classes]}``, logits of the cloud (all zeros: it has not said anything), and perhaps
    ``params`` to start from. Gives as its delta ``features [shown, ...]`` after ``cut`` stages, its own
    ``logits [shown, classes]``, the labels ``y [shown]`` int64, and with ``shares`` the change of its model. Rows that
    were answered are learned by their label and by the answer, for which the loss needs
    :class:`duetto.training.bridge.Heard`. With fewer rows than asked for, some are told twice.

    Raises:
        ConfigError: no row.
    """

    cut: int = 1
    shown: int = 64
    shares: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.shown < 1:
            raise ConfigError(f"shown={self.shown}", "a device speaks of at least one")

    def __call__(self, local: Local, tree: Tree, key: Key, sender: str) -> tuple[Local, Tree]:
        """Learn, then look at the rows."""
        data = self.examples(local, {})
        n = len(data["y"])
        told, answers = local.memory.get("told"), np.asarray(tree["answers"])
        if told is None or told.max() >= n:  # none yet, or rows that are gone: what was said before is not about these
            order = rng((*key, "told")).permutation(n)
            local = local.remembering(told=np.resize(order, self.shown), before=answers)
        elif not np.array_equal(answers, local.memory["before"]):  # else the cloud has not heard of these rows yet
            teacher, heard = np.zeros((n, self.net.classes), np.float32), np.zeros(n, np.float32)
            teacher[told], heard[told] = answers, 1
            data = {**data, "teacher": teacher, "heard": heard}
        trained = sequential.run(self, {"params": self.personal(tree, local.memory)}, data, key)
        local, reply = self._reply(local, tree, trained)
        seen = {"x": data["x"][local.memory["told"]], "y": data["y"][local.memory["told"]]}
        said = {"logits": self.net.logits(trained.params, seen["x"]), "y": seen["y"]}
        said["features"] = self.features(trained.params, seen["x"])
        return local, {**reply, "delta": {**reply["delta"], **said}}

    def finish(self, sent: Tree, memory: Mapping[str, Any], trained: Trained) -> tuple[Mapping[str, Any], Tree, float]:
        """Keep the model, or send its change."""
        if self.shares:
            return memory, {"change": trees.map(np.asarray, trained.delta)}, float(trained.examples)
        return {**memory, "model": trained.params}, {}, float(trained.examples)

    def personal(self, sent: Tree, memory: Mapping[str, Any]) -> Tree:
        """What was sent, where all have one model; else its own, and fresh parameters where it has none yet."""
        if self.shares:
            return sent["params"]
        return memory["model"] if "model" in memory else self.net.init(0)

    def features(self, params: Tree, x: np.ndarray) -> np.ndarray:
        """What ``cut`` stages make of rows, ``[n, ...]`` float32."""
        half, tensors = front(self.net, self.cut), to_tensors(params)
        found = forward(half, to_tree({name: tensors[name] for name in half.learnable}), {_only(half.inputs): x})
        (name,) = half.outputs
        layout = half.graph.layouts[half.outputs[name]]
        return np.ascontiguousarray(layout.restored(to_tensor(found[name])).numpy())


@lru_cache(16)
def front(net: Net, cut: int) -> Half:
    """The first stages of a network.

    Raises:
        ConfigError: a cut that more than one tensor crosses, or none that was computed.
    """
    half = stage(built(net).eval(), np.zeros((2, *net.shape), np.float32), proof="stages")[:cut]
    if len(half.outputs) != 1 or not half.learnable:
        raise ConfigError(
            f"a cut after {cut} stages, where {len(half.outputs)} tensors cross", "cut where one does, after some layer"
        )
    return half


def crossing(net: Net, cut: int) -> tuple[int, ...]:
    """The shape of one row's features."""
    half = front(net, cut)
    (value,) = half.outputs.values()
    layout = half.graph.layouts[value]
    return tuple(layout.restored(to_tensor(np.zeros(layout.shape(1), np.float32))).shape[1:])


def _only(names: Mapping[str, str]) -> str:
    if len(names) != 1:
        raise ConfigError(f"a model with the inputs {', '.join(names)}", "take one with one")
    (name,) = names
    return name
