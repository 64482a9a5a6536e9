"""The executor that trains in several processes of this machine."""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from multiprocessing.connection import Connection, wait
from multiprocessing.reduction import ForkingPickler
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from duetto.errors import ConfigError, Error
from duetto.training.cohort import Cohort
from duetto.training.executor import Executor, Task
from duetto.training.workers import Crew, Line, Lost, Worker
from duetto.types import Trained

if TYPE_CHECKING:
    from duetto.training.client import Client

_CONTEXT = multiprocessing.get_context("spawn")  # a fork would copy torch's threads in whatever state they are
_APART = 1 << 12  # bytes; arrays from this size on are sent as they lie in memory


@dataclass(frozen=True)
class Processes:
    """Trains in several processes, which begin at first use, are shared by equal values of this class, and end with
    this one.

    Worth its while where the clients' training cannot use several threads well: many small operations, as of
    recurrent and convolutional networks. A script that uses it does its work under ``if __name__ == "__main__":``,
    because each process reads the script again to know its classes.

    Attributes:
        workers: how many processes; None is one for each processor.
        executor: how each trains what it gets.

    Raises:
        ConfigError: no process, or processes within processes.
    """

    workers: int | None = None
    executor: Executor = field(default_factory=lambda: Cohort(threads=1))

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise ConfigError(f"{self.workers} worker processes", "use at least 1")
        if isinstance(self.executor, Processes):
            raise ConfigError("processes within processes", "let each train by Cohort or Sequential")

    def train(self, client: Client, tasks: Sequence[Task]) -> list[Trained | Error]:
        """One result a task, in their order; deltas and gradients lie in the processes.

        Raises:
            ConfigError: a client that cannot be sent to a process, or processes that cannot start.
        """
        return _crew(self, os.getpid()).train(client, tasks)


@cache
def _crew(executor: Processes, process: int) -> Crew:
    """The workers of this process; one that was forked off it has its own."""
    size = executor.workers or _processors()
    return Crew(f"Processes({size})", size, lambda: _Process(executor.executor))


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Process(Line):
    """A worker in a process of its own, and the pipe to it."""

    def __init__(self, executor: Executor) -> None:
        super().__init__()
        self._pipe, theirs = _CONTEXT.Pipe()
        self._process = _CONTEXT.Process(target=_serve, args=(theirs, executor), name="duetto-worker", daemon=True)
        with _inherited():
            self._process.start()
        theirs.close()
        self._ready = False

    def begin(self, *message: Any) -> None:
        """Write to the pipe."""
        try:
            parts = _packed(message)
        except Exception as error:  # whatever an object of the user's raises
            raise ConfigError(
                f"this client cannot be sent to another process ({error})",
                "define its classes and functions at the top of a module",
            ) from error
        try:
            _send(self._pipe, parts)
        except OSError as error:
            raise self._lost() from error

    def end(self) -> tuple[Any, Exception | None]:
        """Read from the pipe."""
        try:
            answer: tuple[Any, Exception | None] = _unpacked(_receive(self._pipe))
        except (OSError, EOFError) as error:
            raise self._lost() from error
        self._ready = True
        return answer

    def close(self) -> None:
        """Kill it: it has nothing to lose."""
        self._pipe.close()
        self._process.kill()
        self._process.join()

    def _lost(self) -> Exception:
        self._process.join(5)  # the pipe may end a moment before the process
        code = self._process.exitcode
        if code == 1 and not self._ready:
            return ConfigError(
                "a worker process could not start; what it said is above",
                'a script that trains in processes does its work under if __name__ == "__main__":',
            )
        return Lost(f"killed by {signal.Signals(-code).name}" if code and code < 0 else f"it ended with code {code}")


@contextlib.contextmanager
def _inherited() -> Iterator[None]:
    """What a process takes over from this one at its start: one thread an operation, and ctrl-C is not for it."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    masks = hasattr(signal, "pthread_sigmask")
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT}) if masks else set()
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
        if masks:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _serve(pipe: Connection, executor: Executor) -> None:
    """A worker process, from its start to the end of the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    worker = Worker(executor)
    while True:
        try:
            parts = _receive(pipe)
        except (OSError, EOFError):
            return
        try:
            message = _unpacked(parts)
        except Exception as error:  # whatever an import of the user's raises
            fault = ConfigError(
                f"a worker process cannot read what it was sent ({type(error).__name__}: {error})",
                "define the client's classes in a module that can be imported",
            )
            answer: tuple[Any, Exception | None] = None, fault
        else:
            answer = worker.call(*message)
        _send(pipe, _packed(answer))


def _end_with_parent() -> None:
    """Whatever way it ended, and whatever is being trained."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
    os._exit(0)


# ------------------------------------------------------------------------------------------------------ messages
#
# Large arrays go through the pipe from where they lie to where they shall lie. For 50 clients of 60 x 784 float32 and
# two processes that takes 8 ms, as much as shared memory (whose size many containers limit), and 15 ms otherwise.


class _Packer(ForkingPickler):
    """What multiprocessing sends, with large arrays apart."""

    def __init__(self, file: io.BytesIO, apart: list[memoryview]) -> None:
        def within(buffer: Any) -> bool:
            raw = buffer.raw()
            if raw.nbytes >= _APART:
                apart.append(raw)
            return bool(raw.nbytes < _APART)

        super(ForkingPickler, self).__init__(file, 5, buffer_callback=within)


def _packed(message: Any) -> tuple[memoryview, list[memoryview]]:
    file, apart = io.BytesIO(), list[memoryview]()
    _Packer(file, apart).dump(message)
    return file.getbuffer(), apart


def _unpacked(parts: tuple[bytes, list[np.ndarray]]) -> Any:
    rest, apart = parts
    return ForkingPickler.loads(rest, buffers=apart)


def _send(pipe: Connection, parts: tuple[memoryview, list[memoryview]]) -> None:
    rest, apart = parts
    pipe.send([part.nbytes for part in apart])
    for part in (rest, *apart):
        pipe.send_bytes(part)


def _receive(pipe: Connection) -> tuple[bytes, list[np.ndarray]]:
    apart = [np.empty(size, np.uint8) for size in pipe.recv()]
    rest = pipe.recv_bytes()
    for part in apart:
        pipe.recv_bytes_into(part)
    return rest, apart
