"""Answering together: one walk that routes, exits early, splits, and still answers when the cloud does not.

At every stage a policy sees what is known so far and stops, goes on, or asks a peer. Asking before the first
stage is query routing; asking after the small model has answered is a cascade; stopping at an exit is early exit;
asking with what the stages so far have computed is split inference. Whatever the peer does, the walk ends with an
answer: when a question stays unanswered, or takes longer than its plan has patience for, the device goes on alone.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from duetto.errors import Error
from duetto.protocols.refined import through
from duetto.tree import Array, Tree
from duetto.types import GIVEN_UP, Action, Answer, Cost, Held, Key, Move, Peer, Policy, Reply, Seen, Skill

Reward: TypeAlias = Callable[[Tree | None, Tree], float]
"""From the device's own answer, or None, and a peer's to what a policy learns."""


class Unanswered(Error):
    """Nobody could answer: there is no model here, and the peer was not asked or not heard."""


async def answer(
    x: Array,
    *,
    me: Peer,
    exits: Mapping[int, Skill],
    peers: Mapping[str, Peer],
    question: Skill,
    policy: Held[Any],
    key: Key,
    deadline: float | None = None,
    within: float | None = None,
    reserve: float = 0.0,
    online: bool = True,
    known: Seen | None = None,
    reward: Reward | None = None,
) -> Answer:
    """Answer one input.

    A skill of ``exits`` is asked with what the one before it carried on, at first ``{"x": [1, *shape]}``, and gives
    ``logits`` where it is an exit, and ``carried`` where it leaves something for the next one and for a peer: see
    :class:`~duetto.protocols.stages.Advance`. A plan to ask behind a later cut is carried out there. Once a plan's
    ``patience`` is over, the device goes on beside the question, and the first answer stands.

    Args:
        x: the input, without a batch axis.
        me: the party itself; using its own skills costs compute and no bytes.
        exits: stage -> the skill that answers there, in order; empty where the device has no model (yet).
        peers: who can be asked.
        question: the skill that peers are asked for; through codecs where it is :class:`~duetto.protocols.coded.Coded`,
            or where the move's plan has one; in parts where it is :class:`~duetto.protocols.refined.Refined`.
        policy: decides at each stage.
        key: of this input.
        deadline: seconds that a peer may take; afterwards the device's own answer stands.
        within: seconds for the whole walk. When they are over, the last exit that was reached answers; before the
            first one the walk goes on to it. Policies see the trait ``seconds_left``.
        reserve: seconds of ``within`` that are kept for the first exit: a question asked before it is waited for no
            longer than leaves them, so that the answer is in time whatever the peer does.
        online: whether the device believes it has a connection; policies of availability read it.
        known: what else the policy sees of this one item: features, link, queue, battery, budget, traits.
        reward: from the own answer and the peer's (trees with ``logits``) to what the policy learns from its last move;
            NaN where the peer was not asked or heard. The policy then also sees, as traits, what the question took:
            ``seconds``, ``up_bytes``, ``down_bytes``, ``compute_seconds``, ``up_mbps``, ``rtt_seconds`` (NaN where not
            known) and the ``time`` on the loop's clock. See the policy for what it takes, and :func:`disagreement`.
            None teaches it nothing.

    Raises:
        Unanswered: no model here and no peer that answered.
    """
    begin = asyncio.get_running_loop().time()
    walk = _Walk(me, policy, reward, begin, math.inf if within is None else begin + within)
    carried: Tree = {"x": np.asarray(x)[None]}
    known = known or Seen()
    known = replace(known, link={**(known.link or {}), "online": np.array([online])}, size=1)
    # Before the first exit, and after each; without a model there is a second look, now knowing that there is none.
    stages = [(0, None), *((stage + 1, exits[stage]) for stage in sorted(exits))] if exits else [(0, None), (1, None)]
    why, ahead = "", None  # a question that waits for its cut
    with closing(walk):
        for position, (stage, skill) in enumerate(stages):
            if skill is not None:
                reply = await walk.compute(me.ask(skill, carried, key=(*key, "exit", stage - 1)))
                if reply is None:
                    return await walk.ended("time is up")
                if reply.tree is None:
                    why = reply.failure or ""
                else:
                    carried = reply.tree.get("carried", carried)
                    walk.reached(reply)
            seen = replace(known, stage=stage, answer=None if walk.own is None else walk.own["logits"][None])
            if within is not None:
                seen = replace(seen, traits={**(seen.traits or {}), "seconds_left": np.array([walk.left()])})
            move = ahead or policy.choose(seen, (*key, "policy", stage))
            action, last = Action(int(move.action[0])), position + 1 == len(stages)
            if action is Action.ASK and isinstance(move.plan.cut, int) and move.plan.cut > stage and not last:
                ahead = move
                continue
            if action is Action.STOP and walk.own is not None:
                if not walk.asked:
                    walk.learn(seen, move, Cost(), {}, None)
                return await walk.ended(move.why)
            if action is Action.ASK and not walk.asked:
                if move.peer not in peers:
                    why = f"nobody is called {move.peer}"
                else:
                    asking = question if move.plan.codec is None else through(question, move.plan.codec)
                    coming = asking.asked_of(peers[move.peer], carried, key=(*key, "ask", stage), deadline=deadline)
                    walk.ask(coming, seen, move)
                    await walk.hear(min(move.plan.patience, walk.left() - reserve if walk.own is None else math.inf))
            if last and walk.own is None:
                await walk.hear(math.inf)
            if walk.said is not None or (last and walk.own is not None):
                return await walk.ended(walk.why or why or move.why)
    why = walk.why or why or "no model on the device, and the policy asks nobody"
    raise Unanswered(f"{me.name} has no answer ({why})")


@dataclass
class _Walk:
    """One input's way: what it has cost, the last exit's answer, and the one question.

    Attributes:
        begin, end: when it began, and when time is up, on the loop's clock.
        why: the peer was not heard.
        beside: whether the device computed while the question was on its way, so that their seconds do not add.
    """

    me: Peer
    policy: Held[Any]
    reward: Reward | None
    begin: float
    end: float
    cost: Cost = Cost()
    own: Tree | None = None
    version: int = 0
    said: Tree | None = None
    why: str = ""
    asked: bool = False
    beside: bool = False
    _reply: Reply | None = None
    _task: asyncio.Task[Reply] | None = None
    _about: tuple[Seen, Move] | None = None

    def reached(self, reply: Reply) -> None:
        """An exit, where the stage has one."""
        if reply.tree is not None and "logits" in reply.tree:
            self.own, self.version = _only(reply.tree), reply.version

    def ask(self, question: Coroutine[Any, Any, Reply], seen: Seen, move: Move) -> None:
        """Send the question."""
        self.asked, self._about = True, (seen, move)
        self._task = asyncio.ensure_future(question)

    async def hear(self, patience: float) -> None:
        """Wait for the answer to the question, for so long; not beyond the end where there is an own answer."""
        if self._task is not None:
            await self._any({self._task}, patience)
            if self._task.done():
                self._heard(self._task.result())

    async def compute(self, work: Coroutine[Any, Any, Reply]) -> Reply | None:
        """The reply of the party itself; None where an answer is heard before it, or time is up with an own one."""
        if self._task is None and (self.own is None or math.isinf(self.end)):
            reply = await work  # nothing can come between
            self.cost += reply.cost
            return reply
        task = asyncio.ensure_future(work)
        self.beside |= self._task is not None
        try:
            while not task.done():
                await self._any({task} if self._task is None else {task, self._task}, math.inf)
                if self._task is not None and self._task.done():
                    self._heard(self._task.result())
                if not task.done() and (self.said is not None or (self.own is not None and self.left() <= 0)):
                    self.cost += (await _given_up(task)).cost
                    return None
        finally:
            task.cancel()
        self.cost += task.result().cost
        return task.result()

    async def ended(self, why: str) -> Answer:
        """The answer: what the peer said, else the device's own."""
        if self._task is not None:
            self._heard(await _given_up(self._task))
        cost = self.cost.lasting(asyncio.get_running_loop().time() - self.begin) if self.beside else self.cost
        if self.said is not None and self._reply is not None and self._about is not None:
            said, move = self._reply, self._about[1]
            return Answer(self.said, said.sender, move.why, cost, self.own, True, said.version)
        assert self.own is not None
        return Answer(self.own, self.me.name, why, cost, self.own, self.asked, self.version)

    def close(self) -> None:
        """Nobody waits for an answer any longer, whatever went wrong."""
        if self._task is not None:
            self._task.cancel()

    def learn(self, seen: Seen, move: Move, cost: Cost, metrics: Mapping[str, float], said: Tree | None) -> None:
        """Teach the policy what a move brought."""
        if self.reward is None or type(self.policy.part).learn is Policy.learn:
            return  # nobody listens
        told = {"seconds": cost.seconds, "up_bytes": cost.up_bytes, "down_bytes": cost.down_bytes}
        computed = told["compute_seconds"] = metrics.get("compute_seconds", np.nan)
        sending = metrics.get("up_seconds", cost.seconds)  # of what was given up, all of it
        told["up_mbps"] = cost.up_bytes * 8e-6 / sending if cost.up_bytes and sending > 0 else np.nan
        waited = max(0.0, cost.seconds - sending - computed) / metrics.get("asks", 1.0)
        told["rtt_seconds"] = waited if "up_seconds" in metrics else np.nan
        told["time"] = asyncio.get_running_loop().time()
        traits = {**(seen.traits or {}), **{name: np.array([value], np.float64) for name, value in told.items()}}
        value = np.nan if said is None else self.reward(self.own, said)
        self.policy.learn(replace(seen, traits=traits), move, np.array([value], np.float64))

    def _heard(self, reply: Reply) -> None:
        self._task, self._reply = None, reply
        self.cost += reply.cost
        self.said, self.why = _heard(reply)
        if self._about is not None:
            self.learn(*self._about, reply.cost, reply.metrics, self.said)

    def left(self) -> float:
        """Seconds until time is up."""
        return self.end - asyncio.get_running_loop().time()

    async def _any(self, tasks: set[asyncio.Task[Reply]], patience: float) -> None:
        """Until one is done, but not for longer than patience and, with an own answer, the end allow."""
        seconds = patience if self.own is None else min(patience, self.left())
        try:
            await asyncio.wait(
                tasks,
                timeout=None if math.isinf(seconds) else max(0.0, seconds),
                return_when=asyncio.FIRST_COMPLETED,
            )
        except asyncio.CancelledError:
            for task in tasks:
                task.cancel()
            raise


async def _given_up(task: asyncio.Task[Reply]) -> Reply:
    """What comes of something that nobody waits for any longer, and what it has cost until now."""
    task.cancel(GIVEN_UP)
    try:
        return await task
    except asyncio.CancelledError:
        if not task.cancelled():  # it is this one that was cancelled
            raise
        return Reply("", failure=GIVEN_UP)  # a peer that does not tell what it has cost


def disagreement(own: Tree | None, said: Tree) -> float:
    """1 where the two chose other classes, or where there was no own answer, else 0: at least the gain of asking."""
    return float(own is None or np.argmax(own["logits"]) != np.argmax(said["logits"]))


def _heard(reply: Reply) -> tuple[Tree | None, str]:
    """What a peer said, or why that is no answer."""
    if reply.tree is None:
        return None, reply.failure or ""
    try:
        said = _only(reply.tree)
        readable = np.ndim(said["logits"]) == 1 and len(said["logits"]) > 0
    except (AttributeError, IndexError, KeyError, TypeError):
        readable = False
    return (said, "") if readable else (None, f"{reply.sender} answered with what is no answer")


def _only(tree: Tree) -> Tree:
    """The answer of the one row."""
    return {name: leaf[0] for name, leaf in tree.items() if name != "carried"}
