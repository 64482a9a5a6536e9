"""A probe: sent where the policy wants it, priced by the link, and told to the policy."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from duetto import tree as trees
from duetto.policies import ExitOrCut, OnlyInCloud
from duetto.protocols import Echo, probe
from duetto.protocols.probe import BYTES
from duetto.simulation.engine import simulate
from duetto.simulation.fleet import fleet
from duetto.simulation.link import Link, Network, offline
from duetto.simulation.traces import constant
from duetto.types import Action, Held, Key, Move, Party, Peer, Policy, Record, Seen

LINK = Link(constant(2), constant(8), 0.1)


@dataclass(frozen=True)
class Curious(Policy[Any]):
    """Wants a probe, or not, and keeps what it learnt."""

    wants: bool = True

    def choose(self, state: Any, seen: Seen, key: Key) -> tuple[Any, Move]:
        return state, Move.sure([Action.GO], "")

    def probe(self, state: Any, seen: Seen) -> np.ndarray:
        assert seen.traits is not None
        assert "time" in seen.traits
        return np.array([self.wants])

    def learn(self, state: Any, seen: Seen, move: Move, reward: Any) -> Any:
        assert np.isnan(reward).all()
        return {name: float(column[0]) for name, column in (seen.traits or {}).items()}


def probed(policy: Policy[Any], link: Link = LINK, **more: Any) -> tuple[Any, Any]:
    found: list[Any] = []

    async def device(cloud: Peer) -> AsyncIterator[Record]:
        held = Held.of(policy)
        found.extend([await probe(cloud, held, key=(0,), **more), held.state])
        yield Record("probe")

    simulate(
        fleet=fleet("mid-phone", ["ann"]),
        device=Party((device,)),
        cloud=Party((), (Echo,)),
        network=Network("link", (link,), "4g"),
    )
    return found[0], found[1]


def test_what_it_took_is_told() -> None:
    reply, told = probed(Curious())
    size = trees.size(trees.spec({"x": np.zeros(BYTES, np.uint8)}))
    assert reply.cost.up_bytes == size
    assert told["up_mbps"] == pytest.approx(2)
    assert told["rtt_seconds"] == pytest.approx(0.1, abs=0.01)
    assert told["time"] == pytest.approx(reply.cost.seconds)
    assert reply.cost.joules > 0


def test_nothing_is_sent_where_nobody_asks() -> None:
    assert probed(Curious(False)) == (None, {})
    assert probed(OnlyInCloud())[0] is None
    assert probed(ExitOrCut(OnlyInCloud()))[0] is None, "an inner policy without probes"


def test_an_outage_tells_something_too() -> None:
    reply, told = probed(Curious(), offline(LINK, 0.004), deadline=0.5)
    assert reply.failure == "no answer within 0.5 s"
    assert told["up_mbps"] == pytest.approx(reply.cost.up_bytes * 8e-6 / 0.5)
    assert told["up_mbps"] < 0.1
