"""Gradient episodic memory: no step may raise the loss on what is remembered of any earlier task.

Lopez-Paz, Ranzato: Gradient Episodic Memory for Continual Learning, NIPS 2017. A step's gradient is replaced by the
nearest one that does not point against the gradient of any earlier task's rows: a quadratic program in as many unknowns
as tasks, solved here as non-negative least squares. With ``averaged`` all remembered rows are one constraint, which has
a closed form (A-GEM: Chaudhry, Ranzato, Rohrbach, Elhoseiny, Efficient Lifelong Learning with A-GEM, ICLR 2019, on all
remembered rows instead of a sample of them).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call

from duetto.errors import ConfigError
from duetto.models.net import Net, shared, to_tensors
from duetto.training import sequential
from duetto.training.client import Client
from duetto.training.lifelong import Lifelong
from duetto.training.losses import Term
from duetto.training.optimisers import Optimiser
from duetto.training.replay import reservoir
from duetto.tree import Tree
from duetto.types import Key


@dataclass(frozen=True)
class Gem(Lifelong):
    """A client that remembers ``gem``: by earlier part, some rows ``x`` and ``y``.

    Attributes:
        capacity: rows that are kept of each part.
        margin: as in the paper: how much a projected step leans towards what is remembered.
        averaged: A-GEM.

    Raises:
        ConfigError: no room for a row, or a negative margin.
    """

    capacity: int = 20
    margin: float = 0.5
    averaged: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.capacity < 1 or not self.margin >= 0:
            raise ConfigError(
                f"{self.capacity} rows kept of a part, a margin of {self.margin}", "keep a row, use a margin from 0"
            )

    def stepping(self, memory: Mapping[str, Any], params: Tree) -> Client:
        """As declared, with an optimiser that projects."""
        old = [memory["gem"][part] for part in sorted(memory.get("gem", {}))]
        if not old:
            return self
        if self.averaged:
            old = [{name: np.concatenate([each[name] for each in old]) for name in ("x", "y")}]
        terms = tuple(term for term in self.loss if getattr(term, "by_row", False))
        margin = 0.0 if self.averaged else self.margin
        return replace(
            self, optimiser=_Projected(self.optimiser, self.net, tuple(to_tensors(params)), terms, old, margin)
        )

    def learnt(
        self, memory: Mapping[str, Any], data: Mapping[str, np.ndarray], params: Tree, key: Key
    ) -> Mapping[str, Any]:
        """Some rows of this part, uniformly."""
        kept = memory.get("gem", {})
        rows = reservoir(None, data, self.capacity, key)
        return {**memory, "gem": {**kept, f"{len(kept):06d}": {"x": rows["x"], "y": rows["y"]}}}


@dataclass(frozen=True, eq=False)
class _Projected:
    """An optimiser that looks at its gradient once more before it steps."""

    inner: Optimiser
    net: Net
    names: Sequence[str]
    terms: Sequence[Term]
    old: Sequence[Mapping[str, np.ndarray]]
    margin: float

    def start(self, params: Iterable[Tensor]) -> torch.optim.Optimizer:
        """The inner one, with a look before each step."""
        leaves = list(params)
        module = shared(self.net)
        batches = [sequential.columns(each, leaves[0].dtype) for each in self.old]

        def remembered(batch: Mapping[str, Tensor]) -> Tensor:
            named = dict(zip(self.names, leaves, strict=True))
            logits = functional_call(module, named, (batch["x"],))
            loss = torch.stack([term(logits, batch, named, {}) for term in self.terms]).sum(0).mean()
            return torch.cat([slope.flatten() for slope in torch.autograd.grad(loss, leaves)])

        def look(optimiser: Any, args: Any, kwargs: Any) -> None:
            own = torch.cat([leaf.grad.flatten() for leaf in leaves])  # type: ignore[union-attr]
            with torch.enable_grad():
                old = torch.stack([remembered(batch) for batch in batches])
            found = projected(own.numpy(), old.numpy(), self.margin)
            sizes = [leaf.numel() for leaf in leaves]
            for leaf, part in zip(leaves, torch.split(torch.from_numpy(found).to(own.dtype), sizes), strict=True):
                leaf.grad = part.reshape(leaf.shape)

        optimiser = self.inner.start(leaves)
        optimiser.register_step_pre_hook(look)
        return optimiser

    def rate(self, step: int, steps: int) -> float:
        """The inner one's."""
        return self.inner.rate(step, steps)


def projected(gradient: np.ndarray, old: np.ndarray, margin: float = 0.0) -> np.ndarray:
    """The vector nearest to ``gradient [p]`` whose product with no row of ``old [t, p]`` is negative; itself, where
    that is so already. With a ``margin`` each row's multiplier is at least that, as in the authors' program."""
    from scipy.optimize import nnls

    rows, wanted = np.asarray(old, np.float64), np.asarray(gradient, np.float64)
    if (rows @ wanted >= 0).all():
        return gradient
    shifted = wanted + margin * rows.sum(0)
    # min over v >= 0 of |rows.T v + shifted|, in the span of the rows, which is small.
    basis, small = np.linalg.qr(rows.T)
    multipliers, _ = nnls(small, -basis.T @ shifted)
    return np.asarray(shifted + multipliers @ rows)
