"""Synchronous federated rounds: choose a cohort, send, train there, collect, step.

The cloud's memory holds everything between rounds (``params``, ``version``, ``rounds``), so a role that is started
again goes on after the last finished round.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import numpy as np

from duetto.protocols.coded import Coded
from duetto.protocols.collect import together
from duetto.tree import Tree
from duetto.types import Action, Algorithm, Group, Key, Local, Peer, Record, Role, Seen


def rounds(algorithm: Algorithm, *, steps: int, seed: int = 0, deadline: float | None = None) -> Role:
    """The cloud's role of learning together for so many rounds; logs one record a round.

    Args:
        algorithm: both sides, and everything between them.
        steps: rounds in all, those before a resumed one included.
        seed: of cohorts and local training.
        deadline: seconds after which a round goes on without those who have not answered.
    """

    async def role(fleet: Group, local: Local) -> AsyncIterator[Record]:
        if "params" not in local.memory:
            local.memory = begun(algorithm, local.memory)
        for step in range(int(local.memory["rounds"]["step"]), steps):
            local.memory, record = await one_round(algorithm, fleet, local.memory, (seed, "round", step), deadline)
            yield record

    return role


def begun(algorithm: Algorithm, memory: Mapping[str, Any]) -> Mapping[str, Any]:
    """The cloud's memory before the first round."""
    state = {"step": np.int64(0), "server": algorithm.server.init(algorithm.params), "cohort": algorithm.cohort.init()}
    return {**memory, "params": algorithm.params, "version": np.int64(0), "rounds": state}


async def one_round(
    algorithm: Algorithm, fleet: Group, memory: Mapping[str, Any], key: Key, deadline: float | None = None
) -> tuple[Mapping[str, Any], Record]:
    """One round: the memory after it, and its record."""
    state, params = memory["rounds"], memory["params"]
    peers, cohort = _cohort(algorithm, fleet, state["cohort"], (*key, "cohort"))
    skill = Coded(algorithm.client, algorithm.down, algorithm.up)
    version = int(memory["version"])

    def send(peer: Peer) -> Tree:
        message = algorithm.server.send(state["server"], params, peer)
        return algorithm.down.encode(algorithm.down.init(), message, (*key, "down"))[1]

    collected, replies = await algorithm.collect.gather(
        peers,
        skill,
        send,
        gate=algorithm.gate,
        aggregator=algorithm.aggregator,
        decode=algorithm.up.decode,
        like=algorithm.server.expects(params),
        key=key,
        deadline=deadline,
    )
    server, params = algorithm.server.step(
        state["server"], params, collected, cohort_size=len(peers), fleet_size=len(fleet), key=(*key, "server")
    )
    step = int(state["step"])
    after = {"step": np.int64(step + 1), "server": server, "cohort": cohort}
    record = Record("rounds", step, _metrics(replies), together(replies))
    return {**memory, "params": params, "version": np.int64(version + 1), "rounds": after}, record


def _cohort(algorithm: Algorithm, fleet: Group, state: Any, key: Key) -> tuple[list[Peer], Any]:
    seen = Seen(size=len(fleet), features=np.column_stack([fleet.traits[name] for name in sorted(fleet.traits)]))
    state, move = algorithm.cohort.choose(state, seen, key)
    chosen = np.flatnonzero(np.asarray(move.action) == Action.ASK).tolist()
    return [fleet.peer(fleet.names[row]) for row in chosen], state


def _metrics(replies: Sequence[Any]) -> Mapping[str, float | str]:
    """The cohort, who failed and why, and the mean of what the clients measured, by weight."""
    good = [reply for reply in replies if reply.failure is None]
    failed = [f"{reply.sender}: {reply.failure}" for reply in replies if reply.failure is not None]
    metrics: dict[str, float | str] = {"cohort": len(replies), "failed": len(failed)}
    if failed:
        metrics["failures"] = "; ".join(failed[:5]) + (f"; and {len(failed) - 5} more" if len(failed) > 5 else "")
    for name in sorted({name for reply in good for name in reply.metrics}):
        told = [(reply.metrics[name], reply.weight) for reply in good if name in reply.metrics]
        if (weight := sum(weight for _, weight in told)) > 0:
            metrics[name] = sum(value * weight for value, weight in told) / weight
    return metrics
