"""A network in two parts: what runs client by client, and what runs for all clients at once.

The second part is made of layers whose parameters no client needs a copy of (dense layers, kept as factors), of layers
whose parameters are so few that copies cost nothing (norms, embeddings), and of operations without parameters. The
first part is whatever such layers' inputs depend on and cannot be done for all at once: convolutions, recurrent
layers, operations with parameters that are not known. A network may have only one of the parts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import torch
from torch import fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from duetto.models.net import Net, built

_MIXES = (nn.modules.batchnorm._NormBase,)  # statistics over rows
_STACKED = (nn.LayerNorm, nn.GroupNorm, nn.Embedding)
_CHANCE = (nn.modules.dropout._DropoutNd, nn.RReLU)
_RELU = (nn.ReLU, torch.relu, nn.functional.relu)
_POOL = (nn.MaxPool2d,)


@dataclass(frozen=True, eq=False)
class Split:
    """How a network is trained for many clients.

    Attributes:
        module: traced, in training mode; its parameters are never used.
        graph: its operations in order.
        turn: names of the nodes that run client by client.
        frontier: nodes of the first part that the second part reads.
        dense: node -> the path of its ``nn.Linear``, kept as factors.
        stacked: node -> the path of its layer, with parameters for each client.
        fed: the dense node that reads the flattened input itself, or None.
        dropout: module path -> share that is dropped.
        paths: module path -> one phrase on how it is trained.
    """

    module: fx.GraphModule
    turn: frozenset[str]
    frontier: tuple[str, ...]
    dense: Mapping[str, str]
    stacked: Mapping[str, str]
    fed: str | None
    dropout: Mapping[str, float]
    paths: Mapping[str, str]

    @cached_property
    def reads(self) -> str:
        """The node of the input."""
        return next(str(node.name) for node in self.module.graph.nodes if node.op == "placeholder")

    @cached_property
    def convolutions(self) -> frozenset[str]:
        """Paths of the two-dimensional convolutions."""
        return frozenset(path for path, layer in self.module.named_modules() if type(layer) is nn.Conv2d)

    @cached_property
    def turned(self) -> frozenset[str]:
        """Dotted names of the parameters of the first part."""
        together = {*self.dense.values(), *self.stacked.values()}
        return frozenset(name for name, _ in self.module.named_parameters() if name.rpartition(".")[0] not in together)

    @cached_property
    def only_fed(self) -> bool:
        """Whether nothing but that dense layer reads the input."""
        return self.fed is not None and not self.turn and all(len(node.users) == 1 for node in self._before_fed)

    @cached_property
    def _before_fed(self) -> list[fx.Node]:
        """From the input to the dense layer that reads it."""
        nodes = {node.name: node for node in self.module.graph.nodes}
        path = [nodes[self.fed or ""]]
        while path[0].op != "placeholder":
            path.insert(0, path[0].all_input_nodes[0])
        return path[:-1]

    def nodes(self, *, turn: bool) -> list[fx.Node]:
        """The operations of one part, in order."""
        return self._nodes[turn]

    @cached_property
    def _nodes(self) -> Mapping[bool, list[fx.Node]]:
        unread = self._before_fed if self.only_fed else []
        ops = [node for node in self.module.graph.nodes if node.op != "placeholder" and node not in unread]
        return {turn: [node for node in ops if (node.name in self.turn) == turn] for turn in (True, False)}

    @cached_property
    def shapes(self) -> list[tuple[int, int]]:
        """The shapes ``(O, D)`` of the dense layers kept as factors."""
        layers = [self.module.get_submodule(path) for path in self.dense.values()]
        return [(layer.out_features, layer.in_features) for layer in layers if isinstance(layer, nn.Linear)]


class Unsplit(Exception):
    """Why a network cannot be trained for many clients at once."""


@cache
def split(net: Net) -> Split:
    """The parts of a network.

    Raises:
        Unsplit: it cannot be traced, or it mixes rows.
    """
    module = built(net).train().requires_grad_(False)
    for path, layer in module.named_modules():
        if isinstance(layer, _MIXES):
            raise Unsplit(f"{path} ({type(layer).__name__}) mixes rows")
        if isinstance(layer, _CHANCE) and type(layer) is not nn.Dropout:
            raise Unsplit(f"{path} ({type(layer).__name__}) draws in its own way")
    if next(module.buffers(), None) is not None:
        raise Unsplit(f"{next(iter(dict(module.named_buffers())))} is a buffer, which clients would share")
    try:
        traced = fx.symbolic_trace(module)
    except Exception as error:  # whatever a forward does that no tracer can follow
        raise Unsplit(f"its forward cannot be traced ({type(error).__name__})") from error
    _pool_first(traced)
    with torch.no_grad():
        ShapeProp(traced.eval()).propagate(torch.zeros((2, *net.shape)))
    traced.train()
    return _parts(traced)


def _parts(traced: fx.GraphModule) -> Split:
    kinds = {node: _kind(traced, node) for node in traced.graph.nodes}
    uses: dict[str, int] = {}
    for node, kind in kinds.items():
        if kind in ("dense", "stacked"):
            uses[str(node.target)] = uses.get(str(node.target), 0) + 1
    turn: set[fx.Node] = set()
    for node in reversed(traced.graph.nodes):  # what an operation in turn depends on is in turn
        shared = kinds[node] in ("dense", "stacked") and uses[str(node.target)] > 1
        needed = kinds[node] == "turn" or shared or any(user in turn for user in node.users)
        if needed and node.op != "placeholder":
            turn.add(node)
    for node in traced.graph.nodes:  # what only reads values in turn stays so, up to the first layer for all
        inputs = node.all_input_nodes
        if kinds[node] == "rows" and inputs and all(each in turn for each in inputs):
            turn.add(node)
    rest = [node for node in traced.graph.nodes if node not in turn and node.op != "placeholder"]
    reads = {each for node in rest for each in node.all_input_nodes if each in turn}
    dense = {node.name: str(node.target) for node in rest if kinds[node] == "dense"}
    stacked = {node.name: str(node.target) for node in rest if kinds[node] == "stacked"}
    fed = next((node.name for node in rest if node.name in dense and _reads_input(traced, node)), None)
    if not dense:
        raise Unsplit("no dense layer that clients could share")
    return Split(
        traced,
        frozenset(node.name for node in turn),
        tuple(node.name for node in traced.graph.nodes if node in reads),
        dense,
        stacked,
        fed,
        {path: layer.p for path, layer in traced.named_modules() if type(layer) is nn.Dropout},
        _phrases(traced, dense, stacked),
    )


def _kind(traced: fx.GraphModule, node: fx.Node) -> str:
    """Of an operation: "rows" has no parameters; "dense", "stacked"; "turn" has parameters otherwise."""
    if node.op == "get_attr" or any(each.op == "get_attr" for each in node.all_input_nodes):
        return "turn"  # a parameter has no rows, so it cannot be gathered beside features
    if node.op != "call_module":
        return "rows"
    layer = traced.get_submodule(str(node.target))
    if next(layer.parameters(), None) is None:
        return "rows"
    if type(layer) is nn.Linear and len(_shape(node.args[0])) == 2:
        return "dense"
    plain = not isinstance(layer, nn.Embedding) or (layer.padding_idx is None and layer.max_norm is None)
    return "stacked" if type(layer) in _STACKED and plain else "turn"


def _shape(value: Any) -> tuple[int, ...]:
    found = value.meta.get("tensor_meta") if isinstance(value, fx.Node) else None
    return tuple(found.shape) if found is not None and hasattr(found, "shape") else ()


def _reads_input(traced: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a dense layer reads the flattened input, unchanged."""
    source = node.args[0]
    while isinstance(source, fx.Node) and source.op != "placeholder":
        if not (_is(traced, source, (nn.Flatten, torch.flatten)) or source.target == "flatten"):
            return False
        source = source.args[0]
    return isinstance(source, fx.Node)


def _pool_first(traced: fx.GraphModule) -> None:
    """Pool before the ReLU: the same values and gradients, and a quarter of the work."""
    for node in list(traced.graph.nodes):
        pool = next(iter(node.users), None)
        if not (_is(traced, node, _RELU) and len(node.users) == 1 and pool is not None and _is(traced, pool, _POOL)):
            continue
        pool.replace_input_with(node, node.args[0])
        users = list(pool.users)
        node.replace_input_with(node.args[0], pool)
        for user in users:
            user.replace_input_with(pool, node)
        pool.append(node)
    traced.graph.lint()
    traced.recompile()


def _is(traced: fx.GraphModule, node: fx.Node, what: tuple[Any, ...]) -> bool:
    if node.op == "call_module":
        return type(traced.get_submodule(str(node.target))) in what
    return node.op == "call_function" and node.target in what


def _phrases(traced: fx.GraphModule, dense: Mapping[str, str], stacked: Mapping[str, str]) -> Mapping[str, str]:
    phrases = {}
    for path, layer in traced.named_modules():
        if next(layer.parameters(recurse=False), None) is None:
            continue
        if path in dense.values():
            phrases[path] = "all clients at once, kept as factors"
        elif path in stacked.values():
            phrases[path] = "all clients at once, with own parameters for each"
        else:
            phrases[path] = "client by client"
    return phrases
