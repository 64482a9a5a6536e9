"""Small weights set to zero, wherever they are: fewer bytes in a file, and not one operation less in a dense runtime.

Han, Pool, Tran, Dally: Learning both Weights and Connections for Efficient Neural Networks, NeurIPS 2015. What is zero
stays zero while it is trained on with :class:`duetto.training.compress.Sparse`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from duetto import tree as trees
from duetto.errors import ConfigError
from duetto.models.compress.model import Material, Model
from duetto.tree import Array, Tree
from duetto.types import Key


@dataclass(frozen=True)
class Magnitude:
    """Zero this share of all weights, the smallest of the whole network first; biases stay.

    Attributes:
        share: from 0, below 1.

    Raises:
        ConfigError: a share outside.
    """

    share: float = 0.8

    def __post_init__(self) -> None:
        if not 0 <= self.share < 1:
            raise ConfigError(f"share={self.share}", "use a share from 0, below 1")

    def __call__(self, model: Model, material: Material, key: Key) -> Model:
        """The model with fewer weights that are not zero."""
        weights = [np.abs(leaf).ravel() for _, leaf in trees.leaves(model.params) if leaf.ndim > 1]
        sizes = np.sort(np.concatenate(weights))
        count = round(self.share * len(sizes))
        border = sizes[count] if count else 0.0  # those as large as the border stay

        def pruned(leaf: Array) -> Array:
            return np.where(np.abs(leaf) < border, leaf.dtype.type(0), leaf) if leaf.ndim > 1 else leaf

        return replace(model, params=trees.map(pruned, model.params))


def sparsity(params: Tree) -> float:
    """The share of the weights (not biases) that are zero."""
    weights = [leaf for _, leaf in trees.leaves(params) if leaf.ndim > 1]
    return float(sum((leaf == 0).sum() for leaf in weights) / max(1, sum(leaf.size for leaf in weights)))
