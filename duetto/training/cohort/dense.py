"""A dense layer of many clients without a weight matrix of any of them.

With a linear recurrence (see ``recurrence``) the weights of a client before step t are
``W_t = (1 + a_t) W + e_t C + sum_s c_{t,s} g_s^T x_s``, where ``x_s [rows, D]`` went into the layer at step s and
``g_s [rows, O]`` came back. So only the factors are kept, and::

    x_t W_t^T = (1 + a_t) x_t W^T + e_t x_t C^T + sum_s c_{t,s} (x_t x_s^T) g_s
    g_t W_t   = (1 + a_t) g_t W   + e_t g_t C   + sum_s c_{t,s} (g_t g_s^T) x_s

W is shared, so that all clients of a step make one product with it; the inner products of rows are small. A bias is a
column of ones in x: one more in ``x_t x_s^T``. The sum of many clients' changes, each times a weight, is one product
of all factors, and the norm of one change comes from inner products of rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from typing import Any

import torch
from torch import Tensor

from duetto.training.cohort.products import Factor, outer
from duetto.training.cohort.recurrence import FIRST, PULL, START
from duetto.training.cohort.threads import spread


@dataclass(frozen=True, eq=False)
class Dense:
    """One layer of K clients, the longest first.

    Attributes:
        weight, bias: [O, D] and [O] or None, where all clients start.
        x: [K, T * rows, D] what went in, step after step; 0 in rows that a step or a client lacks.
        g: [K, T * rows, O] what came back; likewise.
        pulls: each client's constant pull on weight and bias, or None.
        rows: of a step.
        heights: [K] rows of all a client's steps.
        fed: whether ``x`` is the data itself, filled beforehand.
        low: whether large products are made in bfloat16.
        threads: that share large products.
    """

    weight: Tensor
    bias: Tensor | None
    x: Tensor
    g: Tensor
    pulls: Sequence[tuple[Tensor, Tensor | None]] | None
    rows: int
    heights: Sequence[int]
    fed: bool
    low: bool = False
    threads: int = 1

    @cached_property
    def _forwards(self) -> Factor:
        return Factor(self.weight, self.low)

    @cached_property
    def _backwards(self) -> Factor:
        return Factor(self.weight.T, self.low)

    @cached_property
    def _fed(self) -> Tensor:
        """[K, T * rows, O] the data's products with the start: all steps' at once."""
        found = self.x.new_empty(*self.x.shape[:2], len(self.weight))  # what no client reaches is not read

        def multiplied(clients: slice) -> None:
            for part in self._blocks(torch.ones(len(self.x)), clients):
                height = self.heights[part.start]
                rows = self._forwards.times(self.x[part, :height].flatten(0, 1), self.bias)
                found[part, :height] = rows.view(-1, height, len(self.weight))

        spread(multiplied, len(self.x), self.threads)
        return found

    def forward(self, x: Tensor, t: int, by: Tensor) -> Tensor:
        """The outputs ``[A * rows, O]`` of step ``t`` of the first A clients.

        Args:
            x: [A * rows, D]; not read where the data itself is fed.
            t: the step.
            by: [A, 2 + T] coefficients of the change so far.
        """
        active, rows, past = len(by), self.rows, t * self.rows
        if self.fed:
            z = self._fed[:active, past : past + rows].reshape(active * rows, -1)
        else:
            self.x[:active, past : past + rows] = x.view(active, rows, -1)
            z = self._forwards.times(x, self.bias)
        own = self.x[:active, past : past + rows]
        z = self._shared(z, own, by, transposed=True)
        self._moved(z, own, self.x, self.g, t, by, bias=self.bias is not None)
        return z

    def backward(self, g: Tensor, t: int, by: Tensor, wanted: bool) -> Tensor | None:
        """Keep what comes back ``[A * rows, O]``; gives the gradient of the inputs ``[A * rows, D]``, if wanted."""
        active, rows, past = len(by), self.rows, t * self.rows
        own = self.g[:active, past : past + rows]
        own.copy_(g.view(active, rows, -1))
        if not wanted:
            return None
        back = self._shared(self._backwards.times(g), own, by, transposed=False)
        self._moved(back, own, self.g, self.x, t, by)
        return back

    def _moved(
        self, out: Tensor, rows: Tensor, near: Tensor, far: Tensor, t: int, by: Tensor, *, bias: bool = False
    ) -> None:
        """Add to ``out [A * rows, .]`` what the steps before ``t`` changed: ``sum_s c_s (rows near_s^T) far_s``."""
        past, coefficients, into = t * self.rows, _spread(by, t, self.rows), out.view(len(by), self.rows, -1)

        def added(clients: slice) -> None:
            inner = torch.bmm(rows[clients], near[clients, :past].mT)
            if bias:
                inner += 1
            inner *= coefficients[clients]
            into[clients].baddbmm_(inner, far[clients, :past])

        if t:
            products = rows.numel() * past  # below a million or two, a second thread would come too late
            spread(added, len(by), self.threads if products > 1 << 21 else 1)

    def _shared(self, product: Tensor, rows: Tensor, by: Tensor, *, transposed: bool) -> Tensor:
        """The product ``[A * rows, .]`` with the start, times its coefficient, and that of ``rows [A, rows, .]`` with
        each client's pull."""
        if bool((by[:, START] != 0).any()):
            product = product * (1 + by[:, START]).repeat_interleave(self.rows)[:, None]
        if self.pulls is not None:
            for k, out in enumerate(product.view(len(by), self.rows, -1)):
                weight, bias = self.pulls[k]
                share = float(by[k, PULL])
                out.addmm_(rows[k], weight.T if transposed else weight, alpha=share)
                if transposed and bias is not None:
                    out.add_(bias, alpha=share)
        return product

    # ------------------------------------------------------------------------------------- what has become of it

    def total(self, weights: Tensor, by: Tensor) -> tuple[Tensor, Tensor | None]:
        """The sum of the clients' changes, each times its weight ``[K]``; ``by [K, 2 + T]`` makes the change."""
        shares = _spread(by, by.shape[1] - FIRST, self.rows)[:, 0] * weights[:, None]

        def summed(clients: slice) -> tuple[Tensor, Tensor]:
            weight, bias = torch.zeros_like(self.weight), self.weight.new_zeros(len(self.weight))
            for part in self._blocks(weights, clients):
                height = self.heights[part.start]  # the longest first
                scaled = (self.g[part, :height] * shares[part, :height, None]).flatten(0, 1)
                weight += outer(scaled, self.x[part, :height].flatten(0, 1), self.low)
                bias += scaled.sum(0)
            return weight, bias

        sums = spread(summed, len(weights), self.threads)
        weight = reduce(Tensor.add_, (each[0] for each in sums))
        bias = None if self.bias is None else reduce(Tensor.add_, (each[1] for each in sums))
        start = float(weights @ by[:, START])
        if start:
            weight.add_(self.weight, alpha=start)
            if bias is not None and self.bias is not None:
                bias.add_(self.bias, alpha=start)
        for k, pull in enumerate(self.pulls or ()):
            share = float(weights[k] * by[k, PULL])
            weight.add_(pull[0], alpha=share)
            if bias is not None and pull[1] is not None:
                bias.add_(pull[1], alpha=share)
        return weight, bias

    def _blocks(self, weights: Tensor, clients: slice) -> list[slice]:
        """Neighbours that make one product, as high as the first of them, unless too much of it would be padding.

        Clients of weight 0 are in none, since they may hold anything.
        """
        blocks: list[slice] = []
        filled = 0
        for k in (clients.start + torch.nonzero(weights[clients]).flatten()).tolist():
            first = blocks[-1].start if blocks and blocks[-1].stop == k else k
            filled = filled + self.heights[k] if first < k else self.heights[k]
            if first < k and self.heights[first] * (k + 1 - first) <= 1.2 * filled:
                blocks[-1] = slice(first, k + 1)
            else:
                blocks.append(slice(k, k + 1))
                filled = self.heights[k]
        return blocks

    def one(self, k: int, by: Tensor) -> tuple[Tensor, Tensor | None]:
        """The change of one client."""
        pulls = None if self.pulls is None else [self.pulls[k]]
        alone = Dense(
            self.weight, self.bias, self.x[k : k + 1], self.g[k : k + 1], pulls, self.rows, [self.heights[k]], self.fed
        )
        return alone.total(torch.ones(1, dtype=by.dtype), by[k : k + 1])

    def factors(self, k: int, by: Tensor) -> tuple[Tensor, Tensor] | None:
        """``g [R, O]`` and ``x [R, D]`` of whose product one client's change consists, where it consists of no more."""
        if bool(by[k, START] != 0) or self.pulls is not None:
            return None
        height = self.heights[k]
        g = self.g[k, :height] * _spread(by[k : k + 1], by.shape[1] - FIRST, self.rows)[0, 0, :height, None]
        counted = (g != 0).any(1)
        return g[counted], self.x[k, :height][counted]

    def square(self, k: int, by: Tensor) -> float:
        """The squared norm of one client's change, bias included."""
        if bool(by[k, START] != 0) or self.pulls is not None:  # then the change is no product of factors alone
            return math.fsum(float((part.double() ** 2).sum()) for part in self.one(k, by) if part is not None)
        height = self.heights[k]
        shares = _spread(by[k : k + 1], by.shape[1] - FIRST, self.rows)[0, 0, :height, None]
        scaled, x = (self.g[k, :height] * shares).double(), self.x[k, :height].double()
        near = x @ x.T + (0 if self.bias is None else 1)
        return max(float(((scaled @ scaled.T) * near).sum()), 0.0)  # in this order NaN stays

    def largest(self) -> Tensor:
        """[K] a bound of the entries of each client's factors; not finite where one is not."""
        g, x = (torch.linalg.vector_norm(rows, dim=(1, 2)) for rows in (self.g, self.x[:0] if self.fed else self.x))
        top: Tensor = g * self.g.shape[1] * (1 if self.fed else 1 + x)
        return top


def _spread(by: Tensor, t: int, rows: int) -> Tensor:
    """[A, 1, t * rows] the coefficient of each row of the first t steps."""
    return by[:, None, FIRST : FIRST + t].repeat_interleave(rows, 2)


class Product(torch.autograd.Function):
    """A dense layer in a graph of ordinary autograd: the weights have no gradient, the factors are kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, anchor: Tensor, layer: Dense, t: int, by: Tensor) -> Tensor:
        """``anchor`` requires a gradient, so that what comes back is kept even where ``x`` needs none."""
        ctx.layer, ctx.t, ctx.by = layer, t, by
        return layer.forward(x, t, by)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        """The gradient of ``x``."""
        return ctx.layer.backward(grads[0], ctx.t, ctx.by, ctx.needs_input_grad[0]), None, None, None, None
