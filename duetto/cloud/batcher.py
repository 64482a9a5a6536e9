"""Dynamic batching: uses of a skill that wait together run together, in a worker thread.

There is no fixed wait. While a batch runs, others queue, and the next batch takes what has queued: batches grow with
the load by themselves (as in Clipper, Crankshaw et al. 2017, and Triton). What cannot be answered in time is refused
at the door, before it costs anything (admission by predicted delay, as in DAGOR, Zhou et al. 2018): of those that
are let in nearly all meet their deadline, however many ask.

Uses of equal skills share a lane, first come first served; lanes with something to do take turns at the threads. A
lane runs one batch at a time, so a skill is never in two threads at once. Uses that write have one lane and one
thread of their own: they run in order, one after the other, beside the readers, who see the memory that they found
when they began.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Self, TypeAlias

import numpy as np

from duetto import tree as trees
from duetto.cloud.pace import Pace
from duetto.errors import ConfigError, Error
from duetto.tree import Tree
from duetto.types import Key, Local, Skill

_LOG = logging.getLogger(__name__)
_PACES = 256  # skills whose speed is remembered
_ERRORS = 3.0  # mean errors of its prediction that a promise has room for; of several batches they average
_UNKNOWN = 1.0  # seconds to come back in, where no speed is known
_WRITERS = "writers"  # the mark of their lane

_Outcome: TypeAlias = "tuple[Local, Tree] | Error"
_Computed: TypeAlias = "tuple[list[_Outcome], int, float]"  # in order, in how many calls, in how many seconds


class Overloaded(Error):
    """There is more to do than can be done in time.

    Attributes:
        retry_after: seconds after which it is worth asking again.
    """

    def __init__(self, fault: str, retry_after: float) -> None:
        super().__init__(fault, f"ask again in {retry_after:.2g} s")
        self.retry_after = retry_after


def leading(tree: Tree) -> int:
    """Rows of a message: the longest leading axis of its leaves; leaves of one axis (texts, bytes) are one row."""
    return max([1, *(int(np.shape(leaf)[0]) for _, leaf in trees.leaves(tree) if np.ndim(leaf) > 1)])


@dataclass(eq=False)
class _Use:
    """One use of a skill, and who waits for it; times are those of the loop."""

    skill: Skill
    local: Local
    tree: Tree
    key: Key
    sender: str
    mark: Any
    rows: int
    asked: float
    end: float
    answer: asyncio.Future[tuple[Tree, int]]


@dataclass(eq=False)
class _Lane:
    """Uses that may run together, those that wait and those that are being computed.

    Attributes:
        rows: of those that wait.
        began: the loop's time at which those that run began.
        done: when they should be done.
        dropped: of those that waited, since a batch was done.
        lined: whether it stands in the line for a thread.
        timer: of an idle lane that lingers.
    """

    mark: Any
    waiting: dict[_Use, None] = field(default_factory=dict)
    rows: int = 0
    running: Sequence[_Use] = ()
    work: asyncio.Future[_Computed] | None = None
    began: float = 0.0
    done: float = 0.0
    dropped: int = 0
    lined: bool = False
    timer: asyncio.TimerHandle | None = None

    def add(self, use: _Use) -> None:
        self.waiting[use] = None
        self.rows += use.rows

    def drop(self, use: _Use) -> None:
        del self.waiting[use]
        self.rows -= use.rows


class Batcher:
    """Runs uses of skills for a server, those that can together. Start it with ``async with``.

    A party's cell is its :class:`~duetto.types.Local`: readers get what it remembers when they begin, and what a
    writer leaves replaces ``local.memory``. Nobody else may change the memory meanwhile.

    Args:
        max_rows: the most rows of a batch; a use that has more runs alone.
        max_waiting: the most uses that wait; further ones are refused.
        linger_seconds: how long an idle lane waits for company.
        threads: for readers; one is right where the model itself uses all cores, more where skills wait for others.
        rows: estimates the rows of a message.

    Raises:
        ConfigError: a number out of range.
    """

    def __init__(
        self,
        *,
        max_rows: int = 64,
        max_waiting: int = 1024,
        linger_seconds: float = 0.0,
        threads: int = 1,
        rows: Callable[[Tree], int] = leading,
    ) -> None:
        if min(max_rows, max_waiting, threads) < 1 or not 0 <= linger_seconds < math.inf:
            raise ConfigError(
                f"max_rows {max_rows}, max_waiting {max_waiting}, threads {threads}, linger_seconds {linger_seconds}",
                "use whole numbers from 1, and seconds from 0",
            )
        self._max_rows, self._max_waiting, self._linger, self._threads = max_rows, max_waiting, linger_seconds, threads
        self._estimate = rows
        self._lanes: dict[Any, _Lane] = {}
        self._line: deque[_Lane] = deque()
        self._paces: OrderedDict[Any, Pace] = OrderedDict()
        self._pool: ThreadPoolExecutor | None = None
        self._writer: ThreadPoolExecutor | None = None
        self._open = self._called = False
        self._idle = asyncio.Event()
        self._waiting = self._running = self._busy = 0
        self._counts = dict.fromkeys(
            ("asked", "answered", "failed", "shed", "dropped", "late", "cancelled", "batches", "calls", "rows"), 0
        )
        self._seconds = {"busy_seconds": 0.0, "waited_seconds": 0.0}
        self._sizes: dict[int, int] = {}

    async def __aenter__(self) -> Self:
        """Start."""
        self.start()
        return self

    async def __aexit__(self, *fault: object) -> None:
        """Stop, once everything that waits is done."""
        await self.stop()

    def start(self) -> None:
        """Take uses from now on, in the running loop.

        Raises:
            ConfigError: it has been started.
        """
        if self._pool is not None:
            raise ConfigError("a batcher that is started twice", "make one for each service")
        self._pool = ThreadPoolExecutor(self._threads, "duetto-batch")
        self._writer = ThreadPoolExecutor(1, "duetto-write")
        self._open = True
        self._idle.set()

    async def stop(self, within: float | None = None) -> None:
        """Take nothing new, finish what waits, and stop.

        Args:
            within: seconds; whatever is not done by then fails. What is being computed cannot be interrupted: its
                result is thrown away.
        """
        self._open = False
        for lane in list(self._lanes.values()):
            self._queue(lane)
        try:
            await asyncio.wait_for(self._idle.wait(), within)
        except TimeoutError:
            for lane in list(self._lanes.values()):
                for use in (*lane.running, *lane.waiting):
                    self._settle(use, "dropped", Error("not answered: the server has stopped", "ask again"))
                for use in list(lane.waiting):
                    self._leave(lane, use)
                if lane.work is not None:
                    lane.work.cancel()
        for pool in (self._pool, self._writer):
            if pool is not None:
                pool.shutdown(wait=self._idle.is_set(), cancel_futures=True)

    async def use(
        self, skill: Skill, local: Local, tree: Tree, key: Key, sender: str, *, deadline: float | None = None
    ) -> tuple[Tree, int]:
        """Use a skill at a party, perhaps together with others.

        Cancelled while it waits, it is not computed; cancelled while it is computed, only its result is lost, and
        what it writes is written.

        Args:
            skill: what to do.
            local: the party's cell.
            tree: the message.
            key: of this use.
            sender: who asks.
            deadline: seconds from now; None waits as long as it takes.

        Returns:
            The answer, and the version of the model that the party held when it was computed.

        Raises:
            Overloaded: too many wait, the deadline cannot be met, or was not.
            Error: the skill refused, or failed.
        """
        loop = asyncio.get_running_loop()
        now, rows = loop.time(), self._estimate(tree)
        end = math.inf if deadline is None else now + deadline
        mark = _WRITERS if skill.writes else _mark(skill)
        use = _Use(skill, local, tree, key, sender, mark, rows, now, end, loop.create_future())
        self._counts["asked"] += 1
        lane = self._admitted(use)
        lane.add(use)
        self._waiting += 1
        self._idle.clear()
        self._awaken(lane)
        try:
            async with asyncio.timeout_at(None if math.isinf(end) else end):
                return await use.answer
        except TimeoutError:
            if not use.answer.cancelled():  # both at once
                return use.answer.result()
            self._counts["dropped" if use in lane.waiting else "late"] += 1
            lane.dropped += use in lane.waiting
            raise Overloaded(f"{skill.name} is not done in {deadline:.3g} s", self._backlog(lane) or _UNKNOWN) from None
        except asyncio.CancelledError:
            if use.answer.cancelled():
                self._counts["cancelled"] += 1
            else:
                use.answer.exception()  # nobody else will look at it
            raise
        finally:
            if use in lane.waiting:
                self._leave(lane, use)

    def counters(self) -> Mapping[str, float]:
        """What has happened so far, as numbers.

        ``asked`` = ``answered`` + ``failed`` (refused by the skill) + ``shed`` (refused at the door) + ``dropped``
        (from the queue: its time was over, or would have been) + ``late`` (being computed when its time was over) +
        ``cancelled`` + those still ``waiting`` and ``running`` for somebody. ``batches``, their ``calls`` of skills (a
        batch may hold several groups), ``rows`` and ``busy_seconds``; ``waited_seconds`` in the queue, of all that
        were begun; ``batch_rows_le_N``: batches of at most N rows and more than N/2.
        """
        sizes = {f"batch_rows_le_{size}": count for size, count in sorted(self._sizes.items())}
        running = sum(not use.answer.done() for lane in self._lanes.values() for use in lane.running)
        return {"waiting": self._waiting, "running": running, **self._counts, **self._seconds, **sizes}

    # ------------------------------------------------------------------------------------------------- at the door

    def _admitted(self, use: _Use) -> _Lane:
        """The lane that a use may join."""
        lane = self._lanes.get(use.mark) or _Lane(use.mark)
        if not self._open:
            raise self._shed("the server does not take questions now", lane)
        if self._waiting >= self._max_waiting:
            raise self._shed(f"{self._waiting} uses are waiting", lane)
        if use.end <= use.asked:
            raise self._shed("no time is left", lane)
        wait = self._backlog(lane)
        if lane.waiting or lane.running:
            # An idle lane takes whatever comes: a skill that was slow once would else never be measured again.
            pace, batches = self._pace(use), 2 + lane.rows // self._max_rows
            alone = pace.expected(use.rows)
            if use.mark != _WRITERS and lane.rows + use.rows <= self._max_rows:  # it joins those that wait
                alone = min(alone, pace.expected(lane.rows + use.rows) - self._queued(lane))
            wait = pace.stretch * (wait + alone + _ERRORS * pace.error * math.sqrt(batches))
        if use.asked + wait > use.end:
            raise self._shed(f"{use.skill.name} takes {wait:.2g} s now, too long for its deadline", lane)
        self._lanes[use.mark] = lane
        return lane

    def _shed(self, fault: str, lane: _Lane) -> Overloaded:
        self._counts["shed"] += 1
        return Overloaded(fault, self._backlog(lane) or _UNKNOWN)

    def _backlog(self, lane: _Lane) -> float:
        """Seconds until a lane is done with what it has, and until its turn at the threads has come."""
        now = asyncio.get_running_loop().time()
        own = self._queued(lane) + _left(lane, now)
        if lane.mark == _WRITERS:
            return own
        readers = [each for each in self._lanes.values() if each.mark != _WRITERS]
        if len(readers) <= self._threads:
            return own
        begun = sum(_left(each, now) for each in readers)
        return max(own, (begun + sum(self._queued(each) for each in readers)) / self._threads)

    def _queued(self, lane: _Lane) -> float:
        """Seconds that those who wait in a lane will take."""
        if not lane.waiting:
            return 0.0
        if lane.mark == _WRITERS:
            return sum(self._pace(use).expected(use.rows) for use in lane.waiting)
        pace = self._pace(next(iter(lane.waiting)))
        full, rest = divmod(lane.rows, self._max_rows)
        return full * pace.expected(self._max_rows) + (pace.expected(rest) if rest else 0.0)

    def _pace(self, use: _Use) -> Pace:
        return self._paces.get(_mark(use.skill) if use.mark == _WRITERS else use.mark) or Pace()

    # --------------------------------------------------------------------------------------------------- the lanes

    def _awaken(self, lane: _Lane) -> None:
        """Somebody has joined a lane; it begins now if it can, or when it has lingered."""
        if lane.running or lane.lined:
            return
        if self._linger and lane.rows < self._max_rows and lane.mark != _WRITERS:
            lane.timer = lane.timer or asyncio.get_running_loop().call_later(self._linger, self._queue, lane)
        else:
            self._queue(lane)

    def _queue(self, lane: _Lane) -> None:
        """Put a lane in the line for the threads."""
        if lane.timer is not None:
            lane.timer.cancel()
            lane.timer = None
        if lane.waiting and not lane.running and not lane.lined:
            lane.lined = True
            self._line.append(lane)
            self._soon()

    def _soon(self) -> None:
        """Dispatch once this turn of the loop is over: those who ask in it go together."""
        if self._line and not self._called:
            self._called = True
            asyncio.get_running_loop().call_soon(self._dispatch)

    def _dispatch(self) -> None:
        """Begin what can begin."""
        self._called = False
        held = []
        while self._line:
            lane = self._line.popleft()
            writes = lane.mark == _WRITERS
            if not writes and self._busy >= self._threads:
                held.append(lane)
                continue
            lane.lined = False
            taken = self._taken(lane)
            if taken:
                self._begin(lane, taken, writes)
            self._forget(lane)
        self._line.extend(held)

    def _taken(self, lane: _Lane) -> list[_Use]:
        """The next batch, in order of arrival; those that can no longer be answered in time are dropped.

        While a batch holds all that wait, it is as large as the deadlines of those in it allow. Where more wait, a
        batch made small for the sake of the oldest would make all behind them late: then it is of the size that
        answers the most rows a second in time, and who would have needed a smaller one is dropped (the early drop of
        Nexus, Shen et al. 2019).
        """
        now = asyncio.get_running_loop().time()
        pace = self._pace(next(iter(lane.waiting))) if lane.waiting else Pace()
        taken: list[_Use] = []
        hopeless: list[_Use] = []
        if lane.mark != _WRITERS and lane.rows > self._max_rows:
            taken, hopeless = _window(lane, pace, now, most := self._max_rows)
            best = _rate(taken, pace, most)
            while hopeless and most > 1:
                most //= 2
                smaller = _window(lane, pace, now, most)
                if (rate := _rate(smaller[0], pace, most)) >= best:
                    best, (taken, hopeless) = rate, smaller
        else:
            rows, end = 0, math.inf
            for use in lane.waiting:
                pace = self._pace(use) if lane.mark == _WRITERS else pace
                if now + pace.expected(use.rows) > use.end:
                    hopeless.append(use)
                    continue
                total, first = rows + use.rows, min(end, use.end)
                if taken and (lane.mark == _WRITERS or now + pace.expected(total) > first):
                    break
                taken.append(use)
                rows, end = total, first
        if not taken and hopeless:
            # Nobody can be in time, as far as is known: the one with the most time finds out whether that is so.
            last = max(hopeless, key=lambda use: use.end)
            if last.end > now:
                hopeless.remove(last)
                taken = [last]
        lane.dropped += len(hopeless)
        for use in hopeless:
            self._leave(lane, use)
            late = Overloaded(f"{use.skill.name} cannot be done in time", self._backlog(lane) or _UNKNOWN)
            self._settle(use, "dropped", late)
        return taken

    def _begin(self, lane: _Lane, taken: list[_Use], writes: bool) -> None:
        loop = asyncio.get_running_loop()
        now, rows = loop.time(), sum(use.rows for use in taken)
        lane.running, lane.began, lane.done = taken, now, now + self._pace(taken[0]).expected(rows)
        self._running += len(taken)
        self._busy += not writes
        for use in taken:
            self._leave(lane, use)
            self._seconds["waited_seconds"] += now - use.asked
        seen = [Local(use.local.data, use.local.memory) for use in taken]
        lane.work = loop.run_in_executor(self._writer if writes else self._pool, _computed, taken, seen)
        lane.work.add_done_callback(lambda work: self._finish(lane, taken, seen, work))

    def _finish(self, lane: _Lane, taken: list[_Use], seen: list[Local], work: asyncio.Future[_Computed]) -> None:
        """Tell those who asked, and let the lane go on with those who have queued meanwhile."""
        writes, rows = lane.mark == _WRITERS, sum(use.rows for use in taken)
        lane.running, lane.work = (), None
        self._running -= len(taken)
        self._busy -= not writes
        outcomes: list[_Outcome] = []
        if not work.cancelled() and work.exception() is None:
            outcomes, calls, seconds = work.result()
            self._count(rows, calls, seconds)
            if not any(isinstance(outcome, Error) for outcome in outcomes):  # a refusal is quick, its search is slow
                mark = _mark(taken[0].skill)
                now = asyncio.get_running_loop().time()
                pace = self._pace(taken[0]).measured(rows, now - lane.began)  # with the ways to the thread and back
                promises = lane.dropped + sum(use.end < math.inf for use in taken)
                if promises:
                    pace = pace.kept(lane.dropped + sum(use.end < now for use in taken), promises)
                lane.dropped = 0
                self._paces[mark] = pace
                self._paces.move_to_end(mark)
                if len(self._paces) > _PACES:
                    self._paces.popitem(last=False)
        elif not work.cancelled():
            outcomes = [_failure(use.skill, work.exception()) for use in taken]
        for use, was, outcome in zip(taken, seen, outcomes, strict=bool(outcomes)):
            if isinstance(outcome, Error):
                self._settle(use, "failed", outcome)
                continue
            if writes:
                use.local.memory = outcome[0].memory
            self._settle(use, "answered", (outcome[1], int(was.memory.get("version", 0))))
        self._queue(lane)
        self._forget(lane)
        if lane.rows >= self._max_rows:  # it is full: the thread need not wait until those who are told have gone on
            self._dispatch()
        else:
            self._soon()

    def _count(self, rows: int, calls: int, seconds: float) -> None:
        self._counts["batches"] += 1
        self._counts["calls"] += calls
        self._counts["rows"] += rows
        self._seconds["busy_seconds"] += seconds
        size = 1 << (rows - 1).bit_length()
        self._sizes[size] = self._sizes.get(size, 0) + 1

    def _leave(self, lane: _Lane, use: _Use) -> None:
        """A use waits no longer."""
        lane.drop(use)
        self._waiting -= 1
        self._forget(lane)

    def _forget(self, lane: _Lane) -> None:
        """A lane without uses is gone."""
        if not lane.waiting and not lane.running and not lane.lined:
            self._lanes.pop(lane.mark, None)
            if lane.timer is not None:
                lane.timer.cancel()
                lane.timer = None
        if not self._waiting and not self._running:
            self._idle.set()

    def _settle(self, use: _Use, count: str, outcome: tuple[Tree, int] | Error) -> None:
        """Tell who waits, if somebody still does."""
        if use.answer.done():
            return
        self._counts[count] += 1
        if isinstance(outcome, Error):
            use.answer.set_exception(outcome)
        else:
            use.answer.set_result(outcome)


def _window(lane: _Lane, pace: Pace, now: float, most: int) -> tuple[list[_Use], list[_Use]]:
    """The first uses that a batch of ``most`` rows holds and answers in time, and those among them that it does not."""
    taken: list[_Use] = []
    hopeless: list[_Use] = []
    rows = 0
    for use in lane.waiting:
        if now + pace.expected(max(most, use.rows)) > use.end:
            hopeless.append(use)
        elif taken and rows + use.rows > most:
            break
        else:
            taken.append(use)
            rows += use.rows
    return taken, hopeless


def _left(lane: _Lane, now: float) -> float:
    """Seconds until what runs is done; what is overdue is taken to need as long again."""
    return abs(lane.done - now) if lane.running else 0.0


def _rate(taken: Sequence[_Use], pace: Pace, most: int) -> float:
    """Rows a second, if these run as a batch of ``most`` rows would."""
    return sum(use.rows for use in taken) / max(pace.expected(most), 1e-9)


def _mark(skill: Skill) -> Any:
    """Equal skills have equal marks; one that cannot be hashed is only equal to itself."""
    try:
        hash(skill)
    except TypeError:
        return id(skill)
    return skill


# ---------------------------------------------------------------------------------------------- in the worker thread


def _computed(uses: Sequence[_Use], seen: Sequence[Local]) -> _Computed:
    """The outcomes in order, how many calls they took, and how many seconds."""
    begun = time.perf_counter()
    groups: dict[Any, list[int]] = {}
    for i, (use, local) in enumerate(zip(uses, seen, strict=True)):
        try:
            mark = use.skill.group(local, use.tree)
            hash(mark)
        except Exception:
            mark = None  # run alone, it says what is wrong
        groups.setdefault(("alone", i) if mark is None else ("group", mark), []).append(i)
    outcomes: dict[int, _Outcome] = {}
    calls = 0
    for places in groups.values():
        together, took = _together([uses[i] for i in places], [seen[i] for i in places])
        outcomes.update(zip(places, together, strict=True))
        calls += took
    return [outcomes[i] for i in range(len(uses))], calls, time.perf_counter() - begun


def _together(uses: list[_Use], seen: list[Local]) -> tuple[list[_Outcome], int]:
    """Outcomes of uses of one skill in one call, and how many calls it took.

    Where a call fails, each half is tried, until it is known whose fault it is: one bad use among n costs the others
    2 log2 n calls and no more rows than again their own.
    """
    skill = uses[0].skill
    try:
        found = list(
            skill.many(seen, [use.tree for use in uses], [use.key for use in uses], [use.sender for use in uses])
        )
        if len(found) != len(uses):
            raise TypeError(f"{skill.name} gave {len(found)} results for {len(uses)} uses")
    except Exception as fault:
        if len(uses) == 1:
            return [fault if isinstance(fault, Error) else _failure(skill, fault)], 1
        half = len(uses) // 2
        left, right = _together(uses[:half], seen[:half]), _together(uses[half:], seen[half:])
        return left[0] + right[0], 1 + left[1] + right[1]
    wrong = TypeError(f"{skill.name} gave a result that is none")
    return [one if _fits(one) else _failure(skill, wrong) for one in found], 1


def _fits(one: Any) -> bool:
    return isinstance(one, Error) or (isinstance(one, tuple) and len(one) == 2 and isinstance(one[0], Local))


def _failure(skill: Skill, fault: BaseException | None) -> Error:
    """What the asker is told of a fault that is not its own; the server's log has the rest."""
    _LOG.error("%s failed", skill.name, exc_info=fault)
    return Error(f"{skill.name} failed ({type(fault).__name__})", "the server's log says why")
