"""The networks of vertical federated learning: a party's bottom, and the top where the labels are.

Both step by plain gradient descent, so that parties which each take their own step take together the joint network's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional

from duetto.errors import ConfigError, DataError
from duetto.models.net import Net, fitting, shared, to_tensor, to_tree
from duetto.tree import Tree
from duetto.types import Key, Local, Skill, Work


@dataclass(frozen=True)
class Bottom(Skill):
    """What a party makes of its own features: takes ``{"ids": [m]}``, gives ``{"features": [m, d]}``.

    With ``{"last": [n], "slope": [n, d]}`` it first takes the step of the batch before. Its data are ``{"ids": [n],
    "x": [n, *shape]}``; its parameters are ``memory["params"]``, fresh ones by ``seed`` before the first step.

    Attributes:
        net: whose logits are the features.
        lr: learning rate.
        seed: of the first parameters.

    Raises:
        ConfigError: a learning rate that is negative.
    """

    net: Net
    lr: float
    seed: int = 0

    def __post_init__(self) -> None:
        _rate(self.lr)

    @property
    def writes(self) -> bool:
        """The parameters."""
        return True

    def __call__(self, local: Local, tree: Tree, key: Key, sender: str) -> tuple[Local, Tree]:
        """Step, then look at the next batch.

        Raises:
            DataError: an id that the party does not have, or a slope of another shape.
        """
        params = _params(local, self.net, self.seed)
        if "last" in tree:
            params = self._stepped(local, params, tree["last"], np.asarray(tree["slope"]))
        leaves = fitting(self.net, params)
        with torch.inference_mode():
            features = self._features(leaves, local, tree["ids"]).numpy()
        return local.remembering(params=params), {"features": features}

    def _stepped(self, local: Local, params: Tree, ids: Any, slope: np.ndarray) -> Tree:
        leaves = {name: leaf.clone().requires_grad_() for name, leaf in fitting(self.net, params).items()}
        features = self._features(leaves, local, ids)
        if tuple(slope.shape) != tuple(features.shape) or not np.isfinite(slope).all():
            raise DataError(f"a slope of shape {slope.shape} for features {tuple(features.shape)}", "send one a number")
        return _descended(leaves, torch.autograd.grad(features, list(leaves.values()), to_tensor(slope)), self.lr)

    def _features(self, leaves: dict[str, Tensor], local: Local, ids: Any) -> Tensor:
        dtype = next(iter(leaves.values())).dtype
        x = to_tensor(np.asarray(local.data["x"])[_rows(local, np.asarray(ids, np.int64))]).to(dtype)
        found: Tensor = functional_call(shared(self.net), leaves, (x,))
        return found

    def work(self, local: Local, tree: Tree) -> Work:
        """A forward pass, and of the batch before one more with its way back."""
        return self.net.work(len(tree["ids"]) + 3 * len(tree.get("last", ())))


@dataclass(frozen=True)
class Top(Skill):
    """The network above all features, side by side in the order of the parties' names, at the label party.

    Takes ``{"ids": [n], "features": {party: [n, d]}}``; steps on the mean cross-entropy of its data's labels ``{"ids",
    "y"}``, and gives ``{"slopes": {party: [n, d]}, "loss"}``. Without ids it only answers ``{"logits": [n, classes]}``.

    Attributes:
        net, lr, seed: as of :class:`Bottom`.

    Raises:
        ConfigError: a learning rate that is negative.
    """

    net: Net
    lr: float
    seed: int = 0

    def __post_init__(self) -> None:
        _rate(self.lr)

    @property
    def writes(self) -> bool:
        """The parameters."""
        return True

    def __call__(self, local: Local, tree: Tree, key: Key, sender: str) -> tuple[Local, Tree]:
        """Step, and say what each party should have said instead.

        Raises:
            DataError: an id without a label, or features that do not fit.
        """
        params = _params(local, self.net, self.seed)
        leaves = {name: leaf.clone().requires_grad_() for name, leaf in fitting(self.net, params).items()}
        dtype = next(iter(leaves.values())).dtype
        parts = {name: to_tensor(np.asarray(tree["features"][name])).to(dtype) for name in sorted(tree["features"])}
        inputs = {name: part.clone().requires_grad_() for name, part in parts.items()}
        joint = torch.cat([part.flatten(1) for part in inputs.values()], 1)
        if joint.shape[1] != int(np.prod(self.net.shape)):
            raise DataError(f"{joint.shape[1]} features for a top network of {self.net.shape}", "give it all parties'")
        logits = functional_call(shared(self.net), leaves, (joint.reshape(-1, *self.net.shape),))
        if "ids" not in tree:
            return local, {"logits": logits.detach().numpy()}
        labels = np.asarray(local.data["y"], np.int64)[_rows(local, np.asarray(tree["ids"], np.int64))]
        loss = functional.cross_entropy(logits, torch.from_numpy(labels))
        found = torch.autograd.grad(loss, [*leaves.values(), *inputs.values()])
        slopes = {name: slope.numpy() for name, slope in zip(inputs, found[len(leaves) :], strict=True)}
        after = _descended(leaves, found[: len(leaves)], self.lr)
        return local.remembering(params=after), {"slopes": slopes, "loss": np.float64(loss.detach())}

    def work(self, local: Local, tree: Tree) -> Work:
        """Forward, and back."""
        return self.net.work(3 * len(next(iter(tree["features"].values()))))


def _rate(lr: float) -> None:
    if not lr >= 0:
        raise ConfigError(f"lr={lr}", "use a number from 0")


def _params(local: Local, net: Net, seed: int) -> Tree:
    return local.memory["params"] if "params" in local.memory else net.init(seed)


def _descended(leaves: dict[str, Tensor], slopes: Any, lr: float) -> Tree:
    return to_tree(
        {name: (leaf - lr * slope).detach() for (name, leaf), slope in zip(leaves.items(), slopes, strict=True)}
    )


def _rows(local: Local, ids: np.ndarray) -> np.ndarray:
    """The positions of these ids in a party's data."""
    known = np.asarray(local.data["ids"], np.int64)
    order = np.argsort(known, kind="stable")
    at = np.searchsorted(known[order], ids)
    if len(ids) and (not len(known) or (known[order[np.minimum(at, len(known) - 1)]] != ids).any()):
        raise DataError("asked about an id that is not here", "ask about those that all have")
    return np.asarray(order[at])
