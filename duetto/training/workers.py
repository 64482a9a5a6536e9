"""Workers in other processes: they train, and keep what came of it; numbers and sums travel, changes stay.

What is sent to a worker are tasks, what comes back are steps and losses. The changes stay where they were made, as
small as the worker's own executor keeps them, behind a :class:`Remote`: of a weighted sum every worker adds up its own
share, so that what travels in a round does not grow with its clients.

Nothing here knows how a worker is reached: that is a :class:`Line`. A worker that is lost is replaced, and what it kept
is trained again, once: the same task gives the same result.
"""

from __future__ import annotations

import itertools
import threading
import traceback
import weakref
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, reduce
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from duetto import tree as trees
from duetto.errors import ConfigError, Error
from duetto.training.executor import Executor, Task
from duetto.tree import Bundle, Member, Spec, Tree
from duetto.types import Trained

if TYPE_CHECKING:
    from duetto.training.client import Client

Told: TypeAlias = tuple[int, int, float]
"""What a worker tells of a training: steps, examples, loss."""

_LIVES = 2  # how often a batch is trained at most


class Worker:
    """Trains batches of tasks, and keeps what they became until it is told to drop them.

    Args:
        executor: who trains.
    """

    def __init__(self, executor: Executor) -> None:
        self.executor = executor
        self._kept: dict[int, list[Trained | None]] = {}
        self._numbers = itertools.count()

    def call(self, gone: Sequence[int], method: str, *args: Any) -> tuple[Any, Exception | None]:
        """Drop the batches ``gone``, then do what is asked: what came of it, or the error in a form that can travel."""
        try:
            self.drop(gone)
            return getattr(self, method)(*args), None
        except Error as error:
            return None, error
        except Exception:
            return None, RuntimeError(f"in a worker:\n{traceback.format_exc()}")

    def train(self, client: Client, tasks: Sequence[Task]) -> tuple[int, list[Told | Error]]:
        """The batch's number, and what came of each task."""
        number, outcomes = next(self._numbers), self.executor.train(client, tasks)
        self._kept[number] = [each if isinstance(each, Trained) else None for each in outcomes]
        told = [each if isinstance(each, Error) else (each.steps, each.examples, each.loss) for each in outcomes]
        return number, told

    def total(self, batch: int, what: str, weights: np.ndarray) -> Tree:
        """The sum of every "delta" or "gradients", each times its weight ``[n]``, in float64; weight 0 is left out."""
        counted = np.flatnonzero(weights).tolist()
        return trees.total([self._tree(batch, what, i) for i in counted], weights[counted].tolist())

    def tree(self, batch: int, what: str, i: int) -> Tree:
        """One of them, as arrays."""
        return trees.map(np.asarray, self._tree(batch, what, i))

    def norm(self, batch: int, what: str) -> np.ndarray:
        """Euclidean norms ``[n]``; NaN where a task failed."""
        return self._each(trees.norm, batch, what, np.nan)

    def finite(self, batch: int, what: str) -> np.ndarray:
        """Whether all numbers of each are finite, ``[n]``."""
        return self._each(trees.finite, batch, what, False)

    def factors(self, batch: int, what: str, i: int) -> Mapping[str, tuple[np.ndarray, np.ndarray]]:
        """As :meth:`duetto.tree.Bundle.factors`."""
        tree = self._tree(batch, what, i)
        if not isinstance(tree, Member):
            return {}
        factors = tree.bundle.factors(tree.i)
        return {name: (left * left.dtype.type(tree.factor), right) for name, (left, right) in factors.items()}

    def drop(self, batches: Sequence[int] = ()) -> None:
        """Forget these."""
        for batch in batches:
            self._kept.pop(batch, None)

    def _tree(self, batch: int, what: str, i: int) -> Tree:
        return getattr(self._kept[batch][i], what)

    def _each(self, function: Callable[[Tree], Any], batch: int, what: str, failed: Any) -> np.ndarray:
        kept = self._kept[batch]
        return np.array([failed if each is None else function(getattr(each, what)) for each in kept])


class Lost(Exception):
    """A worker that is no more, and why."""


class Line(ABC):
    """The way to one worker.

    Attributes:
        gone: batches that nobody needs any longer. They are told with the next message: what collects garbage may do
            so in the middle of another message, and must not send one of its own.
    """

    def __init__(self) -> None:
        self.gone: deque[int] = deque()

    def ask(self, method: str, *args: Any) -> None:
        """Send what is asked, and what is gone.

        Raises:
            Lost: as :meth:`begin`.
            ConfigError: as :meth:`begin`.
        """
        gone = [self.gone.popleft() for _ in range(len(self.gone))]  # others may be put in meanwhile
        try:
            self.begin(gone, method, *args)
        except ConfigError:
            self.gone.extend(gone)
            raise

    @abstractmethod
    def begin(self, *message: Any) -> None:
        """Send the arguments of :meth:`Worker.call`.

        Raises:
            Lost: there is no worker any longer.
            ConfigError: something that cannot be sent.
        """

    @abstractmethod
    def end(self) -> tuple[Any, Exception | None]:
        """Wait for what came of it.

        Raises:
            Lost: there is no worker any longer.
        """

    @abstractmethod
    def close(self) -> None:
        """End the worker, whatever it does."""


@dataclass(eq=False)
class Batch:
    """Tasks that one worker trains and keeps.

    Attributes:
        worker: who.
        client, tasks: kept here, too, in case the worker is lost.
        line: to the one that keeps them; another worker of this number knows nothing of them.
        number: what it calls them.
        trained: how many times.
        why: the last worker was lost.
    """

    worker: int
    client: Client
    tasks: Sequence[Task]
    line: Line | None = field(default=None, repr=False)
    number: int = -1
    trained: int = 0
    why: str = "it ended"

    def kept(self, line: Line, number: int) -> None:
        """A worker keeps them from now on, until this object is no more."""
        self.line, self.number = line, number
        weakref.finalize(self, line.gone.append, number).atexit = False


class Crew:
    """Some workers.

    Args:
        name: what an error calls them.
        size: how many there are; each is started when it is first needed.
        start: makes a line to a new worker.
    """

    def __init__(self, name: str, size: int, start: Callable[[], Line]) -> None:
        self.name, self.size, self._start = name, size, start
        self._lines: dict[int, Line] = {}
        self._lock = threading.RLock()

    def train(self, client: Client, tasks: Sequence[Task]) -> list[Trained | Error]:
        """One result a task, in their order; deltas and gradients are members of a :class:`Remote`.

        Raises:
            ConfigError: a client that cannot be sent to a worker, or workers that cannot start.
        """
        tasks = plain(tasks)
        dealt = deal([len(task.data["x"]) for task in tasks], self.size)
        batches = [Batch(n, client, [tasks[i] for i in mine]) for n, mine in enumerate(dealt)]
        with self._lock:
            told = self._train(batches)
        outcomes = {
            i: (batch, k, each)
            for batch, mine in zip(batches, dealt, strict=True)
            for k, (i, each) in enumerate(zip(mine, told[batch], strict=True))
        }
        remotes = _Remotes(self)
        results: list[Trained | Error] = []
        for i, task in enumerate(tasks):
            batch, k, outcome = outcomes[i]
            if isinstance(outcome, Error):
                results.append(outcome)
                continue
            start = task.start["params"]
            delta = remotes.of(start, "delta").member(batch, k)
            gradients = remotes.of(start, "gradients").member(batch, k) if client.sums_gradients else {}
            results.append(Trained(start, delta, gradients, *outcome))
        return results

    def ask(self, method: str, args: Mapping[Batch, tuple[Any, ...]]) -> dict[Batch, Any]:
        """What the workers say of the batches that they keep, all asked at once.

        Raises:
            ConfigError: what a worker kept was lost with it, and lost again.
        """
        with self._lock:
            said = self._call(
                {batch: (method, batch.number, *more) for batch, more in args.items() if self._has(batch)}
            )
            _raise(said.values())
            lost = {batch: more for batch, more in args.items() if not self._has(batch)}
            if not lost:
                return said
            told = self._train(list(lost))
            _raise(told[batch][0] for batch in lost if not self._has(batch))
            return said | self.ask(method, lost)

    def _has(self, batch: Batch) -> bool:
        """Whether the worker that keeps it is still there."""
        return batch.line is not None and batch.line is self._lines.get(batch.worker)

    def _train(self, batches: Sequence[Batch]) -> dict[Batch, list[Told | Error]]:
        """What came of the tasks; where a worker is lost, a new one tries again, once."""
        told: dict[Batch, list[Told | Error]] = {}
        for batch in batches:
            if batch.trained == _LIVES:
                fault = ConfigError(
                    f"worker {batch.worker} of {self.name} was lost twice ({batch.why})",
                    "its clients may need more memory than there is: use fewer workers",
                )
                told[batch] = [fault] * len(batch.tasks)
        trying = [batch for batch in batches if batch not in told]
        answers = self._call({batch: ("train", batch.client, batch.tasks) for batch in trying})
        for batch, answer in answers.items():
            batch.trained += 1
            if not isinstance(answer, Exception):
                number, told[batch] = answer
                batch.kept(self._lines[batch.worker], number)
        _raise(answers.values())
        lost = [batch for batch in trying if batch not in told]
        return told | (self._train(lost) if lost else {})

    def _call(self, calls: Mapping[Batch, tuple[Any, ...]]) -> dict[Batch, Any]:
        """What the workers of the batches answer, all asked at the same time, or the exceptions that they raise."""
        idle: dict[int, tuple[Any, ...]] = {n: ("drop",) for n, line in self._lines.items() if line.gone}
        answers = self._exchange(idle | {batch.worker: call for batch, call in calls.items()})
        for batch in calls:
            if isinstance(lost := answers[batch.worker], Lost):
                batch.why = str(lost)
        return {batch: answers[batch.worker] for batch in calls}

    def _exchange(self, messages: Mapping[int, tuple[Any, ...]]) -> dict[int, Any]:
        """All are asked before the first is waited for, and all are waited for, whatever happens to one."""
        try:
            for n in messages:
                if n not in self._lines:
                    self._lines[n] = self._start()
            asked = {n: _tried(self._lines[n].ask, *message) for n, message in messages.items()}
            answers = {n: failed or _tried(self._lines[n].end) for n, failed in asked.items()}
        except BaseException:  # ctrl-C: what they would answer now, nobody waits for
            for n in messages:
                if n in self._lines:
                    self._lines.pop(n).close()
            raise
        for n, answer in answers.items():
            if isinstance(answer, Lost):
                self._lines.pop(n).close()
            elif isinstance(answer, tuple):
                answers[n] = answer[0] if answer[1] is None else answer[1]
        return answers


class Remote(Bundle):
    """Trees of one spec that lie in several workers.

    Args:
        crew: who keeps them.
        spec: of each.
        what: "delta" or "gradients".
    """

    def __init__(self, crew: Crew, spec: Spec, what: str) -> None:
        self.crew, self.spec, self.what = crew, spec, what
        self._places: list[tuple[Batch, int]] = []

    def member(self, batch: Batch, i: int) -> Member:
        """The next one lies there."""
        self._places.append((batch, i))
        return Member(self, len(self._places) - 1)

    def __len__(self) -> int:
        return len(self._places)

    def tree(self, i: int) -> Tree:
        """It travels."""
        return self._of("tree", i)

    def factors(self, i: int) -> Mapping[str, tuple[np.ndarray, np.ndarray]]:
        """They travel."""
        factors: Mapping[str, tuple[np.ndarray, np.ndarray]] = self._of("factors", i)
        return factors

    def norm(self, i: int) -> float:
        """All are asked for at the first one."""
        batch, k = self._places[i]
        return float(self._norms[batch][k])

    def finite(self, i: int) -> bool:
        """All are asked for at the first one."""
        batch, k = self._places[i]
        return bool(self._finite[batch][k])

    def total(self, weights: np.ndarray) -> Tree:
        """Every worker adds up its own."""
        shares = {batch: np.zeros(len(batch.tasks)) for batch, _ in self._places}
        for (batch, k), weight in zip(self._places, weights, strict=True):
            shares[batch][k] = weight
        asked = {batch: (self.what, share) for batch, share in shares.items() if share.any()}
        if not asked:
            return trees.map(lambda shaped: np.zeros(shaped.shape), self.spec)
        sums = self.crew.ask("total", asked)
        return reduce(trees.add, [sums[batch] for batch in asked])

    @cached_property
    def _norms(self) -> dict[Batch, np.ndarray]:
        return self._all("norm")

    @cached_property
    def _finite(self) -> dict[Batch, np.ndarray]:
        return self._all("finite")

    def _all(self, method: str) -> dict[Batch, np.ndarray]:
        return self.crew.ask(method, {batch: (self.what,) for batch, _ in self._places})

    def _of(self, method: str, i: int) -> Any:
        batch, k = self._places[i]
        return self.crew.ask(method, {batch: (self.what, k)})[batch]


class _Remotes:
    """The remote bundles of one call: one for each spec that its clients start from."""

    def __init__(self, crew: Crew) -> None:
        self.crew = crew
        self._by_spec: dict[Any, Remote] = {}
        self._by_start: dict[tuple[int, str], Remote] = {}

    def of(self, start: Tree, what: str) -> Remote:
        """The one for clients that begin at ``start``."""
        if (id(start), what) not in self._by_start:
            spec = trees.spec(start)
            remote = self._by_spec.setdefault((what, *trees.leaves(spec)), Remote(self.crew, spec, what))
            self._by_start[id(start), what] = remote
        return self._by_start[id(start), what]


def deal(sizes: Sequence[int], workers: int) -> list[list[int]]:
    """Which tasks each worker gets: the largest first, each to the one that has fewest rows."""
    dealt: list[list[int]] = [[] for _ in range(min(workers, len(sizes)))]
    rows = [0] * len(dealt)
    for i in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        least = rows.index(min(rows))
        dealt[least].append(i)
        rows[least] += sizes[i] + 1  # a task without rows counts, too
    return [sorted(mine) for mine in dealt]


def plain(tasks: Sequence[Task]) -> list[Task]:
    """The tasks with members of bundles as arrays, which alone can travel; what many start from stays one object."""
    arrays: dict[int, Tree] = {}

    def flat(tree: Tree) -> Tree:
        if id(tree) not in arrays:
            arrays[id(tree)] = trees.map(lambda leaf: leaf, tree) if trees.bundled(tree) else tree
        return arrays[id(tree)]

    return [replace(task, start={name: flat(tree) for name, tree in task.start.items()}) for task in tasks]


def _tried(function: Callable[..., Any], *args: Any) -> Any:
    """What it returns, or the exception that it raises."""
    try:
        return function(*args)
    except Exception as error:
        return error


def _raise(answers: Iterable[Any]) -> None:
    """The first exception among them, but for workers that were lost: others may do their work."""
    for answer in answers:
        if isinstance(answer, Exception) and not isinstance(answer, Lost):
            raise answer
