"""Some clients that start from the same parameters, trained together step by step."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from duetto.models.net import channels_last, fitting, to_tensors
from duetto.training import sequential
from duetto.training.cohort import apply
from duetto.training.cohort.dense import Dense, Product
from duetto.training.cohort.recurrence import FIRST, Rule, State, table
from duetto.training.cohort.split import Split
from duetto.training.losses import Drift, Proximal

if TYPE_CHECKING:
    from duetto.training.client import Client
    from duetto.training.executor import Task

Allocate = Callable[[tuple[int, ...], torch.dtype, object], Tensor]
"""Memory for a shape and a dtype that holds anything, for as long as an owner lives."""


@dataclass(frozen=True, eq=False)
class Part:
    """One parameter among those of which every client has its own, laid out one after the other.

    Attributes:
        name: its dotted name.
        at: its place in the row.
        shape: of the parameter.
        last: whether a convolution's channels lie innermost.
    """

    name: str
    at: slice
    shape: tuple[int, ...]
    last: bool

    @property
    def size(self) -> int:
        """How many numbers it has."""
        return math.prod(self.shape)

    def of(self, row: Tensor) -> Tensor:
        """The parameter in a client's row, as a view."""
        if not self.last:
            return row[self.at].view(self.shape)
        out, into, *space = self.shape
        return row[self.at].view(out, *space, into).movedim(-1, 1)

    def flat(self, value: Tensor) -> Tensor:
        """The values in the order of the row."""
        return (value.movedim(1, -1) if self.last else value).reshape(-1)


class Group:
    """The clients, longest first; after :meth:`run`, what they became.

    Attributes:
        losses: [K] mean loss of a row over the last epoch.
        steps: [K] how many each has taken.
        dense: path of a layer -> its factors.
    """

    def __init__(
        self,
        client: Client,
        split: Split,
        tasks: Sequence[Task],
        allocate: Allocate,
        low: bool = False,
        threads: int = 1,
    ) -> None:
        self.client, self.split, self.tasks, self._allocate = client, split, tasks, allocate
        self.low, self.threads = low, threads
        sizes = [len(task.data["x"]) for task in tasks]
        self.steps = [sequential.steps(client, n) for n in sizes]
        assert self.steps == sorted(self.steps, reverse=True)
        self.start = fitting(client.net, tasks[0].start["params"])
        self.dtype = next(iter(self.start.values())).dtype
        per_epoch = [-(-n // client.batch_size) for n in sizes]
        last = [(n - 1) % client.batch_size + 1 for n in sizes]
        self.valid = [  # rows of each step of each client
            [last[k] if t % per_epoch[k] == per_epoch[k] - 1 else client.batch_size for t in range(self.steps[k])]
            for k in range(len(tasks))
        ]
        self.per_epoch, self.sizes = per_epoch, sizes
        self.most = self.steps[0]
        mu = sum(term.mu for term in client.loss if isinstance(term, Proximal))
        self.rules = [Rule(client.optimiser, mu, total) for total in self.steps]  # type: ignore[arg-type]
        self.coefficients = self._coefficients()
        self.pulls = [self._pull(task) for task in tasks]
        self.parts, self.row = self._own()
        sums = torch.zeros_like(self.row) if client.sums_gradients else None
        self.states = [State(torch.zeros_like(self.row), None, sums) for _ in tasks]
        dropping = tasks if split.dropout else ()
        self.generators = [torch.Generator().manual_seed(sequential.seed((*task.key, "dropout"))) for task in dropping]
        self.columns = self._columns()
        self.dense = {path: self._dense(name, path) for name, path in split.dense.items()}
        self.losses = np.zeros(len(tasks))
        self._copies: dict[str, nn.Module] = {}
        self._buffers: dict[str, Tensor] = {}

    # ----------------------------------------------------------------------------------------------- what is given

    def _coefficients(self) -> Tensor:
        """[K, T + 1, 2 + T] of the change before each step, the last one kept from where a client has finished."""
        filled = np.zeros((len(self.tasks), self.most + 1, FIRST + self.most))
        for k, rule in enumerate(self.rules):
            own = table(rule).delta
            filled[k, : rule.total + 1, : FIRST + rule.total] = own
            filled[k, rule.total + 1 :, : FIRST + rule.total] = own[-1]
        return torch.from_numpy(filled).to(self.dtype)

    def _pull(self, task: Task) -> Mapping[str, Tensor] | None:
        """What the loss adds to every gradient, whatever the rows."""
        pulls: list[Mapping[str, Tensor]] = []
        for term in self.client.loss:
            if isinstance(term, Drift):
                pulls.append(to_tensors(task.start[term.slot]))
            elif isinstance(term, Proximal) and term.to != "params":
                anchor = to_tensors(task.start[term.to])
                pulls.append({name: term.mu * (value - anchor[name]) for name, value in self.start.items()})
        if not pulls:
            return None
        return {name: torch.stack([pull[name] for pull in pulls]).sum(0).to(self.dtype) for name in self.start}

    def _own(self) -> tuple[list[Part], Tensor]:
        """The parameters of which every client has its own, and the row where all start."""
        factored = {f"{path}.{name}" for path in self.split.dense.values() for name in ("weight", "bias")}
        parts, at = [], 0
        for name, value in self.start.items():
            if name not in factored:
                conv = value.ndim == 4 and name.removesuffix(".weight") in self.split.convolutions
                parts.append(Part(name, slice(at, at + value.numel()), tuple(value.shape), conv))
                at += value.numel()
        flat = [part.flat(self.start[part.name]) for part in parts]
        return parts, torch.cat(flat) if flat else torch.zeros(0, dtype=self.dtype)

    def _columns(self) -> dict[str, Tensor]:
        """Every column of the data, [K, T * rows, ...]: in the order of the steps, 0 where a step lacks a row."""
        rows = self.client.batch_size
        columns = {name: self._column(column) for name, column in self.tasks[0].data.items()}
        filled = {name: column.numpy() for name, column in columns.items()}
        for k, task in enumerate(self.tasks):
            n = self.sizes[k]
            augmenter = None
            if self.client.augment is not None:
                augmenter = torch.Generator().manual_seed(sequential.seed((*task.key, "augment")))
            for epoch in range(self.client.epochs):
                order, first = sequential.order(task.key, epoch, n).numpy(), epoch * self.per_epoch[k] * rows
                for name, into in filled.items():
                    column = task.data[name].astype(into.dtype, copy=False)
                    column.take(order, 0, into[k, first : first + n], "clip")  # an order has nothing to clip
                    if n % rows:
                        into[k, first + n : first + self.per_epoch[k] * rows] = 0
                if augmenter is not None:
                    for batch in torch.split(columns["x"][k, first : first + n], rows):
                        batch.copy_(self.client.augment(batch.clone(), augmenter))  # type: ignore[misc]
        return {name: self._ended(column) for name, column in columns.items()}

    def _column(self, like: np.ndarray) -> Tensor:
        """Memory for a column of all clients."""
        dtype = self.dtype if like.dtype.kind == "f" else torch.from_numpy(like[:0].copy()).dtype
        return self._allocate((len(self.tasks), self.most * self.client.batch_size, *like.shape[1:]), dtype, self)

    def _ended(self, column: Tensor) -> Tensor:
        """``column [K, T * rows, ...]`` with 0 where a client has no step any more."""
        for k, steps in enumerate(self.steps):
            if steps < self.most:
                column[k, steps * self.client.batch_size :] = 0
        return column

    def _dense(self, node: str, path: str) -> Dense:
        weight, bias = self.start[f"{path}.weight"], self.start.get(f"{path}.bias")
        fed, height = node == self.split.fed, self.most * self.client.batch_size
        if fed:
            x = self.columns["x"].flatten(2)
        else:
            x = self._ended(self._allocate((len(self.tasks), height, weight.shape[1]), self.dtype, self))
        g = self._ended(self._allocate((len(self.tasks), height, weight.shape[0]), self.dtype, self))
        pulls = None
        if self.pulls[0] is not None:
            pulls = [(pull[f"{path}.weight"], pull.get(f"{path}.bias")) for pull in self.pulls if pull is not None]
        heights = [steps * self.client.batch_size for steps in self.steps]
        return Dense(weight, bias, x, g, pulls, self.client.batch_size, heights, fed, self.low, self.threads)

    # ------------------------------------------------------------------------------------------------- the training

    def run(self) -> Group:
        """Train all clients to their ends."""
        for t in range(self.most):
            self._step(t, sum(steps > t for steps in self.steps))
        if not self.most:
            self.losses[:] = np.nan
        return self

    def _step(self, t: int, active: int) -> None:
        rows, first = self.client.batch_size, t * self.client.batch_size
        batch = {name: column[:active, first : first + rows] for name, column in self.columns.items()}
        turned = [self._in_turn(k, t, batch["x"][k]) for k in range(active)] if self.split.turn else []
        features = {name: self._gathered(name, [outs[name] for _, outs in turned]) for name in self.split.frontier}
        stacked = self._stacked(active)
        inputs = dict(features)
        if not self.split.only_fed:
            inputs[self.split.reads] = batch["x"].reshape(active * rows, *batch["x"].shape[2:])
        logits = self._together(inputs, stacked, t, self.coefficients[:active, t])
        per_row = self._loss(logits, {name: column.flatten(0, 1) for name, column in batch.items() if name != "x"})
        counts = torch.tensor([self.valid[k][t] for k in range(active)], dtype=self.dtype)
        valid = (torch.arange(rows) < counts[:, None]).to(self.dtype)
        self._count(t, (per_row.detach().view(active, rows) * valid).sum(1))
        leaves = [self._anchor, *features.values(), *stacked.values()]
        grads = torch.autograd.grad(per_row, leaves, (valid / counts[:, None]).flatten(), allow_unused=True)[1:]
        if not self.parts:
            return
        back = dict(zip(features, grads, strict=False))
        copies = dict(zip(stacked, grads[len(features) :], strict=True))
        for k in range(active):
            own = {name: grad[k] for name, grad in copies.items() if grad is not None}
            if turned:
                here = slice(k * rows, k * rows + self.valid[k][t])
                own.update(_back(*turned[k], {name: grad[here] for name, grad in back.items() if grad is not None}))
            self._move(k, t, own)

    def _loss(self, logits: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        """[A * rows] what the terms that read rows add up to."""
        terms = [term(logits, batch, {}, {}) for term in self.client.loss if getattr(term, "by_row", False)]
        return terms[0] if len(terms) == 1 else torch.stack(terms).sum(0)

    @cached_property
    def _anchor(self) -> Tensor:
        return torch.zeros((), dtype=self.dtype, requires_grad=True)

    def _move(self, k: int, t: int, grads: Mapping[str, Tensor]) -> None:
        """One client's step on its own parameters; a gradient that is not there is 0."""
        flat = [
            part.flat(grads[part.name]) if part.name in grads else self.row.new_zeros(part.size) for part in self.parts
        ]
        pull = None if self._pulled is None else self._pulled[k]
        self.states[k] = self.rules[k].step(t, self.states[k], torch.cat(flat), self.row, pull)

    @cached_property
    def _pulled(self) -> list[Tensor] | None:
        """Each client's pull on its own parameters."""
        if self.pulls[0] is None:
            return None
        return [
            torch.cat([part.flat(pull[part.name]) for part in self.parts]) for pull in self.pulls if pull is not None
        ]

    def _count(self, t: int, sums: Tensor) -> None:
        for k, value in enumerate(sums.tolist()):
            if t >= self.steps[k] - self.per_epoch[k]:
                self.losses[k] += value / self.sizes[k]

    # ------------------------------------------------------------------------------------------------- client by client

    def _in_turn(self, k: int, t: int, x: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """One client's own parameters as leaves, and what its first part gives to the second."""
        now = self.row + self.states[k].delta if t else self.row
        params = {
            part.name: part.of(now).detach().requires_grad_() for part in self.parts if part.name in self.split.turned
        }
        x = channels_last(x[: self.valid[k][t]]) if self.split.convolutions else x[: self.valid[k][t]]
        values: dict[str, Any] = {self.split.reads: x}
        with torch.autocast("cpu", torch.bfloat16, enabled=self.low):
            for node in self.split.nodes(turn=True):
                values[node.name] = self._node(node, values, params, t, range(k, k + 1))
        return params, {name: values[name] for name in self.split.frontier}

    def _gathered(self, name: str, outs: Sequence[Tensor]) -> Tensor:
        """[A * rows, ...] a leaf of what each client gave; 0 where a step lacks a row."""
        rows, shape = self.client.batch_size, outs[0].shape[1:]
        if name not in self._buffers:
            self._buffers[name] = torch.zeros((len(self.tasks), rows, *shape), dtype=self.dtype)
        buffer = self._buffers[name][: len(outs)]
        for k, out in enumerate(outs):
            buffer[k, : len(out)] = out.detach()
            if len(out) < rows:
                buffer[k, len(out) :] = 0
        return buffer.flatten(0, 1).requires_grad_()

    # ------------------------------------------------------------------------------------------------- all at once

    def _stacked(self, active: int) -> dict[str, Tensor]:
        """The parameters ``[A, ...]`` of layers that run for all at once with each client's own."""
        found: dict[str, Tensor] = {}
        for part in self.parts:
            if part.name not in self.split.turned:
                own = [part.of(self.row) + part.of(self.states[k].delta) for k in range(active)]
                found[part.name] = torch.stack(own).requires_grad_()
        return found

    def _together(self, inputs: Mapping[str, Tensor], stacked: Mapping[str, Tensor], t: int, by: Tensor) -> Tensor:
        """The logits ``[A * rows, classes]``."""
        values: dict[str, Any] = dict(inputs)
        for node in self.split.nodes(turn=False):
            if node.op == "output":
                logits: Tensor = values[_source(node)]
                return logits
            if node.name in self.split.dense:
                layer = self.dense[self.split.dense[node.name]]
                x = self._anchor.detach() if layer.fed else values[_source(node)]
                values[node.name] = Product.apply(x, self._anchor, layer, t, by)  # type: ignore[no-untyped-call]
            elif node.name in self.split.stacked:
                path = self.split.stacked[node.name]
                own = {name: stacked[f"{path}.{name}"] for name in ("weight", "bias") if f"{path}.{name}" in stacked}
                values[node.name] = apply.many(self.split.module.get_submodule(path), own, values[_source(node)])
            else:
                values[node.name] = self._node(node, values, {}, t, range(len(by)))
        raise AssertionError("a graph ends with its output")

    # ------------------------------------------------------------------------------------------------- operations

    def _node(
        self, node: fx.Node, values: Mapping[str, Any], params: Mapping[str, Tensor], t: int, clients: range
    ) -> Any:
        """One operation: for one client, or for the rows of all where it has no parameters."""
        args: Any = fx.node.map_arg(node.args, lambda each: values[each.name])
        kwargs: Any = fx.node.map_arg(node.kwargs, lambda each: values[each.name])
        if node.op == "get_attr":
            return params[str(node.target)]
        if node.op == "call_method":
            return getattr(args[0], str(node.target))(*args[1:], **kwargs)
        if node.op == "call_function":
            return node.target(*args, **kwargs)  # type: ignore[operator]
        path = str(node.target)
        if path in self.split.dropout:
            return self._drop(args[0], self.split.dropout[path], t, clients)
        if path not in self._copies:  # own, because a layer that is not known has its parameters swapped in place
            self._copies[path] = copy.deepcopy(self.split.module.get_submodule(path))
        own = {name.removeprefix(f"{path}."): value for name, value in params.items() if name.startswith(f"{path}.")}
        return apply.one(self._copies[path], own, *args, **kwargs) if own else self._copies[path](*args, **kwargs)

    def _drop(self, x: Tensor, p: float, t: int, clients: range) -> Tensor:
        """Each client's own chance, for the rows that it has in this step."""
        rows = len(x) // len(clients)
        mask = torch.zeros_like(x, memory_format=torch.contiguous_format)
        for i, k in enumerate(clients):
            first = i * rows
            apply.keep(mask[first : first + self.valid[k][t]], p, self.generators[k])
        return x * mask

    # ------------------------------------------------------------------------------------------------- what they became

    def by(self, what: str) -> Tensor:
        """[K, 2 + T] the coefficients that make the "delta" or the "gradients"."""
        if what == "delta":
            return self.coefficients[:, -1]
        filled = np.zeros((len(self.tasks), FIRST + self.most))
        for k, rule in enumerate(self.rules):
            filled[k, : FIRST + rule.total] = table(rule).sums
        return torch.from_numpy(filled).to(self.dtype)

    def own(self, k: int, what: str) -> Tensor:
        """One client's row of the "delta" or the "gradients"."""
        return self.states[k].delta if what == "delta" else self.states[k].sums  # type: ignore[no-any-return]


def _source(node: fx.Node) -> str:
    """The name of the one value that an operation reads."""
    (source,) = node.all_input_nodes
    return source.name


def _back(leaves: Mapping[str, Tensor], outs: Mapping[str, Tensor], grads: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The gradients of one client's leaves, where what it gave has these."""
    found = torch.autograd.grad(
        [outs[name] for name in grads],
        list(leaves.values()),
        [grad.to(outs[name].dtype) for name, grad in grads.items()],
        allow_unused=True,
    )
    return {name: grad for name, grad in zip(leaves, found, strict=True) if grad is not None}
