"""A party that really runs: its cell, what it can be asked, and its roles."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Protocol

import numpy as np

from duetto import tree as trees
from duetto.errors import ConfigError, Error
from duetto.transport import vocabulary
from duetto.transport.session import Question, Said
from duetto.tree import Tree
from duetto.types import GIVEN_UP, Cost, Key, Local, Party, Peer, Record, Reply, Skill, playing

LIGHT_FLOPS = 2e7  # what takes about a millisecond is done at once: handing it to a thread costs a tenth of that
REMEMBERED = 16  # answers of skills that write, for each who asks: kept for who asks again


class Keep(Protocol):
    """Where a party's memory outlives its process."""

    def load(self) -> tuple[Mapping[str, Any], Mapping[str, Tree]] | None:
        """What was kept: the memory, and the answers of skills that write; None where nothing was."""

    def save(self, memory: Mapping[str, Any], answered: Mapping[str, Tree]) -> None:
        """Keep them, both or neither."""


class Uses(Protocol):
    """What runs skills that do not write, where many ask at once (a batcher)."""

    async def use(
        self, skill: Skill, local: Local, tree: Tree, key: Key, sender: str, *, deadline: float | None = None
    ) -> tuple[Tree, int]:
        """One use: the answer, and the version that it read."""


class Running:
    """A party, running.

    A skill that writes is used by one at a time, and what it wrote is kept before it is answered; who asks for it
    again, because a connection was lost, gets the same answer and changes nothing. Only what a skill has changed is
    written: a role may have set other slots meanwhile.

    Args:
        party: its roles and skills.
        name: what it is called.
        local: its cell; None is the party's own.
        keep: where its memory outlives the process; what was kept there is taken up.
        uses: what runs skills that do not write; None runs them here, one after the other.
    """

    def __init__(
        self, party: Party, name: str, *, local: Local | None = None, keep: Keep | None = None, uses: Uses | None = None
    ) -> None:
        self.party, self.name, self._keep, self._uses = party, name, keep, uses
        given = party.local if local is None else local
        kept = None if keep is None else keep.load()
        self.local = Local(given.data, {**given.memory, **(kept[0] if kept else {})})
        self._answered: Mapping[str, Mapping[str, Tree]] = kept[1] if kept else {}  # by who asked, and its mark
        self._resumed = dict(self._answered.get(name, {}))  # what its own roles had done when the process ended
        self._own = vocabulary.classes(party.skills)
        self._read: dict[int, Skill] = {}
        self._going: dict[str, asyncio.Task[Said]] = {}  # asks for skills that write, by their marks
        self._writing = asyncio.Lock()
        self._thread: ThreadPoolExecutor | None = None
        self.busy = 0
        self.me: Peer = _Own(self)

    # ---------------------------------------------------------------------------------------------- being asked

    async def answer(self, sender: str, question: Question) -> Said:
        """Answer what another party asks.

        Raises:
            WireError: the body is no tree, or the description describes no skill.
        """
        self.busy += 1
        try:
            try:
                skill = self._skill(question)
            except ConfigError as fault:
                return Said(failure=f"{self.name} does not know that skill ({fault})")
            if not self.party.offers(skill):
                return Said(failure=f"{self.name} does not offer {skill.name}")
            if not skill.writes:
                return await self._answer(skill, sender, question)
            mark = _mark(sender, question)
            going = self._going.get(mark)
            if going is None:
                self.busy += 1
                going = self._going[mark] = asyncio.ensure_future(self._answer(skill, sender, question, mark))
                going.add_done_callback(lambda done: self._done(mark))
            return await asyncio.shield(going)  # it is done, whoever has gone
        finally:
            self.busy -= 1

    def _done(self, mark: str) -> None:
        self.busy -= 1
        del self._going[mark]

    async def _answer(self, skill: Skill, sender: str, question: Question, mark: str = "") -> Said:
        before = self._answered.get(sender, {}).get(mark)
        if before is not None:
            return Said(before["answer"].tobytes(), int(before["version"]))
        tree = trees.decode(question.body)
        try:
            answer, version, seconds = await self.use(
                skill, tree, question.key, sender, deadline=question.seconds, mark=mark
            )
            return Said(trees.encode(answer), version, metrics={"compute_seconds": seconds})
        except Error as fault:
            retry = getattr(fault, "retry_after", None)
            return Said(failure=str(fault), metrics={} if retry is None else {"retry_after": retry})

    def _skill(self, question: Question) -> Skill:
        if question.number not in self._read:
            if len(self._read) > 1024:
                self._read.clear()
            self._read[question.number] = vocabulary.read(question.description, self._own)
        return self._read[question.number]

    # --------------------------------------------------------------------------------------------------- using

    async def use(
        self, skill: Skill, tree: Tree, key: Key, sender: str, *, deadline: float | None = None, mark: str = ""
    ) -> tuple[Tree, int, float]:
        """Use a skill here: the answer, the version of the parameters that it read, seconds of computing.

        Raises:
            Error: the skill refuses.
        """
        loop = asyncio.get_running_loop()
        if skill.writes:
            async with self._writing:
                return await self._write(skill, tree, key, sender, mark)
        seen, begin = Local(self.local.data, self.local.memory), loop.time()
        version = int(seen.memory.get("version", 0))
        if self._uses is not None:
            answer, version = await self._uses.use(skill, seen, tree, key, sender, deadline=deadline)
        elif skill.work(seen, tree).flops <= LIGHT_FLOPS:
            answer = skill(seen, tree, key, sender)[1]
        else:
            answer = (await self._threaded(skill, seen, tree, key, sender))[1]
        return answer, version, loop.time() - begin

    async def use_own(
        self, skill: Skill, tree: Tree, key: Key, *, deadline: float | None = None
    ) -> tuple[Tree, int, float]:
        """Use a skill for a role of this party. What a process that was killed had already written is not written
        again: the role that is resumed gets the answer of then.

        Raises:
            Error: the skill refuses.
        """
        mark = ""
        if skill.writes and self._keep is not None:
            with suppress(Error):  # a skill that cannot be written down is used again
                number, description = vocabulary.written(skill)
                mark = _mark(self.name, Question(number, description, key, trees.encode(tree)))
        before = self._resumed.pop(mark, None)
        if before is None:
            return await self.use(skill, tree, key, self.name, deadline=deadline, mark=mark)
        body = before["answer"].tobytes()
        return trees.decode(body, len(body)), int(before["version"]), 0.0

    async def _write(self, skill: Skill, tree: Tree, key: Key, sender: str, mark: str) -> tuple[Tree, int, float]:
        before, begin = self.local.memory, asyncio.get_running_loop().time()
        version = int(before.get("version", 0))
        after, answer = await self._threaded(skill, Local(self.local.data, before), tree, key, sender)
        seconds = asyncio.get_running_loop().time() - begin
        written = {name: value for name, value in after.memory.items() if before.get(name, self) is not value}
        gone = before.keys() - after.memory.keys()
        kept = {name: value for name, value in self.local.memory.items() if name not in gone}
        memory = {**kept, **written}
        answered = self._answered if not mark else self._remembering(sender, mark, trees.encode(answer), version)
        if self._keep is not None:
            self._keep.save(memory, answered)
        self.local.memory, self._answered = memory, answered
        return answer, version, seconds

    def _remembering(self, sender: str, mark: str, body: bytes, version: int) -> Mapping[str, Mapping[str, Tree]]:
        """All answers with this one; each has a number, for a file keeps no order."""
        own = self._answered.get(sender, {})
        numbers = sorted(int(each["number"]) for each in own.values())
        last = numbers[-1] if numbers else 0
        oldest = numbers[-REMEMBERED + 1] if len(numbers) >= REMEMBERED else 0
        kept = {each: tree for each, tree in own.items() if int(tree["number"]) >= oldest}
        told = {
            "answer": np.frombuffer(body, np.uint8),
            "version": np.int64(version),
            "number": np.int64(last + 1),
        }
        return {**self._answered, sender: {**kept, mark: told}}

    async def _threaded(self, skill: Skill, *given: Any) -> tuple[Local, Tree]:
        """Use it in the one thread for that; nobody can stop it then."""
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="duetto-skill")
        return await asyncio.get_running_loop().run_in_executor(self._thread, skill, *given)

    def save(self) -> None:
        """Keep the memory as it is now."""
        if self._keep is not None:
            self._keep.save(self.local.memory, self._answered)

    def close(self) -> None:
        """Let the thread go; what runs in it is waited for."""
        if self._thread is not None:
            self._thread.shutdown()

    # --------------------------------------------------------------------------------------------------- roles

    async def play(self, known: Mapping[str, Any], log: Callable[[Record], None]) -> None:
        """Run all roles to their ends; after each record the memory is kept. A role that a kill interrupts may log a
        record again when it is resumed."""
        known = {"me": self.me, "local": self.local, **known}
        await asyncio.gather(*(self._play(role, known, log) for role in self.party.roles))

    async def _play(self, role: Any, known: Mapping[str, Any], log: Callable[[Record], None]) -> None:
        async for record in playing(role, known, self.name):
            log(record.at(asyncio.get_running_loop().time(), self.name))  # first: a kill between both loses none
            self.save()


class _Own(Peer):
    """A party as it sees itself."""

    def __init__(self, running: Running) -> None:
        self.name, self.traits, self._running = running.name, {}, running

    async def ask(self, skill: Skill, tree: Tree, *, key: Key, deadline: float | None = None) -> Reply:
        """Use its own skill; costs seconds and no bytes."""
        loop = asyncio.get_running_loop()
        begin, running = loop.time(), self._running
        if not running.party.offers(skill):
            return Reply(self.name, failure=f"{self.name} does not offer {skill.name}")
        running.busy += 1
        try:
            async with asyncio.timeout(deadline) as limit:
                answer, version, seconds = await running.use_own(skill, tree, key, deadline=deadline)
        except Error as fault:
            return Reply(self.name, failure=str(fault), cost=Cost(seconds=loop.time() - begin))
        except TimeoutError:
            if not limit.expired():
                raise  # a skill's own
            failure = f"no answer within {deadline:g} s"
            return Reply(self.name, failure=failure, cost=Cost(seconds=loop.time() - begin))
        except asyncio.CancelledError as cancelled:
            task = asyncio.current_task()
            if cancelled.args != (GIVEN_UP,) or task is None:
                raise
            task.uncancel()
            return Reply(self.name, failure=GIVEN_UP, cost=Cost(seconds=loop.time() - begin))
        finally:
            running.busy -= 1
        cost = Cost(seconds=loop.time() - begin)
        return Reply(self.name, answer, version=version, metrics={"compute_seconds": seconds}, cost=cost)


def _mark(sender: str, question: Question) -> str:
    """What tells one ask from another, over connections and restarts: who asks for what, with which key and body."""
    digest = hashlib.blake2b(question.body, digest_size=16, key=question.number.to_bytes(8, "little"))
    digest.update(f"\0{sender}\0{vocabulary.key_text(question.key)}".encode())
    return digest.hexdigest()
