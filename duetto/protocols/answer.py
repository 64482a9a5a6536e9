"""Answering together: one walk that routes, exits early, and still answers when the cloud does not.

At every stage a policy sees what is known so far and stops, goes on, or asks a peer. Asking before the first
stage is query routing; asking after the small model has answered is a cascade; stopping at an exit is early exit.
Whatever the peer does, the walk ends with an answer: when a question stays unanswered, the device goes on alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from duetto.errors import Error
from duetto.tree import Array, Tree
from duetto.types import Action, Answer, Cost, Held, Key, Peer, Seen, Skill


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
    online: bool = True,
) -> Answer:
    """Answer one input.

    Args:
        x: the input, without a batch axis.
        me: the party itself; using its own skills costs compute and no bytes.
        exits: stage -> the skill that answers there, in order; empty where the device has no model (yet).
        peers: who can be asked.
        question: the skill that peers are asked for; through codecs where it is :class:`~duetto.protocols.coded.Coded`.
        policy: decides at each stage; learns nothing here, since no truth is known.
        key: of this input.
        deadline: seconds that a peer may take; afterwards the device's own answer stands.
        online: whether the device believes it has a connection; policies of availability read it.

    Raises:
        Unanswered: no model here and no peer that answered.
    """
    one: Tree = {"x": np.asarray(x)[None]}
    cost, own, why, asked = Cost(), None, "", False
    version = 0
    link = {"online": np.array([online])}
    stages = [0, *(stage + 1 for stage in sorted(exits))]
    for position, stage in enumerate(stages):
        if position:
            reply = await me.ask(exits[stage - 1], one, key=(*key, "exit", stage - 1))
            cost += reply.cost
            own, version, why = reply.tree, reply.version, reply.failure or why
        logits = None if own is None else own["logits"]
        move = policy.choose(Seen(stage=stage, answer=logits, link=link), (*key, "policy", stage))
        action = Action(int(move.action[0]))
        if action is Action.GO and position + 1 < len(stages):
            continue
        if action is Action.STOP and own is not None:
            return Answer(_only(own), me.name, move.why, cost, _only(own), asked, version)
        if action is Action.ASK and not asked:
            asked = True
            reply = await question.asked_of(peers[move.peer], one, key=(*key, "ask", stage), deadline=deadline)
            cost += reply.cost
            if reply.tree is not None:
                said = None if own is None else _only(own)
                return Answer(_only(reply.tree), reply.sender, move.why, cost, said, asked, reply.version)
            why = reply.failure or ""
        if position + 1 == len(stages) and own is not None:
            return Answer(_only(own), me.name, why or move.why, cost, _only(own), asked, version)
    raise Unanswered(f"{me.name} has no answer ({why or 'no model on the device, and the policy asks nobody'})")


def _only(tree: Tree) -> Tree:
    """The answer of the one row."""
    return {name: leaf[0] for name, leaf in tree.items()}
