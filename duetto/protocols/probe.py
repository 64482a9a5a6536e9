"""Asking for nothing, to learn what the link lets through: a small message where knowing that would change the plan."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from duetto.tree import Tree
from duetto.types import Action, Held, Key, Local, Move, Peer, Plan, Reply, Seen, Skill

BYTES = 2000


@dataclass(frozen=True)
class Echo(Skill):
    """Takes whatever it is sent, and gives an empty tree."""

    def __call__(self, local: Local, tree: Tree, key: Key, sender: str) -> tuple[Local, Tree]:
        """Nothing is computed."""
        return local, {}


async def probe(
    peer: Peer, policy: Held[Any], *, key: Key, known: Seen | None = None, deadline: float | None = None
) -> Reply | None:
    """Send :data:`BYTES` to a peer and tell the policy what they took, where it says that this is worth it.

    Such a policy has ``probe(state, seen) -> [n] bool``, as :class:`duetto.policies.Planned` has; for others nothing is
    sent.

    Args:
        peer: offers :class:`Echo`.
        policy: a planner.
        key: of this probe.
        known: what else the policy sees, as in :func:`~duetto.protocols.answer.answer`.
        deadline: seconds after which it is given up; what was sent by then still tells something.

    Returns:
        The reply with its cost; None where nothing was sent.
    """
    seen = replace(known or Seen(), size=1)
    now = asyncio.get_running_loop().time
    wants = getattr(policy.part, "probe", None)
    at = replace(seen, traits={**(seen.traits or {}), "time": np.array([now()])})
    if wants is None or not np.asarray(wants(policy.state, at)).any():
        return None
    reply = await peer.ask(Echo(), {"x": np.zeros(BYTES, np.uint8)}, key=key, deadline=deadline)
    cost, up_seconds = reply.cost, reply.metrics.get("up_seconds", math.nan)
    sending = cost.seconds if math.isnan(up_seconds) else up_seconds
    told = {
        "up_mbps": cost.up_bytes * 8e-6 / sending if cost.up_bytes and sending > 0 else math.nan,
        "rtt_seconds": max(0.0, cost.seconds - up_seconds - reply.metrics.get("compute_seconds", 0.0)),
        "time": now(),
    }
    traits = {**(seen.traits or {}), **{name: np.array([value]) for name, value in told.items()}}
    nothing = Move.sure([Action.ASK], "a probe", peer.name, Plan(exit=-1))  # no plan that anybody has
    policy.learn(replace(seen, traits=traits), nothing, np.array([math.nan]))
    return reply
