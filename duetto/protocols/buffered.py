"""Asynchronous federated learning: nobody waits for the slowest; the server steps whenever enough have answered.

Nguyen et al.: Federated Learning with Buffered Asynchronous Aggregation (FedBuff), AISTATS 2022. With a goal of one and
changes measured from the present parameters it is Xie, Koyejo, Gupta: Asynchronous Federated Optimization
(FedAsync), 2019. Where all answers take equally long and the goal is the whole cohort, it is :func:`rounds`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from duetto import tree as trees
from duetto.errors import ConfigError
from duetto.protocols.coded import Coded
from duetto.protocols.collect import read, together
from duetto.protocols.rounds import Measure, begun, learned, seen_of, sending, told
from duetto.tree import Tree
from duetto.types import Action, Algorithm, Group, Key, Local, Move, Peer, Record, Reply, Role, Seen, rng


def polynomial(staleness: int) -> float:
    """``1 / sqrt(1 + staleness)``: how much a change counts that was made on parameters so many versions old."""
    return float((1 + staleness) ** -0.5)


def buffered(
    algorithm: Algorithm,
    *,
    steps: int,
    goal: int,
    seed: int = 0,
    discount: Callable[[int], float] = polynomial,
    absolute: bool = False,
    deadline: float | None = None,
    measure: Measure | None = None,
    every: int = 1,
) -> Role:
    """The cloud's role of learning together without rounds; logs one record a step of the server.

    The cohort policy says who trains at the same time; whoever has answered is replaced by another one of those that
    it chooses among the idle. A change is scaled by ``discount(staleness)`` before it is added, so that a buffer of
    stale changes moves the parameters less, as in the paper; weights stay what they are. A run can be saved when
    nothing is in flight, so only where all answers come at once, or at the end.

    Args:
        algorithm: both sides, and everything between them; collected in the clear.
        steps: of the server, those before a resumed run included.
        goal: answers that make a step.
        seed: of cohorts and local training.
        discount: staleness in versions -> a factor.
        absolute: measure changes from the present parameters, not from those that a client started from (FedAsync).
        deadline: seconds after which a client is given up.
        measure, every: as in :func:`rounds`.

    Raises:
        ConfigError: a goal below 1.
    """
    if goal < 1:
        raise ConfigError(f"a step of the server at {goal} answers", "use a goal from 1")
    if algorithm.server.partial:
        raise ConfigError(f"{type(algorithm.server).__name__} asks for parts of a model", "learn in rounds")

    async def role(fleet: Group, local: Local) -> AsyncIterator[Record]:
        if "params" not in local.memory:
            local.memory = begun(algorithm, local.memory)
        run = _Run(algorithm, fleet, local, seed, deadline)
        buffer: list[_Heard] = []
        try:
            while int(local.memory["rounds"]["step"]) < steps:
                if not run.refill():
                    yield Record("buffered", int(local.memory["rounds"]["step"]), {"cohort": 0, "failed": 0})
                    return
                buffer += await run.heard()
                while sum(each.reply.failure is None for each in buffer) >= goal:
                    taken, buffer = _first(buffer, goal)
                    record = run.step(taken, discount, absolute)
                    step = record.step + 1
                    if measure is not None and (step % every == 0 or step == steps):
                        record = record.measuring(**measure(local.memory["params"]))
                    yield record
                    if step == steps:
                        return
        finally:
            run.stop()

    return role


@dataclass(frozen=True, eq=False)
class _Asked:
    """One training under way: in which order it was asked for, and of which version."""

    order: int
    row: int
    version: int
    params: Tree
    seen: Seen
    move: Move


@dataclass(frozen=True, eq=False)
class _Heard:
    """An answer and what it answers."""

    asked: _Asked
    reply: Reply


class _Run:
    """What is under way between two steps of the server."""

    def __init__(self, algorithm: Algorithm, fleet: Group, local: Local, seed: int, deadline: float | None) -> None:
        self.algorithm, self.fleet, self.local, self.seed, self.deadline = algorithm, fleet, local, seed, deadline
        self.skill = Coded(algorithm.client, algorithm.down, algorithm.up)
        self.tasks: dict[asyncio.Task[Reply], _Asked] = {}
        self.choices: dict[int, int] = {}  # version -> how often a cohort was chosen for it
        self.count = 0

    def refill(self) -> bool:
        """Ask until as many train as the cohort policy wants; whether anybody does."""
        memory, busy = self.local.memory, [asked.row for asked in self.tasks.values()]
        version, state = int(memory["version"]), memory["rounds"]
        choice = self.choices[version] = self.choices.get(version, -1) + 1
        key: Key = (self.seed, "round", version, *([choice] if choice else []))
        seen, idle = seen_of(self.fleet), np.ones(len(self.fleet), bool)
        idle[busy] = False
        online = idle if seen.link is None else idle & np.asarray(seen.link["online"], bool)
        seen = replace(seen, link={"online": online})
        chooser, move = self.algorithm.cohort.choose(state["cohort"], seen, (*key, "cohort"))
        chosen = np.flatnonzero((np.asarray(move.action) == Action.ASK) & online)
        free = max(0, len(chosen) - len(busy))
        if free < len(chosen):
            chosen = np.sort(rng((*key, "idle")).choice(chosen, free, replace=False))
        send = sending(self.algorithm, state["server"], memory["params"], (self.seed, "round", version, "down"))
        self.local.memory = {**memory, "rounds": {**state, "cohort": chooser}}
        for row in chosen.tolist():
            peer = self.fleet.peer(self.fleet.names[row])
            asked = _Asked(self.count, row, version, memory["params"], seen, move)
            task = asyncio.ensure_future(self._ask(peer, send(peer), (*key, peer.name)))
            self.tasks[task], self.count = asked, self.count + 1
        return bool(self.tasks)

    async def _ask(self, peer: Peer, tree: Tree, key: Key) -> Reply:
        return await peer.ask(self.skill, tree, key=key, deadline=self.deadline)

    async def heard(self) -> list[_Heard]:
        """Wait for an answer, and take all that have come at this time, in the order in which they were asked for."""
        await asyncio.wait(self.tasks, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.sleep(0)  # whoever answers at this very moment
        done = sorted((task for task in self.tasks if task.done()), key=lambda task: self.tasks[task].order)
        heard = []
        for task in done:
            asked = self.tasks.pop(task)
            reply = read(task.result(), self.algorithm.up.decode)
            if reply.failure is None:
                like = self.algorithm.server.expects(asked.params)
                if (fault := self.algorithm.gate(reply, like)) is not None:
                    reply = replace(reply, failure=f"rejected: {fault}")
            heard.append(_Heard(asked, reply))
        return heard

    def step(self, taken: Sequence[_Heard], discount: Callable[[int], float], absolute: bool) -> Record:
        """The server's step on what was taken from the buffer."""
        algorithm, memory = self.algorithm, self.local.memory
        state, params, version = memory["rounds"], memory["params"], int(memory["version"])
        good = [_aged(each, version) for each in taken if each.reply.failure is None]
        counted = []
        for each in good:
            tree = each.reply.tree
            if absolute:
                tree = trees.add(tree, trees.subtract(each.asked.params, params))
            counted.append(replace(each.reply, tree=trees.scale(tree, discount(each.reply.staleness))))
        aggregator = algorithm.aggregator
        _, collected = aggregator.finish(aggregator.extend(aggregator.init(), counted))
        key = (self.seed, "round", version, "server")
        server, params = algorithm.server.step(
            state["server"], params, collected, cohort_size=len(good), fleet_size=len(self.fleet), key=key
        )
        chooser = state["cohort"]
        for each in taken:
            only = replace(each.asked.move, action=_only(each.asked.row, len(self.fleet)))
            chooser = learned(algorithm.cohort, chooser, each.asked.seen, only, [each.reply])
        step = int(state["step"])
        after = {"step": np.int64(step + 1), "server": server, "cohort": chooser}
        self.local.memory = {**memory, "params": params, "version": np.int64(version + 1), "rounds": after}
        self.choices.pop(version, None)
        replies = [each.reply for each in taken]
        staleness = float(np.mean([each.reply.staleness for each in good]))
        return Record("buffered", step, {**told(replies), "staleness": staleness}, together(replies))

    def stop(self) -> None:
        """Whoever is still at it need not answer."""
        for task in self.tasks:
            task.cancel()


def _aged(heard: _Heard, version: int) -> _Heard:
    return replace(heard, reply=replace(heard.reply, staleness=version - heard.asked.version))


def _first(buffer: Sequence[_Heard], goal: int) -> tuple[list[_Heard], list[_Heard]]:
    """Up to the ``goal``-th good answer, and the rest."""
    good = np.cumsum([each.reply.failure is None for each in buffer])
    end = int(np.searchsorted(good, goal)) + 1
    return list(buffer[:end]), list(buffer[end:])


def _only(row: int, size: int) -> np.ndarray:
    action = np.full(size, Action.STOP, np.int8)
    action[row] = Action.ASK
    return action
