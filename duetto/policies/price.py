"""What a call may cost, and the threshold at which it is worth that."""

from __future__ import annotations

import math

import numpy as np

from duetto.errors import ConfigError


def priced(price: float) -> None:
    """Raises ConfigError where a price is not finite."""
    if not math.isfinite(price):
        raise ConfigError(f"a price of {price}", "state what a call costs in units of quality, such as 0.01")


def worthwhile(scores: np.ndarray, gain: np.ndarray, shares: np.ndarray, price: float) -> float:
    """The threshold below which asking pays best on these items: the largest sum of (gain - price) over what is asked.

    It is where the isotonic regression of the gain on the score crosses the price (Barlow et al. 1972), without its
    plateaus. Items of equal score are kept or asked together; where asking never pays, nobody is asked.

    Args:
        scores: ``[n]``; asked are the lowest.
        gain: ``[n]`` what asking each brings.
        shares: ``[n]`` what each counts.
        price: of a call.

    Returns:
        A threshold: kept are scores of at least it.
    """
    order = np.argsort(scores, kind="stable")
    ordered = scores[order]
    ends = np.append(np.flatnonzero(np.diff(ordered)), len(ordered) - 1)
    won = np.cumsum((shares * (gain - price))[order])[ends]
    best = int(np.argmax(won))
    if won[best] <= 0:
        return -math.inf
    return math.inf if best + 1 == len(ends) else float(ordered[ends[best] + 1])
