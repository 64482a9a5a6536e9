"""Two models of any design teach each other by what they answer about bridge samples: a device's end of the bridge.

Bridge samples are rows as an autoencoder brings them back from their codes (Wu et al. 2024, see ``algorithms.fedagg``):
whoever has the autoencoder and the codes has the same ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from duetto.errors import ConfigError
from duetto.models.principal import decoded, encoded
from duetto.training import sequential
from duetto.training.client import Client
from duetto.training.losses import Distil, Named
from duetto.tree import Tree
from duetto.types import Key, Local, Trained, rng


@dataclass(frozen=True)
class Heard(Distil):
    """:class:`Distil` of the rows that the batch's ``heard [n]`` gives 1, none of those that it gives 0; of no row,
    where the batch says nothing of it."""

    def __call__(self, logits: Tensor, batch: Named, params: Named, start: Mapping[str, Named]) -> Tensor:
        """[n]."""
        if "heard" not in batch:
            return logits.new_zeros(len(logits))
        return batch["heard"] * super().__call__(logits, batch, params, start)


@dataclass(frozen=True)
class Bridged(Client):
    """Trains a ``model`` of its own on its rows and on bridge samples, of which it draws ``bridge`` once.

    Takes ``{"answers": [bridge, classes]}``, logits of the other end (all zeros: it has not said anything), and gives
    as its delta ``answers``, and ``codes [bridge, width]`` and ``labels [bridge]`` int64 of the rows. Samples that were
    answered are learned by their label and by the answer. Its memory must hold the ``autoencoder``
    (:func:`duetto.models.principal.principal`).

    Raises:
        ConfigError: no sample; when asked, no autoencoder.
    """

    bridge: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bridge < 1:
            raise ConfigError(f"bridge={self.bridge}", "use at least one sample")

    def __call__(self, local: Local, tree: Tree, key: Key, sender: str) -> tuple[Local, Tree]:
        """Learn, and answer; of rows that are just drawn nothing has been heard."""
        if "autoencoder" not in local.memory:
            raise ConfigError("a device without an autoencoder", "give all the same one, as memory 'autoencoder'")
        data, model = self.examples(local, {}), self.personal(tree, local.memory)
        if "codes" not in local.memory:
            n = len(data["y"])
            drawn = rng((*key, "bridge")).choice(n, self.bridge, replace=n < self.bridge)
            codes = encoded(local.memory["autoencoder"], data["x"][drawn])
            local = local.remembering(codes=codes, labels=data["y"][drawn])
        elif np.any(tree["answers"]):
            teacher = np.asarray(tree["answers"], np.float32)
            data = beside({"x": self._samples(local.memory), "y": local.memory["labels"], "teacher": teacher}, data)
        return self._reply(local, tree, sequential.run(self, {"params": model}, data, key))

    def finish(self, sent: Tree, memory: Mapping[str, Any], trained: Trained) -> tuple[Mapping[str, Any], Tree, float]:
        """Keep the model, and say what it answers."""
        said = {"answers": self.net.logits(trained.params, self._samples(memory))}
        said |= {"codes": memory["codes"], "labels": memory["labels"]}
        return {**memory, "model": trained.params}, said, 1.0

    def personal(self, sent: Tree, memory: Mapping[str, Any]) -> Tree:
        """Its own model; fresh parameters, where it has none yet."""
        return memory["model"] if "model" in memory else self.net.init(0)

    def _samples(self, memory: Mapping[str, Any]) -> np.ndarray:
        return decoded(memory["autoencoder"], memory["codes"], self.net.shape)


def beside(answered: Mapping[str, np.ndarray], others: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Rows ``x``, ``y``, ``teacher`` that were answered, and rows ``x``, ``y`` that were not, for :class:`Heard`."""
    n, m, teacher = len(answered["y"]), len(others["y"]), answered["teacher"]
    silence = {"teacher": np.zeros((m, teacher.shape[1]), teacher.dtype), "heard": np.zeros(m, np.float32)}
    return stacked([{**answered, "heard": np.ones(n, np.float32)}, {**others, **silence}])


def stacked(parts: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The rows of all parts, one after the other; they have the same columns."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
