"""Memory that is used again: a fresh page from the system costs more than the numbers written on it."""

from __future__ import annotations

import math
import threading
import weakref
from collections import defaultdict
from typing import Any

import torch
from torch import Tensor

KEPT = 512 << 20  # bytes that may lie idle


class Arena:
    """Tensors that go back when their owner is gone."""

    def __init__(self) -> None:
        self._free: dict[int, list[Tensor]] = defaultdict(list)
        self._idle = 0
        self._lock = threading.Lock()

    def take(self, shape: tuple[int, ...], dtype: torch.dtype, owner: Any) -> Tensor:
        """A tensor that holds anything, the owner's for as long as it lives."""
        count = math.prod(shape)
        size = _class(max(1, count) * dtype.itemsize)
        with self._lock:
            found = self._free[size].pop() if self._free[size] else None
            self._idle -= size if found is not None else 0
        block = torch.empty(size, dtype=torch.uint8) if found is None else found
        weakref.finalize(owner, self._give, block)
        return block[: count * dtype.itemsize].view(dtype).view(shape)

    def _give(self, block: Tensor) -> None:
        with self._lock:
            if self._idle + len(block) <= KEPT:
                self._free[len(block)].append(block)
                self._idle += len(block)


def _class(nbytes: int) -> int:
    """The size that is kept for so many bytes: an eighth more at most."""
    step = 1 << max(6, nbytes.bit_length() - 4)
    return -(-nbytes // step) * step


ARENA = Arena()
