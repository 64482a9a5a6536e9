"""A learned cascade: how much an answer can be trusted, depending on which answer it is.

A small model that calls something a 7 may be wrong more often than one that calls it a 1 with the same confidence.
Two regularised logistic heads read the confidence, the answer's class, and their product: a confusion per class that
shrinks to one line for all classes where there are few items (the deferral rules of Jitkrittum et al. 2023).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from duetto.errors import DataError
from duetto.policies.gain import predicted, two_heads
from duetto.policies.heads import Logistic
from duetto.policies.price import priced
from duetto.policies.scores import confidence
from duetto.policies.signals import statistics
from duetto.policies.threshold import sure, unanswered
from duetto.types import Held, Key, Move, Outcomes, Policy, Seen


@dataclass(frozen=True)
class LearnedCascade(Policy[Mapping[str, Any]]):
    """Ask where the gain that the device's own answer and its confidence predict is above the price of a call.

    State: ``threshold`` (float64 scalar); once fitted also ``classes``, ``scale`` and the heads ``small`` and
    ``large``. Before fitting it always asks.

    Args:
        price: of a call, in units of quality.
        head: of both models; its strength decides how far classes may differ.

    Raises:
        ConfigError: a price that is not finite.
    """

    price: float = 0.0
    head: Logistic = field(default_factory=lambda: Logistic(10.0))

    def __post_init__(self) -> None:
        priced(self.price)

    def init(self) -> Mapping[str, Any]:
        """Not fitted: always asks."""
        return {"threshold": np.array(np.inf)}

    def fit(self, outcomes: Outcomes) -> Held[Mapping[str, Any]]:
        """Fit the two heads; every user counts the same.

        Raises:
            DataError: no answers of the device, or answers that are not finite.
        """
        if outcomes.seen.answer is None:
            raise DataError("no answers of the device", "a cascade reads them; LearnedGain can do without")
        classes = np.array(np.shape(outcomes.seen.answer)[-1])
        heads = two_heads(self.head, _columns(outcomes.seen), outcomes)
        return Held(self, {"threshold": np.array(-self.price), "classes": classes, **heads})

    def choose(self, state: Mapping[str, Any], seen: Seen, key: Key) -> tuple[Mapping[str, Any], Move]:
        """Stop, go on or ask, item by item."""
        if (move := unanswered(seen)) is not None:
            return state, move
        keep = self.scores(state, seen) >= float(state["threshold"])
        return state, sure(keep, f"the gain predicted for this answer against {-float(state['threshold']):.4g}")

    def scores(self, state: Mapping[str, Any], seen: Seen) -> np.ndarray:
        """The negative predicted gain, ``[n]``; before fitting the largest probability.

        Raises:
            DataError: answers of other classes, or not finite.
        """
        if "classes" not in state:
            return confidence(seen.answer)
        columns, shape = _columns(seen), np.asarray(seen.answer).shape
        if shape[1] != int(state["classes"]):
            raise DataError(f"answers of shape {shape}", f"the cascade was fitted on {int(state['classes'])} classes")
        return -predicted(self.head, state, columns)


def _columns(seen: Seen) -> np.ndarray:
    """``[n, 2 + 2 * classes]``: log-odds of the answer, entropy, the class, and the class times the log-odds."""
    confident = statistics(seen)[:, :2]
    answer = np.asarray(seen.answer)
    named = np.eye(answer.shape[1])[answer.argmax(1)]
    return np.concatenate([confident, named, named * confident[:, :1]], axis=1)
