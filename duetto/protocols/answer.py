"""Answering together: one walk that routes, exits early, and still answers when the cloud does not.

At every stage a policy sees what is known so far and stops, goes on, or asks a peer. Asking before the first
stage is query routing; asking after the small model has answered is a cascade; stopping at an exit is early exit.
Whatever the peer does, the walk ends with an answer: when a question stays unanswered, the device goes on alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np

from duetto.errors import Error
from duetto.tree import Array, Tree
from duetto.types import Action, Answer, Cost, Held, Key, Move, Peer, Reply, Seen, Skill

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
    online: bool = True,
    known: Seen | None = None,
    reward: Reward | None = None,
) -> Answer:
    """Answer one input.

    Args:
        x: the input, without a batch axis.
        me: the party itself; using its own skills costs compute and no bytes.
        exits: stage -> the skill that answers there, in order; empty where the device has no model (yet).
        peers: who can be asked.
        question: the skill that peers are asked for; through codecs where it is :class:`~duetto.protocols.coded.Coded`.
        policy: decides at each stage.
        key: of this input.
        deadline: seconds that a peer may take; afterwards the device's own answer stands.
        online: whether the device believes it has a connection; policies of availability read it.
        known: what else the policy sees of this one item: features, link, queue, battery, budget, traits.
        reward: from the own answer and the peer's (trees with ``logits``) to what the policy learns from its last move;
            NaN where the peer was not asked or heard. See the policy for what it takes, and :func:`disagreement`.
            None teaches it nothing.

    Raises:
        Unanswered: no model here and no peer that answered.
    """
    one: Tree = {"x": np.asarray(x)[None]}
    cost, own, why, asked = Cost(), None, "", False
    version = 0
    known = known or Seen()
    known = replace(known, link={**(known.link or {}), "online": np.array([online])}, size=1)
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
        seen = replace(known, stage=stage, answer=logits)
        move = policy.choose(seen, (*key, "policy", stage))
        action, last = Action(int(move.action[0])), position + 1 == len(walk)
        if action is Action.STOP and own is not None:
            _learn(policy, seen, move, reward, own, None)
            return Answer(own, me.name, move.why, cost, own, asked, version)
        if action is Action.ASK and not asked:
            if move.peer not in peers:
                why = f"nobody is called {move.peer}"
            else:
                asked = True
                heard = await question.asked_of(peers[move.peer], one, key=(*key, "ask", stage), deadline=deadline)
                cost += heard.cost
                said, why = _heard(heard)
                _learn(policy, seen, move, reward, own, said)
                if said is not None:
                    return Answer(said, heard.sender, move.why, cost, own, asked, heard.version)
        if last and own is not None:
            return Answer(own, me.name, why or move.why, cost, own, asked, version)
    raise Unanswered(f"{me.name} has no answer ({why or 'no model on the device, and the policy asks nobody'})")


def _learn(
    policy: Held[Any], seen: Seen, move: Move, reward: Reward | None, own: Tree | None, said: Tree | None
) -> None:
    if reward is not None:
        policy.learn(seen, move, np.array([np.nan if said is None else reward(own, said)], np.float64))


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
    return {name: leaf[0] for name, leaf in tree.items()}
