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
from duetto.types import Action, Answer, Cost, Held, Key, Peer, Reply, Seen, Skill


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
    # Before the first exit, and after each; without a model there is a second look, now knowing that there is none.
    walk = [(0, None), *((stage + 1, exits[stage]) for stage in sorted(exits))] if exits else [(0, None), (1, None)]
    for position, (stage, skill) in enumerate(walk):
        if skill is not None:
            reply = await me.ask(skill, one, key=(*key, "exit", stage - 1))
            cost += reply.cost
            if reply.tree is None:
                why = reply.failure or ""
            else:
                own, version = _only(reply.tree), reply.version
        logits = None if own is None else own["logits"][None]
        move = policy.choose(Seen(stage=stage, answer=logits, link=link), (*key, "policy", stage))
        action, last = Action(int(move.action[0])), position + 1 == len(walk)
        if action is Action.STOP and own is not None:
            return Answer(own, me.name, move.why, cost, own, asked, version)
        if action is Action.ASK and not asked:
            if move.peer not in peers:
                why = f"nobody is called {move.peer}"
            else:
                asked = True
                reply = await question.asked_of(peers[move.peer], one, key=(*key, "ask", stage), deadline=deadline)
                cost += reply.cost
                said, why = _heard(reply)
                if said is not None:
                    return Answer(said, reply.sender, move.why, cost, own, asked, reply.version)
        if last and own is not None:
            return Answer(own, me.name, why or move.why, cost, own, asked, version)
    raise Unanswered(f"{me.name} has no answer ({why or 'no model on the device, and the policy asks nobody'})")


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
    return {name: leaf[0] for name, leaf in tree.items()}
