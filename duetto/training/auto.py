"""The executor that looks which executor is faster, once for a kind of training."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from duetto.errors import Error
from duetto.folders import default_cache
from duetto.training.cohort import Cohort
from duetto.training.cohort.executor import why_not
from duetto.training.executor import Task
from duetto.training.sequential import Sequential
from duetto.types import Trained

if TYPE_CHECKING:
    from duetto.training.client import Client

_LOG = logging.getLogger(__name__)
_SAMPLE = 6  # clients in a trial
_GAIN = 1.1  # one after the other must be so much faster to be taken: a near tie should fall the same way every time


@dataclass(frozen=True)
class Choice:
    """Which executor was taken, and why."""

    executor: Cohort | Sequential
    why: str


@dataclass(frozen=True)
class Auto:
    """A cohort in one call, or one client after the other: whichever was faster in a short trial on real clients.

    What was found is kept in the cache folder, so that a run on this machine is the same the next time.

    Attributes:
        cohort: how a cohort would be trained.
    """

    cohort: Cohort = field(default_factory=Cohort)

    def train(self, client: Client, tasks: Sequence[Task]) -> list[Trained | Error]:
        """By the executor of :meth:`choose`."""
        return self.choose(client, tasks).executor.train(client, tasks)

    def choose(self, client: Client, tasks: Sequence[Task]) -> Choice:
        """The executor for these clients, and why."""
        if (fault := why_not(client, tasks)) is not None:
            return Choice(Sequential(), fault)
        usable = [task for task in tasks if len(task.data["x"])]
        if len(usable) < 2:
            return Choice(Sequential(), "a lone client")
        rows = sum(len(task.data["x"]) for task in usable) // len(usable)
        what = (client.net, client.loss, client.optimiser, client.epochs, client.batch_size, rows.bit_length())
        ratio = _found(
            repr((what, self, len(usable) >= _SAMPLE, torch.__version__, platform.processor())),
            lambda: self._trial(client, usable),
        )
        why = f"in a trial a cohort was {ratio:.2g} times as fast as one client after the other"
        return Choice(self.cohort if ratio * _GAIN > 1 else Sequential(), why)

    def _trial(self, client: Client, tasks: Sequence[Task]) -> float:
        """How many times as fast a cohort is."""
        ordered = sorted(tasks, key=lambda task: len(task.data["x"]))
        sample = ordered[:: max(1, len(ordered) // _SAMPLE)][:_SAMPLE]
        seconds = []
        for executor in (Sequential(), self.cohort):
            executor.train(client, sample[:2])  # first use builds and checks
            began = time.perf_counter()
            executor.train(client, sample)
            seconds.append(time.perf_counter() - began)
        return seconds[0] / seconds[1]


_KNOWN: dict[str, float] = {}


def _found(what: str, trial: Callable[[], float]) -> float:
    """The outcome of a trial, from memory or from the cache folder where there is one already."""
    if what not in _KNOWN:
        path = default_cache() / "trials" / f"{hashlib.blake2b(what.encode(), digest_size=12).hexdigest()}.json"
        try:
            _KNOWN[what] = float(json.loads(path.read_text())["ratio"])
        except (OSError, ValueError, KeyError, TypeError):
            _KNOWN[what] = trial()
            _LOG.info("in a trial a cohort was %.2g times as fast: %s", _KNOWN[what], what)
            with contextlib.suppress(OSError):  # without a folder to write to, the next run tries again
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps({"ratio": _KNOWN[what], "of": what}))
    return _KNOWN[what]
