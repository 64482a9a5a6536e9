"""Experience replay: a few rows of earlier tasks are trained on again beside the new ones.

Chaudhry, Rohrbach, Elhoseiny et al.: On Tiny Episodic Memories in Continual Learning, 2019. The rows are a uniform
sample of all that were ever kept (reservoir sampling, Vitter 1985), here by tags: every row gets a random number by
key, and those with the smallest stay. So two reservoirs are one reservoir of both, in any order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from duetto.errors import ConfigError
from duetto.training.lifelong import Lifelong
from duetto.tree import Tree
from duetto.types import Key, rng


def reservoir(kept: Mapping[str, np.ndarray] | None, data: Mapping[str, np.ndarray], capacity: int, key: Key) -> Tree:
    """``{"x", "y", "tag"}``, at most ``capacity`` rows: what was ``kept`` (None: nothing yet), and these."""
    fresh = {"x": data["x"], "y": data["y"], "tag": rng(key).random(len(data["y"]))}
    return fewest(fresh if kept is None else joined(kept, fresh), capacity)


def joined(left: Mapping[str, np.ndarray], right: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The rows of both."""
    return {name: np.concatenate([left[name], right[name]]) for name in ("x", "y", "tag")}


def fewest(rows: Mapping[str, np.ndarray], capacity: int) -> dict[str, np.ndarray]:
    """The rows with the smallest tags, smallest first."""
    first = np.argsort(rows["tag"], kind="stable")[:capacity]
    return {name: np.asarray(rows[name])[first] for name in ("x", "y", "tag")}


@dataclass(frozen=True)
class Replay(Lifelong):
    """A client that trains on old rows too; remembers ``replay``: ``x``, ``y`` and their tags.

    Attributes:
        capacity: rows that are kept.
        share: of replayed rows among those trained on, drawn with replacement anew in every training.

    Raises:
        ConfigError: no room for a row, or a share that is not between 0 and 1.
    """

    capacity: int = 50
    share: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.capacity < 1 or not 0 < self.share < 1:
            raise ConfigError(
                f"{self.capacity} rows kept, {self.share} of the rows replayed", "keep a row, replay a share below 1"
            )

    def rehearsed(
        self, data: dict[str, np.ndarray], memory: Mapping[str, Any], params: Tree, key: Key
    ) -> dict[str, np.ndarray]:
        """The part's rows, and old ones."""
        if "replay" not in memory:
            return data
        kept, n = memory["replay"], len(data["y"])
        again = rng(key).integers(len(kept["y"]), size=round(n * self.share / (1 - self.share)))
        return {name: np.concatenate([data[name], kept[name][again]]) for name in ("x", "y")}

    def learnt(
        self, memory: Mapping[str, Any], data: Mapping[str, np.ndarray], params: Tree, key: Key
    ) -> Mapping[str, Any]:
        """The rows of this part go through the reservoir."""
        return {**memory, "replay": reservoir(memory.get("replay"), data, self.capacity, key)}
