"""Federated LoRA: aggregated exactly, by the mean of the products, which is not the product of the mean factors.

Singhal, Ponkshe, Vepakomma: FedEx-LoRA: Exact Aggregation for Federated and Efficient Fine-Tuning of Foundation Models,
ACL 2025. Devices train two thin factors beside each frozen matrix: the server averages the factors, and adds what the
mean product has beyond their product to the matrices. With ``svd`` matrices stay as they are, and the next factors are
the best ones of their rank for the mean product. Bai, Chen, Qian, Yao, Li: Federated Fine-tuning of Large Language
Models under Heterogeneous Tasks and Client Resources, NeurIPS 2024 (FlexLoRA).

Up: the changes of factors and biases; the cloud hears each device's, which tell more than a sum. Down: the whole
network, and the factors. Stays: the data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Unpack

import numpy as np

from duetto import aggregation
from duetto import tree as trees
from duetto.algorithms.common import Common, declared, spelled_out, variant
from duetto.models import Lora, Net, lora
from duetto.training import Client
from duetto.tree import Tree
from duetto.types import Algorithm, Key, Peer, ServerUpdate, Trained

_LEARNED = ("left", "right", "rest")


@dataclass(frozen=True)
class LoraClient(Client):
    """Trains factors of a rank beside the matrices of ``net``."""

    rank: int = 1

    def trains(self, sent: Tree, memory: Mapping[str, Any]) -> Client:
        """The factors."""
        return declared(self, Lora(self.net, self.rank))

    def start(self, sent: Tree, memory: Mapping[str, Any]) -> Tree:
        """The matrices without the products, and these."""
        parts = Lora(self.net, self.rank).beside(sent["params"], 0)
        base = trees.subtract(parts["base"], lora.products(sent["left"], sent["right"], parts["base"]))
        return {"params": {**parts, "base": base, "left": sent["left"], "right": sent["right"]}}

    def finish(self, sent: Tree, memory: Mapping[str, Any], trained: Trained) -> tuple[Mapping[str, Any], Tree, float]:
        """The changes of the factors, and of what has none."""
        return memory, {name: trained.delta[name] for name in _LEARNED}, float(trained.examples)


@dataclass(frozen=True)
class Products(ServerUpdate[Tree]):
    """Moves the matrices by the mean change of the products; an empty cohort changes nothing."""

    beside: Lora
    svd: bool = False

    def init(self, params: Tree) -> Tree:
        """Products that are zero."""
        return {name: each for name, each in self.beside.beside(params, 0).items() if name in ("left", "right")}

    def send(self, state: Tree, params: Tree, peer: Peer | None) -> Tree:
        """The network, products included, and the factors."""
        return {"params": params, **state}

    def expects(self, params: Tree) -> Tree:
        """Changes of factors, and of what has none."""
        return {name: each for name, each in self.beside.beside(params, 0).items() if name in _LEARNED}

    def step(
        self, state: Tree, params: Tree, collected: Tree | None, *, cohort_size: int, fleet_size: int, key: Key
    ) -> tuple[Tree, Tree]:
        """The mean product, exactly, or its best approximation."""
        if collected is None:
            return state, params
        told, weights = ([each[name] for each in collected.values()] for name in ("tree", "weight"))
        shares = (np.array(weights) / sum(weights)).tolist()
        like = self.beside.beside(params, 0)["base"]
        ends = [{name: trees.add(state[name], each[name]) for name in state} for each in told]
        before = lora.products(state["left"], state["right"], like)
        after = trees.total([lora.products(end["left"], end["right"], like) for end in ends], shares)
        if self.svd:
            pairs = trees.map(lora.nearest, after, state["right"])
            state = {name: trees.map(lambda pair, i=i: pair[i], pairs) for i, name in enumerate(("left", "right"))}
            after = lora.products(state["left"], state["right"], like)
        else:
            state = trees.map(lambda mean, old: mean.astype(old.dtype), trees.total(ends, shares), state)
        change = lora.united(trees.subtract(after, before), trees.total([each["rest"] for each in told], shares))
        return state, trees.map(lambda old, by: (old + by).astype(old.dtype), params, change)


@spelled_out
def fedlora(net: Net, params: Tree, *, rank: int = 4, svd: bool = False, **common: Unpack[Common]) -> Algorithm:
    """Federated LoRA with exact products, of a rank from 1; ``svd`` truncates them to it, and lets the matrices be."""
    built = variant(net, params, Products(Lora(net, rank), svd), partial(LoraClient, rank=rank), **common)
    return replace(built, aggregator=aggregation.Stack(weighed=True))
