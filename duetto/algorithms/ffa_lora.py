"""FFA-LoRA: one of the two factors is frozen, so that the mean of the factors is the mean of the products.

Sun, Li, Li, Ding: Improving LoRA in Privacy-preserving Federated Learning, ICLR 2024. ``right`` keeps the values that
it was drawn with, in the cloud and on all devices; ``left`` (and biases) are averaged as in FedAvg: exact, half of
LoRA's bytes, and linear, so that masks and noise are at home here. At full rank it is FedAvg, because ``right`` has
orthonormal rows.

Up: the changes of ``left`` and biases. Down: ``left`` and biases; the frozen matrices and ``right``, too, unless
``published`` beforehand. Stays: the data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Unpack

from duetto import tree as trees
from duetto.algorithms.common import Common, declared, spelled_out, variant
from duetto.errors import ConfigError
from duetto.models import Lora, Net, lora
from duetto.training import Client
from duetto.tree import Tree
from duetto.types import Algorithm, Key, Peer, ServerUpdate, Trained

_LEARNED, _FROZEN = ("left", "rest"), ("base", "right")


@dataclass(frozen=True)
class HalfLoraClient(Client):
    """Trains ``left`` and what has no factors; ``frozen`` in its memory may hold the rest."""

    rank: int = 1

    def trains(self, sent: Tree, memory: Mapping[str, Any]) -> Client:
        """The one factor."""
        return declared(self, Lora(self.net, self.rank, fixed=True))

    def start(self, sent: Tree, memory: Mapping[str, Any]) -> Tree:
        """What came, and what is here.

        Raises:
            ConfigError: the frozen part is neither here nor sent.
        """
        if "base" not in sent and "frozen" not in memory:
            raise ConfigError("a device without the frozen part of its network", "publish it, or send it every round")
        return {"params": {**memory.get("frozen", {}), **sent}}

    def finish(self, sent: Tree, memory: Mapping[str, Any], trained: Trained) -> tuple[Mapping[str, Any], Tree, float]:
        """The change of what is learned."""
        return memory, {name: trained.delta[name] for name in _LEARNED}, float(trained.examples)

    def personal(self, sent: Tree, memory: Mapping[str, Any]) -> Tree:
        """The network that the factors stand for."""
        return sent["params"] if "params" in sent else lora.joined(self.start(sent, memory)["params"])


@dataclass(frozen=True)
class OneFactor(ServerUpdate[Tree]):
    """Adds the mean change of ``left`` and of what has no factors; an empty cohort changes nothing.

    Attributes:
        published: devices remember ``base`` and ``right``, so that these are not sent.
    """

    beside: Lora
    published: bool = False

    def init(self, params: Tree) -> Tree:
        """Products that are zero."""
        return self.beside.beside(params, 0)

    def send(self, state: Tree, params: Tree, peer: Peer | None) -> Tree:
        """What is learned, and the rest where it is not known."""
        return {name: state[name] for name in (_LEARNED if self.published else (*_LEARNED, *_FROZEN))}

    def expects(self, params: Tree) -> Tree:
        """Changes of what is learned."""
        return {name: each for name, each in self.init(params).items() if name in _LEARNED}

    def step(
        self, state: Tree, params: Tree, collected: Tree | None, *, cohort_size: int, fleet_size: int, key: Key
    ) -> tuple[Tree, Tree]:
        """The factors, and the network that they stand for."""
        if collected is None:
            return state, params
        state = {**state, **{name: trees.add(state[name], collected[name]) for name in _LEARNED}}
        return state, lora.joined(state)


@spelled_out
def ffa_lora(net: Net, params: Tree, *, rank: int = 4, published: bool = False, **common: Unpack[Common]) -> Algorithm:
    """FFA-LoRA; where ``published``, a device's memory holds ``frozen``: the server's ``base`` and ``right``."""
    server = OneFactor(Lora(net, rank, fixed=True), published)
    return variant(net, params, server, partial(HalfLoraClient, rank=rank), **common)
