"""The executor that trains on a Ray cluster: Moritz et al., Ray: A Distributed Framework for Emerging AI
Applications, OSDI 2018.

Each worker is an actor that takes one processor. What many clients start from lies once in the object store of every
machine; changes stay with the actor that made them, as :mod:`duetto.training.workers` describes.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import socket
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from duetto.errors import ConfigError, Error
from duetto.training import Cohort
from duetto.training.executor import Executor, Task
from duetto.training.workers import Crew, Line, Lost, Worker, plain
from duetto.types import Trained

if TYPE_CHECKING:
    from duetto.training.client import Client

_PATIENCE = 60.0  # seconds in which a cluster must answer, and start a worker
_START = "start one with `ray start --head`"


@dataclass(frozen=True)
class Ray:
    """Trains in actors of a Ray cluster, which begin at first use and end with this process.

    Every machine of the cluster has this version of duetto, and the modules that the clients' classes are in.

    Attributes:
        address: of a cluster, ``host:port``, or "auto" for the one that runs here; None starts one on this machine.
        workers: how many actors; None is one for each processor of the cluster.
        executor: how each trains what it gets.

    Raises:
        ConfigError: no worker, or Ray is not installed.
    """

    address: str | None = None
    workers: int | None = None
    executor: Executor = field(default_factory=lambda: Cohort(threads=1))

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise ConfigError(f"{self.workers} Ray workers", "use at least 1")
        if importlib.util.find_spec("ray") is None:
            raise ConfigError("Ray is not installed", "pip install 'duetto[ray]'")

    def train(self, client: Client, tasks: Sequence[Task]) -> list[Trained | Error]:
        """One result a task, in their order; deltas and gradients lie in the actors.

        Raises:
            ConfigError: no cluster at the address, one with fewer processors than workers, or a client that cannot be
                sent.
        """
        return _crew(self, *_connected(self.address, self.workers)).train(client, tasks)


_JOINED: dict[str, str] = {}
"""The address at which this process became part of a cluster."""


def _connected(address: str | None, workers: int | None) -> tuple[str, str]:
    """This machine's and this process's names in the cluster, of which it is part from now on.

    Raises:
        ConfigError: none is there, or this process is part of another.
    """
    import ray

    named = address or "local"
    if not ray.is_initialized():
        if address not in (None, "auto"):
            _knock(named)
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nobody is told of what runs here
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else it warns that this will be so
        own = {"num_cpus": workers, "include_dashboard": False} if address is None else {}
        try:
            ray.init(named, log_to_driver=False, logging_level=logging.WARNING, **own)
        except (OSError, RuntimeError, ValueError) as error:
            raise ConfigError(f"no Ray cluster at {named} ({_line(error, 0)})", _START) from error
        _JOINED["at"] = named
    elif _JOINED.get("at", named) != named:
        raise ConfigError(
            f"this process is part of the Ray cluster at {_JOINED['at']} already, not of {named}",
            "use one cluster in a process",
        )
    context = ray.get_runtime_context()
    return context.get_node_id(), context.get_job_id()


def _knock(address: str) -> None:
    """Ray itself would wait for minutes, and then end this process."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=_PATIENCE).close()
    except (OSError, ValueError, OverflowError) as error:
        raise ConfigError(f"no Ray cluster at {address} ({error})", _START) from error


@lru_cache(maxsize=1)  # actors end with their crew, so that the next one finds their processors
def _crew(executor: Ray, machine: str, job: str) -> _Actors:
    """The workers of this process in a cluster."""
    return _Actors(executor)


class _Actors(Crew):
    """Workers that are actors."""

    def __init__(self, executor: Ray) -> None:
        import ray

        there = int(ray.cluster_resources().get("CPU", 0))
        size = executor.workers or there
        if not 1 <= size <= there:
            raise ConfigError(f"{size} workers on a Ray cluster with {there} processors", "use fewer, or add machines")
        self._shared: dict[int, Any] = {}  # what many start from, by its id -> where it lies in the object store
        super().__init__(f"Ray({size})", size, lambda: _Actor(executor.executor, self._thin))

    def train(self, client: Client, tasks: Sequence[Task]) -> list[Trained | Error]:
        """What many start from is put in the object store once."""
        import ray

        tasks = plain(tasks)
        uses = Counter(id(tree) for task in tasks for tree in task.start.values())
        trees = {id(tree): tree for task in tasks for tree in task.start.values() if uses[id(tree)] > 1}
        with self._lock:
            self._shared = {at: ray.put(tree) for at, tree in trees.items()}
            try:
                return super().train(client, tasks)
            finally:
                self._shared = {}

    def _thin(self, task: Task) -> Task:
        """The task with references in place of what is in the object store."""
        return replace(task, start={name: self._shared.get(id(tree), tree) for name, tree in task.start.items()})


class _Actor(Line):
    """A worker in an actor."""

    def __init__(self, executor: Executor, thin: Callable[[Task], Task]) -> None:
        import ray

        super().__init__()
        self._actor = ray.remote(num_cpus=1)(Remotely).remote(executor)  # Ray gives one thread to one processor
        self._thin, self._answer = thin, None
        self._ready = self._actor.call.remote((), "drop")

    def begin(self, *message: Any) -> None:
        """Submit a call."""
        gone, method, *args = message
        if method == "train":
            client, tasks = args
            args = [client, [self._thin(task) for task in tasks]]
        try:
            self._answer = self._actor.call.remote(gone, method, *args)
        except TypeError as error:
            raise ConfigError(
                f"this client cannot be sent to another process ({error.__cause__ or error})",
                "define its classes and functions at the top of a module",
            ) from error

    def end(self) -> tuple[Any, Exception | None]:
        """Get its result."""
        import ray

        self._start()
        try:
            answer: tuple[Any, Exception | None] = ray.get(self._answer)
        except ray.exceptions.RayTaskError as error:  # only what comes before Worker.call is not caught there
            raise ConfigError(
                f"a Ray worker cannot read what it was sent ({_line(error, -1)})",
                "install the modules of the client's classes on every machine of the cluster",
            ) from error
        except ray.exceptions.RayError as error:
            raise Lost(_line(error, 0)) from error
        return answer

    def _start(self) -> None:
        """Wait until it is there."""
        import ray

        if self._ready is None:
            return
        try:
            ray.get(self._ready, timeout=_PATIENCE)
        except ray.exceptions.GetTimeoutError as error:
            raise ConfigError(
                f"no processor of the Ray cluster was free for {_PATIENCE} s", "others hold them: use fewer workers"
            ) from error
        except ray.exceptions.RayError as error:
            raise ConfigError(
                f"a Ray worker cannot start ({_line(error, -1)})",
                "install this version of duetto on every machine of the cluster",
            ) from error
        self._ready = None

    def close(self) -> None:
        """Kill it."""
        import ray

        ray.kill(self._actor)


def _line(error: Exception, i: int) -> str:
    """One line of an error that has many."""
    return str(error).strip().splitlines()[i]


class Remotely(Worker):
    """A worker that gets what many start from out of the object store."""

    def train(self, client: Client, tasks: Sequence[Task]) -> Any:
        """As :meth:`Worker.train`."""
        import ray

        shared = {tree for task in tasks for tree in task.start.values() if isinstance(tree, ray.ObjectRef)}
        found = dict(zip(shared, ray.get(list(shared)), strict=True))

        def whole(tree: Any) -> Any:
            return found[tree] if isinstance(tree, ray.ObjectRef) else tree

        starts = [{name: whole(tree) for name, tree in task.start.items()} for task in tasks]
        return super().train(client, [replace(task, start=start) for task, start in zip(tasks, starts, strict=True)])
