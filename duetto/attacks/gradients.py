"""Inputs from the gradient of a federated update: those whose gradient is the one that was sent.

*Distance* (Zhu, Liu, Han: Deep Leakage from Gradients, NeurIPS 2019): the squared distance of all gradients, by L-BFGS.
*Cosine* (Geiping, Bauermeister, Dröge, Moeller: Inverting Gradients, NeurIPS 2020): one less their cosine, which a mere
change of scale does not change, with total variation, by Adam on signs. The attacker is the server, which knows the
parameters; labels come from :func:`duetto.attacks.labels.of_update` or are given.

The attacker is *adaptive* where ``defence`` is what was done to the gradient before it was sent: it is done to the
guess's gradient, too. Naively, a distance compared with a clipped gradient finds nothing, and an update that was only
scaled looks private. A search that fails is no evidence of privacy: it may just have failed, so several starts are
made.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional

from duetto.attacks.search import variation
from duetto.errors import ConfigError, DataError
from duetto.models.net import Net, fitting, shared, to_tensor, to_tensors
from duetto.training.sequential import seed
from duetto.tree import Tree
from duetto.types import Key

Defence: TypeAlias = Callable[[list[Tensor]], list[Tensor]]
"""What is done to gradients before they are sent, in a form that has slopes itself."""


@dataclass(frozen=True)
class Clip:
    """A defence: all gradients scaled so that their norm is at most ``norm``; alone it hides nothing."""

    norm: float

    def __call__(self, gradients: list[Tensor]) -> list[Tensor]:
        """The same directions."""
        whole = torch.sqrt(sum((each.square().sum() for each in gradients), torch.zeros(())))
        return [each * torch.clamp(self.norm / whole.clamp(min=1e-12), max=1.0) for each in gradients]


@dataclass(frozen=True)
class Matching:
    """How the search is made.

    Attributes:
        by: "distance" (DLG) or "cosine" (Inverting Gradients).
        steps: of L-BFGS or Adam.
        starts: by chance, of which the one with the least loss is taken.
        lr: of the optimiser.
        smooth: weight of the total variation of images.
        within: the smallest and the largest value of an input, or None.

    Raises:
        ConfigError: no such way, or no step or start.
    """

    by: Literal["distance", "cosine"] = "cosine"
    steps: int = 200
    starts: int = 1
    lr: float = 0.1
    smooth: float = 0.0
    within: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.by not in ("distance", "cosine") or self.steps < 1 or self.starts < 1 or self.smooth < 0:
            raise ConfigError(f"{self}", 'match by "distance" or "cosine", with a step and a start at least')

    def guess(
        self, net: Net, params: Tree, sent: Tree, y: np.ndarray, key: Key, defence: Defence | None = None
    ) -> np.ndarray:
        """Inputs ``[n, *shape]`` float32 of the labels ``y [n]``, whose mean cross-entropy has the gradient ``sent``.

        Args:
            net, params: that the gradient was taken of, and at.
            sent: the gradient, a tree as ``params``.
            y: labels of the rows.
            key: of the starts.
            defence: what was done to ``sent``, as the attacker knows it; None is a naive attacker.

        Raises:
            DataError: a gradient of another network, or not finite.
        """
        module, tensors = shared(net), {name: t.clone() for name, t in fitting(net, params).items()}
        given = to_tensors(sent)
        if given.keys() != tensors.keys() or not all(torch.isfinite(each).all() for each in given.values()):
            raise DataError("a gradient of another network, or one that is not finite", "give one a parameter")
        wanted, labels = [given[name] for name in tensors], to_tensor(np.asarray(y, np.int64))

        def loss(x: Tensor) -> Tensor:
            leaves = {name: tensor.detach().requires_grad_() for name, tensor in tensors.items()}
            entropy = functional.cross_entropy(functional_call(module, leaves, (x,)), labels)
            own = list(torch.autograd.grad(entropy, list(leaves.values()), create_graph=True))
            apart = self._apart(defence(own) if defence is not None else own, wanted)
            return apart + self.smooth * variation(x).mean()

        best, least = torch.zeros((len(labels), *net.shape)), math.inf
        for start in range(self.starts):
            chance = torch.Generator().manual_seed(seed((*key, "start", start)))
            found, left = self._searched(torch.randn((len(labels), *net.shape), generator=chance), loss)
            if left < least:
                best, least = found, left
        return np.asarray(best.numpy())

    def _apart(self, own: list[Tensor], wanted: list[Tensor]) -> Tensor:
        if self.by == "distance":
            return sum(((a - b).square().sum() for a, b in zip(own, wanted, strict=True)), torch.zeros(()))
        both = sum(((a * b).sum() for a, b in zip(own, wanted, strict=True)), torch.zeros(()))
        norms = [sum((each.square().sum() for each in side), torch.zeros(())) for side in (own, wanted)]
        return 1 - both / torch.sqrt(norms[0] * norms[1]).clamp(min=1e-20)

    def _searched(self, x: Tensor, loss: Callable[[Tensor], Tensor]) -> tuple[Tensor, float]:
        x = x.requires_grad_()
        if self.by == "distance":
            search: torch.optim.Optimizer = torch.optim.LBFGS([x], lr=1.0, max_iter=20, line_search_fn="strong_wolfe")
        else:
            search = torch.optim.Adam([x], self.lr)

        def closure() -> float:
            search.zero_grad()
            left = loss(x)
            left.backward()  # type: ignore[no-untyped-call]
            if self.by == "cosine" and x.grad is not None:
                x.grad.sign_()
            return float(left.detach())

        for step in range(-(-self.steps // 20) if self.by == "distance" else self.steps):
            for group in search.param_groups:
                if self.by == "cosine":  # as the paper: a tenth after 3/8, 5/8 and 7/8
                    group["lr"] = self.lr * 0.1 ** sum(step >= self.steps * part / 8 for part in (3, 5, 7))
            search.step(closure)
            if self.within is not None:
                x.data.clamp_(*self.within)
        return x.detach(), float(loss(x).detach())
