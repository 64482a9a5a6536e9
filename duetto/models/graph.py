"""A module as a graph of operations without side effects, by ``torch.export``.

What a node's value depends on decides where it may be computed. Nodes that read an input are stages: one side computes
them. Everything else (shapes, constants, re-arranged weights) follows from the parameters and the number of rows, and
whoever needs it computes it.
"""

from __future__ import annotations

import logging
import operator
import traceback
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import fx, nn
from torch.utils import _pytree as pytree
from torch.utils.flop_counter import FlopCounterMode

from duetto.errors import ConfigError
from duetto.types import Work

Value = torch.Tensor

_CHECKS = ("aten._assert_tensor_metadata", "aten._assert_scalar", "aten.sym_constrain_range")


@dataclass(frozen=True)
class Stage:
    """One operation that reads, directly or not, an input.

    Attributes:
        name: of its value in the graph.
        operation: what it computes, such as ``aten.conv2d.default``.
        work: what one row costs.
        line: where the model's code asks for it.
        reads: the values that it reads: stages and inputs.
        nbytes: of its value, for one row.
    """

    name: str
    operation: str
    work: Work
    line: str
    reads: tuple[str, ...]
    nbytes: int


@dataclass(frozen=True)
class Layout:
    """A tensor's shape, ``a * rows + b`` for each axis, its dtype, and the order of its axes in memory."""

    axes: tuple[tuple[int, int], ...]
    dtype: str
    order: tuple[int, ...]

    def shape(self, rows: int) -> tuple[int, ...]:
        """As it crosses the wire: the axes in memory order."""
        return tuple(self.axes[axis][0] * rows + self.axes[axis][1] for axis in self.order)

    def stored(self, value: Value) -> Value:
        """The value with its axes in memory order, contiguous."""
        return value.permute(self.order).contiguous()

    def restored(self, stored: Value) -> Value:
        """The value with its own axes, laid out in memory as it was."""
        return stored.permute(sorted(range(len(self.order)), key=self.order.__getitem__))


@dataclass(frozen=True, eq=False)
class Graph:
    """A functional graph: its stages in topological order, and what is needed to copy parts of it.

    Attributes:
        stages: in topological order; each begins with its operation and takes the parts of a tuple out of it.
        members: the nodes of each stage.
        inputs: the input values, by the names a caller gives them.
        outputs: the output values, by the names they are given back with.
        held: parameters, buffers and constants, by the name of their node.
        names: the name in the model's ``state_dict`` of each of ``held`` that has one.
        learnable: those of ``held`` that are parameters.
        layouts: of every value that may cross.
        rows: whether the number of rows is free; else it is that of the example.
        example_rows: of the example.
    """

    stages: tuple[Stage, ...]
    members: tuple[tuple[fx.Node, ...], ...]
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    held: Mapping[str, Any]
    names: Mapping[str, str]
    learnable: frozenset[str]
    layouts: Mapping[str, Layout]
    free_rows: bool
    example_rows: int
    _owner: fx.GraphModule

    def part(self, which: range | list[int], takes: Mapping[str, str], gives: Mapping[str, str]) -> fx.GraphModule:
        """The stages at ``which`` as a module: ``(rows, *takes) -> gives``, both by value name.

        ``takes`` maps argument names to values, ``gives`` result names to values.
        """
        graph = fx.Graph()
        rows = graph.placeholder("rows")
        made: dict[str, Any] = {}
        for value in takes.values():
            made[value] = graph.placeholder(f"in_{value}")
        attributes: dict[str, Any] = {}

        def get(node: fx.Node) -> Any:
            if node.name in made:
                return made[node.name]
            if node.op == "placeholder":
                attributes[node.name] = self.held[node.name]
                made[node.name] = graph.get_attr(node.name)
            elif node.op == "get_attr":
                attributes[str(node.target)] = getattr(self._owner, str(node.target))
                made[node.name] = graph.node_copy(node, get)
            elif _counts_rows(node):
                each, more = _linear(node.meta["val"])
                counted = rows if each == 1 else graph.call_function(operator.mul, (rows, each))
                made[node.name] = counted if not more else graph.call_function(operator.add, (counted, more))
            else:
                made[node.name] = graph.node_copy(node, get)
            return made[node.name]

        for index in which:
            for node in self.members[index]:
                made[node.name] = graph.node_copy(node, get)
        by_name = {node.name: node for node in self._owner.graph.nodes}
        graph.output({name: get(by_name[value]) for name, value in gives.items()})
        root = nn.Module()
        for name, value in attributes.items():
            if isinstance(value, nn.Module):
                root.add_module(name, value)
            elif isinstance(value, torch.Tensor):
                root.register_buffer(name, value)
            else:
                setattr(root, name, value)
        return fx.GraphModule(root, graph)


def traced(model: nn.Module, example: Mapping[str, torch.Tensor] | tuple[torch.Tensor, ...]) -> Graph:
    """The module's graph, traced with the example, in evaluation mode; the module stays as it was.

    The number of rows, the first axis of every input, stays free where the model allows it.

    Raises:
        ConfigError: a model that cannot be exported, that draws random numbers or changes its buffers; the line of its
            code stands in the message.
    """
    args, kwargs = ((), dict(example)) if isinstance(example, Mapping) else (tuple(example), {})
    tensors = [*args, *kwargs.values()]
    rows = int(tensors[0].shape[0])
    training = model.training
    model.eval()
    try:
        with unfused(), torch.no_grad():
            program, free = _exported(model, args, kwargs, rows)
    finally:
        model.train(training)
    signature = program.graph_signature
    if signature.buffers_to_mutate or getattr(signature, "user_inputs_to_mutate", {}):
        changed = [*signature.buffers_to_mutate.values()]
        raise ConfigError(f"the model changes {', '.join(changed) or 'its input'}", "split a model that only reads")
    held, names, learnable = _held(program)
    graph = program.graph_module
    for node in list(graph.graph.nodes):
        if node.op == "call_function" and str(node.target).startswith(_CHECKS):
            graph.graph.erase_node(node)
    graph.graph.eliminate_dead_code()
    named = _named_inputs(signature.user_inputs, args, kwargs)
    outputs = _named_outputs(program)
    dependent = _dependent(graph, set(named.values()))
    if not free:
        _check_lengths(graph)
    elif rows == 1:  # the order of axes in memory does not show where one has the length 1
        tensors, rows = [torch.cat([x, x]) for x in tensors], 2
    values, works = _run(graph, held, dict(zip(named.values(), tensors, strict=True)), rows)
    members: list[list[fx.Node]] = []
    at: dict[str, int] = {}
    for node in graph.graph.nodes:
        if node.op != "call_function" or node.name not in dependent:
            continue
        if node.target is operator.getitem and node.args[0].name in at:
            at[node.name] = at[node.args[0].name]
            members[at[node.name]].append(node)
        else:
            at[node.name] = len(members)
            members.append([node])
    stages = tuple(_stage(nodes, values, works, dependent, set(named.values()), rows) for nodes in members)
    crossing = {name: value for name, value in values.items() if isinstance(value, torch.Tensor)}
    layouts = {
        node.name: _layout(node, crossing[node.name], free)
        for node in graph.graph.nodes
        if node.name in crossing and (node.name in at or node.name in named.values())
    }
    for layout in layouts.values():
        if not hasattr(np, layout.dtype):
            raise ConfigError(f"a model that computes in {layout.dtype}", "stage it in float32 or float16")
    for name in outputs.values():
        if name not in layouts:
            raise ConfigError("an output that does not depend on the input", "return what the model computes")
    return Graph(stages, tuple(map(tuple, members)), named, outputs, held, names, learnable, layouts, free, rows, graph)


@contextmanager
def unfused() -> Iterator[None]:
    """Without torch's fused encoder layers, which compute other bits than the operations that they stand for."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def _exported(model: nn.Module, args: Any, kwargs: Any, rows: int) -> tuple[Any, bool]:
    """The program, and whether its number of rows is free."""
    if rows > 1:
        wide, wide_kwargs = args, kwargs
    else:  # a length of one would be taken for a constant
        wide, wide_kwargs = pytree.tree_map(lambda x: torch.cat([x, x]), (args, kwargs))
    tensors = [*wide, *wide_kwargs.values()]
    if all(x.ndim and x.shape[0] == tensors[0].shape[0] for x in tensors):
        free = {0: torch.export.Dim.AUTO}
        try:
            with _quiet():
                dynamic = tuple(free for _ in wide) if wide else dict.fromkeys(wide_kwargs, free)
                program = torch.export.export(model, wide, wide_kwargs, dynamic_shapes=dynamic)
                program = program.run_decompositions({})
            if _free(program):
                return program, True
        except Exception:  # told below, by the export that has no reason left to fail
            pass
    try:
        with _quiet():
            return torch.export.export(model, args, kwargs).run_decompositions({}), False
    except Exception as error:
        raise ConfigError(f"the model cannot be exported ({_first_line(error)})", _where(error)) from error


def _free(program: Any) -> bool:
    """Whether one symbol, the number of rows, is all that shapes depend on."""
    symbols = set()
    for node in program.graph.nodes:
        for value in pytree.tree_leaves(node.meta.get("val")):
            dims = value.shape if isinstance(value, torch.Tensor) else (value,)
            for dim in dims:
                if isinstance(dim, torch.SymInt):
                    symbols |= dim.node.expr.free_symbols
    inputs = [node for node in program.graph.nodes if node.name in program.graph_signature.user_inputs]
    return len(symbols) == 1 and all(isinstance(node.meta["val"].shape[0], torch.SymInt) for node in inputs)


def _held(program: Any) -> tuple[dict[str, Any], dict[str, str], frozenset[str]]:
    """Parameters, buffers and constants by node, and the names that the model gives them."""
    held: dict[str, Any] = {}
    names: dict[str, str] = {}
    for spec in program.graph_signature.input_specs:
        if spec.target is None:
            continue
        name = spec.arg.name
        held[name] = program.state_dict.get(spec.target, program.constants.get(spec.target))
        if spec.target in program.state_dict:
            held[name] = held[name].detach()
            names[name] = spec.target
    return held, names, frozenset(program.graph_signature.inputs_to_parameters)


def _named_inputs(user: tuple[Any, ...], args: Any, kwargs: Any) -> dict[str, str]:
    """``x`` for a lone input, else the names of the arguments."""
    if len(user) == 1 and args:
        return {"x": str(user[0])}
    return {str(name): str(name) for name in user} if args else dict(zip(kwargs, map(str, user), strict=True))


def _named_outputs(program: Any) -> dict[str, str]:
    """``logits`` for a lone output, else the path to each."""
    values = list(program.graph_signature.user_outputs)
    if len(values) == 1:
        return {"logits": str(values[0])}
    tree = pytree.tree_unflatten(values, program.call_spec.out_spec)
    found = {}
    for path, value in pytree.tree_leaves_with_path(tree):
        found[".".join(str(getattr(key, "key", getattr(key, "idx", key))) for key in path)] = str(value)
    return found


def _dependent(graph: fx.GraphModule, inputs: set[str]) -> set[str]:
    """The nodes whose value depends on what an input holds, not on its shape alone."""
    found = set(inputs)
    for node in graph.graph.nodes:
        if node.op != "call_function" or _counts_rows(node):
            continue
        if any(each.name in found for each in node.all_input_nodes):
            if isinstance(node.meta.get("val"), int | float | bool | torch.SymInt | torch.SymFloat | torch.SymBool):
                raise ConfigError(f"a number that depends on the input's values ({node.target})", _told(node))
            found.add(node.name)
    return found


def _check_lengths(graph: fx.GraphModule) -> None:
    """Raises ConfigError for a length that is known only once the input's values are."""
    for node in graph.graph.nodes:
        for value in pytree.tree_leaves(node.meta.get("val")):
            dims = value.shape if isinstance(value, torch.Tensor) else (value,)
            if any(isinstance(dim, torch.SymInt) for dim in dims):
                raise ConfigError(f"a length that depends on the input's values ({node.target})", _told(node))


def _counts_rows(node: fx.Node) -> bool:
    return node.op == "call_function" and str(node.target) in ("aten.sym_size.int", "sym_size.int")


def _run(
    graph: fx.GraphModule, held: Mapping[str, Any], inputs: Mapping[str, torch.Tensor], rows: int
) -> tuple[dict[str, Any], dict[str, float]]:
    """Every node's value for the example, and its floating-point operations."""
    values: dict[str, Any] = {}
    flops: dict[str, float] = {}
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        for node in graph.graph.nodes:
            before = counter.get_total_flops()
            if node.op == "placeholder":
                values[node.name] = inputs[node.name] if node.name in inputs else held[node.name]
            elif node.op == "get_attr":
                values[node.name] = getattr(graph, str(node.target))
            elif node.op == "call_function":
                args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda each: values[each.name])
                values[node.name] = node.target(*args, **kwargs)
                if torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()):
                    _check(node, values[node.name], node.target(*args, **kwargs))
            flops[node.name] = float(counter.get_total_flops() - before) / rows
    return values, flops


def _check(node: fx.Node, first: Any, second: Any) -> None:
    """Attention and recurrent layers may draw, and do not in evaluation: two calls tell."""
    pairs = zip(pytree.tree_leaves(first), pytree.tree_leaves(second), strict=True)
    if not all(torch.equal(a, b) for a, b in pairs if isinstance(a, torch.Tensor)):
        raise ConfigError(f"the model draws random numbers ({node.target})", _told(node))


def _stage(
    nodes: list[fx.Node],
    values: Mapping[str, Any],
    flops: Mapping[str, float],
    dependent: set[str],
    inputs: set[str],
    rows: int,
) -> Stage:
    first = nodes[0]
    own = {node.name for node in nodes}
    reads = tuple(dict.fromkeys(each.name for each in first.all_input_nodes if each.name in dependent | inputs))
    weights = [each.name for each in first.all_input_nodes if each.name not in dependent | inputs]
    last = [name for name in own if isinstance(values[name], torch.Tensor)]
    out = max((_nbytes(values[name]) for name in last), default=0) / rows
    moved = out + sum(_nbytes(values[name]) for name in reads) / rows + sum(_nbytes(values[name]) for name in weights)
    if str(first.target).split(".")[1] in _VIEWS:
        moved = 0.0
    return Stage(first.name, str(first.target), Work(flops[first.name], moved), _told(first), reads, int(out))


_VIEWS = ("alias", "detach", "expand", "permute", "select", "slice", "squeeze", "transpose", "unsqueeze", "view")


def _nbytes(value: Any) -> int:
    return value.numel() * value.element_size() if isinstance(value, torch.Tensor) else 0


def _layout(node: fx.Node, value: torch.Tensor, free: bool) -> Layout:
    strides = value.stride()
    order = tuple(sorted(range(value.ndim), key=lambda axis: (-strides[axis], axis)))
    shape = node.meta["val"].shape
    axes = tuple(_linear(shape[i]) if free else (0, int(value.shape[i])) for i in range(value.ndim))
    return Layout(axes, str(value.dtype).removeprefix("torch."), order)


def _linear(dim: Any) -> tuple[int, int]:
    """``(a, b)`` of a length ``a * rows + b``."""
    if not isinstance(dim, torch.SymInt):
        return 0, int(dim)
    expression = dim.node.expr
    if not expression.free_symbols:
        return 0, int(expression)
    (symbol,) = expression.free_symbols
    one, two, three = (int(expression.subs(symbol, rows)) for rows in (2, 3, 4))
    if three - two != two - one:
        raise ConfigError(f"a length of {expression} for {symbol} rows", "shapes must grow evenly with the rows")
    return two - one, one - 2 * (two - one)


def _told(node: fx.Node) -> str:
    """The line of the model's code that asked for a node, outside of torch where there is one."""
    lines = [line.strip() for line in (node.meta.get("stack_trace") or "").splitlines() if line.strip()]
    places = [i for i, line in enumerate(lines) if line.startswith('File "')]
    own = [i for i in places if "/torch/" not in lines[i]] or places
    if not own:
        return ""
    name, number = lines[own[-1]].split('"')[1], lines[own[-1]].split("line ")[1].split(",")[0]
    code = lines[own[-1] + 1] if own[-1] + 1 < len(lines) else ""
    return f"{Path(name).name}:{number}: {code}"


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0].strip()}" if text else type(error).__name__


def _where(error: BaseException) -> str:
    """Which line of the model to change: the last of the trace that is not torch's."""
    frames = traceback.extract_tb(error.__traceback__)
    inside = next((i for i, frame in enumerate(frames) if "/torch/" in frame.filename), len(frames))
    own = [frame for frame in frames[inside:] if "/lib/python" not in frame.filename]
    if not own:
        return "make its forward a function of tensors without branches on their values"
    return f"change {Path(own[-1].filename).name}:{own[-1].lineno}: {own[-1].line}"


@contextmanager
def _quiet() -> Iterator[None]:
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of its own code, and of weights that a layer keeps in a list
            yield
    finally:
        logging.disable(before)
