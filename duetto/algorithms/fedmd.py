"""FedMD: devices with networks of their own design learn from each other by what they say about public inputs.

Li, Wang: FedMD: Heterogenous Federated Learning via Model Distillation, 2019. In a round a device first learns what all
said on average about the public inputs (digest), then goes on with its own labelled data (revisit), and sends what it
now says about the public inputs. Every device holds the same ones, without labels, as ``public`` in its memory, and
trains one of ``nets``: that of its trait ``kind``, or one drawn by its name. The digest minimises the KL divergence,
not the distance of logits; for the paper's transfer learning on labelled public data, a device learns longer at first.

Up: logits ``[inputs, classes]``. Down: their mean. Stays: the network, and the data; no parameter travels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Unpack

import numpy as np

from duetto.algorithms.common import Common, alike, declared, kind_of, spelled_out, variant
from duetto.errors import ConfigError
from duetto.models import Net
from duetto.training import Client, Distil, sequential
from duetto.training.distilled import distilled
from duetto.tree import Tree
from duetto.types import Algorithm, Key, Local, Peer, ServerUpdate, Trained


@dataclass(frozen=True)
class LogitsClient(Client):
    """Trains a network that nobody else sees; ``digest`` are passes over the public inputs."""

    nets: tuple[Net, ...] = ()
    digest: int = 1
    first: int = 0

    def __call__(self, local: Local, tree: Tree, key: Key, sender: str) -> tuple[Local, Tree]:
        """Digest, revisit, and say."""
        if "public" not in local.memory:
            raise ConfigError("a device without public inputs", "give every device the same ones, as memory 'public'")
        plain = declared(self, self.nets[int(tree["kind"])])
        model = local.memory.get("model") or plain.net.init(sequential.seed((*key, "init")))
        if tree["heard"]:
            pupil = declared(self, plain.net, loss=(Distil(1.0, 1.0),), epochs=self.digest)
            model = distilled(pupil, plain.net, model, local.memory["public"], tree["logits"], (*key, "digest"))
        plain = plain if "model" in local.memory else replace(plain, epochs=plain.epochs + self.first)
        trained = sequential.run(plain, {"params": model}, plain.examples(local, model), key)
        return self._reply(local, tree, trained)

    def finish(self, sent: Tree, memory: Mapping[str, Any], trained: Trained) -> tuple[Mapping[str, Any], Tree, float]:
        """Keep the network; every device's word counts the same."""
        said = self.nets[int(sent["kind"])].logits(trained.params, memory["public"])
        return {**memory, "kind": sent["kind"], "model": trained.params}, {"logits": self.word(said)}, 1.0

    def word(self, logits: np.ndarray) -> np.ndarray:
        """What it tells of them."""
        return logits

    def logits(self, sent: Tree, memory: Mapping[str, Any], x: np.ndarray) -> np.ndarray:
        """What its own network answers; uniform, where it has none yet."""
        said = self.nets[int(memory["kind"])].logits(memory["model"], x) if "model" in memory else None
        return np.zeros((len(x), self.net.classes), np.float32) if said is None else said


@dataclass(frozen=True)
class Consensus(ServerUpdate[Tree]):
    """Passes on what devices say on average: ``params`` are these ``logits``; an empty cohort changes nothing."""

    kinds: int
    personal: ClassVar[bool] = True

    def init(self, params: Tree) -> Tree:
        """Nothing heard."""
        return {"heard": np.int64(0)}

    def send(self, state: Tree, params: Tree, peer: Peer | None) -> Tree:
        """The logits, whether they say anything, and which network is meant."""
        return {"logits": params["logits"], "heard": state["heard"], "kind": np.int64(kind_of(peer, self.kinds))}

    def step(
        self, state: Tree, params: Tree, collected: Tree | None, *, cohort_size: int, fleet_size: int, key: Key
    ) -> tuple[Tree, Tree]:
        """Their mean."""
        return (state, params) if collected is None else ({"heard": np.int64(1)}, self.agreed(collected))

    def agreed(self, collected: Tree) -> Tree:
        """The logits that devices learn."""
        return collected


@spelled_out
def fedmd(
    nets: tuple[Net, ...], public: int, *, digest: int = 1, first: int = 10, **common: Unpack[Common]
) -> Algorithm:
    """FedMD; ``public`` is how many public inputs all have, ``first`` further epochs before a device says anything."""
    client = partial(LogitsClient, nets=alike(nets), digest=digest, first=first)
    nothing = {"logits": np.zeros((public, nets[0].classes), np.float32)}
    return variant(nets[0], nothing, Consensus(len(nets)), client, **common)
