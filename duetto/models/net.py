"""A network without its parameters: what it is, how big, how much it computes.

A :class:`Net` is a frozen description, so it can be compared, hashed, put in a skill and shipped by value; its
parameters are a tree of numpy arrays that live in a party's memory. One module per description is built and
called with whatever parameters are at hand (``torch.func.functional_call``), never one per user.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cache, wraps
from threading import local
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from duetto import tree as trees
from duetto.errors import ConfigError
from duetto.tree import Tree
from duetto.types import Work

BATCH = 128  # rows a forward pass works on at once: enough to be fast, few enough to stay in cache


class Net(ABC):
    """A network's description: a frozen dataclass whose fields are its sizes."""

    shape: Any  # tuple[int, ...]: fields of most descriptions, properties of some
    classes: Any  # int

    @abstractmethod
    def module(self) -> nn.Module:
        """A new module that maps ``[n, *shape]`` float32 to logits ``[n, classes]``; it mixes no rows."""

    def init(self, seed: int) -> Tree:
        """Fresh parameters, float32."""
        return to_tree(dict(built(self, seed).named_parameters()))

    def logits(self, params: Tree, x: np.ndarray) -> np.ndarray:
        """Logits ``[n, classes]`` float32 of ``x [n, *shape]``.

        Raises:
            ConfigError: parameters of another network.
        """
        tensors, module = fitting(self, params), shared(self)
        rows = channels_last(to_tensor(np.asarray(x, np.float32)))
        with torch.inference_mode():
            parts = [functional_call(module, tensors, (part,)) for part in torch.split(rows, BATCH)]
            logits: np.ndarray = torch.cat(parts).numpy()
            return logits

    @property
    def parameters(self) -> int:
        """How many numbers it has."""
        return _parameters(self)

    def work(self, rows: int, bytes_per_parameter: int = 4) -> Work:
        """What a forward pass over ``rows`` computes and moves."""
        return Work(flops=_flops(self) * rows, bytes=float(self.parameters * bytes_per_parameter))


def built(net: Net, seed: int = 0) -> nn.Module:
    """A new module; torch's own chance, which nobody here asked for, stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return net.module()


def by_thread(make: Callable[[Net], nn.Module]) -> Callable[[Net], nn.Module]:
    """As :func:`functools.cache`, but for each thread apart.

    A module that is called with other parameters holds them for as long as the call takes, so two threads that shared
    one would compute with each other's.
    """
    own = local()

    def made(net: Net) -> nn.Module:
        kept: dict[Net, nn.Module] = own.__dict__.setdefault("kept", {})
        if net not in kept:
            kept[net] = make(net)
        return kept[net]

    return wraps(make)(made)


@by_thread
def shared(net: Net) -> nn.Module:
    """This thread's one module of this description; its own parameters are never used."""
    return built(net).eval().requires_grad_(False)


@cache
def _shapes(net: Net) -> dict[str, torch.Size]:
    return {name: parameter.shape for name, parameter in shared(net).named_parameters()}


@cache
def _parameters(net: Net) -> int:
    return sum(p.numel() for p in shared(net).parameters())


@cache
def _flops(net: Net) -> float:
    """Floating-point operations of one row's forward pass (a multiply and an add are two)."""
    module = built(net).to("meta")
    with FlopCounterMode(display=False) as counter:
        module(torch.empty((1, *net.shape), device="meta"))
    return float(counter.get_total_flops())


def to_tree(named: dict[str, Any]) -> Tree:
    """Named tensors as a tree: ``conv1.weight`` becomes ``{"conv1": {"weight": ...}}``. Copies."""
    root: dict[str, Any] = {}
    for dotted, tensor in named.items():
        *parents, last = dotted.split(".")
        branch = root
        for name in parents:
            branch = branch.setdefault(name, {})
        branch[last] = tensor.detach().cpu().numpy().copy()
    return root


def to_tensors(params: Tree) -> dict[str, torch.Tensor]:
    """The tree as named tensors that share its memory where they can; they are only read."""
    return {pointer[1:].replace("/", "."): to_tensor(array) for pointer, array in trees.leaves(params)}


def to_tensor(array: np.ndarray) -> torch.Tensor:
    """The array as a tensor, which is only read; torch wants to own an array that nobody may write to."""
    array = np.ascontiguousarray(array).reshape(np.shape(array))
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def fitting(net: Net, params: Tree) -> dict[str, torch.Tensor]:
    """The parameters as tensors, all of the network's and no others: torch would take its own for what is missing.

    Raises:
        ConfigError: parameters of another network.
    """
    tensors, wanted = to_tensors(params), _shapes(net)
    if tensors.keys() != wanted.keys() or any(tensors[name].shape != shape for name, shape in wanted.items()):
        raise ConfigError(f"parameters that are not those of {net}", "both sides must mean the same network")
    return tensors


def channels_last(x: torch.Tensor) -> torch.Tensor:
    """Images with their channels innermost, where pooling is several times faster; anything else as it is.

    With one channel it is the same memory, which torch would not see.
    """
    if x.ndim != 4:
        return x
    if x.shape[1] > 1:
        return x.contiguous(memory_format=torch.channels_last)
    return x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)


def size(shape: tuple[int, ...]) -> int:
    """Numbers in one row."""
    return math.prod(shape)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Log-probabilities ``[n, classes]``."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    log: np.ndarray = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return log
