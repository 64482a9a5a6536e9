"""Vertical federated learning: parties hold different features of the same people, one of them their labels.

Liu, Kang, Zou et al.: Vertical Federated Learning: Concepts, Advances, and Challenges, 2022 (its split form: a bottom
network at each party, a top network where the labels are). The label party asks. First which ids everybody has (ids
are compared in the clear: use ids that may be known, such as keyed hashes); then, batch by batch, every party for what
its bottom network makes of these ids, which the top network turns into a loss; the slope of the loss at each party's
features goes back with the next question. So all learn what one joint network would, batch by batch, to rounding.

No features and no labels leave their party; what does, features of a bottom network and slopes, can tell of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from duetto.errors import ConfigError, DataError
from duetto.protocols.collect import together
from duetto.tree import Tree
from duetto.types import Group, Key, Local, Peer, Record, Reply, Role, Skill, rng


@dataclass(frozen=True)
class Ids(Skill):
    """Tell which ids the party has: gives ``{"ids": [n]}`` int64, of its data ``{"ids", "x", ...}``."""

    def __call__(self, local: Local, tree: Tree, key: Key, sender: str) -> tuple[Local, Tree]:
        """All of them.

        Raises:
            DataError: an id twice.
        """
        ids = np.asarray(local.data["ids"], np.int64)
        if len(np.unique(ids)) < len(ids):
            raise DataError("a party with an id twice", "join its rows, or leave all but one out")
        return local, {"ids": ids}


def vertical(
    bottoms: Mapping[str, Skill],
    top: Skill,
    *,
    epochs: int,
    batch_size: int,
    seed: int = 0,
    deadline: float | None = None,
) -> Role:
    """The label party's role; logs one record a batch.

    Args:
        bottoms: by party, what it is asked: takes ``{"ids": [m]}``, and of the batch before ``{"last": [n],
            "slope": [n, d]}``; steps, then gives ``{"features": [m, d]}``.
        top: what the label party asks itself: takes ``{"ids": [m], "features": {party: [m, d]}}``; steps, and gives
            ``{"slopes": {party: [m, d]}, "loss"}``.
        epochs: passes over the ids that all have.
        batch_size: ids of a batch; the last one of an epoch may be smaller.
        seed: orders the ids.
        deadline: seconds that a party has for a batch. One that somebody misses trains nobody.

    Raises:
        ConfigError: no party, no batch; when it runs, a party that does not tell its ids, or no id that all have.
    """
    if not bottoms or batch_size < 1 or epochs < 0:
        raise ConfigError(
            f"{len(bottoms)} parties, {epochs} epochs in batches of {batch_size}", "give a party, and a batch of one"
        )

    async def role(me: Peer, fleet: Group, local: Local) -> AsyncIterator[Record]:
        peers = {name: fleet.peer(name) for name in sorted(bottoms)}

        async def all_(skills: Mapping[str, Skill], trees: Mapping[str, Tree], key: Key) -> dict[str, Reply]:
            asked = [
                peer.ask(skills[name], trees[name], key=(*key, name), deadline=deadline) for name, peer in peers.items()
            ]
            return dict(zip(peers, await asyncio.gather(*asked), strict=True))

        told = await all_(dict.fromkeys(peers, Ids()), {name: {} for name in peers}, (seed, "vertical", "ids"))
        for name, reply in told.items():
            if reply.tree is None:
                raise ConfigError(f"{name} does not tell its ids ({reply.failure})", "let it offer Ids")
        sets = [np.asarray(local.data["ids"], np.int64), *(reply.tree["ids"] for reply in told.values() if reply.tree)]
        common = reduce(np.intersect1d, sets)
        if not len(common):
            raise ConfigError("no id that all parties have", "align them by the same ids")
        back: dict[str, Tree] = {name: {} for name in peers}
        step = 0
        for epoch in range(epochs):
            order = rng((seed, "vertical", "order", epoch)).permutation(len(common))
            for first in range(0, len(order), batch_size):
                key: Key = (seed, "vertical", step)
                ids = common[order[first : first + batch_size]]
                heard = await all_(bottoms, {name: {"ids": ids, **back[name]} for name in peers}, key)
                back = {name: {} for name in peers}
                failed = [f"{name}: {reply.failure}" for name, reply in heard.items() if reply.failure is not None]
                record = Record(
                    "vertical", step, {"ids": len(ids), "failed": len(failed)}, together(list(heard.values()))
                )
                if failed:
                    record = record.measuring(failures="; ".join(failed))
                else:
                    features = {name: reply.tree["features"] for name, reply in heard.items() if reply.tree is not None}
                    said = await me.ask(top, {"ids": ids, "features": features}, key=(*key, me.name))
                    record = replace(record, cost=record.cost + said.cost)
                    if said.tree is None:
                        record = record.measuring(failed=1, failures=f"{me.name}: {said.failure}")
                    else:
                        back = {name: {"last": ids, "slope": said.tree["slopes"][name]} for name in peers}
                        record = record.measuring(loss=float(said.tree["loss"]))
                yield record
                step += 1
        nothing = common[:0]
        await all_(bottoms, {name: {"ids": nothing, **back[name]} for name in peers}, (seed, "vertical", step))

    return role


async def foretell(
    fleet: Group, me: Peer, bottoms: Mapping[str, Skill], top: Skill, ids: NDArray[np.int64], *, key: Key
) -> Tree:
    """What all together answer about these ids, ``{"logits": [n, classes]}``.

    Args:
        fleet, me, bottoms: as in :func:`vertical`.
        top: takes ``{"features": {party: [n, d]}}``, gives the answer.
        ids: that all have.
        key: of this question.

    Raises:
        DataError: somebody did not answer.
    """
    names = sorted(bottoms)
    heard = await asyncio.gather(
        *(fleet.peer(name).ask(bottoms[name], {"ids": ids}, key=(*key, name)) for name in names)
    )
    for reply in heard:
        if reply.tree is None:
            raise DataError(f"{reply.sender} did not answer ({reply.failure})", "ask again when it is there")
    features = {reply.sender: reply.tree["features"] for reply in heard if reply.tree is not None}
    said = await me.ask(top, {"features": features}, key=(*key, me.name))
    if said.tree is None:
        raise DataError(f"{me.name} did not answer ({said.failure})", "check its top network")
    return said.tree
