"""Threads of our own, one for each processor, each with one thread inside an operation.

Not OpenMP's: its threads wait for each other by spinning, so that beside other load a product by two of them took 20
times as long as by one.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import Any, TypeVar

import torch

T = TypeVar("T")


def processors() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(processors(), "duetto-cohort", lambda: torch.set_num_threads(1))


def each(function: Callable[[Any], T], items: Sequence[Any]) -> list[T]:
    """``function`` of every item, in threads; a lone one here."""
    with _one_thread_an_operation():
        return [function(items[0])] if len(items) == 1 else list(_threads().map(function, items))


def spread(function: Callable[[slice], T], count: int, threads: int) -> list[T]:
    """``function`` of so many neighbouring slices of ``range(count)``, all at once, in order."""
    edges = [count * i // threads for i in range(threads + 1)]
    parts = [slice(*pair) for pair in pairwise(edges) if pair[0] < pair[1]]
    if len(parts) < 2:
        return [function(part) for part in parts]
    others = [_threads().submit(function, part) for part in parts[1:]]
    return [function(parts[0]), *(other.result() for other in others)]


@contextlib.contextmanager
def _one_thread_an_operation() -> Iterator[None]:
    """Threads of operations beside threads of clients would wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
