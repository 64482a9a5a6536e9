"""Ask where the large model is expected to be better: a learned gain, not a learned difficulty.

Two heads predict how good the small and the large model's answers are; their difference is what asking brings
(predicted routing quality gap: Ding et al. 2024, Hybrid LLM). Entropy finds inputs that are hard for both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from duetto.policies.heads import Head, Logistic
from duetto.policies.price import priced
from duetto.policies.scores import confidence
from duetto.policies.signals import reads, scaled, signals, standard
from duetto.policies.threshold import sure, unanswered
from duetto.tree import Tree
from duetto.types import Held, Key, Move, Outcomes, Policy, Seen


@dataclass(frozen=True)
class LearnedGain(Policy[Mapping[str, Any]]):
    """Ask where the predicted gain is above the price of a call.

    It reads the statistics of the device's answer, ``seen.features``, and what an ensemble's members ``seen.scores
    [n, k, classes]`` think of the answer, as far as it was fitted with them. Fitted with features alone, it decides
    before the device has answered.

    State: ``threshold`` (float64 scalar on the scale of the score, which is the negative gain); once fitted also
    ``reads``, ``scale`` and the two heads, ``small`` and ``large``. Before fitting it always asks.

    Args:
        head: of both models: ``Logistic``, ``Neighbours``, ``Boosted`` or ``Network``.
        price: of a call, in units of quality.

    Raises:
        ConfigError: a price that is not finite.
    """

    head: Head = field(default_factory=Logistic)
    price: float = 0.0

    def __post_init__(self) -> None:
        priced(self.price)

    def init(self) -> Mapping[str, Any]:
        """Not fitted: always asks."""
        return {"threshold": np.array(np.inf)}

    def fit(self, outcomes: Outcomes) -> Held[Mapping[str, Any]]:
        """Fit the two heads; every user counts the same.

        Raises:
            DataError: nothing to read, or columns that are not finite.
        """
        wanted = reads(outcomes.seen)
        heads = two_heads(self.head, signals(outcomes.seen, wanted), outcomes)
        return Held(self, {"threshold": np.array(-self.price), "reads": wanted, **heads})

    def choose(self, state: Mapping[str, Any], seen: Seen, key: Key) -> tuple[Mapping[str, Any], Move]:
        """Stop, go on or ask, item by item."""
        if not ("reads" in state and not state["reads"][0]) and (move := unanswered(seen)) is not None:
            return state, move
        keep = self.scores(state, seen) >= float(state["threshold"])
        return state, sure(keep, f"the predicted gain against {-float(state['threshold']):.4g}")

    def scores(self, state: Mapping[str, Any], seen: Seen) -> np.ndarray:
        """The negative predicted gain, ``[n]``; before fitting the largest probability.

        Raises:
            DataError: answers or features that are missing, of another width, or not finite.
        """
        if "reads" not in state:
            return confidence(seen.answer)
        return -predicted(self.head, state, signals(seen, state["reads"]))


def two_heads(head: Head, x: np.ndarray, outcomes: Outcomes) -> dict[str, Tree]:
    """``{"scale", "small", "large"}``: the heads of both models over the columns ``x [n, d]``."""
    shares = outcomes.shares
    scale = scaled(x, shares)
    columns = standard(x, scale)
    fitted = {name: head.fit(columns, getattr(outcomes, name), shares) for name in ("small", "large")}
    return {"scale": scale, **fitted}


def predicted(head: Head, state: Mapping[str, Any], x: np.ndarray) -> np.ndarray:
    """The gain that two heads predict, ``[n]``."""
    columns = standard(x, state["scale"])
    return np.asarray(head.predict(state["large"], columns) - head.predict(state["small"], columns))
