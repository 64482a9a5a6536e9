"""FedGKT: small models on devices and a large one in the cloud that reads their features; they teach each other.

He, Annavaram, Avestimehr: Group Knowledge Transfer: Federated Learning of Large CNNs at the Edge, NeurIPS 2020. A
device trains a small model, whose first ``cut`` stages are the cloud's eyes; the cloud trains a large one on the
features, labels and answers of all, and answers in turn. With ``shares`` the small models are averaged too:
split-federated distillation, SplitFed with answers in place of slopes, so that a device that joins has one.

Up: features, labels and answers of the rows that are ``shown``, which tell much about them; the change of the model
that is shared. Down: the cloud's answers about these rows. Stays: other rows; the small model, unless it is shared.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar, Unpack

import numpy as np

from duetto import aggregation
from duetto import tree as trees
from duetto.algorithms.common import Common, spelled_out, variant
from duetto.errors import ConfigError
from duetto.models import Net
from duetto.training import SGD, Client, CrossEntropy, Distil, sequential
from duetto.training.bridge import Heard, stacked
from duetto.training.extractor import Extractor, crossing
from duetto.tree import Tree
from duetto.types import Algorithm, Key, Peer, ServerUpdate


@dataclass(frozen=True, eq=False)
class Knowing(ServerUpdate[Tree]):
    """Learns from features and answers; ``params`` are the ``cloud``'s, and of a ``device``, where all have one."""

    student: Client
    reply: Tree
    personal: ClassVar[bool] = True

    def init(self, params: Tree) -> Tree:
        """Nothing said to anybody."""
        return {"said": {}}

    def send(self, state: Tree, params: Tree, peer: Peer | None) -> Tree:
        """The answers about the device's rows."""
        silence = np.zeros_like(self.reply["logits"])
        shared = {"params": params["device"]} if "device" in params else {}
        return {"answers": state["said"].get(peer.name, silence) if peer else silence, **shared}

    def expects(self, params: Tree) -> Tree:
        """Features, labels, answers, and the change of what is shared."""
        return {**self.reply, **({"change": params["device"]} if "device" in params else {})}

    def step(
        self, state: Tree, params: Tree, collected: Tree | None, *, cohort_size: int, fleet_size: int, key: Key
    ) -> tuple[Tree, Tree]:
        """Train, answer, and average; an empty cohort changes nothing."""
        if collected is None:
            return state, params
        heard = {name: each["tree"] for name, each in collected.items()}
        lessons = stacked(
            [{"x": each["features"], "y": each["y"], "teacher": each["logits"]} for each in heard.values()]
        )
        cloud = sequential.run(self.student, {"params": params["cloud"]}, lessons, (*key, "cloud")).params
        single, after = trees.map(np.float32, cloud), {**params, "cloud": cloud}
        said = {name: self.student.net.logits(single, each["features"]) for name, each in heard.items()}
        if "device" in params:
            weights = np.array([float(each["weight"]) for each in collected.values()])
            mean = trees.total([each["change"] for each in heard.values()], weights / weights.sum())
            after["device"] = trees.map(lambda old, change: old + change.astype(old.dtype), params["device"], mean)
        return {"said": {**state["said"], **said}}, after


@spelled_out
def fedgkt(
    net: Net,
    params: Tree,
    server: Net,
    *,
    cut: int = 2,
    shown: int = 64,
    alpha: float = 1.0,
    temperature: float = 3.0,
    passes: int = 1,
    shares: bool = False,
    **common: Unpack[Common],
) -> Algorithm:
    """FedGKT; ``server`` reads features after ``cut`` stages of ``net``, and goes over them so many ``passes``;
    ``alpha`` weighs answers, at a ``temperature``, against labels; ``params`` start the model that is shared."""
    if (shape := crossing(net, cut)) != tuple(server.shape):
        raise ConfigError(f"features {shape} for a cloud that takes {server.shape}", "give it a network of that shape")
    how = SGD(common["lr"], common.get("momentum", 0.0))
    student = Client(server, (CrossEntropy(), Distil(alpha, temperature)), how, passes, common.get("batch_size", 16))
    logits = np.zeros((shown, net.classes), np.float32)
    reply = {"logits": logits, "y": np.zeros(shown, np.int64), "features": np.zeros((shown, *shape), np.float32)}
    start = {"cloud": server.init(0), **({"device": params} if shares else {})}
    client = partial(Extractor, cut=cut, shown=shown, shares=shares)
    built = variant(net, start, Knowing(student, reply), client, (Heard(alpha, temperature),), **common)
    return replace(built, aggregator=aggregation.Stack(weighed=True))
