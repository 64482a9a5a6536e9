"""Adapting to a domain without labels: a device learns from those of its own answers of which it is sure.

Lee: Pseudo-Label: The Simple and Efficient Semi-Supervised Learning Method for Deep Neural Networks, ICML workshop
2013. The labels of the data stay unread. What is taken for true is what the parameters say that training starts from,
so several short trainings, each with fresh pseudo-labels, go further than a long one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from duetto import tree as trees
from duetto.errors import ConfigError, DataError
from duetto.models.net import log_softmax
from duetto.training.client import Client
from duetto.tree import Tree
from duetto.types import Local


@dataclass(frozen=True)
class PseudoLabels(Client):
    """A client that trains on the rows whose likeliest class has a probability of at least ``sure``, as of that class.

    Raises:
        ConfigError: a probability outside 0..1.
    """

    sure: float = 0.9

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.sure <= 1:
            raise ConfigError(f"sure={self.sure}", "use a probability")

    def examples(self, local: Local, params: Tree) -> dict[str, np.ndarray]:
        """The rows that it is sure of, with its answers for labels.

        Raises:
            DataError: none, or as :meth:`Client.examples`.
        """
        rows = self._part(local)
        hidden = type(rows)(rows.x, np.zeros(len(rows), np.int64))
        data = Client.examples(replace(self, part=None), Local(hidden, local.memory), params)
        said = self.net.logits(trees.map(lambda leaf: np.asarray(leaf, np.float32), params), data["x"])
        chosen = np.exp(log_softmax(said.astype(np.float64)).max(1)) >= self.sure
        if not chosen.any():
            raise DataError(
                "a client that is sure of none of its rows", "adapt a better model, or be content with less"
            )
        return {"x": data["x"][chosen], "y": said.argmax(1)[chosen].astype(np.int64)}
