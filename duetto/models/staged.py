"""Any exportable ``nn.Module`` as stages that can be cut anywhere: the device has ``net[:cut]``, the cloud the rest.

Each operation of the functionalised graph (:mod:`duetto.models.graph`) is a stage. A cut is a set of stages closed
under what they read, so both sides are modules of their own, and what crosses is the frontier: every tensor that one
side has computed and the other still reads, laid out in memory as it was. That a cut changes no bit is proven when the
model is staged, for every cut between two stages in topological order (Kang et al. 2017 cut chains; graphs as in Hu et
al. 2019).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import nn

from duetto.errors import ConfigError, DataError
from duetto.models.graph import Graph, Stage, traced, unfused
from duetto.models.net import to_tree
from duetto.tree import Shaped, Tree
from duetto.types import Work

Cut: TypeAlias = int | frozenset[str]
"""Stages that the device computes: the first so many in topological order, or by name."""

Module = nn.Module
"""What can be staged."""

Example: TypeAlias = Any
"""``[rows, ...]`` of the lone input, a tuple of such for several, or a mapping by the names of forward's arguments."""


class Inexact(ConfigError):
    """A cut after which the output has other bits."""


@dataclass(frozen=True, eq=False)
class Half:
    """The stages between two cuts: a function from one frontier to the next.

    A tree of arrays by name goes in and comes out, each ``[rows, ...]`` with its axes in memory order: what
    :meth:`takes` and :meth:`gives` say. The first half takes the model's inputs, the last gives its outputs.
    """

    graph: Graph
    indices: tuple[int, ...]
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]

    def __call__(self, tree: Tree) -> dict[str, np.ndarray]:
        """Compute them.

        Raises:
            DataError: a missing input, another shape or dtype.
        """
        rows = self.rows(tree)
        with torch.inference_mode(), unfused():
            values = [self.graph.layouts[value].restored(_aligned(tree[name])) for name, value in self.inputs.items()]
            found = self._module(rows, *values)
            return {name: self.graph.layouts[value].stored(found[name]).numpy() for name, value in self.outputs.items()}

    def rows(self, tree: Tree) -> int:
        """The number of rows in a tree that fits.

        Raises:
            DataError: one that does not.
        """
        if not isinstance(tree, Mapping) or set(tree) != set(self.inputs):
            names = sorted(tree) if isinstance(tree, Mapping) else "no branch"
            raise DataError(f"features named {names}", f"this side of the cut takes {sorted(self.inputs)}")
        rows = None if self.graph.free_rows else self.graph.example_rows
        for name, value in self.inputs.items():
            layout, shape = self.graph.layouts[value], np.shape(tree[name])
            if rows is None:
                axes = [layout.axes[axis] for axis in layout.order]
                rows = next(((n - b) // a for n, (a, b) in zip(shape, axes, strict=False) if a), None)
            if rows is None or shape != layout.shape(rows) or np.asarray(tree[name]).dtype.name != layout.dtype:
                wanted = Shaped(layout.shape(rows or 1), layout.dtype)
                raise DataError(f"{name} is {Shaped(shape, np.asarray(tree[name]).dtype.name)}", f"give {wanted}")
        assert rows is not None
        return rows

    @property
    def joinable(self) -> bool:
        """Whether rows of several inputs can go through at once: everything that crosses has an axis of rows."""
        layouts = [self.graph.layouts[value] for value in (*self.inputs.values(), *self.outputs.values())]
        return self.graph.free_rows and all((1, 0) in layout.axes for layout in layouts)

    def joined(self, trees: Sequence[Tree], *, slopes: bool = False) -> dict[str, np.ndarray]:
        """Several inputs (or slopes of outputs) as one, rows after rows, where they are :attr:`joinable`."""
        axes = self._row_axes(self.outputs if slopes else self.inputs)
        return {name: np.concatenate([tree[name] for tree in trees], axis) for name, axis in axes.items()}

    def batches(self, tree: Tree, most: int) -> list[dict[str, np.ndarray]]:
        """The same inputs, at most so many rows at once, where they are :attr:`joinable`."""
        axes, ends = self._row_axes(self.inputs), range(most, self.rows(tree), most)
        parts = {name: np.split(tree[name], ends, axes[name]) for name in self.inputs}
        return [{name: parts[name][i] for name in parts} for i in range(len(ends) + 1)]

    def parted(self, tree: Tree, rows: Sequence[int], *, slopes: bool = False) -> list[dict[str, np.ndarray]]:
        """Outputs (or slopes of inputs) of so many rows each."""
        axes, ends = self._row_axes(self.inputs if slopes else self.outputs), np.cumsum(rows)[:-1]
        parts = {name: np.split(tree[name], ends, axis) for name, axis in axes.items()}
        return [{name: parts[name][i] for name in parts} for i in range(len(rows))]

    def takes(self, rows: int = 1) -> dict[str, Shaped]:
        """The spec of what goes in."""
        return self._spec(self.inputs, rows)

    def gives(self, rows: int = 1) -> dict[str, Shaped]:
        """The spec of what comes out."""
        return self._spec(self.outputs, rows)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages, in topological order."""
        return tuple(self.graph.stages[i] for i in self.indices)

    @property
    def params(self) -> Tree:
        """The parameters and buffers that these stages read, as the model names them."""
        kept = dict(self._module.named_buffers())
        return to_tree({self.graph.names[name]: kept[name] for name in kept if name in self.graph.names})

    @cached_property
    def learnable(self) -> Mapping[str, str]:
        """What these stages learn, no buffers: name in :attr:`params` -> name in :meth:`module`'s ``state_dict``."""
        held = dict(self._module.named_buffers())
        return {
            each: f"computed.{name}"
            for name, each in self.graph.names.items()
            if name in held and name in self.graph.learnable
        }

    def work(self, rows: int = 1) -> Work:
        """What so many rows cost."""
        return Work(sum(s.work.flops for s in self.stages) * rows, sum(s.work.bytes for s in self.stages) * rows)

    def module(self) -> nn.Module:
        """The half as a module: tensors as in :meth:`takes`, in that order, to a tuple as in :meth:`gives`."""
        return _Stored(self)

    def _row_axes(self, values: Mapping[str, str]) -> dict[str, int]:
        """Which axis of what crosses counts the rows."""
        layouts = {name: self.graph.layouts[value] for name, value in values.items()}
        return {name: [each.axes[axis] for axis in each.order].index((1, 0)) for name, each in layouts.items()}

    @cached_property
    def _module(self) -> torch.fx.GraphModule:
        return self.graph.part(list(self.indices), self.inputs, self.outputs)

    def _spec(self, values: Mapping[str, str], rows: int) -> dict[str, Shaped]:
        layouts = {name: self.graph.layouts[value] for name, value in values.items()}
        return {name: Shaped(layout.shape(rows), layout.dtype) for name, layout in layouts.items()}


class _Stored(nn.Module):
    """A half that computes on what crosses the wire."""

    def __init__(self, half: Half) -> None:
        super().__init__()
        self.computed: Any = half._module
        self._takes = [half.graph.layouts[value] for value in half.inputs.values()]
        self._gives = {name: half.graph.layouts[value] for name, value in half.outputs.items()}
        self._rows = None if half.graph.free_rows else half.graph.example_rows

    def forward(self, *stored: torch.Tensor) -> tuple[torch.Tensor, ...]:
        values = [layout.restored(x) for layout, x in zip(self._takes, stored, strict=True)]
        found = self.computed(self._counted(stored), *values)
        return tuple(layout.stored(found[name]) for name, layout in self._gives.items())

    def _counted(self, stored: tuple[torch.Tensor, ...]) -> Any:
        if self._rows is not None:
            return self._rows
        for layout, x in zip(self._takes, stored, strict=True):
            for position, axis in enumerate(layout.order):
                a, b = layout.axes[axis]
                if a:
                    return x.shape[position] if (a, b) == (1, 0) else (x.shape[position] - b) // a
        raise AssertionError("an input has as many rows as there are")


@dataclass(frozen=True, eq=False)
class Staged:
    """A model as stages, with exits; made by :func:`stage`.

    Attributes:
        graph: the operations.
        exits: cut -> what answers from that cut's frontier.
        difference: the largest difference from what the module itself gives on the example; 0 for most models.
    """

    graph: Graph
    exits: Mapping[int, Any] = field(default_factory=dict)
    difference: float = 0.0
    _halves: dict[Any, Half] = field(default_factory=dict, init=False, repr=False)  # a half is built once

    def __len__(self) -> int:
        return len(self.graph.stages)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages, in topological order."""
        return self.graph.stages

    @property
    def params(self) -> Tree:
        """The parameters and buffers of all stages, as the model names them."""
        return self[:].params

    def __call__(self, tree: Tree) -> dict[str, np.ndarray]:
        """The whole model, from its inputs to its outputs."""
        return self[:](tree)

    def __getitem__(self, cut: slice) -> Half:
        """The stages on one side of a cut, or between two.

        Raises:
            ConfigError: stages that need one which is not among them.
        """
        if not isinstance(cut, slice) or cut.step is not None:
            raise ConfigError(f"a cut of {cut!r}", "write net[:cut], net[cut:] or net[a:b]")
        before = self.closed(0 if cut.start is None else cut.start)
        until = self.closed(len(self) if cut.stop is None else cut.stop)
        if not before <= until:
            raise ConfigError(f"stages from {len(before)} to {len(until)}", "the second cut must hold the first")
        if (before, until) not in self._halves:
            self._halves[before, until] = Half(
                self.graph, tuple(sorted(until - before)), self._crossing(before), self._crossing(until)
            )
        return self._halves[before, until]

    def closed(self, cut: Cut) -> frozenset[int]:
        """The positions of a cut's stages.

        Raises:
            ConfigError: an unknown stage, or a set that lacks one which another of it reads.
        """
        if isinstance(cut, int | np.integer):
            if not 0 <= cut <= len(self):
                raise ConfigError(f"a cut after stage {cut}", f"the model has {len(self)} stages")
            return frozenset(range(int(cut)))
        unknown = sorted(cut - set(self._position))
        if unknown:
            raise ConfigError(f"no stage is called {unknown[0]!r}", f"they run from {self.stages[0].name!r}")
        chosen = frozenset(self._position[name] for name in cut)
        for index in chosen:
            for name in self.stages[index].reads:
                if name in self._owner and self._owner[name] not in chosen:
                    raise ConfigError(
                        f"a cut with {self.stages[index].name} but without {name}, which it reads",
                        "cut between what is computed and what is not",
                    )
        return chosen

    def frontier(self, cut: Cut, rows: int = 1) -> dict[str, Shaped]:
        """The spec of what crosses a cut: the inputs at the first, the outputs at the last."""
        return self[:cut].gives(rows)

    def cuts(self) -> tuple[int, ...]:
        """The prefixes worth cutting after: none, all, and those whose last stage computes or changes what crosses."""
        sizes = [sum(leaf.nbytes for leaf in self.frontier(k).values()) for k in range(len(self) + 1)]
        inner = [k for k in range(1, len(self)) if self.stages[k - 1].work.flops or sizes[k] != sizes[k - 1]]
        return (0, *inner, len(self))

    @cached_property
    def _position(self) -> dict[str, int]:
        return {stage.name: i for i, stage in enumerate(self.stages)}

    @cached_property
    def _owner(self) -> dict[str, int]:
        """The stage that computes each value."""
        return {node.name: i for i, nodes in enumerate(self.graph.members) for node in nodes}

    def _crossing(self, done: frozenset[int]) -> dict[str, str]:
        """What crosses after the stages ``done``: name -> value; the model's own names at its two ends."""
        if not done:
            return dict(self.graph.inputs)
        if len(done) == len(self):
            return dict(self.graph.outputs)
        inputs = {value: name for name, value in self.graph.inputs.items()}
        read = {name for i in range(len(self)) if i not in done for name in self.stages[i].reads}
        read |= set(self.graph.outputs.values())
        values = [v for v in (*inputs, *self._owner) if v in read and (v in inputs or self._owner[v] in done)]
        return {inputs.get(value, value): value for value in values}


def stage(model: nn.Module, example: Example, *, proof: Literal["cuts", "stages"] = "cuts") -> Staged:
    """The model as stages, with the proof that no cut changes a bit of its output on the example.

    Args:
        model: any module that ``torch.export`` takes; it is not changed, and is staged as in evaluation.
        example: inputs of one row or more. The number of rows stays free where the model allows it.
        proof: "cuts" runs both sides of every cut between two stages. "stages" takes one pass in which every stage is
            on its own, so that whatever can cross does: quick, for models where a pass takes long.

    Raises:
        ConfigError: a model that cannot be exported; its line stands in the message.
        Inexact: a cut after which the output differs; it names the cut.
    """
    inputs = _tensors(example)
    graph = traced(model, inputs)
    net = Staged(graph)
    named = {name: graph.layouts[value] for name, value in graph.inputs.items()}
    tensors = list(inputs.values() if isinstance(inputs, Mapping) else inputs)
    x = {name: layout.stored(t).numpy() for (name, layout), t in zip(named.items(), tensors, strict=True)}
    whole = net(x)
    difference = _apart(model, inputs, whole, graph)
    if proof == "cuts":
        for cut in range(1, len(net)):
            if not _same(net[cut:](net[:cut](x)), whole):
                raise Inexact(f"the output differs after a cut behind {net.stages[cut - 1].name}", "tell us this model")
    else:
        crossed = x
        for cut in range(len(net)):
            crossed = net[cut : cut + 1](crossed)
        if not _same(crossed, whole):
            raise Inexact("the output differs when every stage is cut off", 'stage it with proof="cuts" to see where')
    return Staged(graph, {}, difference)


def _tensors(example: Example) -> Any:
    if isinstance(example, Mapping):
        return {name: torch.as_tensor(value) for name, value in example.items()}
    parts = example if isinstance(example, tuple | list) else (example,)
    return tuple(torch.as_tensor(part) for part in parts)


def _aligned(array: Any) -> torch.Tensor:
    """A tensor in torch's own memory: kernels may give other bits where memory begins elsewhere."""
    return torch.from_numpy(np.ascontiguousarray(array)).clone()


def _same(left: Mapping[str, np.ndarray], right: Mapping[str, np.ndarray]) -> bool:
    return left.keys() == right.keys() and all(
        np.ascontiguousarray(left[k]).tobytes() == np.ascontiguousarray(right[k]).tobytes() for k in left
    )


def _apart(model: nn.Module, inputs: Any, whole: Mapping[str, np.ndarray], graph: Graph) -> float:
    """The largest difference of the graph from the module.

    Raises:
        ConfigError: too large a one; then the graph is not the model.
    """
    training = model.training
    model.eval()
    try:
        with torch.inference_mode(), unfused():
            said = model(**inputs) if isinstance(inputs, Mapping) else model(*inputs)
    finally:
        model.train(training)
    leaves = [leaf for leaf in torch.utils._pytree.tree_leaves(said) if isinstance(leaf, torch.Tensor)]
    worst = 0.0
    for (name, value), leaf in zip(graph.outputs.items(), leaves, strict=True):
        expected = graph.layouts[value].stored(leaf).numpy()
        if not np.allclose(whole[name], expected, rtol=1e-3, atol=1e-5, equal_nan=True):
            raise ConfigError("the exported model gives another output than the model", "tell us this model")
        if expected.size:
            worst = max(worst, float(np.nanmax(np.abs(np.float64(whole[name]) - np.float64(expected)))))
    return worst
