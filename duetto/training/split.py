"""The halves of split learning: what a device, and what the cloud, does with one batch.

Gupta, Raskar: Distributed learning of deep neural network over multiple agents, 2018; Vepakomma, Gupta, Swedish,
Raskar: Split learning for health, 2018 (also the U-shaped kind, whose last layers and labels stay on the device). The
device computes the first stages of a model and sends what crosses the cut; the cloud goes on, and sends back the slopes
there. Both sides step by themselves, so that without a codec they take together the very steps of the whole model.

Halves are :class:`duetto.models.staged.Half`, in a party's memory under ``front``, ``back`` and ``tail``; they compute
as in evaluation. Between two asks a device remembers its parameters and its place, and computes a batch's features
again when their slopes come: a graph of torch's cannot be kept in a file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from duetto import tree as trees
from duetto.errors import ConfigError, DataError
from duetto.models.graph import unfused
from duetto.models.net import to_tensor, to_tree
from duetto.models.staged import Half
from duetto.training.losses import CrossEntropy
from duetto.training.optimisers import Optimiser
from duetto.training.sequential import order
from duetto.tree import Tree
from duetto.types import Key, Local, Rows, Skill, Work

PASS = "pass"  # where a device remembers its place in a pass
HALVES = "halves"  # where the cloud remembers its halves, by whose they are


@dataclass(frozen=True)
class Enter(Skill):
    """Begin a pass over the device's rows, with the halves that come, ``{"params": {"front"[, "tail"]}}``, or its own.

    Gives ``{"batches": int64}``. Its own are what the last pass left, or the model's as it was staged.

    Attributes:
        epochs, batch_size: of the pass.

    Raises:
        ConfigError: no rows in a batch.
    """

    epochs: int
    batch_size: int

    def __post_init__(self) -> None:
        if self.epochs < 0 or self.batch_size < 1:
            raise ConfigError(f"{self.epochs} epochs in batches of {self.batch_size}", "a batch has at least one row")

    @property
    def writes(self) -> bool:
        """The place."""
        return True

    def __call__(self, local: Local, tree: Tree, key: Key, sender: str) -> tuple[Local, Tree]:
        """Begin."""
        before = local.memory.get(PASS, {})
        halves = [slot for slot in ("front", "tail") if slot in local.memory]
        own = before.get("params") or {slot: learnable(half_of(local, slot)) for slot in halves}
        params = tree.get("params", own)
        place = {"params": params, "start": params, "state": {}, "step": np.int64(0)}
        return local.remembering(**{PASS: place}), {"batches": np.int64(_batches(self, len(local.data)))}


@dataclass(frozen=True)
class Front(Skill):
    """The device's first half: with ``{"slopes": {...}}`` the step of the last batch, then the next batch's features.

    Gives ``{"features": {...}, "y": [n]}``, or ``{}`` once all batches are over. Every ask of a pass has the same key
    but for its last part, and batches come in the order of :func:`duetto.training.sequential.order`.

    Attributes:
        optimiser, epochs, batch_size: as of :class:`duetto.training.Client`.
        labels: whether labels travel with the features; they stay where a :class:`Tail` reads them.
    """

    optimiser: Optimiser
    epochs: int
    batch_size: int
    labels: bool = True

    @property
    def writes(self) -> bool:
        """The half, and the place."""
        return True

    def __call__(self, local: Local, tree: Tree, key: Key, sender: str) -> tuple[Local, Tree]:
        """Step, then look at the next batch.

        Raises:
            DataError: slopes without features before them, of another shape, or not finite.
        """
        half, place = half_of(local, "front"), _place(local)
        step, total = int(place["step"]), _batches(self, len(local.data))
        if "slopes" in tree:
            if not step:
                raise DataError("slopes before any features", "begin a pass with Enter")
            rows = batch(local.data, step - 1, key[:-1], self.batch_size)
            params, state = place["params"], place["state"]
            given = params["front"], _x(half, rows), tree["slopes"]
            front, kept, _ = stepped(half, *given, self.optimiser, state.get("front", {}), step - 1, total)
            place = {**place, "params": {**params, "front": front}, "state": {**state, "front": kept}}
        if step == total:
            return local.remembering(**{PASS: place}), {}
        rows = batch(local.data, step, key[:-1], self.batch_size)
        features = forward(half, place["params"]["front"], _x(half, rows))
        told: dict[str, Any] = {"features": features}
        if self.labels:
            told["y"] = np.asarray(rows.y, np.int64)
        return local.remembering(**{PASS: {**place, "step": np.int64(step + 1)}}), told

    def work(self, local: Local, tree: Tree) -> Work:
        """A forward pass, and of the batch before one more with its way back."""
        once = half_of(local, "front").work(min(self.batch_size, len(local.data)))
        times = 4 if "slopes" in tree else 1
        return Work(once.flops * times, once.bytes * times)


@dataclass(frozen=True)
class Tail(Skill):
    """The device's last stages and its labels: takes ``{"features": {...}}`` of the batch that :class:`Front` sent
    last, steps on the mean cross-entropy, and gives ``{"slopes": {...}}``.

    Attributes:
        optimiser, epochs, batch_size: as of :class:`Front`.
    """

    optimiser: Optimiser
    epochs: int
    batch_size: int

    @property
    def writes(self) -> bool:
        """The half."""
        return True

    def __call__(self, local: Local, tree: Tree, key: Key, sender: str) -> tuple[Local, Tree]:
        """Step, and say what should have come instead.

        Raises:
            DataError: features that do not fit.
        """
        half, place = half_of(local, "tail"), _place(local)
        step = int(place["step"]) - 1
        if step < 0:
            raise DataError("features before any were asked for", "ask Front first")
        total = _batches(self, len(local.data))
        y = np.asarray(batch(local.data, step, key[:-1], self.batch_size).y, np.int64)
        params, state = place["params"], place["state"]
        given = params["tail"], tree["features"], y
        tail, kept, slopes, _ = learned(half, *given, self.optimiser, state.get("tail", {}), step, total)
        place = {**place, "params": {**params, "tail": tail}, "state": {**state, "tail": kept}}
        return local.remembering(**{PASS: place}), {"slopes": slopes}

    def work(self, local: Local, tree: Tree) -> Work:
        """A forward pass and its way back."""
        once = half_of(local, "tail").work(min(self.batch_size, len(local.data)))
        return Work(3 * once.flops, 3 * once.bytes)


@dataclass(frozen=True)
class Leave(Skill):
    """End a pass: gives ``{"weight": rows}``, and what ``tells`` names, ``{"front"[, "tail"]}``; the device keeps it.

    Attributes:
        tells: its parameters, their change since it entered, or nothing of them.
    """

    tells: Literal["params", "delta", "nothing"] = "delta"

    def __call__(self, local: Local, tree: Tree, key: Key, sender: str) -> tuple[Local, Tree]:
        """Tell what there is now."""
        place = _place(local)
        told: dict[str, Tree] = {"weight": np.float64(len(local.data))}
        if self.tells == "delta":
            told["delta"] = trees.subtract(place["params"], place["start"])
        elif self.tells == "params":
            told["params"] = place["params"]
        return local, told


@dataclass(frozen=True)
class Back(Skill):
    """The cloud's half, one step: takes ``{"parts": {device: {"features": {...}, "y": [n]}}}``, all parts as one
    batch, and gives ``{"slopes": {device: {...}}, "loss"}``. Where parts have ``slopes`` of the half's outputs instead
    of labels, it goes back from them, and knows of no loss.

    Attributes:
        optimiser: of the cloud.
        whose: which of the halves that the cloud remembers.
        step, of: which step of how many of the pass.
    """

    optimiser: Optimiser
    whose: str
    step: int = 0
    of: int = 1

    @property
    def writes(self) -> bool:
        """The half."""
        return True

    def __call__(self, local: Local, tree: Tree, key: Key, sender: str) -> tuple[Local, Tree]:
        """Step, and say what should have come instead.

        Raises:
            DataError: features that do not fit.
        """
        half, kept = half_of(local, "back"), local.memory.get(HALVES, {})
        mine, names = kept[self.whose], sorted(tree["parts"])
        parts = [tree["parts"][name] for name in names]
        rows = [half.rows(part["features"]) for part in parts]
        features = parts[0]["features"] if len(parts) == 1 else half.joined([part["features"] for part in parts])
        given = self.optimiser, mine["state"], self.step, self.of
        told: dict[str, Any] = {}
        if "y" in parts[0]:
            y = np.concatenate([np.asarray(part["y"]) for part in parts])
            params, state, slopes, loss = learned(half, mine["params"], features, y, *given)
            told["loss"] = np.float64(loss)
        else:
            outer = parts[0]["slopes"] if len(parts) == 1 else half.joined([p["slopes"] for p in parts], slopes=True)
            params, state, slopes = stepped(half, mine["params"], features, outer, *given)
        each = [slopes] if len(parts) == 1 else half.parted(slopes, rows, slopes=True)
        after = {**kept, self.whose: {"params": params, "state": state}}
        return local.remembering(**{HALVES: after}), {**told, "slopes": dict(zip(names, each, strict=True))}

    def work(self, local: Local, tree: Tree) -> Work:
        """A forward pass and its way back."""
        half = half_of(local, "back")
        once = half.work(sum(half.rows(part["features"]) for part in tree["parts"].values()))
        return Work(3 * once.flops, 3 * once.bytes)


@dataclass(frozen=True)
class Forth(Skill):
    """The cloud's half, forward only: takes ``{"features": {...}}``, gives ``{"features": {...}}``.

    Attributes:
        whose: which of the halves that the cloud remembers.
    """

    whose: str

    def __call__(self, local: Local, tree: Tree, key: Key, sender: str) -> tuple[Local, Tree]:
        """Compute."""
        params = local.memory[HALVES][self.whose]["params"]
        return local, {"features": forward(half_of(local, "back"), params, tree["features"])}

    def work(self, local: Local, tree: Tree) -> Work:
        """A forward pass."""
        half = half_of(local, "back")
        return half.work(half.rows(tree["features"]))


# ------------------------------------------------------------------------------------------------- arithmetic


def learnable(half: Half) -> Tree:
    """The parameters that a half learns, as it was staged."""
    kept = half.module().state_dict()
    return to_tree({name: kept[inside] for name, inside in half.learnable.items()})


def forward(half: Half, params: Tree, features: Tree) -> dict[str, np.ndarray]:
    """What a half makes of features.

    Raises:
        DataError: features that do not fit.
    """
    half.rows(features)
    with torch.no_grad():
        found = _through(half, leaves_of(half, params), [to_tensor(features[name]) for name in half.inputs])
    return {name: np.ascontiguousarray(tensor.numpy()) for name, tensor in found.items()}


def stepped(
    half: Half, params: Tree, features: Tree, slopes: Tree, optimiser: Optimiser, state: Tree, step: int, of: int
) -> tuple[Tree, Tree, dict[str, np.ndarray]]:
    """One step back from the slopes of what a half gave: its parameters, the optimiser's state, the slopes of what it
    took.

    Raises:
        DataError: features or slopes that do not fit, or are not finite.
    """
    leaves, inputs, found = _forward(half, params, features)
    for name, tensor in found.items():
        slope = np.asarray(slopes[name]) if name in slopes else np.zeros(0)
        if slope.shape != tuple(tensor.shape) or not np.isfinite(slope).all():
            raise DataError(f"slopes {slope.shape} of {name}, which is {tuple(tensor.shape)}", "send one a number")
    with_slopes = {name: tensor for name, tensor in found.items() if tensor.requires_grad}
    torch.autograd.backward(list(with_slopes.values()), [to_tensor(slopes[name]) for name in with_slopes])
    after, kept = moved(leaves, optimiser, state, step, of)
    return after, kept, _slopes(inputs)


def learned(
    half: Half, params: Tree, features: Tree, y: np.ndarray, optimiser: Optimiser, state: Tree, step: int, of: int
) -> tuple[Tree, Tree, dict[str, np.ndarray], float]:
    """As :func:`stepped`, back from the mean cross-entropy of the half's one output; and that.

    Raises:
        DataError: features or labels that do not fit.
    """
    leaves, inputs, found = _forward(half, params, features)
    (logits,) = found.values()
    y = np.asarray(y, np.int64)
    if y.shape != (len(logits),) or not ((y >= 0) & (y < logits.shape[1])).all():
        raise DataError(f"labels {y.shape} for logits {tuple(logits.shape)}", "send one a row, of the model's classes")
    loss = CrossEntropy()(logits, {"y": torch.from_numpy(y)}, {}, {}).mean()
    loss.backward()  # type: ignore[no-untyped-call]
    after, kept = moved(leaves, optimiser, state, step, of)
    return after, kept, _slopes(inputs), float(loss.detach())


def _batches(skill: Enter | Front | Tail, n: int) -> int:
    return -(-n // skill.batch_size) * skill.epochs


def batch(data: Rows, step: int, key: Key, size: int) -> Rows:
    """The rows of a step, in the order in which unsplit training takes them."""
    epoch, at = divmod(step, -(-len(data) // size))
    rows = order(key, epoch, len(data)).numpy()[at * size : (at + 1) * size]
    return Rows(np.asarray(data.x)[rows], np.asarray(data.y)[rows])


def _forward(
    half: Half, params: Tree, features: Tree
) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    """Leaves and inputs that will have slopes, and what the half makes of them."""
    half.rows(features)
    leaves = {name: leaf.clone().requires_grad_() for name, leaf in leaves_of(half, params).items()}
    inputs = {name: to_tensor(features[name]) for name in half.inputs}
    for tensor in inputs.values():
        tensor.requires_grad_(tensor.is_floating_point())
    return leaves, inputs, _through(half, leaves, list(inputs.values()))


def _through(half: Half, leaves: Mapping[str, Tensor], inputs: list[Tensor]) -> dict[str, Tensor]:
    inside = {half.learnable[name]: leaf for name, leaf in leaves.items()}
    with unfused():
        return dict(zip(half.outputs, functional_call(module_of(half), inside, tuple(inputs)), strict=True))


def leaves_of(half: Half, params: Tree) -> dict[str, Tensor]:
    """A half's parameters as tensors, by the model's names.

    Raises:
        ConfigError: those of another half.
    """
    named = {pointer.strip("/").replace("/", "."): to_tensor(leaf) for pointer, leaf in trees.leaves(params)}
    if named.keys() != half.learnable.keys():
        odd = sorted(named.keys() ^ half.learnable.keys())
        raise ConfigError(f"parameters of another half ({odd[0]})", "cut the model alike on both sides")
    return {name: named[name] for name in half.learnable}


def moved(leaves: dict[str, Tensor], optimiser: Optimiser, state: Tree, step: int, of: int) -> tuple[Tree, Tree]:
    """The parameters after one step with the slopes that lie at the leaves, and what the optimiser remembers."""
    if not leaves:
        return {}, {}
    stepping = optimiser.start(leaves.values())
    if state:
        kept = {int(i): {name: to_tensor(value) for name, value in each.items()} for i, each in state.items()}
        stepping.load_state_dict({**stepping.state_dict(), "state": kept})
    for group in stepping.param_groups:
        group["lr"] = optimiser.rate(step, of)
    stepping.step()
    state = {
        str(i): {name: value.detach().numpy().copy() for name, value in each.items() if isinstance(value, Tensor)}
        for i, each in stepping.state_dict()["state"].items()
    }
    return to_tree(leaves), {i: each for i, each in state.items() if each}


def _slopes(inputs: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """At what came in; nothing is known of whole numbers, which have none."""
    return {
        name: (torch.zeros_like(tensor) if tensor.grad is None else tensor.grad).contiguous().numpy()
        for name, tensor in inputs.items()
        if tensor.is_floating_point()
    }


def _x(half: Half, rows: Rows) -> Tree:
    """The rows as the model's one input.

    Raises:
        ConfigError: a model with several.
    """
    if len(half.inputs) != 1:
        raise ConfigError(f"a model with the inputs {', '.join(half.inputs)}", "split learning takes one")
    (name,) = half.inputs
    return {name: np.asarray(rows.x, half.takes(1)[name].dtype)}


def _place(local: Local) -> Tree:
    if PASS not in local.memory:
        raise DataError("no pass has begun", "ask Enter first")
    place: Tree = local.memory[PASS]
    return place


def half_of(local: Local, slot: str) -> Half:
    if slot not in local.memory:
        raise ConfigError(
            f"no half of a model in memory[{slot!r}]", "give the party what staged[:cut] or staged[cut:] is"
        )
    half: Half = local.memory[slot]
    return half


@lru_cache(16)
def module_of(half: Half) -> nn.Module:
    return half.module()
