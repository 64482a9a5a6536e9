"""The skill of answering with a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from duetto.errors import ConfigError, DataError
from duetto.models.net import Net
from duetto.tree import Tree
from duetto.types import Key, Local, Skill, Work


@dataclass(frozen=True)
class Predict(Skill):
    """Logits from the parameters that the party remembers as ``memory[slot]``.

    Takes ``{"x": [n, *shape]}``, gives ``{"logits": [n, classes] float32}``. Parties that hold the very same
    parameters are answered in one forward pass.

    Raises:
        DataError: no rows, rows of another shape, or numbers that are not finite.
        ConfigError: this party holds no such parameters.
    """

    net: Net
    slot: str = "params"

    def __call__(self, local: Local, tree: Tree, key: Key, sender: str) -> tuple[Local, Tree]:
        """Answer all rows at once."""
        return local, {"logits": self.net.logits(self._params(local), self._rows(tree, sender))}

    def many(
        self, locals: Sequence[Local], trees: Sequence[Tree], keys: Sequence[Key], senders: Sequence[str]
    ) -> list[tuple[Local, Tree]]:
        """One forward pass for all who hold the same parameters."""
        rows = [self._rows(tree, sender) for tree, sender in zip(trees, senders, strict=True)]
        logits = self.net.logits(self._params(locals[0]), np.concatenate(rows))
        parts = np.split(logits, np.cumsum([len(part) for part in rows])[:-1])
        return [(local, {"logits": part}) for local, part in zip(locals, parts, strict=True)]

    def work(self, local: Local, tree: Tree) -> Work:
        """A forward pass over the rows."""
        return self.net.work(len(tree["x"]) if isinstance(tree, Mapping) and np.ndim(tree.get("x", 0)) else 0)

    def group(self, local: Local, tree: Tree) -> Any:
        """The identity of the parameters: trees are values, so the same object is the same model."""
        return id(local.memory.get(self.slot))

    def _params(self, local: Local) -> Tree:
        if self.slot not in local.memory:
            raise ConfigError(f"there are no parameters in {self.slot!r}", "ask a party that holds this model")
        return local.memory[self.slot]

    def _rows(self, tree: Tree, sender: str) -> np.ndarray:
        if not isinstance(tree, Mapping) or "x" not in tree:
            raise DataError(f"{sender} sent no rows", 'send {"x": [n, *shape]}')
        with np.errstate(over="ignore"):  # what float32 cannot hold is infinite, and told below
            x = np.asarray(tree["x"], np.float32)
        if x.shape[1:] != self.net.shape:
            raise DataError(
                f"{sender} sent rows of shape {x.shape[1:]} to a model of {self.net.shape}", "send [n, *shape]"
            )
        if not np.isfinite(x).all():
            raise DataError(f"{sender} sent an input that is not finite", "remove the rows with NaN or infinity")
        return x
