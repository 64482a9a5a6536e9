"""A circuit breaker: a cloud that fails again and again is left alone for a while, so that a device does not wait.

Nygard 2007, "Release It!", chapter 5. *Closed*, it lets everything through. After some failures in a row it *opens*,
and nothing is asked for a time. Then it is *half-open*: one question goes through as a trial; heard, the breaker
closes, else it opens again for about twice as long. Devices draw their times by their own keys, so that a fleet does
not come back at once.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Awaitable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

from duetto.errors import ConfigError
from duetto.transport.backoff import back_off
from duetto.tree import Tree
from duetto.types import GIVEN_UP, LATE, Key, Peer, Reply, Skill

T = TypeVar("T")
_LOG = logging.getLogger(__name__)
_SLACK = 0.025  # seconds beyond the deadline, so that a peer which keeps it tells itself what the wait has cost


@dataclass(frozen=True)
class State:
    """What a breaker remembers; times are seconds on the asker's clock.

    Attributes:
        failed: when the last failures in a row came, while closed.
        failures: how many there were since it was last heard.
        opened: how often it has opened since; 0 is closed.
        until: when it is half-open.
        trial: whether a trial is under way.
    """

    failed: tuple[float, ...] = ()
    failures: int = 0
    opened: int = 0
    until: float = -math.inf
    trial: bool = False

    def phase(self, now: float) -> Literal["closed", "open", "half-open"]:
        """Which of the three it is now."""
        if not self.opened:
            return "closed"
        return "open" if now < self.until else "half-open"


@dataclass(frozen=True)
class Breaker:
    """When to leave a peer alone; pure, the state first in and first out.

    Args:
        failures: so many in a row, without an answer between them, open it ...
        window: ... where they fall within so many seconds.
        seconds: about how long it is first open: from half of this to all of it.
        most: what that grows to, doubling with every trial that fails.

    Raises:
        ConfigError: no failures, or times that are not above 0, or a bound below the first.
    """

    failures: int = 3
    window: float = 60.0
    seconds: float = 5.0
    most: float = 300.0

    def __post_init__(self) -> None:
        if self.failures < 1 or not self.window > 0 or not 0 < self.seconds <= self.most < math.inf:
            raise ConfigError(
                f"a breaker of {self.failures} failures in {self.window} s, open {self.seconds} to {self.most} s",
                "use at least one failure, a window above 0, and 0 < seconds <= most",
            )

    def init(self) -> State:
        """Closed."""
        return State()

    def ask(self, state: State, now: float) -> tuple[State, str | None]:
        """Whether to ask now: None, or in one line why not. In the state after it ``trial`` may be set."""
        phase, count = state.phase(now), f"{state.failures} failure{'s' * (state.failures != 1)}"
        if phase == "closed":
            return state, None
        if phase == "open":
            return state, f"{count}, again in {state.until - now:.2g} s"
        if state.trial:
            return state, f"{count}, a trial is under way"
        return replace(state, trial=True), None

    def heard(self, state: State, now: float) -> State:
        """The peer has answered, whichever question it was."""
        return State()

    def failed(self, state: State, now: float, key: Key, asked: State, least: float = 0.0) -> State:
        """The peer has not answered.

        Args:
            state: before.
            now: the time.
            key: who asks.
            asked: the state after :meth:`ask`, which tells whether this was the trial. A question from before it
                opened changes nothing any more.
            least: seconds that it is then open at least, where the peer said when to come back.
        """
        failures = state.failures + 1
        if not state.opened:
            recent = tuple(then for then in (*state.failed, now) if now - then <= self.window)[-self.failures :]
            if len(recent) < self.failures and not least:
                return replace(state, failed=recent, failures=failures)
            return self._open(state, now, key, failures, least)
        if _is_trial(asked, state):
            return self._open(state, now, key, failures, least)
        return replace(state, failures=failures)

    def unknown(self, state: State, asked: State) -> State:
        """Nobody waited for the answer; where it was the trial, another question may be."""
        return replace(state, trial=False) if _is_trial(asked, state) else state

    def _open(self, state: State, now: float, key: Key, failures: int, least: float) -> State:
        half, most = self.seconds / 2, self.most / 2
        bound = most if state.opened > math.log2(most / half) else min(most, half * 2.0**state.opened)
        wait = bound + back_off(state.opened, (*key, "breaker"), half, most)
        return State((), failures, state.opened + 1, now + max(wait, least), False)


def _is_trial(asked: State, state: State) -> bool:
    """Whether the question that left the state ``asked`` is the trial under way."""
    return asked.trial and state.trial and asked.until == state.until


class Guarded(Peer):
    """A peer that is asked through a breaker, and always with a deadline.

    While the breaker is open, it answers at once with the failure ``NAME is not asked: N failures, again in S s``. A
    peer that refuses has been heard, so bytes that came back (``cost.down_bytes``) close the breaker, failure or not;
    only where the failure's metrics hold ``retry_after``, it opens for that many seconds. A question that was given up
    says nothing.

    Args:
        peer: who is asked.
        breaker: when not to.
        deadline: seconds, where the asker gives none.
        key: of the device, which spreads the trials of a fleet.

    Raises:
        ConfigError: a deadline that is none.
    """

    def __init__(self, peer: Peer, breaker: Breaker = Breaker(), *, deadline: float, key: Key) -> None:
        if not 0 < deadline < math.inf:
            raise ConfigError(f"a deadline of {deadline} s", "use a number above 0")
        self.peer, self.breaker, self.deadline, self.key = peer, breaker, deadline, key
        self.state = breaker.init()

    @property
    def name(self) -> str:  # type: ignore[override]
        """The peer's."""
        return self.peer.name

    @property
    def traits(self) -> Mapping[str, Any]:  # type: ignore[override]
        """The peer's; ``online`` is false while it is left alone."""
        phase = self.state.phase(asyncio.get_running_loop().time())
        return {**self.peer.traits, **({"online": False} if phase == "open" else {})}

    async def ask(self, skill: Skill, tree: Tree, *, key: Key, deadline: float | None = None) -> Reply:
        """Ask, if that is worth it; see the class."""
        if why := self._refusal():
            return why
        seconds, end = self._deadline(deadline)
        asked = self.state
        try:
            return self._learned(
                asked, await self._in_time(self.peer.ask(skill, tree, key=key, deadline=seconds), end, seconds)
            )
        finally:
            self.state = self.breaker.unknown(self.state, asked)

    async def stream(
        self, skill: Skill, tree: Tree, *, key: Key, deadline: float | None = None
    ) -> AsyncIterator[Reply]:
        """As :meth:`ask`, in parts; the deadline is that of the last one."""
        seconds, end = self._deadline(deadline)
        if why := self._refusal():
            yield why
            return
        asked = self.state
        try:
            coming = self.peer.stream(skill, tree, key=key, deadline=seconds)
            while reply := await self._in_time(anext(coming, None), end, seconds):
                yield self._learned(asked, reply)
                if reply.failure is not None:
                    break
        finally:
            self.state = self.breaker.unknown(self.state, asked)

    def _deadline(self, deadline: float | None) -> tuple[float, float]:
        """Seconds, and when they are over."""
        seconds = self.deadline if deadline is None or not math.isfinite(deadline) else deadline
        return seconds, asyncio.get_running_loop().time() + seconds + _SLACK

    def _refusal(self) -> Reply | None:
        if not self.peer.traits.get("online", True):  # nothing was tried, so nothing has failed
            return Reply(self.name, failure=f"{self.name} is offline")
        self.state, why = self.breaker.ask(self.state, asyncio.get_running_loop().time())
        return None if why is None else Reply(self.name, failure=f"{self.name} is not asked: {why}")

    async def _in_time(self, coming: Awaitable[T], end: float, seconds: float) -> T | Reply:
        """What comes, or a failure: a peer always answers, even one that is wrong."""
        try:
            async with asyncio.timeout_at(end):
                return await coming
        except TimeoutError:
            return Reply(self.name, failure=f"{self.name} did not keep its deadline of {seconds:.3g} s")
        except Exception as fault:
            _LOG.error("asking %s failed", self.name, exc_info=fault)
            return Reply(self.name, failure=f"{self.name} could not be asked ({type(fault).__name__})")

    def _learned(self, asked: State, reply: Reply) -> Reply:
        now, wait = asyncio.get_running_loop().time(), reply.metrics.get("retry_after", 0.0)
        if reply.failure is None or (reply.cost.down_bytes and not wait > 0):
            self.state = self.breaker.heard(self.state, now)
        elif reply.failure not in (GIVEN_UP, LATE):
            least = min(wait, self.breaker.most) if wait > 0 else 0.0
            self.state = self.breaker.failed(self.state, now, self.key, asked, least)
        return reply
