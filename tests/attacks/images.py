"""Images to attack, and what the mean image alone gives."""

import numpy as np

from duetto.evaluation.leakage import psnr

DRAW = np.random.default_rng(0)


def blobs(n: int, side: int = 8) -> np.ndarray:
    """Images of two smooth bumps each, 0 to 1."""
    at = np.arange(side)
    centre = DRAW.random((2, n, 2)) * side
    bumps = [np.exp(-((at[:, None] - c[:, :1, None]) ** 2 + (at - c[:, 1:, None]) ** 2) / 6) for c in centre]
    return np.clip(bumps[0] + bumps[1], 0, 1)[:, None].astype(np.float32)


PUBLIC, PRIVATE = blobs(600), blobs(60)
NAIVE = psnr(PRIVATE, np.repeat(PUBLIC.mean(0)[None], 60, 0)).mean()
