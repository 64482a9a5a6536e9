"""A linear autoencoder: inputs as their principal components, which bring back as much as so many numbers can.

Baldi, Hornik: Neural networks and principal component analysis: Learning from examples without local minima, Neural
Networks 1989: no linear autoencoder does better. It is a tree ``{"mean" [p], "basis" [width, p]}`` float32, so that
parties can be given it.
"""

from __future__ import annotations

import numpy as np

from duetto.errors import ConfigError
from duetto.tree import Tree


def principal(x: np.ndarray, width: int) -> Tree:
    """The autoencoder of ``width`` numbers that fits inputs ``x [n, ...]`` best.

    Raises:
        ConfigError: a width below 1, or more than the inputs have dimensions.
    """
    flat = np.asarray(x, np.float64).reshape(len(x), -1)
    if not 1 <= width <= min(flat.shape):
        raise ConfigError(f"{width} components of {len(x)} inputs", f"use 1 to {min(flat.shape, default=0)}")
    mean = flat.mean(0)
    basis = np.linalg.svd(flat - mean, full_matrices=False)[2][:width]
    return {"mean": mean.astype(np.float32), "basis": basis.astype(np.float32)}


def encoded(coder: Tree, x: np.ndarray) -> np.ndarray:
    """Codes ``[n, width]`` float32 of inputs ``x [n, ...]``."""
    return np.asarray((np.asarray(x, np.float32).reshape(len(x), -1) - coder["mean"]) @ coder["basis"].T)


def decoded(coder: Tree, codes: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Inputs ``[n, *shape]`` float32 of codes."""
    return np.asarray((codes @ coder["basis"] + coder["mean"]).reshape(len(codes), *shape), np.float32)
