"""Early exits: heads along a network that answer before it is done (BranchyNet, Teerapittayanon et al. 2016).

A :class:`Branched` is a network with heads after some of its cuts. It trains as one network, whose logits are those
of all exits and the final ones; what it has learned is taken apart again by :meth:`Branched.staged`, which a device
walks from cut to cut, so that no stage is computed twice (SPINN, Laskaridis et al. 2020).

What an exit reads is the last tensor of its cut's frontier: the one that was computed last.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import fx, nn
from torch.utils.flop_counter import FlopCounterMode

from duetto.errors import ConfigError, DataError
from duetto.models.graph import Graph, Layout, traced
from duetto.models.net import Net, built, fitting, to_tensors, to_tree
from duetto.models.staged import Half, Staged, stage
from duetto.tree import Shaped, Tree
from duetto.types import Work

_SIDE = 8  # pixels that a head's convolution looks at, each way: an early frontier has many and says little with each


@dataclass(frozen=True)
class Branched(Net):
    """A network with exits; its logits are ``[n, exits + 1, classes]``, the final ones last.

    Parameters of the backbone keep their names; those of the heads lie beside them in ``exits``. The backbone runs as
    in evaluation, so without dropout, also while it is trained.

    Attributes:
        backbone: the network.
        at: the cuts after which exits stand, rising; see :meth:`duetto.models.Staged.cuts` and :func:`evenly`.
        width: channels of the convolution in a head that reads images; 0 for none.

    Raises:
        ConfigError: cuts that do not rise, none, or one before the first stage; from :meth:`module`, a cut that the
            backbone does not have or that leaves nothing to read for a head.
    """

    backbone: Net
    at: tuple[int, ...]
    width: int = 64

    def __post_init__(self) -> None:
        if not self.at or self.at[0] < 1 or any(after <= before for before, after in pairwise(self.at)):
            raise ConfigError(f"exits after {self.at}", "name cuts that rise, each after a stage")
        if self.width < 0:
            raise ConfigError(f"heads of width {self.width}", "use channels, or 0 for none")

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one row."""
        found: tuple[int, ...] = self.backbone.shape
        return found

    @property
    def classes(self) -> int:
        """Logits of each exit."""
        return int(self.backbone.classes)

    def module(self) -> nn.Module:
        """``[n, *shape]`` to ``[n, exits + 1, classes]``."""
        staged = Staged(_graph(self.backbone))
        root = self.backbone.module()
        root.add_module("exits", nn.ModuleList(self._head(staged, cut) for cut in self.at))
        graph = staged.graph
        values = [_read(staged, cut) for cut in self.at]
        gives = {**{f"exit {i}": value for i, value in enumerate(values)}, **graph.outputs}
        part = graph.part(range(len(staged)), graph.inputs, gives)
        return _named(root, part, graph)

    def grown(self, params: Tree, seed: int) -> Tree:
        """The parameters of a trained backbone, with fresh heads.

        Raises:
            ConfigError: parameters of another backbone.
        """
        fitting(self.backbone, params)
        fresh = dict(built(self, seed).named_parameters())
        return to_tree({**fresh, **{name: value for name, value in to_tensors(params).items() if name in fresh}})

    def staged(self, params: Tree) -> Staged:
        """The backbone as stages with its exits.

        Raises:
            ConfigError: parameters of another network.
        """
        tensors, whole, module = fitting(self, params), built(self), built(self.backbone)
        whole.load_state_dict(tensors, strict=False)
        module.load_state_dict(
            {name: tensors[name] for name in tensors.keys() & dict(module.named_parameters())}, False
        )
        net = stage(module, torch.zeros((2, *self.shape)), proof="stages")
        heads = whole.get_submodule("exits")
        return attached(net, {cut: heads.get_submodule(str(i)) for i, cut in enumerate(self.at)})

    def _head(self, net: Staged, cut: int) -> nn.Module:
        if cut >= len(net):
            raise ConfigError(f"an exit after stage {cut}", f"the backbone has {len(net)} stages, and its own exit")
        layout = net.graph.layouts[_read(net, cut)]
        shape = tuple(b for _, b in layout.axes[1:])
        if layout.axes[0] != (1, 0) or any(a for a, _ in layout.axes[1:]) or not layout.dtype.startswith("float"):
            raise ConfigError(
                f"an exit that reads {net.stages[cut - 1].operation}", "put it where floats cross, one row each"
            )
        return head(shape, self.classes, self.width)


@dataclass(frozen=True, eq=False)
class Exit:
    """What answers from a cut: the last tensor of the frontier, and the head that reads it.

    Attributes:
        value: the tensor's name.
        layout: how it crosses.
        head: a module from that tensor, with its axes as the model has them, to ``[n, classes]``.
    """

    value: str
    layout: Layout
    head: nn.Module

    def __call__(self, tree: Tree) -> dict[str, np.ndarray]:
        """``{"logits": [n, classes] float32}`` from what crosses the cut.

        Raises:
            DataError: the tensor is missing, or has another shape or dtype.
        """
        if not isinstance(tree, Mapping) or self.value not in tree:
            raise DataError(f"features without {self.value}", "give an exit what crosses its cut")
        found = np.ascontiguousarray(tree[self.value])
        rows = found.shape[self.layout.order.index(0)] if found.ndim == len(self.layout.order) else 1
        if found.shape != self.layout.shape(rows) or found.dtype.name != self.layout.dtype:
            wanted = Shaped(self.layout.shape(rows), self.layout.dtype)
            raise DataError(f"{self.value} is {Shaped(found.shape, found.dtype.name)}", f"give {wanted}")
        with torch.inference_mode():
            return {"logits": self.head(self.layout.restored(torch.from_numpy(found.copy()))).numpy()}

    def work(self, rows: int = 1) -> Work:
        """What so many rows cost."""
        example = torch.zeros([a + b for a, b in self.layout.axes])
        with torch.inference_mode(), FlopCounterMode(display=False) as counter:
            self.head(example)
        weights = sum(each.numel() * each.element_size() for each in self.head.parameters())
        return Work(float(counter.get_total_flops()) * rows, float(example.numel() * 4 * rows + weights))

    def half(self) -> Half:
        """As stages of its own, from the tensor as it crosses to the logits: what can be written for a device."""
        example = torch.zeros(self.layout.shape(2), dtype=getattr(torch, self.layout.dtype))
        graph = traced(_Reading(self.layout, self.head), (example,))
        return Half(graph, tuple(range(len(graph.stages))), {self.value: graph.inputs["x"]}, graph.outputs)

    @property
    def params(self) -> Tree:
        """The head's parameters."""
        return to_tree(dict(self.head.named_parameters()))


class _Reading(nn.Module):
    """A head behind what lays out its input as the model has it."""

    def __init__(self, layout: Layout, head: nn.Module) -> None:
        super().__init__()
        self.layout, self.head = layout, head

    def forward(self, stored: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.layout.restored(stored))
        return logits


def attached(net: Staged, heads: Mapping[int, nn.Module]) -> Staged:
    """The model with an :class:`Exit` after each of these cuts, beside those it has.

    Args:
        net: a model as stages.
        heads: cut -> a module from the last tensor of the frontier to logits ``[n, classes]``; kept as it is, in
            evaluation.

    Raises:
        ConfigError: a cut before the first stage, or after the last.
    """
    for cut in heads:
        if not 0 < cut < len(net):
            raise ConfigError(f"an exit after stage {cut}", f"use a cut from 1 to {len(net) - 1}")
    exits = {}
    for cut, each in heads.items():
        value = _read(net, cut)
        exits[cut] = Exit(value, net.graph.layouts[value], each.eval())
    return replace(net, exits=dict(sorted({**net.exits, **exits}.items())))


def evenly(net: Net | Staged, exits: int) -> tuple[int, ...]:
    """Cuts for so many exits, as near as can be to equal shares of the floating-point operations.

    Only cuts that one tensor crosses are taken, the last of those with the same work before them.

    Raises:
        ConfigError: the network has fewer such cuts.
    """
    staged = Staged(_graph(net)) if isinstance(net, Net) else net
    done = np.cumsum([each.work.flops for each in staged.stages]) / max(1.0, sum(s.work.flops for s in staged.stages))
    fit = {float(done[k - 1]): k for k in range(1, len(staged)) if 0 < done[k - 1] < 1 and len(staged[:k].outputs) == 1}
    if not 0 < exits <= len(fit):
        raise ConfigError(f"{exits} exits", f"{len(fit)} cuts have work on both sides and one tensor to read")
    work = np.array(sorted(fit))
    apart = np.abs(work[None] - np.arange(1, exits + 1)[:, None] / (exits + 1))
    least = np.full((exits, len(work)), np.inf)  # the least sum of differences with exit i at j, or before it
    for i in range(exits):
        before = np.concatenate(([np.inf], least[i - 1, :-1])) if i else np.zeros(len(work))
        least[i] = np.minimum.accumulate(before + apart[i])
    chosen, until = [], len(work)
    for i in reversed(range(exits)):
        until = int(np.argmin(least[i, :until]))
        chosen.append(fit[float(work[until])])
    return tuple(reversed(chosen))


def head(shape: tuple[int, ...], classes: int, width: int = 64) -> nn.Module:
    """What maps one tensor ``[n, *shape]`` to logits ``[n, classes]``.

    - ``[n, c, h, w]``: pooled to 8 x 8 pixels, a 3x3 convolution to ``width`` channels, their mean, dense.
    - ``[n, t, d]`` and other sequences: norm of the last axis, mean over the others, dense.
    - ``[n, d]``: dense.

    Raises:
        ConfigError: a tensor of one number a row.
    """
    if not shape:
        raise ConfigError(
            "an exit that reads one number a row", "put it where a vector, a sequence or an image crosses"
        )
    if len(shape) == 1:
        return nn.Linear(shape[0], classes)
    if len(shape) != 3:
        return nn.Sequential(nn.LayerNorm(shape[-1]), _Mean(), nn.Linear(shape[-1], classes))
    layers: list[nn.Module] = []
    channels, rows, columns = shape
    if width:
        if min(rows, columns) > _SIDE:
            layers.append(nn.AdaptiveAvgPool2d(_SIDE))
        layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.GroupNorm(1, width), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width or channels, classes))


class _Mean(nn.Module):
    """Over all axes but the first and the last."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1, -2).mean(1)


@cache
def _graph(net: Net) -> Graph:
    """The operations of a network; its weights there are never used."""
    with torch.random.fork_rng(devices=[]):
        graph = traced(built(net), (torch.zeros((2, *net.shape)),))
    if not graph.free_rows:
        raise ConfigError(f"{type(net).__name__} takes {graph.example_rows} rows only", "use one that takes any number")
    return graph


def _read(net: Staged, cut: int) -> str:
    """The value that an exit after this cut reads."""
    return list(net[:cut].outputs.values())[-1]


def _named(root: nn.Module, part: fx.GraphModule, graph: Graph) -> fx.GraphModule:
    """The stages of ``part`` with the parameters of ``root`` under their own names, its exits, and all the logits."""
    part.add_module("exits", root.get_submodule("exits"))
    rows, x, *rest = part.graph.nodes
    with part.graph.inserting_after(x):
        counted = part.graph.call_function(torch.ops.aten.sym_size.int, (x, 0))
    rows.replace_all_uses_with(counted)
    part.graph.erase_node(rows)
    for node in rest:
        if node.target is torch.ops.aten.view.default:
            node.target = torch.ops.aten.reshape.default  # the memory of what it reads may lie in another order here
        if node.op == "get_attr":
            name = str(node.target)
            if name in graph.names:
                node.target = graph.names[name]
            else:
                _set(root, name, getattr(part, name))
    output = rest[-1]
    *read, logits = output.args[0].values()
    with part.graph.inserting_before(output):
        told = [part.graph.call_module(f"exits.{i}", (value,)) for i, value in enumerate(read)]
        stacked = part.graph.call_function(torch.ops.aten.stack.default, ([*told, logits], 1))
        part.graph.output(stacked)
    part.graph.erase_node(output)
    return fx.GraphModule(root, part.graph)


def _set(root: nn.Module, name: str, value: Any) -> None:
    if isinstance(value, torch.Tensor):
        root.register_buffer(name, value, persistent=False)
    else:
        setattr(root, name, value)
