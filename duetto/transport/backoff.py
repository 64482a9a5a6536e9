"""How long to wait before another try: exponential back-off with full jitter.

Brooker 2015, "Exponential Backoff And Jitter" (AWS Architecture Blog): of the ways to spread those who come back after
an outage, a wait drawn evenly from nothing to the bound costs the fewest calls.
"""

from __future__ import annotations

import math

from duetto.errors import ConfigError
from duetto.types import Key, rng


def back_off(attempt: int, key: Key, base: float = 1.0, most: float = 60.0) -> float:
    """Seconds to wait before try ``attempt + 1``, even on ``[0, min(most, base * 2 ** attempt))``.

    Args:
        attempt: tries that have failed since the last success, less one; 0 after the first.
        key: of who waits; others draw other seconds, and the same key the same ones.
        base: the bound after the first failure, seconds.
        most: the bound that it grows to, seconds.

    Raises:
        ConfigError: a negative attempt, or bounds that are not ``0 < base <= most < inf``.
    """
    if attempt < 0 or not 0 < base <= most < math.inf:
        raise ConfigError(
            f"try {attempt} of a back-off from {base} to {most} s", "use 0 < base <= most, and tries from 0"
        )
    bound = most if attempt > math.log2(most / base) else min(most, base * 2.0**attempt)
    return float(rng((*key, "back-off", attempt)).uniform(0.0, bound))
