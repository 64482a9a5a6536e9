"""One plan for a link that is known beforehand, as published planners keep it (Neurosurgeon, Kang et al. 2017)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from duetto.errors import DataError
from duetto.policies.cuts import Objective, Options, Radio, priced
from duetto.policies.threshold import unanswered
from duetto.tree import Tree
from duetto.types import Action, Codec, Held, Key, Move, Plan, Policy, Seen


@dataclass(frozen=True)
class Static(Policy[Tree]):
    """Always the same plan: asks with it before the first stage, or goes on where it asks nobody.

    Args:
        plan: of every request; None leaves everything to the device.
    """

    plan: Plan | None = None

    @classmethod
    def best(
        cls,
        options: Options,
        objective: Objective,
        up_mbps: float,
        down_mbps: float | None = None,
        rtt_seconds: float = 0.05,
        queue_seconds: float = 0.0,
        radio: Radio | None = None,
        codecs: Mapping[str, Codec[Any]] | None = None,
    ) -> Held[Tree]:
        """The plan that is best over this link; see :func:`duetto.policies.cuts.priced`.

        Raises:
            ConfigError: an unknown objective, or a codec that has no such name here.
            DataError: a link without bandwidth.
        """
        if np.ndim(up_mbps):
            raise DataError("more than one link", "give the bandwidth as one number")
        costs = priced(options, up_mbps, down_mbps, rtt_seconds, queue_seconds, radio).of(objective)
        row = options.rows([int(costs.argmin())])
        return Held.of(cls(row.plans(codecs or {})[0] if row.sends[0] else None))

    def choose(self, state: Tree, seen: Seen, key: Key) -> tuple[Tree, Move]:
        """Ask with the plan, or go on, whatever is seen."""
        if seen.stage or self.plan is None:
            return state, unanswered(seen) or Move.sure(np.full(seen.size, Action.STOP), "answered here")
        return state, Move.sure(np.full(seen.size, Action.ASK), "the plan for this link", plan=self.plan)
