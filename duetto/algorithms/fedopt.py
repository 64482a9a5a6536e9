"""FedAdagrad, FedYogi, FedAdam: the server takes the mean delta for a gradient and steps adaptively.

Reddi, Charles, Zaheer, Garrett, Rush, Konečný, Kumar, McMahan: Adaptive Federated Optimization, ICLR 2021, algorithm 2.
Nothing corrects the bias of the first rounds: the mean begins at 0, the squares at ``tau^2``. A parameter moves by
about ``server_lr`` in a round, whatever its deltas, so ``server_lr`` has to be chosen, and is well below FedAvg's 1.

Up: the change of the parameters. Down: the parameters. Stays: the data; mean and squares are the cloud's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Unpack

import numpy as np

from duetto import tree as trees
from duetto.algorithms.common import Common, below_one, positive, spelled_out, variant
from duetto.errors import ConfigError
from duetto.models import Net
from duetto.tree import Array, Tree
from duetto.types import Algorithm, Key, ServerUpdate


@dataclass(frozen=True)
class Adaptive(ServerUpdate[Tree]):
    """``params + lr * mean / (sqrt(squares) + tau)``; an empty cohort changes nothing.

    Attributes:
        rule: "adagrad" adds squares up, "adam" averages them, "yogi" nears them by what is new, not by the distance.
        lr: learning rate.
        tau: parameters whose deltas are well below it are not evened out.
        beta1, beta2: shares of the mean and of the squares that are kept in a round; adagrad keeps all squares.

    Raises:
        ConfigError: a number out of range, or another rule.
    """

    rule: Literal["adagrad", "adam", "yogi"]
    lr: float
    tau: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.99

    def __post_init__(self) -> None:
        positive(server_lr=self.lr, tau=self.tau)
        below_one(beta1=self.beta1, beta2=self.beta2)
        if self.rule not in ("adagrad", "adam", "yogi"):
            raise ConfigError(f"no rule is called {self.rule!r}", 'use "adagrad", "adam" or "yogi"')

    def init(self, params: Tree) -> Tree:
        """Before the first round."""
        floor = trees.map(lambda leaf: np.full_like(leaf, self.tau**2), params)
        return {"mean": trees.zeros(params), "squares": floor}

    def step(
        self, state: Tree, params: Tree, collected: Tree | None, *, cohort_size: int, fleet_size: int, key: Key
    ) -> tuple[Tree, Tree]:
        """One adaptive step."""
        if collected is None:
            return state, params
        mean = trees.add(trees.scale(state["mean"], self.beta1), trees.scale(collected, 1 - self.beta1))
        squares = trees.map(self._kept, state["squares"], collected)
        move = trees.map(lambda m, v: m / (np.sqrt(v) + self.tau), mean, squares)
        return {"mean": mean, "squares": squares}, trees.add(params, trees.scale(move, self.lr))

    def _kept(self, kept: Array, delta: Array) -> Array:
        fresh = delta * delta
        if self.rule == "adagrad":
            return kept + fresh
        gap = kept - fresh
        return kept - (1 - self.beta2) * (gap if self.rule == "adam" else fresh * np.sign(gap))


@spelled_out
def fedadagrad(net: Net, params: Tree, *, server_lr: float, tau: float = 1e-3, **common: Unpack[Common]) -> Algorithm:
    """FedAdagrad, without momentum."""
    return variant(net, params, Adaptive("adagrad", server_lr, tau, beta1=0.0), **common)


@spelled_out
def fedadam(net: Net, params: Tree, *, server_lr: float, tau: float = 1e-3, **common: Unpack[Common]) -> Algorithm:
    """FedAdam."""
    return variant(net, params, Adaptive("adam", server_lr, tau), **common)


@spelled_out
def fedyogi(net: Net, params: Tree, *, server_lr: float, tau: float = 1e-3, **common: Unpack[Common]) -> Algorithm:
    """FedYogi."""
    return variant(net, params, Adaptive("yogi", server_lr, tau), **common)
