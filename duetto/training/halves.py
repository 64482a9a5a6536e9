"""Many cloud halves in one call: devices whose batches are due together, each with a half of its own.

A half of the same stages for each device (SplitFed v1 and v3, see ``algorithms.split``) differs from the others in its
numbers alone, so their steps are one step of stacked parameters (``torch.func.vmap``). Values are those of
:mod:`duetto.training.split` to rounding. Batches of other sizes, or in another place of their pass, are stepped apart.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call, vjp, vmap
from torch.nn import functional

from duetto import tree as trees
from duetto.errors import DataError
from duetto.models.graph import unfused
from duetto.models.staged import Half
from duetto.training.losses import Named
from duetto.training.optimisers import Optimiser
from duetto.training.split import HALVES, Back, Forth, half_of, leaves_of, module_of, moved
from duetto.tree import Tree
from duetto.types import Key, Local, Skill, Work


@dataclass(frozen=True)
class Backs(Skill):
    """:class:`duetto.training.split.Back` of several devices, each with its own half, at the same step of a pass.

    Takes ``{"parts": {device: {"features": {...}, "y": [n]}}, "of": {device: int64}}``, the steps of each one's pass,
    and gives ``{"slopes": {device: {...}}, "losses": {device: float64}}``; parts with ``slopes`` have no loss.

    Attributes:
        optimiser: of the cloud.
        step: which step of the pass.
    """

    optimiser: Optimiser
    step: int = 0

    @property
    def writes(self) -> bool:
        """The halves."""
        return True

    def __call__(self, local: Local, tree: Tree, key: Key, sender: str) -> tuple[Local, Tree]:
        """Step all.

        Raises:
            DataError: features that do not fit, of any device.
        """
        half, parts, groups = half_of(local, "back"), tree["parts"], dict[tuple[Any, ...], list[str]]()
        for name in sorted(parts):
            alike = half.rows(parts[name]["features"]), int(tree["of"][name]), "y" in parts[name]
            groups.setdefault(alike if stackable(half) else (name, int(tree["of"][name])), []).append(name)
        slopes, losses = dict[str, Tree](), dict[str, Any]()
        for (_, of, *_), names in groups.items():
            if len(names) == 1:
                alone = Back(self.optimiser, names[0], self.step, of)
                local, said = alone(local, {"parts": {names[0]: parts[names[0]]}}, key, sender)
                slopes |= said["slopes"]
                losses |= {names[0]: said["loss"]} if "loss" in said else {}
                continue
            kept, given = local.memory[HALVES], [parts[name] for name in names]
            after, found, told = stepped(half, [kept[name] for name in names], given, self.optimiser, self.step, of)
            local = local.remembering(**{HALVES: {**kept, **dict(zip(names, after, strict=True))}})
            slopes |= zip(names, found, strict=True)
            losses |= zip(names, told, strict=True) if told is not None else {}
        return local, {"slopes": slopes, "losses": losses}

    def work(self, local: Local, tree: Tree) -> Work:
        """A forward pass and its way back, of each."""
        half = half_of(local, "back")
        once = half.work(sum(half.rows(part["features"]) for part in tree["parts"].values()))
        return Work(3 * once.flops, 3 * once.bytes)


@dataclass(frozen=True)
class Forths(Skill):
    """:class:`duetto.training.split.Forth` of several devices: takes ``{"parts": {device: {"features": {...}}}}``,
    gives the same of what the halves make of them. Devices with one half in common go through it as one batch.

    Attributes:
        whose: the half in common; None is each device's own.
    """

    whose: str | None = None

    def __call__(self, local: Local, tree: Tree, key: Key, sender: str) -> tuple[Local, Tree]:
        """Compute.

        Raises:
            DataError: features that do not fit, of any device.
        """
        half, parts = half_of(local, "back"), tree["parts"]
        names = sorted(parts)
        rows = [half.rows(parts[name]["features"]) for name in names]
        if self.whose is not None and half.joinable:
            whole = {"features": half.joined([parts[name]["features"] for name in names])}
            found = half.parted(Forth(self.whose)(local, whole, key, sender)[1]["features"], rows)
        elif self.whose is None and len(rows) > 1 and len(set(rows)) == 1 and stackable(half):
            params = _params(half, [local.memory[HALVES][name] for name in names])
            with torch.no_grad():
                said = vmap(_through(half))(params, _features(half, [parts[name] for name in names]))
            found = [{name: tensor[i].contiguous().numpy() for name, tensor in said.items()} for i in range(len(names))]
        else:
            alone = [Forth(self.whose or name) for name in names]
            found = [
                each(local, parts[name], key, sender)[1]["features"] for each, name in zip(alone, names, strict=True)
            ]
        return local, {"parts": {name: {"features": each} for name, each in zip(names, found, strict=True)}}

    def work(self, local: Local, tree: Tree) -> Work:
        """A forward pass, of each."""
        half = half_of(local, "back")
        return half.work(sum(half.rows(part["features"]) for part in tree["parts"].values()))


def stepped(
    half: Half, kept: Sequence[Tree], parts: Sequence[Tree], optimiser: Optimiser, step: int, of: int
) -> tuple[list[Tree], list[Tree], np.ndarray | None]:
    """One step of several halves, on as many rows each.

    Args:
        half: the stages.
        kept: ``{"params", "state"}`` of each.
        parts: features, and labels or slopes, of each.
        optimiser, step, of: which step of how many.

    Returns:
        What each is then, the slopes of what each took, and the losses ``[halves]``, None without labels.

    Raises:
        DataError: labels or slopes that do not fit, or are not finite.
    """
    params, inputs = _params(half, kept), _features(half, parts)
    through, losses = _through(half), None
    if "y" in parts[0]:
        given = torch.from_numpy(np.stack([_labels(half, part) for part in parts]))

        def backward(params: Named, inputs: Named, y: Tensor) -> tuple[Any, Tensor]:
            def lost(params: Named, inputs: Named) -> Tensor:
                return functional.cross_entropy(next(iter(through(params, inputs).values())), y)

            pair: Any = vjp(lost, params, inputs)
            loss, back = pair
            return back(torch.ones_like(loss)), loss.detach()

        (grads, slopes), told = vmap(backward)(params, inputs, given)
        losses = np.asarray(told.numpy(), np.float64)
    else:
        outer = {name: _stack([_slopes(half, part, name) for part in parts]) for name in half.outputs}
        grads, slopes = vmap(lambda p, x, o: vjp(through, p, x)[1](o))(params, inputs, outer)
    leaves = {name: leaf.requires_grad_() for name, leaf in params.items()}
    for name, leaf in leaves.items():
        leaf.grad = grads[name]
    after, state = moved(leaves, optimiser, _joined([each["state"] for each in kept]), step, of)
    count = range(len(parts))
    whole = [{"params": _one(after, i), "state": _one(state, i)} for i in count]
    return whole, [{name: slope[i].contiguous().numpy() for name, slope in slopes.items()} for i in count], losses


def stackable(half: Half) -> bool:
    """Whether halves of these stages can be one call: what they take has slopes, what they learn has axes."""
    floating = all(np.dtype(each.dtype).kind == "f" for each in half.takes(1).values())
    return floating and all(np.ndim(leaf) for _, leaf in trees.leaves(half.params))


def _through(half: Half) -> Callable[[Named, Named], dict[str, Tensor]]:
    """One half, of its parameters and inputs."""
    module = module_of(half)

    def through(params: Named, inputs: Named) -> dict[str, Tensor]:
        inside = {half.learnable[name]: leaf for name, leaf in params.items()}
        with unfused():
            found = functional_call(module, inside, tuple(inputs.values()))
        return dict(zip(half.outputs, found, strict=True))

    return through


def _params(half: Half, kept: Sequence[Tree]) -> dict[str, Tensor]:
    each = [leaves_of(half, one["params"]) for one in kept]
    return {name: torch.stack([leaves[name] for leaves in each]) for name in half.learnable}


def _features(half: Half, parts: Sequence[Tree]) -> dict[str, Tensor]:
    return {name: _stack([part["features"][name] for part in parts]) for name in half.inputs}


def _stack(arrays: Sequence[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(arrays))


def _labels(half: Half, part: Tree) -> np.ndarray:
    y, rows = np.asarray(part["y"], np.int64), half.rows(part["features"])
    (logits,) = half.gives(rows).values()
    if y.shape != (rows,) or not ((y >= 0) & (y < logits.shape[1])).all():
        raise DataError(f"labels {y.shape} for logits {logits.shape}", "send one a row, of the model's classes")
    return y


def _slopes(half: Half, part: Tree, name: str) -> np.ndarray:
    wanted = half.gives(half.rows(part["features"]))[name].shape
    slope = np.asarray(part["slopes"].get(name, np.zeros(0)))
    if slope.shape != wanted or not np.isfinite(slope).all():
        raise DataError(f"slopes {slope.shape} of {name}, which is {wanted}", "send one a number")
    return slope


def _joined(states: Sequence[Tree]) -> Tree:
    """What an optimiser remembers of each, as of stacked parameters; a count of steps is the same for all."""
    return trees.map(lambda *each: np.stack(each) if np.ndim(each[0]) else each[0], *states) if states[0] else {}


def _one(tree: Tree, i: int) -> Tree:
    """What is the i-th half's."""
    return trees.map(lambda leaf: leaf[i].copy() if np.ndim(leaf) else leaf, tree)
