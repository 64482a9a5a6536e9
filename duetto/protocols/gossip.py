"""Learning together without a cloud: every device trains, tells its neighbours, and mixes what it hears.

Lian, Zhang, Zhang, Hsieh, Zhang, Liu: Can Decentralized Algorithms Outperform Centralized Algorithms? A Case Study for
Decentralized Parallel Stochastic Gradient Descent (D-PSGD), NeurIPS 2017, with as many local steps as the client
declares, and in the order train, then mix (there: mix what was there before training). So on a complete graph with
equal weights it is federated averaging in which everybody counts the same.

Rounds are counted, not timed: a model belongs to a step, a device that is ahead waits for those it knows, and one that
has waited for ``deadline`` seconds goes on without them. A device keeps its place, its model and what it has heard in
its memory (``params``, ``gossip``), so a role that is started again goes on after the last finished round.

A codec makes models smaller on the way; what it loses is lost every round anew, for nothing here remembers errors.
Unless there is a ``gamma``: Koloskova, Stich, Jaggi: Decentralized Stochastic Optimization and Gossip Algorithms with
Compressed Communication (CHOCO-SGD), ICML 2019. Then a device tells by how much its model has moved from its public
copy, the sum of what it has told so far, which its neighbours keep too; so what a codec loses is part of the next
difference. All mix public copies, and move by ``gamma`` of what mixing would change. Who has missed a difference is
told the whole copy next.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from duetto import tree as trees
from duetto.errors import ConfigError, DataError
from duetto.protocols.coded import Coded
from duetto.protocols.collect import read, together
from duetto.protocols.graphs import Weights
from duetto.protocols.rounds import Measure
from duetto.tree import Array, Tree
from duetto.types import Aggregator, Chain, Codec, Cost, Gate, Key, Local, Peer, Record, Reply, Role, Skill

LOST = ("last", "left out")
_KEPT = 2  # models of one neighbour: it may be a step ahead of who still waits for another one


@dataclass(frozen=True)
class Tell(Skill):
    """Hear a neighbour's model ``{"step", "params"}``: it is kept until the round of that step is over. Or how it has
    ``moved`` since the step before.

    Raises:
        DataError: the party takes no part in gossip, or does not know the sender; no step; it has moved from what was
            not heard.
    """

    @property
    def writes(self) -> bool:
        """What was heard."""
        return True

    def __call__(self, local: Local, tree: Tree, key: Key, sender: str) -> tuple[Local, Tree]:
        """Keep it; nothing is answered."""
        state = local.memory.get("gossip")
        if state is None or sender not in state["heard"]:
            raise DataError(f"{sender} is no neighbour here", "tell only those who know you")
        before = state["heard"][sender]
        try:
            step, moved = int(np.asarray(tree["step"])[()]), "moved" in tree
            params = tree["moved" if moved else "params"]
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{sender} told no model of a step", 'tell {"step": k, "params": tree}') from error
        if moved:
            if str(step - 1) not in before:
                raise DataError(f"{sender} moved from what was not heard, at step {step}", "tell the whole model")
            params = trees.add(before[str(step - 1)], params)
        models = {**before, str(step): params}
        newest = sorted(models, key=int)[-_KEPT:]
        heard = {**state["heard"], sender: {each: models[each] for each in newest}}
        return local.remembering(gossip={**state, "heard": heard}), {}


def gossip(
    client: Skill | Callable[[int], Skill],
    params: Tree,
    *,
    weights: Weights,
    aggregator: Aggregator[Any],
    gate: Gate,
    steps: int,
    seed: int = 0,
    codec: Codec[Any] = Chain(),
    gamma: float | None = None,
    lost: str = "last",
    deadline: float = 60.0,
    pause: float = 0.05,
    measure: Measure | None = None,
    every: int = 1,
) -> Role:
    """A device's role of learning with those it knows; logs one record a round. Its party offers the client's skill
    and :class:`Tell`.

    Args:
        client: trains from ``{"params"}``, gives ``{"delta"}``; what it weighs its answer with does not count. Or what
            gives it by step.
        params: what everybody starts from.
        weights: who listens to whom and how much, see :func:`~duetto.protocols.graphs.metropolis`; a device reads its
            own row only.
        aggregator: mixes a device's own model and those it has heard, each weighing what ``weights`` says.
        gate: what a neighbour's model must pass to be heard.
        steps: rounds in all, those before a resumed one included.
        seed: of local training.
        codec: of models on the way, or of their differences; it must remember nothing.
        gamma: how far a device moves where mixing would take it, above 0 to 1, the less the more the codec loses; None
            tells models instead of differences.
        lost: what stands for a neighbour that is late, gone or rejected: the "last" model heard of it (nothing, where
            there is none), or it is "left out"; then the others weigh more.
        deadline: seconds that a device waits in a round, from when it has told its own.
        pause: seconds between two looks at what has come.
        measure: numbers about a device's mixed parameters, for the record, after every ``every`` rounds and the last.

    Raises:
        ConfigError: another word for ``lost``, a time that is not positive, a gamma out of range, a codec that
            remembers; and when it runs, weights for others than the neighbours.
    """
    if lost not in LOST:
        raise ConfigError(f"lost={lost!r}", f"use one of {', '.join(map(repr, LOST))}")
    if not (deadline > 0 and pause > 0):
        raise ConfigError(f"a deadline of {deadline} s and a pause of {pause} s", "use positive numbers")
    if gamma is not None and not 0 < gamma <= 1:
        raise ConfigError(f"gamma={gamma}", "use a number above 0, at most 1, or None")
    tell = Coded(Tell(), there=codec)

    def at(step: int) -> Skill:
        return client if isinstance(client, Skill) else client(step)

    async def role(me: Peer, neighbours: Mapping[str, Peer], local: Local) -> AsyncIterator[Record]:
        row = weights.get(me.name, {})
        if set(row) != {me.name, *neighbours}:
            raise ConfigError(
                f"the weights of {me.name} are for {sorted(row)}", "give one for itself and each neighbour"
            )
        if "gossip" not in local.memory:
            local.memory = {**local.memory, "params": params, "gossip": {"step": np.int64(0)}}
        state = local.memory["gossip"]
        first = {} if gamma is None else {"-1": params}  # everybody's copy of everybody, before a word was said
        known = {name: state.get("heard", {}).get(name, first) for name in neighbours}
        public = state.get("public", params)
        behind = set(neighbours) if int(state["step"]) else set()  # who starts again cannot know what was missed
        local.memory = {**local.memory, "gossip": {**state, "heard": known}}
        for step in range(int(state["step"]), steps):
            key: Key = (seed, "round", step)
            own = local.memory["params"]
            trained = read(await me.ask(at(step), {"params": own}, key=(*key, me.name)), lambda tree: tree)
            model = own if trained.tree is None else trees.add(own, trained.tree)
            news = {"params": model} if gamma is None else {"moved": trees.subtract(model, public)}
            _, message = codec.encode(codec.init(), {"step": np.int64(step), **news}, (*key, me.name, "tell"))
            said = model if gamma is None else trees.add(public, codec.decode(message)["moved"])
            whole = {"step": np.int64(step), "params": said}
            asked = (
                peer.ask(
                    *((Tell(), whole) if name in behind else (tell, message)),
                    key=(*key, me.name, "tell", name),
                    deadline=deadline,
                )
                for name, peer in neighbours.items()
            )
            told = await asyncio.gather(*asked)
            if gamma is not None:
                behind = {name for name, reply in zip(neighbours, told, strict=True) if reply.failure is not None}
                public = said
            await _heard(local, step, deadline, pause)
            replies = [_model(local, name, step, lost, row[name]) for name in neighbours]
            good = [reply for reply in replies if reply.tree is not None and gate(reply, own) is None]
            _, mixed = aggregator.finish(
                aggregator.extend(aggregator.init(), [Reply(me.name, said, row[me.name]), *good])
            )
            if gamma is not None:
                mixed = trees.map(partial(_towards, gamma), model, said, mixed)
            state = {"step": np.int64(step + 1), "heard": _after(local.memory["gossip"]["heard"], step)}
            state |= {} if gamma is None else {"public": public}
            local.memory = {**local.memory, "params": mixed, "gossip": state}
            late = len(replies) - sum(reply.version == step for reply in good)
            record = Record("gossip", step, _metrics(trained, len(good), late), _cost(trained, told))
            if measure is not None and ((step + 1) % every == 0 or step + 1 == steps):
                record = record.measuring(**measure(mixed))
            yield record

    return role


async def _heard(local: Local, step: int, deadline: float, pause: float) -> None:
    """Wait until every neighbour has told its model of this step, or a later one."""
    loop = asyncio.get_running_loop()
    end = loop.time() + deadline
    while loop.time() < end:
        if all(any(int(at) >= step for at in models) for models in local.memory["gossip"]["heard"].values()):
            return
        await asyncio.sleep(min(pause, end - loop.time()))


def _model(local: Local, name: str, step: int, lost: str, weight: float) -> Reply:
    """What a neighbour told of this step, or what stands for it; its version says of which step it is."""
    models = local.memory["gossip"]["heard"][name]
    reached = sorted((at for at in models if int(at) >= step), key=int)
    before = sorted(models, key=int)[-1:] if lost == "last" else []
    found = (reached or before)[:1]
    if not found:
        return Reply(name, failure="not heard")
    return Reply(name, models[found[0]], weight, version=step if reached else int(found[0]))


def _after(heard: Mapping[str, Mapping[str, Tree]], step: int) -> Mapping[str, Mapping[str, Tree]]:
    """What may still be needed: the models of later steps, and of each neighbour its last one."""
    kept = {}
    for name, models in heard.items():
        ahead = [at for at in models if int(at) > step]
        kept[name] = {at: models[at] for at in ahead or sorted(models, key=int)[-1:]}
    return kept


def _towards(gamma: float, model: Array, said: Array, mixed: Array) -> Array:
    return np.asarray(model + gamma * (mixed - said), model.dtype)


def _metrics(trained: Reply, heard: int, late: int) -> Mapping[str, float | str]:
    loss = {"loss": trained.metrics["loss"]} if "loss" in trained.metrics else {}
    why = {} if trained.failure is None else {"failures": f"{trained.sender}: {trained.failure}"}
    return {"heard": heard, "late": late, **loss, **why}


def _cost(trained: Reply, told: list[Reply]) -> Cost:
    """Training, then all messages at once."""
    sent = together(told)
    return replace(trained.cost + sent, seconds=trained.cost.seconds + sent.seconds)
