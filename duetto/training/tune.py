"""Personalisation: a device goes on training its own copy on what it was taught (FedAvg + fine-tuning)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from duetto.training import sequential
from duetto.training.client import Client
from duetto.tree import Tree
from duetto.types import Chain, Codec, Key, Local, Skill, Work


@dataclass(frozen=True)
class Tune(Skill):
    """Train from ``memory["params"]`` as ``client`` declares, and keep the result there.

    ``kept`` is how the device stores its model: what it answers with is what is left after encoding and decoding.
    Without lessons nothing changes.
    """

    client: Client
    kept: Codec[Any] = Chain()

    @property
    def writes(self) -> bool:
        """The parameters."""
        return True

    def __call__(self, local: Local, tree: Tree, key: Key, sender: str) -> tuple[Local, Tree]:
        """Train here; answers ``{"loss"}``."""
        if not self._taught(local):
            return local, {"loss": np.float64(0.0)}
        start = local.memory["params"]
        trained = sequential.run(self.client, {"params": start}, self.client.examples(local, start), key)
        _, stored = self.kept.encode(self.kept.init(), trained.params, key)
        return local.remembering(params=self.kept.decode(stored)), {"loss": np.float64(trained.loss)}

    def work(self, local: Local, tree: Tree) -> Work:
        """The client's."""
        return self.client.work(local, tree) if self._taught(local) else Work()

    def _taught(self, local: Local) -> bool:
        slot = self.client.lessons
        return slot is None or (slot in local.memory and len(local.memory[slot]["rows"]) > 0)
