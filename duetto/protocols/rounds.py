"""Synchronous federated rounds: choose a cohort, send, train there, collect, step.

The cloud's memory holds everything between rounds (``params``, ``version``, ``rounds``), so a role that is started
again goes on after the last finished round.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

import numpy as np

from duetto.protocols.coded import Coded
from duetto.protocols.collect import together
from duetto.tree import Tree
from duetto.types import Action, Algorithm, Group, Key, Local, Move, Peer, Policy, Record, Replies, Role, Seen

Measure = Callable[[Tree], Mapping[str, float]]


def rounds(
    algorithm: Algorithm | Callable[[int], Algorithm],
    *,
    steps: int,
    seed: int = 0,
    deadline: float | None = None,
    enough: int | None = None,
    measure: Measure | None = None,
    every: int = 1,
) -> Role:
    """The cloud's role of learning together for so many rounds; logs one record a round.

    Args:
        algorithm: both sides, and everything between them; or a function of the round, from 0, where something changes
            on the way, such as a learning rate that falls. What is remembered must fit all of them.
        steps: rounds in all, those before a resumed one included.
        seed: of cohorts and local training.
        deadline: seconds after which a round goes on without those who have not answered.
        enough: answers after which a round goes on without the others (over-selection, Bonawitz et al. 2019).
        measure: numbers about the parameters, for the record, after every ``every`` rounds and the last one.
    """

    def at(step: int) -> Algorithm:
        return algorithm if isinstance(algorithm, Algorithm) else algorithm(step)

    async def role(fleet: Group, local: Local) -> AsyncIterator[Record]:
        if "params" not in local.memory:
            local.memory = begun(at(0), local.memory)
        for step in range(int(local.memory["rounds"]["step"]), steps):
            key = (seed, "round", step)
            local.memory, record = await one_round(at(step), fleet, local.memory, key, deadline, enough)
            if measure is not None and ((step + 1) % every == 0 or step + 1 == steps):
                record = record.measuring(**measure(local.memory["params"]))
            yield record

    return role


def begun(algorithm: Algorithm, memory: Mapping[str, Any]) -> Mapping[str, Any]:
    """The cloud's memory before the first round."""
    state = {"step": np.int64(0), "server": algorithm.server.init(algorithm.params), "cohort": algorithm.cohort.init()}
    return {**memory, "params": algorithm.params, "version": np.int64(0), "rounds": state}


async def one_round(
    algorithm: Algorithm,
    fleet: Group,
    memory: Mapping[str, Any],
    key: Key,
    deadline: float | None = None,
    enough: int | None = None,
) -> tuple[Mapping[str, Any], Record]:
    """One round: the memory after it, and its record."""
    state, params = memory["rounds"], memory["params"]
    seen = seen_of(fleet)
    chooser, move = algorithm.cohort.choose(state["cohort"], seen, (*key, "cohort"))
    names = [fleet.names[row] for row in np.flatnonzero(np.asarray(move.action) == Action.ASK).tolist()]
    collected, replies = await algorithm.collect.gather(
        fleet,
        names,
        Coded(algorithm.client, algorithm.down, algorithm.up),
        sending(algorithm, state["server"], params, (*key, "down")),
        gate=algorithm.gate,
        aggregator=algorithm.aggregator,
        decode=algorithm.up.decode,
        like=algorithm.server.expects(params),
        key=key,
        deadline=deadline,
        enough=enough,
        **_parts(algorithm, state["server"], params, fleet),
    )
    server, params = algorithm.server.step(
        state["server"],
        params,
        collected,
        cohort_size=sum(reply.failure is None for reply in replies),
        fleet_size=len(fleet),
        key=(*key, "server"),
    )
    step = int(state["step"])
    after = {
        "step": np.int64(step + 1),
        "server": server,
        "cohort": learned(algorithm.cohort, chooser, seen, move, replies),
    }
    record = Record("rounds", step, told(replies), together(replies))
    return {**memory, "params": params, "version": np.int64(int(memory["version"]) + 1), "rounds": after}, record


def seen_of(fleet: Group) -> Seen:
    """What a cohort policy sees of the fleet."""
    traits = fleet.traits
    link = {"online": traits["online"]} if "online" in traits else None
    return Seen(size=len(fleet), traits=traits, link=link)


def sending(algorithm: Algorithm, state: Any, params: Tree, key: Key) -> Callable[[Peer], Tree]:
    """What each peer is sent, encoded; a message that is the same for all is made once."""

    def encoded(peer: Peer | None) -> Tree:
        message = algorithm.server.send(state, params, peer)
        return algorithm.down.encode(algorithm.down.init(), message, key)[1]

    if algorithm.server.personal:
        return encoded
    same = encoded(None)
    return lambda peer: same


def _parts(algorithm: Algorithm, state: Any, params: Tree, fleet: Group) -> dict[str, Any]:
    """What a collect is told where the server asks for parts: what it sent is what it hears of, whoever says else."""
    if not algorithm.server.partial:
        return {}
    return {"part": lambda name: algorithm.server.part(state, params, fleet.peer(name))}


def learned(cohort: Policy[Any], state: Any, seen: Seen, move: Move, replies: Replies) -> Any:
    """The cohort policy's state after it has heard how its choice went.

    It sees ``loss`` and ``seconds`` of those who answered, NaN elsewhere; the reward is 1 where the answer counted,
    0 where it did not, NaN where nobody was asked.
    """
    rows = np.flatnonzero(np.asarray(move.action) == Action.ASK)
    loss, seconds, reward = (np.full(seen.size, np.nan) for _ in range(3))
    for row, reply in zip(rows.tolist(), replies, strict=True):
        reward[row] = float(reply.failure is None)
        if reply.failure is None:
            loss[row], seconds[row] = reply.metrics.get("loss", np.nan), reply.cost.seconds
    heard = Seen(size=seen.size, link=seen.link, traits={**(seen.traits or {}), "loss": loss, "seconds": seconds})
    return cohort.learn(state, heard, move, reward)


def told(replies: Sequence[Any]) -> Mapping[str, float | str]:
    """The cohort, who failed and why, and the mean of what the clients measured, by weight."""
    good = [reply for reply in replies if reply.failure is None]
    failed = [f"{reply.sender}: {reply.failure}" for reply in replies if reply.failure is not None]
    metrics: dict[str, float | str] = {"cohort": len(replies), "failed": len(failed)}
    if failed:
        metrics["failures"] = "; ".join(failed[:5]) + (f"; and {len(failed) - 5} more" if len(failed) > 5 else "")
    for name in sorted({name for reply in good for name in reply.metrics}):
        heard = [(reply.metrics[name], reply.weight) for reply in good if name in reply.metrics]
        if (weight := sum(weight for _, weight in heard)) > 0:
            metrics[name] = sum(value * weight for value, weight in heard) / weight
    return metrics
