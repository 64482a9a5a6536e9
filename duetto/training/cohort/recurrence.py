"""The local optimiser as a linear recurrence, run once on coefficients or step by step on tensors.

With SGD, momentum, weight decay, a proximal term and a constant pull, parameters after t steps are a linear
combination of where they started (W), of the pull (C) and of the gradients of the loss so far (G_0 .. G_{t-1})::

    W_t = (1 + a_t) W + e_t C + sum_{s<t} c_{t,s} G_s

The coefficients depend on the optimiser and on how many steps there will be (a schedule), never on the data, so they
are found by running the optimiser itself on unit vectors.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from duetto.training.optimisers import SGD


@dataclass(frozen=True)
class Rule:
    """One client's optimiser and pulls.

    Attributes:
        optimiser: SGD in any of its forms.
        mu: strength of the pull back to the start; that of proximal terms.
        total: steps in all.
    """

    optimiser: SGD
    mu: float
    total: int

    def step(self, t: int, state: State, gradient: Any, start: Any, pull: Any) -> State:
        """The state after step ``t``. Linear combinations only, so it runs on tensors and on coefficients alike.

        Args:
            t: the step, from 0.
            state: before it.
            gradient: of the loss terms that read rows.
            start: the parameters at the start.
            pull: what is added to every gradient, or None.
        """
        of = self.optimiser
        slope = gradient if pull is None else gradient + pull
        if self.mu:
            slope = slope + self.mu * state.delta
        sums = None if state.sums is None else state.sums + slope
        if of.weight_decay:
            slope = slope + of.weight_decay * (start + state.delta)
        velocity = slope if state.velocity is None else of.momentum * state.velocity + slope
        move = slope + of.momentum * velocity if of.nesterov else velocity
        kept = velocity if of.momentum else None
        return State(state.delta - of.rate(t, self.total) * move, kept, sums)


@dataclass(frozen=True)
class State:
    """What the optimiser carries from step to step.

    Attributes:
        delta: the parameters less those at the start.
        velocity: of momentum; None before the first step, and without momentum.
        sums: the gradients so far, added up; None where nobody asks for them.
    """

    delta: Any
    velocity: Any = None
    sums: Any = None


START, PULL, FIRST = 0, 1, 2  # columns of a table: the start, the pull, and from FIRST on the gradients


@dataclass(frozen=True, eq=False)
class Table:
    """Coefficients of start, pull and gradients.

    Attributes:
        delta: [total + 1, 2 + total] row t makes the change before step t; the last row the whole change.
        sums: [2 + total] makes the sum of the gradients.
    """

    delta: np.ndarray
    sums: np.ndarray


@cache
def table(rule: Rule) -> Table:
    """The coefficients of a rule."""
    unit = np.eye(FIRST + rule.total)
    state = State(np.zeros(FIRST + rule.total), None, np.zeros(FIRST + rule.total))
    rows = [state.delta]
    for t in range(rule.total):
        state = rule.step(t, state, unit[FIRST + t], unit[START], unit[PULL])
        rows.append(state.delta)
    return Table(np.stack(rows), state.sums)
