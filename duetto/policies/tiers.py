"""Several clouds and several tiers (device -> edge -> cloud): ask the peer that gains most after price and latency.

The utility of a call is quality minus price minus what waiting costs (FrugalGPT, Chen et al. 2023, with a price on
time). A move names one peer, so an array whose items want different peers is split: :meth:`Tiers.parts` gives one
move a peer. Walking one input, as a device does, needs no split.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from duetto.errors import ConfigError, DataError
from duetto.policies.gain import predicted, two_heads
from duetto.policies.heads import Head, Logistic
from duetto.policies.scores import confidence
from duetto.policies.signals import reads, signals
from duetto.policies.threshold import sure, unanswered
from duetto.types import Held, Key, Move, Outcomes, Policy, Seen


@dataclass(frozen=True)
class Tier:
    """A peer that can be asked.

    Attributes:
        name: of the peer.
        price: of a call, in units of quality.
        seconds: a call takes, without what ``seen`` knows of the link and of the queue.
    """

    name: str
    price: float = 0.0
    seconds: float = 0.0


@dataclass(frozen=True)
class Tiers(Policy[Mapping[str, Any]]):
    """Ask the peer whose predicted gain, less its price and the price of its seconds, is largest and above 0.

    ``seen.link["rtt_seconds"]`` and ``seen.queue``, where they are known, add to every peer's seconds. Peers that tie
    are taken in the order given. Where the items of an array want different peers, the move's ``peer`` is empty, and
    :meth:`parts` says who is asked what.

    State: ``threshold`` (float64 scalar: 0 once fitted, and inf before, which always asks the last peer); once fitted
    also ``reads`` and ``peers``, the heads by name.

    Args:
        peers: nearest first.
        second_price: of a second, in units of quality.
        head: of every model.

    Raises:
        ConfigError: no peers, a name twice or empty, or a price or seconds that are negative or not finite.
    """

    peers: tuple[Tier, ...]
    second_price: float = 0.0
    head: Head = field(default_factory=Logistic)

    def __post_init__(self) -> None:
        names = [peer.name for peer in self.peers]
        if not names or len(set(names)) < len(names) or not all(names):
            raise ConfigError(f"the peers {names}", "name at least one, each once")
        costs = [self.second_price, *(cost for peer in self.peers for cost in (peer.price, peer.seconds))]
        if not all(0 <= cost < math.inf for cost in costs):
            raise ConfigError(f"prices and seconds {costs}", "use numbers from 0")

    def init(self) -> Mapping[str, Any]:
        """Not fitted: always asks the last peer."""
        return {"threshold": np.array(np.inf)}

    def fit(self, outcomes: Outcomes | Mapping[str, Outcomes]) -> Held[Mapping[str, Any]]:
        """Two heads a peer.

        Args:
            outcomes: of the same kind of items, by the peer that was the large model; alone they hold for every peer.

        Raises:
            ConfigError: a peer without outcomes.
            DataError: nothing to read, or other columns for other peers.
        """
        of = {peer.name: outcomes for peer in self.peers} if isinstance(outcomes, Outcomes) else outcomes
        missing = [peer.name for peer in self.peers if peer.name not in of]
        if missing:
            raise ConfigError(f"no outcomes of {missing[0]}", "give those of every peer")
        wanted = {name: reads(each.seen) for name, each in of.items()}
        first = wanted[self.peers[0].name]
        if any((each != first).any() for each in wanted.values()):
            raise DataError("outcomes with other columns for other peers", "let all of them see the same")
        heads = {
            peer.name: two_heads(self.head, signals(of[peer.name].seen, first), of[peer.name]) for peer in self.peers
        }
        return Held(self, {"threshold": np.array(0.0), "reads": first, "peers": heads})

    def choose(self, state: Mapping[str, Any], seen: Seen, key: Key) -> tuple[Mapping[str, Any], Move]:
        """Stop, go on or ask, item by item; see :meth:`parts` for whom."""
        if not ("reads" in state and not state["reads"][0]) and (move := unanswered(seen)) is not None:
            return state, Move(move.action, move.propensity, move.why, self.peers[-1].name)
        keep = self.scores(state, seen) >= float(state["threshold"])
        wanted = set(self.wanted(state, seen)[~keep].tolist())
        peer = self.peers[-1].name if not wanted else wanted.pop() if len(wanted) == 1 else ""
        move = sure(keep, f"what the best of {len(self.peers)} peers gains after its price")
        return state, Move(move.action, move.propensity, move.why, peer)

    def scores(self, state: Mapping[str, Any], seen: Seen) -> np.ndarray:
        """Minus the largest gain after price and latency, ``[n]``; before fitting the largest probability.

        Raises:
            DataError: answers or features that are missing, of another width, or not finite.
        """
        if "reads" not in state:
            return confidence(seen.answer)
        return np.asarray(-self._utility(state, seen).max(1))

    def wanted(self, state: Mapping[str, Any], seen: Seen) -> np.ndarray:
        """The best peer of every item, ``[n]`` names, whether it is worth asking or not."""
        names = np.array([peer.name for peer in self.peers])
        if "reads" not in state:
            return np.full(seen.size, names[-1])
        return np.asarray(names[self._utility(state, seen).argmax(1)])

    def parts(self, state: Mapping[str, Any], seen: Seen, key: Key) -> Mapping[str, tuple[np.ndarray, Move]]:
        """Peer -> (positions ``[m]``, the move on them) for an array whose items want different peers."""
        wanted = self.wanted(state, seen)
        found = {}
        for peer in self.peers:
            at = np.flatnonzero(wanted == peer.name)
            if len(at):
                found[peer.name] = (at, self.choose(state, seen.rows(at), key)[1])
        return found

    def _utility(self, state: Mapping[str, Any], seen: Seen) -> np.ndarray:
        """``[n, peers]``."""
        x = signals(seen, state["reads"])
        waiting = np.zeros(len(x))
        if seen.link is not None and "rtt_seconds" in seen.link:
            waiting = waiting + np.asarray(seen.link["rtt_seconds"])
        if seen.queue is not None:
            waiting = waiting + np.asarray(seen.queue)
        columns = [
            predicted(self.head, state["peers"][peer.name], x)
            - peer.price
            - self.second_price * (peer.seconds + waiting)
            for peer in self.peers
        ]
        return np.stack(columns, axis=1)
