"""What training computes, counted by torch while it runs: products of matrices and convolutions, nothing else.

A count is not a time: it is the same on every machine, and steps of an optimiser, activations and sums are not in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch.utils.flop_counter import FlopCounterMode


@contextmanager
def counting() -> Iterator[Callable[[], int]]:
    """Count what this thread computes within: floating-point operations so far (a multiply and an add are two)."""
    with FlopCounterMode(display=False) as counter:
        yield counter.get_total_flops
