"""Device, edge, cloud: an edge adds up what its devices answer, and the cloud merges what the edges have.

Liu, Zhang, Song, Letaief: Client-Edge-Cloud Hierarchical Federated Learning, ICC 2020, with one edge aggregation a
round. An aggregator's partial states merge exactly, so this gives what ``Plain`` gives,
to rounding; it saves traffic between the edges and the cloud: of a linear aggregator one state an edge, whatever
the number of its devices. An aggregator that keeps replies apart (a median) saves nothing there.

Devices reach their edge over their own link; between edge and cloud lies a backhaul of known bandwidth and delay. Its
bytes and seconds are in the replies' costs: the bytes in the cost of an edge's first reply, the seconds in each.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from duetto import tree as trees
from duetto.errors import ConfigError, DataError
from duetto.protocols.collect import read
from duetto.tree import Tree
from duetto.types import Aggregator, Cost, Gate, Group, Index, Key, Peer, Replies, Reply, Skill

UP, DOWN = "edge_up_bytes", "edge_down_bytes"


@dataclass(frozen=True)
class Tiers:
    """In the clear, by edges; every edge sees its devices' replies, the cloud sees sums.

    Attributes:
        edges: the devices of each edge by name; a device of no edge answers the cloud directly.
        mbps: of the backhaul, each way.
        rtt_seconds: of the backhaul.

    Raises:
        ConfigError: a device at two edges; a backhaul without bandwidth, or with a negative delay.
    """

    edges: tuple[tuple[str, ...], ...]
    mbps: float = 1000.0
    rtt_seconds: float = 0.02

    def __post_init__(self) -> None:
        flat = [name for edge in self.edges for name in edge]
        if len(set(flat)) < len(flat):
            twice = next(name for i, name in enumerate(flat) if name in flat[:i])
            raise ConfigError(f"{twice} is at two edges", "give each device to one")
        if not (0 < self.mbps < math.inf and 0 <= self.rtt_seconds < math.inf):
            raise ConfigError(
                f"a backhaul of {self.mbps} Mbit/s and {self.rtt_seconds} s", "use a positive bandwidth, a delay from 0"
            )

    async def gather(
        self,
        group: Group,
        names: Sequence[str],
        skill: Skill,
        send: Callable[[Peer], Tree],
        *,
        gate: Gate,
        aggregator: Aggregator[Any],
        decode: Callable[[Tree], Tree],
        like: Tree,
        key: Key,
        deadline: float | None,
        enough: int | None = None,
        part: Callable[[str], Index | None] = lambda name: None,
    ) -> tuple[Tree | None, Replies]:
        """As :meth:`Plain.gather`, all edges at once; the deadline is the devices', and each edge waits for its share
        of ``enough``. An edge whose devices do not fit its aggregator makes the round fail, as there."""

        async def tier(members: Sequence[str], edge: bool) -> tuple[Any, list[Reply]]:
            messages: dict[int, Tree] = {}

            def sent(peer: Peer) -> Tree:
                message = send(peer)
                messages[id(message)] = message
                return message

            share = None if enough is None else math.ceil(enough * len(members) / len(names))
            for name in members if edge else ():
                sent(group.peer(name))
            down = sum(trees.size(trees.spec(message)) for message in messages.values())
            there = await self._over(down) if edge else 0.0
            heard = await group.ask(members, skill, sent, key=key, deadline=deadline, enough=share)
            replies = [_gated(replace(read(reply, decode), index=part(reply.sender)), gate, like) for reply in heard]
            good = [reply for reply in replies if reply.failure is None]
            state = aggregator.extend(aggregator.init(), good) if good else None
            if not edge:
                return state, [replace(reply, tree=None) for reply in replies]
            up = trees.size(trees.spec(state)) if good else 0
            seconds = there + (await self._over(up) if good else 0.0)
            return state, [
                replace(
                    reply,
                    tree=None,
                    metrics={**reply.metrics, **({UP: float(up), DOWN: float(down)} if first else {})},
                    cost=reply.cost + Cost(seconds, up * first, down * first),
                )
                for reply, first in ((reply, reply is replies[0]) for reply in replies)
            ]

        asked = [[name for name in names if name in set(edge)] for edge in self.edges]
        known = {name for members in asked for name in members}
        direct = [name for name in names if name not in known]
        tiers = [(members, True) for members in asked if members] + [(direct, False)] * bool(direct)
        kept: dict[str, Reply] = {}
        try:
            found = await asyncio.gather(*(tier(*each) for each in tiers))
            kept = {reply.sender: reply for _, replies in found for reply in replies}
            states = [state for state, _ in found if state is not None]
            total = aggregator.init()
            for state in states:
                total = aggregator.merge(total, state)
            return (aggregator.finish(total)[1] if states else None), [kept[name] for name in names]
        except DataError as fault:
            told = f"not aggregated: {fault}"
            failed = (kept.get(name, Reply(name)) for name in names)
            return None, [replace(reply, failure=reply.failure or told) for reply in failed]

    async def _over(self, nbytes: int) -> float:
        """The seconds that so many bytes take between edge and cloud, once they have passed."""
        seconds = self.rtt_seconds / 2 + nbytes * 8e-6 / self.mbps
        await asyncio.sleep(seconds)
        return seconds


def by_tier(replies: Replies) -> tuple[Cost, Cost]:
    """What a round's bytes cost between devices and edges, and between edges and the cloud; everything else, and the
    bytes of devices without an edge, counts as the former. Seconds are in neither."""
    up, down = (int(sum(reply.metrics.get(name, 0) for reply in replies)) for name in (UP, DOWN))
    total = sum((reply.cost for reply in replies), Cost())
    near = replace(total, seconds=0.0, up_bytes=total.up_bytes - up, down_bytes=total.down_bytes - down)
    return near, Cost(up_bytes=up, down_bytes=down)


def _gated(reply: Reply, gate: Gate, like: Tree) -> Reply:
    if reply.failure is None and (fault := gate(reply, like)) is not None:
        return replace(reply, failure=f"rejected: {fault}")
    return reply
