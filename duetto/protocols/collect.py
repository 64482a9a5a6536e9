"""How replies come together: all peers are asked at once, and what they answer is added in cohort order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from duetto.errors import DataError, Error
from duetto.tree import Tree
from duetto.types import Aggregator, Cost, Gate, Group, Index, Key, Peer, Replies, Reply, Skill


@dataclass(frozen=True)
class Plain:
    """In the clear: the cloud sees every reply.

    Replies are added in the order of the cohort, not of arrival, so the sum is the same in every world.
    """

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
        """Ask, decode, gate, add; a failure or a rejected reply counts as nothing and says why.

        Where the aggregator refuses all of them, nobody's reply counts, and each says why.
        """
        kept, good = [], []
        for heard in await group.ask(names, skill, send, key=key, deadline=deadline, enough=enough):
            reply = replace(read(heard, decode), index=part(heard.sender))
            if reply.failure is None and (fault := gate(reply, like)) is not None:
                reply = replace(reply, failure=f"rejected: {fault}")
            if reply.failure is None:
                good.append(reply)
            kept.append(replace(reply, tree=None))
        try:
            return (aggregator.finish(aggregator.extend(aggregator.init(), good))[1] if good else None), kept
        except DataError as fault:  # too few for Krum, say: this round has no result, and the next one may
            told = f"not aggregated: {fault}"
            return None, [replace(reply, failure=reply.failure or told) for reply in kept]


def read(reply: Reply, decode: Callable[[Tree], Tree]) -> Reply:
    """A client's answer ``{"delta", "weight", "metrics"}`` as a reply whose tree is the delta."""
    if reply.tree is None:
        return reply
    try:
        said = decode(reply.tree)
        metrics = {name: float(value) for name, value in said.get("metrics", {}).items()}
        return replace(reply, tree=said["delta"], weight=float(said["weight"]), metrics={**reply.metrics, **metrics})
    except (Error, KeyError, TypeError, ValueError, AttributeError) as error:
        return replace(reply, tree=None, failure=f"unreadable: {error!r}")


def together(replies: Replies) -> Cost:
    """What a round cost: all add over the cohort but the seconds, which are those of the slowest."""
    total = sum((reply.cost for reply in replies), Cost())
    return replace(total, seconds=max((reply.cost.seconds for reply in replies), default=0.0))
