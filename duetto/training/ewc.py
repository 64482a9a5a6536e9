"""Elastic weight consolidation: parameters that mattered for earlier tasks are held back by springs.

Kirkpatrick, Pascanu, Rabinowitz et al.: Overcoming Catastrophic Forgetting in Neural Networks, PNAS 2017: a spring to
where each earlier task left the parameters, as stiff as the diagonal of its Fisher information. Springs to several
points pull as one to their stiffness-weighted mean, so the memory holds two trees however many tasks there were; the
loss that is told differs from the paper's by a constant.

Schwarz, Czarnecki, Luketina et al.: Progress & Compress: A Scalable Framework for Continual Learning, ICML 2018
(online EWC; ``decay`` is its gamma): one spring to where the last task ended, older stiffness fading.

As a term of the loss a spring needs ``step * strength * stiffness`` below 2, or it swings ever wider. With a
``strength`` of its own, :class:`Ewc` steps by the loss first and then takes its springs' force where that step ends
(implicit Euler): that is stable however stiff they are, and the same where steps are small.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call, grad, vmap
from torch.nn import functional

from duetto import tree as trees
from duetto.errors import ConfigError
from duetto.models.net import Net, fitting, shared, to_tensor, to_tensors, to_tree
from duetto.training.client import Client
from duetto.training.lifelong import Lifelong
from duetto.training.losses import Named
from duetto.training.optimisers import Optimiser
from duetto.tree import Tree
from duetto.types import Key, rng

_CHUNK = 32  # rows whose gradients are in memory at once


@dataclass(frozen=True)
class Elastic:
    """``strength / 2 * sum(fisher * (params - anchor)^2)``, of what :class:`Ewc` starts from.

    Raises:
        ConfigError: a strength that is negative or not finite.
    """

    strength: float

    def __post_init__(self) -> None:
        if not 0 <= self.strength < math.inf:
            raise ConfigError(f"strength={self.strength}", "use a number from 0")

    def __call__(self, logits: Tensor, batch: Named, params: Named, start: Mapping[str, Named]) -> Tensor:
        """[n], the same number in each row."""
        stiff, anchor = start["fisher"], start["anchor"]
        pull = sum(((stiff[name] * (params[name] - anchor[name]) ** 2).sum() for name in params), logits.new_zeros(()))
        return (self.strength / 2 * pull).expand(len(logits))


@dataclass(frozen=True)
class Ewc(Lifelong):
    """A client whose loss has an :class:`Elastic`, or which has a ``strength``; remembers ``ewc``: ``fisher`` and
    ``anchor``, nothing at first.

    Attributes:
        decay: what is left of older tasks' stiffness (online EWC); None sums all tasks' springs.
        strength: of springs that are stepped implicitly; None where an :class:`Elastic` in the loss is all.

    Raises:
        ConfigError: a decay outside 0..1, or a strength that is negative or not finite.
    """

    decay: float | None = None
    strength: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.decay is not None and not 0 <= self.decay <= 1:
            raise ConfigError(f"decay={self.decay}", "use a share from 0 to 1, or None")
        if self.strength is not None and not 0 <= self.strength < math.inf:
            raise ConfigError(f"strength={self.strength}", "use a number from 0, or None")

    def start(self, sent: Tree, memory: Mapping[str, Any]) -> Tree:
        """The parameters, and the springs."""
        params = sent["params"]
        return {"params": params, **memory.get("ewc", {"fisher": trees.zeros(params), "anchor": params})}

    def stepping(self, memory: Mapping[str, Any], params: Tree) -> Client:
        """As declared; with a strength, with an optimiser that pulls."""
        if self.strength is None or "ewc" not in memory:
            return self
        stiff, anchor = (to_tensors(memory["ewc"][name]) for name in ("fisher", "anchor"))
        order = to_tensors(params)  # as the executor has its leaves
        springs = [self.strength * stiff[name] for name in order], [anchor[name] for name in order]
        return replace(self, optimiser=_Sprung(self.optimiser, *springs))

    def learnt(
        self, memory: Mapping[str, Any], data: Mapping[str, np.ndarray], params: Tree, key: Key
    ) -> Mapping[str, Any]:
        """A spring more, to where this task ends."""
        fresh = fisher(self.net, params, data["x"], key)
        if "ewc" not in memory:
            return {**memory, "ewc": {"fisher": fresh, "anchor": params}}
        old = memory["ewc"]
        if self.decay is not None:
            stiff = trees.add(trees.scale(old["fisher"], self.decay), fresh)
            return {**memory, "ewc": {"fisher": stiff, "anchor": params}}
        stiff = trees.add(old["fisher"], fresh)
        return {
            **memory,
            "ewc": {"fisher": stiff, "anchor": trees.map(_between, old["fisher"], old["anchor"], fresh, params)},
        }


@dataclass(frozen=True, eq=False)
class _Sprung:
    """An optimiser after whose steps springs pull, by as much as they do where they let go."""

    inner: Optimiser
    stiff: Sequence[Tensor]
    anchor: Sequence[Tensor]

    def start(self, params: Iterable[Tensor]) -> torch.optim.Optimizer:
        """The inner one, with a pull after each step."""
        leaves = list(params)

        def pull(optimiser: Any, args: Any, kwargs: Any) -> None:
            lr = optimiser.param_groups[0]["lr"]
            with torch.no_grad():
                for leaf, stiff, anchor in zip(leaves, self.stiff, self.anchor, strict=True):
                    k = lr * stiff.to(leaf.dtype)
                    leaf.copy_((leaf + k * anchor.to(leaf.dtype)) / (1 + k))

        optimiser = self.inner.start(leaves)
        optimiser.register_step_post_hook(pull)
        return optimiser

    def rate(self, step: int, steps: int) -> float:
        """The inner one's."""
        return self.inner.rate(step, steps)


def fisher(net: Net, params: Tree, x: np.ndarray, key: Key) -> Tree:
    """The diagonal of the Fisher information: the mean over rows of the squared gradient of the log-likelihood of a
    label that is drawn from the network's own answer; shaped as ``params``."""
    tensors, module = fitting(net, params), shared(net)
    dtype = next(iter(tensors.values())).dtype
    rows = to_tensor(np.asarray(x)).to(dtype)
    with torch.no_grad():
        answers = torch.cat([functional_call(module, tensors, (part,)) for part in torch.split(rows, 128)])
    shares = functional.softmax(answers.double(), 1).cumsum(1).numpy()
    drawn = (rng(key).random((len(rows), 1)) * shares[:, -1:] > shares).sum(1)
    labels = torch.from_numpy(np.minimum(drawn, net.classes - 1))

    def surprise(params: dict[str, Tensor], row: Tensor, label: Tensor) -> Tensor:
        logits = functional_call(module, params, (row[None],))
        return functional.cross_entropy(logits, label[None])

    each = vmap(grad(surprise), in_dims=(None, 0, 0))
    total = {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}
    for part, told in zip(torch.split(rows, _CHUNK), torch.split(labels, _CHUNK), strict=True):
        for name, slope in each(tensors, part, told).items():
            total[name] += (slope**2).sum(0) / len(rows)
    return to_tree(total)


def _between(stiff: np.ndarray, anchor: np.ndarray, fresh: np.ndarray, params: np.ndarray) -> np.ndarray:
    """Where two springs come to rest; where there is none, at the newer point."""
    both = stiff + fresh
    share = np.divide(fresh, both, out=np.ones_like(both), where=both > 0)
    return np.asarray(anchor + share * (params - anchor))
