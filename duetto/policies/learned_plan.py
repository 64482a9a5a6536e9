"""Plans whose prices are wrong, put right by what they brought: a contextual bandit over the plans.

Disjoint linear arms with optimism, as in LinUCB (Li, Chu, Langford, Schapire, WWW 2010), one a plan. An arm does not
learn what its plan costs, which a table says for every bandwidth, but by how much the table is wrong: the cost paid
over the cost foretold. So it is no worse than the table at the start, and a device that is slower than its profile, or
a cloud that is never idle, is noticed (the idea of Autodidactic Neurosurgeon, Zhang et al., WWW 2021, with a table to
start from).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from duetto.errors import ConfigError, DataError
from duetto.policies.cuts import Options, Radio
from duetto.policies.planned import Planned
from duetto.policies.threshold import unanswered
from duetto.tree import Array, Tree
from duetto.types import Action, Codec, Held, Key, Move, Policy, Seen

DIMENSION = 3  # a constant, the logarithm of the forecast bandwidth, and how sure it is
_FAR = (0.1, 4.0)  # a plan is taken to cost at least and at most so many times what was foretold


@dataclass(frozen=True)
class LearnedPlan(Policy[Tree]):
    """The plan of the least corrected cost, less ``alpha`` widths of what is not known of the correction.

    :meth:`learn` takes as reward minus what the request cost, ``[n]`` in the unit of the objective, NaN where it is not
    known, and otherwise what :class:`duetto.policies.Planned` takes.

    State: ``planned``, that of the planner; once given options ``A`` ``[rows, 3, 3]`` and ``b`` ``[rows, 3]`` float64.

    Args:
        planned: knows the options and forecasts the link.
        alpha: widths of the confidence bound, from 0.
        ridge: requests that the table counts as, above 0.

    Raises:
        ConfigError: a number out of range.
    """

    planned: Planned = field(default_factory=Planned)
    alpha: float = 0.05
    ridge: float = 10.0

    def __post_init__(self) -> None:
        if not (0 <= self.alpha < math.inf and 0 < self.ridge < math.inf):
            raise ConfigError(f"alpha={self.alpha}, ridge={self.ridge}", "use an alpha from 0 and a ridge above 0")

    def init(self) -> Tree:
        """Nothing known, and no options."""
        return {"planned": self.planned.init()}

    def given(
        self, options: Options, radio: Radio | None = None, codecs: Mapping[str, Codec[Any]] | None = None
    ) -> Held[Tree]:
        """The policy that chooses among these options; see :meth:`duetto.policies.Planned.given`.

        Raises:
            ConfigError: a codec that has no such name here.
        """
        held = self.planned.given(options, radio, codecs)
        assert isinstance(held.part, Planned)
        state = {"planned": held.state, **self.begun((), len(options))}
        return Held(LearnedPlan(held.part, self.alpha, self.ridge), state)

    def choose(self, state: Tree, seen: Seen, key: Key) -> tuple[Tree, Move]:
        """Ask with a plan or go on, item by item."""
        if seen.stage or "A" not in state:
            return state, unanswered(seen) or Move.sure(np.full(seen.size, Action.STOP), "answered here")
        weighed = self.planned.weigh(state["planned"], seen)
        x = self.described(*self.planned.foreseen(state["planned"], seen))
        costs = self.corrected(state, x, weighed.costs)
        rows = self.planned.taken(costs, np.broadcast_to(state["planned"]["last"], (seen.size,)))
        return state, self.planned.move(state["planned"], rows, weighed.patience)

    def learn(self, state: Tree, seen: Seen, move: Move, reward: Array) -> Tree:
        """Learn by how much the plan's price was wrong, then what the transfer told of the link.

        Raises:
            DataError: rewards of another shape, or columns of another length.
        """
        reward = np.asarray(reward, np.float64)
        if reward.shape != (seen.size,):
            raise DataError(f"rewards of shape {reward.shape} for {seen.size} items", "give [items]")
        if "A" not in state:
            return {"planned": self.planned.learn(state["planned"], seen, move, reward)}
        row = self.planned.row(state["planned"], move)
        after = {"A": state["A"], "b": state["b"]}
        if row is not None:
            # Columns of what the transfer told are of later; what the choice saw has none.
            weighed = self.planned.weigh(state["planned"], Seen(link=seen.link, queue=seen.queue, size=seen.size))
            x = self.described(*self.planned.foreseen(state["planned"], Seen(link=seen.link, size=seen.size)))
            for i in range(seen.size):
                ratio = -reward[i] / max(float(weighed.costs[i, row]), 1e-12)
                after = self.told(after, x[i], np.array(row), np.array(ratio))
        return {**after, "planned": self.planned.learn(state["planned"], seen, move, reward)}

    def begun(self, shape: tuple[int, ...], rows: int) -> dict[str, Any]:
        """Arms that believe the table: ``A`` ``[..., rows, 3, 3]``, ``b`` ``[..., rows, 3]``."""
        eye = np.broadcast_to(self.ridge * np.eye(DIMENSION), (*shape, rows, DIMENSION, DIMENSION))
        return {"A": eye.copy(), "b": np.zeros((*shape, rows, DIMENSION))}

    def described(self, rates: Array, chances: Array) -> np.ndarray:
        """What a correction may depend on, ``[..., 3]``, each about -1..1."""
        logs = np.log10(rates)
        mean = (logs * chances).sum(-1)
        spread = np.sqrt(np.maximum((logs * logs * chances).sum(-1) - mean * mean, 0.0))
        return np.stack([np.ones_like(mean), mean / 3, spread], -1)

    def corrected(self, state: Tree, x: Array, costs: Array) -> np.ndarray:
        """Costs ``[..., rows]`` as they are believed to be, less the optimism."""
        inverse = np.linalg.inv(state["A"])
        means = np.einsum("...i,...aij,...aj->...a", x, inverse, state["b"])
        widths = np.sqrt(np.maximum(np.einsum("...i,...aij,...j->...a", x, inverse, x), 0.0))
        return np.asarray(costs * np.clip(1 + means - self.alpha * widths, *_FAR))

    def told(self, state: Tree, x: Array, rows: Array, ratio: Array) -> dict[str, Any]:
        """The state after costs ``ratio`` ``[...]`` times what was foretold for these rows; NaN tells nothing."""
        heard = ~np.isnan(ratio)
        off = np.clip(np.where(heard, ratio, 1.0), *_FAR) - 1
        arm = (np.arange(state["b"].shape[-2]) == rows[..., None]) & heard[..., None]
        a = state["A"] + arm[..., None, None] * (x[..., :, None] * x[..., None, :])[..., None, :, :]
        return {"A": a, "b": state["b"] + arm[..., None] * (off[..., None] * x)[..., None, :]}
