"""Of some candidates, those of the highest loss.

Cho, Wang, Joshi: Towards Understanding Biased Client Selection in Federated Learning, AISTATS 2022 ("power of
choice"). This is the variant that costs no extra exchange (rpow-d): a party's loss is what it last told.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from duetto.errors import ConfigError
from duetto.policies.availability import online
from duetto.policies.draws import asking, examples, highest, proportional, remembered, sized, systematic, told
from duetto.tree import Array, Tree
from duetto.types import Key, Move, Policy, Seen


@dataclass(frozen=True)
class PowerOfChoice(Policy[Tree]):
    """Draw candidates by their share of the data; choose those of the highest last known loss, ties at random.

    Who was never asked counts as infinitely bad, so that all are tried. Who was asked and told no usable loss (no
    answer, NaN, infinite) keeps its last one, or counts as the median of the known ones: neither silence nor
    nonsense wins. A finite lie does, whenever its teller is a candidate.

    State: ``loss`` (``[n]`` float64; infinite: never asked; NaN: asked, and nothing told).

    Args:
        size: how many are chosen; all who are online where they are fewer.
        candidates: how many are drawn, at least ``size``; as many as ``size`` is :class:`duetto.policies.BySize`.

    Raises:
        ConfigError: a size below 1, or fewer candidates than that.
    """

    size: int
    candidates: int
    sampling: ClassVar[str] = "data-dependent"

    def __post_init__(self) -> None:
        sized(self.size)
        if self.candidates < self.size:
            raise ConfigError(f"{self.candidates} candidates for a cohort of {self.size}", "draw at least as many")

    def choose(self, state: Tree, seen: Seen, key: Key) -> tuple[Tree, Move]:
        """Choose.

        The propensity is an upper bound, as none is known in closed form: the probability of being a candidate for
        the chosen, and 1 for the others.
        """
        loss = remembered(state, "loss", seen, np.inf)
        chances = proportional(examples(seen), online(seen), self.candidates)
        candidates = systematic(chances, (*key, "candidates"))
        known = loss[np.isfinite(loss)]
        loss = np.where(np.isnan(loss), np.median(known) if len(known) else 0.0, loss)
        chosen, _ = highest(loss, candidates, self.size, (*key, "ties"))
        why = f"the highest losses of {candidates.sum()} candidates"
        return state, asking(chosen, np.where(chosen, chances, 0.0), why)

    def learn(self, state: Tree, seen: Seen, move: Move, reward: Array) -> Tree:
        """Remember what the chosen told."""
        before, loss = remembered(state, "loss", seen, np.inf), told(seen, "loss", reward)
        untold = np.where(~np.isnan(reward) & np.isinf(before), np.nan, before)
        return {"loss": np.where(np.isnan(loss), untold, loss)}
