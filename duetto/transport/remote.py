"""Parties on other machines, as peers: each stays the same one while connections come and go."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, Protocol

import numpy as np

from duetto import tree as trees
from duetto.errors import ConfigError, Error, WireError
from duetto.transport import vocabulary
from duetto.transport.channel import Lost
from duetto.transport.session import Greeting, Question, Said
from duetto.tree import Tree
from duetto.types import GIVEN_UP, Cost, Group, Key, Peer, Reply, Skill

GRACE_SECONDS = 60.0
TIMES = 3  # that a connection may be ended with the same words under one ask
WRITING = 16  # asks at once for skills that write: so many answers are remembered for who asks again


class Asked(Protocol):
    """A connection, or whatever else brings questions to a party: see :class:`duetto.transport.session.Session`."""

    other: Greeting

    async def ask(self, question: Question) -> Said:
        """Ask, and wait for the answer.

        Raises:
            Lost: the connection has ended.
        """


class Remote(Peer):
    """A peer that is reached over sessions, one after the other.

    An ask that a connection is lost under is asked again through the next one: parties answer the same ask once
    (see :mod:`duetto.transport.party`); one under which connections are ended again and again with the same words has
    failed. Without a connection to begin with, a peer is offline.

    Args:
        name: of the peer.
        device: whether this side is the device: what it sends goes up.
        patient: whether an ask without a deadline waits for the first connection, and for ever; else a lost one is
            waited for ``grace`` seconds.
        steady: whether every ask waits for a connection, and for ever: in a rehearsal, where time stands still
            meanwhile, so that nobody is ever missed.
        limit: bytes of an answer.
        traceparent: gives the W3C trace context of what runs now, or "".
    """

    def __init__(
        self,
        name: str,
        *,
        device: bool,
        patient: bool = False,
        steady: bool = False,
        grace: float = GRACE_SECONDS,
        limit: int = trees.LIMIT,
        traceparent: Callable[[], str] = lambda: "",
    ) -> None:
        self.name, self._device, self._patient, self._grace = name, device, patient, grace
        self._steady = steady
        self._limit, self._traceparent = limit, traceparent
        self.told: Mapping[str, Any] = {}
        self._session: Asked | None = None
        self._connected = asyncio.Event()
        self._refused = ""
        self._writing = asyncio.Semaphore(WRITING)
        self.pending = 0

    @property
    def traits(self) -> Mapping[str, Any]:  # type: ignore[override]
        """What it told of itself, and whether it is ``online``."""
        return {**self.told, "online": self.online}

    @property
    def connected(self) -> bool:
        """Whether there is a connection."""
        return self._session is not None

    @property
    def online(self) -> bool:
        """Whether it can be asked: there is a connection, or it is waited for."""
        return self._steady or self.connected

    def attach(self, session: Asked) -> None:
        """Talk through this session from now on."""
        self._session, self.told, self._refused = session, {**session.other.traits}, ""
        self._connected.set()

    def detach(self, session: Asked, ended: Lost) -> None:
        """It has ended; nothing happens where another one has taken its place."""
        if self._session is session:
            self._session = None
            self._connected.clear()
        if ended.final:
            self.refuse(ended.why)

    def refuse(self, why: str) -> None:
        """There will be no connection: whoever waits for one is told."""
        self._refused = why
        self._connected.set()

    async def ask(self, skill: Skill, tree: Tree, *, key: Key, deadline: float | None = None) -> Reply:
        """Ask it; see :class:`Remote` for what happens while there is no connection."""
        loop = asyncio.get_running_loop()
        begin = loop.time()
        try:
            number, description = vocabulary.written(skill)
            vocabulary.key_text(key)
            body = trees.encode(tree)
        except Error as fault:
            return Reply(self.name, failure=f"not sent: {fault}")
        sent = [0]  # bodies that went out
        self.pending += 1
        try:
            async with asyncio.timeout(deadline), self._writing if skill.writes else nullcontext():
                said = await self._said(Question(number, description, key, body), begin, deadline, sent)
        except TimeoutError:
            return Reply(
                self.name, failure=f"no answer within {deadline:g} s", cost=self._cost(begin, sent[0] * len(body))
            )
        except asyncio.CancelledError as cancelled:
            task = asyncio.current_task()
            if cancelled.args != (GIVEN_UP,) or task is None:
                raise
            task.uncancel()
            return Reply(self.name, failure=GIVEN_UP, cost=self._cost(begin, sent[0] * len(body)))
        finally:
            self.pending -= 1
        cost = self._cost(begin, sent[0] * len(body), len(said.body))
        if said.failure:
            return Reply(self.name, failure=said.failure, cost=cost, metrics=said.metrics)
        try:
            answer = trees.decode(said.body, self._limit)
        except WireError as fault:
            return Reply(self.name, failure=f"{self.name} answered with {fault}", cost=cost)
        return Reply(self.name, answer, version=said.version, metrics=said.metrics, cost=cost)

    async def _said(self, question: Question, begin: float, deadline: float | None, sent: list[int]) -> Said:
        loop = asyncio.get_running_loop()
        waits = self._steady or (self._patient and deadline is None)
        ends: Counter[str] = Counter()
        while True:
            session = self._session
            if session is None:
                if not sent[0] and not waits:
                    return Said(failure=self._refused or f"{self.name} is offline")
                if not await self._again(None if waits else self._grace):
                    return Said(failure=self._refused or f"{self.name} was lost, and did not come back")
                continue
            sent[0] += 1
            left = None if deadline is None else begin + deadline - loop.time()
            try:
                return await session.ask(
                    Question(
                        question.number, question.description, question.key, question.body, left, self._traceparent()
                    )
                )
            except Lost as lost:
                self.detach(session, lost)
                ends[lost.why] += lost.told
                if ends[lost.why] >= TIMES:
                    return Said(failure=f"the connection to {self.name} ended {TIMES} times: {lost.why}")

    async def _again(self, grace: float | None) -> bool:
        """Whether there is a connection again."""
        try:
            async with asyncio.timeout(grace):
                await self._connected.wait()
        except TimeoutError:
            return False
        return not self._refused

    def _cost(self, begin: float, there: int, back: int = 0) -> Cost:
        seconds = asyncio.get_running_loop().time() - begin
        up, down = (there, back) if self._device else (back, there)
        return Cost(seconds=seconds, up_bytes=up, down_bytes=down)


class Remotes(Group):
    """Remote peers as a fleet, in their order."""

    def __init__(self, peers: Iterable[Remote] = ()) -> None:
        self._peers = {peer.name: peer for peer in peers}

    @property
    def names(self) -> Sequence[str]:  # type: ignore[override]
        """Of all, online or not."""
        return tuple(self._peers)

    @property
    def traits(self) -> Mapping[str, np.ndarray]:  # type: ignore[override]
        """The traits that all of them tell, as columns; and who is online, where somebody is not."""
        told = [peer.told for peer in self._peers.values()]
        names = sorted(set.intersection(*(set(traits) for traits in told))) if told else []
        found = {name: np.array([traits[name] for traits in told]) for name in names}
        online = np.array([peer.online for peer in self._peers.values()], bool)
        return found if online.all() else {**found, "online": online}

    def __len__(self) -> int:
        return len(self._peers)

    def peer(self, name: str) -> Peer:
        """The peer of that name.

        Raises:
            ConfigError: there is none.
        """
        if name not in self._peers:
            raise ConfigError(f"no device is called {name!r}", "names are in fleet.names")
        return self._peers[name]

    @property
    def pending(self) -> int:
        """Asks that nobody has answered."""
        return sum(peer.pending for peer in self._peers.values())

    @property
    def online(self) -> list[str]:
        """Who is connected."""
        return [name for name, peer in self._peers.items() if peer.connected]
